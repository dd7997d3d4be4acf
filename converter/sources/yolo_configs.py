"""The YAML file of YOLO: which classes there are, and which folders or lists are which split.

Only the events of its parser are used, so nothing of what it holds becomes an object of Python but
text, lists and dicts; and a class may be called `no` or `007`.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import yaml

from converter.errors import UsageError
from converter.names import from_bytes
from converter.storage.location import Location

SUFFIXES: Final = (".yaml", ".yml")
SPLITS: Final = {"train": "train", "val": "validation", "test": "test"}

_USUAL: Final = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_MAX_BYTES: Final = 1 << 20  # 20,000 classes take half
_MAX_DEPTH: Final = 10


class Config(NamedTuple):
    """What a YAML file says."""

    file: Location
    names: Mapping[int, str]  # of classes by number; empty if it names none
    splits: Mapping[str, Sequence[str]]  # folders and lists of each split, as they are written
    folder: str  # that they are relative to, if it is there
    is_pose: bool  # keypoints follow each box


def find_config(folder: Location, names: Sequence[str]) -> Config | None:
    """Reads the YAML file in a folder that names splits; raises what `read_config` does."""
    found = [name for name in names if name.lower().endswith(SUFFIXES)]
    for name in sorted(found, key=lambda name: (name not in _USUAL, name)):
        config = read_config(folder / name)
        if config.splits:
            return config
    return None


def read_config(file: Location) -> Config:
    """Reads a YAML file; raises UsageError if it is none of YOLO."""
    if not file.is_file():
        raise UsageError(f"{file} does not exist: give a YAML file of YOLO, or its folder")
    try:
        return _read_config(file, file.read_version())
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror or error}") from error


@functools.lru_cache(maxsize=16)
def _read_config(file: Location, _version: tuple[int, str]) -> Config:
    content = _parse_yaml(file)
    if not isinstance(content, dict):
        raise UsageError(f"{file} is not of YOLO: it holds no keys with values")
    splits = {SPLITS[key]: _list_texts(content.get(key)) for key in SPLITS}
    names = _read_names(file, content.get("names", ""))
    count = content.get("nc", "")
    if names and count and count != str(len(names)):
        raise UsageError(f"{file}: nc is {count!s:.20}, and there are {len(names)} names")
    folder = content.get("path", "")
    return Config(
        file=file,
        names=names,
        splits={split: paths for split, paths in splits.items() if paths},
        folder=folder if isinstance(folder, str) else "",
        is_pose="kpt_shape" in content,
    )


def _list_texts(value: Any) -> list[str]:
    return [text for text in (value if isinstance(value, list) else [value]) if _is_text(text)]


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value not in ("", "~", "null")


def _read_names(file: Location, value: Any) -> dict[int, str]:
    pairs = list(value.items() if isinstance(value, dict) else enumerate(_list_texts(value)))
    if isinstance(value, list) and len(pairs) != len(value):
        raise UsageError(f"{file}: a name in names is empty, or a list")
    names: dict[int, str] = {}
    known: set[str] = set()
    for key, name in pairs:
        number = str(key)
        if not (number.isascii() and number.isdecimal() and len(number) < 10 and _is_text(name)):
            raise UsageError(f"{file}: names: {key!r:.60} is no number of a class with a name")
        if name in known:
            raise UsageError(f"{file}: names: {name!r:.60} stands twice: rename one of the two")
        names[int(number)] = name
        known.add(name)
    return dict(sorted(names.items()))


def _parse_yaml(file: Location) -> Any:
    data = file.read_range(0, _MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise UsageError(f"{file} has more than {_MAX_BYTES:,} bytes: it is no YAML file of YOLO")
    try:
        events = yaml.parse(from_bytes(data), yaml.SafeLoader)
        for event in events:
            if isinstance(event, yaml.NodeEvent):
                return _build(event, events, 0)
    except (yaml.YAMLError, ValueError) as error:
        line = " ".join(str(error).split())
        raise UsageError(f"{file} is not YAML that can be read: {line}") from error
    return None


def _build(event: Any, events: Iterator[Any], depth: int) -> Any:
    """The value that begins with an event: text, or a list or a dict of values."""
    if isinstance(event, yaml.ScalarEvent):
        return event.value
    if isinstance(event, yaml.AliasEvent):
        # Lists of aliases of lists of aliases grow without end.
        raise ValueError(f"alias *{event.anchor} stands for a value: write the value")  # noqa: TRY004
    if depth == _MAX_DEPTH:  # the parser's time grows with the square of it
        raise ValueError(f"lists or keys lie more than {_MAX_DEPTH} deep in each other")
    values = []
    while not isinstance(inner := next(events), yaml.CollectionEndEvent):
        values.append(_build(inner, events, depth + 1))
    if isinstance(event, yaml.SequenceStartEvent):
        return values
    keys = values[::2]
    if not all(isinstance(key, str) for key in keys) or len({*keys}) < len(keys):
        raise ValueError("a key is no text, or stands twice")
    return dict(zip(keys, values[1::2], strict=True))
