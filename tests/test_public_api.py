"""The public API is that of a golden file: a change of it shows in the diff.

python tests/test_public_api.py > tests/golden_api.txt
"""

import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import converter
import pipelines
import reader

GOLDEN = Path(__file__).with_name("golden_api.txt")


def describe_package(package: ModuleType) -> Iterator[str]:
    """A line for each public name, and for each public member of a class."""
    for name in package.__all__:
        yield from describe_object(f"{package.__name__}.{name}", getattr(package, name))


def describe_object(name: str, found: object) -> Iterator[str]:
    if not inspect.isclass(found):
        yield f"{name}{describe_signature(found)}"
        return
    yield f"{name}({', '.join(base.__name__ for base in found.__bases__)})"
    if dataclasses.is_dataclass(found):
        yield from (f"{name}.{describe_field(field)}" for field in dataclasses.fields(found))
    fields = getattr(found, "__dataclass_fields__", {})
    for member, value in sorted(vars(found).items()):
        if member.startswith("_") or member in fields:
            continue
        if isinstance(value, property):
            returned = inspect.signature(value.fget).return_annotation
            yield f"{name}.{member}: {describe_type(returned)}"
        elif callable(value) or isinstance(value, classmethod | staticmethod):
            yield f"{name}.{member}{describe_signature(getattr(found, member))}"


def describe_field(field: dataclasses.Field) -> str:
    if field.default is not dataclasses.MISSING:
        return f"{field.name}: {describe_type(field.type)} = {field.default!r}"
    return f"{field.name}: {describe_type(field.type)}"


def describe_signature(found: object) -> str:
    return _shorten(str(inspect.signature(found)))


def describe_type(annotation: object) -> str:
    is_text = isinstance(annotation, str)
    return _shorten(annotation if is_text else inspect.formatannotation(annotation))


def _shorten(text: str) -> str:
    """Drops modules, and the quotes of annotations that are not evaluated."""
    text = re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Za-z])", "", text)
    return re.sub(r"((?:->|:) )'([^']+)'", r"\1\2", text)


def describe_all() -> str:
    lines = [
        line for package in (converter, pipelines, reader) for line in describe_package(package)
    ]
    return "\n".join(lines) + "\n"


def test_the_public_api_is_the_golden_one():
    assert describe_all() == GOLDEN.read_text()


if __name__ == "__main__":
    print(describe_all(), end="")
