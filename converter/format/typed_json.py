"""JSON files of a data set: always written alike, and read into dataclasses without any trust."""

import dataclasses
import functools
import io
import json
from collections.abc import Callable, Mapping
from types import UnionType
from typing import Any, Final, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")

_KINDS: Final = {str: "string", list: "list", dict: "JSON object", bool: "truth value"}


def dump_json(content: Mapping[str, Any]) -> bytes:
    """The bytes of a JSON file: ASCII, in the order of the keys."""
    # Not `dumps`, which holds each of its pieces until the end: 200 MB for 100,000 shards.
    file = io.BytesIO()
    with io.TextIOWrapper(file, "ascii", newline="\n") as text:
        json.dump(content, text, indent=1)
        text.write("\n")
        text.flush()
        return file.getvalue()


def load_json(data: bytes) -> Any:
    """Parses strict JSON; raises a `ValueError`, or a `RecursionError` if it is nested deeply."""
    return json.loads(data, object_pairs_hook=_refuse_duplicates, parse_constant=_refuse)


@functools.cache
def find_reader(hint: Any) -> Callable[[Any], Any]:
    """What builds a value of a type from JSON: dataclasses, tuples, dicts and plain values.

    It raises a `TypeError`, `ValueError` or `KeyError` for anything else. Numbers are counts.
    """
    kind = get_origin(hint) or hint
    if dataclasses.is_dataclass(kind):
        return _find_object_reader(kind)
    inner = [find_reader(each) for each in get_args(hint) if each is not ...]
    if kind is tuple:
        return lambda value: tuple(map(inner[0], _require(list, value)))
    if kind is dict:
        return lambda value: {key: inner[1](each) for key, each in _require(dict, value).items()}
    if kind is UnionType:
        return lambda value: None if value is None else inner[0](value)
    if kind is int:
        return check_count
    return (lambda value: value) if kind is Any else functools.partial(_require, kind)


def _find_object_reader(kind: Any) -> Callable[[Any], Any]:
    # Keys that are not fields are ignored: a newer minor version may write more.
    readers = {name: find_reader(hint) for name, hint in get_type_hints(kind).items()}
    fields = dataclasses.fields(kind)
    defaults = {each.name for each in fields if each.default is not dataclasses.MISSING}

    def read(value: Any) -> Any:
        omitted = defaults - _require(dict, value).keys()
        names = [name for name in readers if name not in omitted]
        return kind(**{name: readers[name](value[name]) for name in names})

    return read


def check_count(value: Any, limit: int = 2**63 - 1) -> int:
    """Returns a number of things, if it is one."""
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(f"{value!r} is not a count")
    if value > limit:
        raise ValueError(f"{value} is out of range: up to {limit}")
    return value


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key appears twice in one object")
    return content


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _require(kind: type[T], value: Any) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is not a {_KINDS[kind]}")
    return value
