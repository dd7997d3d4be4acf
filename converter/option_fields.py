"""Declares an option once: its docstring is its help, its field has its default, limits and flag.

The command line is made from these fields. The `Attributes` of the class say what each option means
for editors and `help()`, and `--help` repeats it from there.
"""

import dataclasses
import difflib
import functools
import inspect
import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator
from types import UnionType
from typing import Any, Final, NamedTuple, get_args, get_origin, get_type_hints

from converter.errors import UsageError

OUTPUT: Final = "what is written"
SPLIT: Final = "splits"
CHOICE: Final = "which classes and images"
IMAGES: Final = "how images are read, and their limits"
FAILURES: Final = "what may go wrong"
SOURCE: Final = "what IMAGES is"
LABELS: Final = "labels of folders"
COLUMNS: Final = "names of columns, features of TFRecords, or parts of WebDataset"
MASKS: Final = "masks"

# The headings of `--help`, in order: what most conversions need comes first.
GROUPS: Final = (OUTPUT, SPLIT, CHOICE, IMAGES, FAILURES, SOURCE, LABELS, COLUMNS, MASKS)

# What a message says of a value that is none of that type; the first that fits is used.
_MISFITS: Final = {
    tuple[str, ...]: "are not a tuple of names",
    str: "is not a text",
    bool: "is neither True nor False",
    float: "is not a number",
    int: "is not a whole number",
}


class Option(NamedTuple):
    """How an option is spelled and checked."""

    group: str  # one of `GROUPS`
    choices: tuple[str, ...] = ()  # the only values allowed; () for any
    # Smallest and largest whole number allowed, also of each in a tuple; None for no largest.
    limits: tuple[int, int | None] | None = None
    # Of any number, the smallest allowed and the one that it must stay under.
    bounds: tuple[int, float] | None = None
    # Reads the value from the command line; None for the type of the default.
    parse: Callable[[str], Any] | None = None
    metavar: str | None = None  # stands for the value in `--help`
    flag: str = ""  # empty for `--` and the field's name, or `--no-NAME` if True is the default
    alias: str = ""  # another spelling of the flag
    repeated: bool = False  # the flag may be given several times, for a list of values
    several: bool = False  # the same, and a flag takes several values
    shown: str | None = None  # the default in `--help`; None for the value itself
    hidden: bool = False  # not on the command line, which fills it in from its arguments
    misfit: str = ""  # what a message says of another type; empty for what the field's type says


def option(default: Any, group: str, **traits: Any) -> Any:
    """Declares a field of a dataclass as an option, with the traits of `Option`."""
    return dataclasses.field(default=default, metadata={"option": Option(group, **traits)})


def list_options(owner: Any) -> Iterator[tuple[str, Any, Option]]:
    """Yields name, default and `Option` of each field of a dataclass or its instance, in order."""
    for field in dataclasses.fields(owner):
        yield field.name, field.default, field.metadata["option"]


def name_flag(name: str, default: Any, found: Option) -> str:
    """The flag of an option: `--no-NAME` switches off what is on by default."""
    return found.flag or f"--{'no-' if default is True else ''}{name.replace('_', '-')}"


def read_meanings(owner: type) -> dict[str, str]:
    """One line on each option, by name, from the docstrings of its dataclass and its parents."""
    # With `python -OO` there are no docstrings.
    names = {field.name for field in dataclasses.fields(owner)}
    texts = (inspect.cleandoc(parent.__doc__ or "") for parent in owner.__mro__[:-1])
    found = (re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", text, re.MULTILINE) for text in texts)
    pairs = itertools.chain.from_iterable(found)
    return {name: " ".join(meaning.split()) for name, meaning in pairs if name in names}


def suggest(word: str, known: Iterable[str]) -> str | None:
    """The known command or flag that a misspelt one is closest to, if any is close."""
    # Without dashes, which all flags share: --json would be close to Beam's --zone.
    names = {name.lstrip("-"): name for name in sorted(known)}
    near = difflib.get_close_matches(word.lstrip("-"), names, n=1)
    return names[near[0]] if near else None


# The type of each field of a dataclass, by name. It takes 0.6 ms to find them, and 0.1 ms for all
# else that a new `ConvertOptions` does.
_read_hints: Final = functools.cache(get_type_hints)


def check_values(values: Any) -> None:
    """Raises UsageError if an option is of another type, or outside its choices or limits."""
    for name, default, found in list_options(values):
        value, said = getattr(values, name), name.replace("_", " ")
        if value is None and default is None:
            continue
        if found.choices:
            check_choice(said, value, found.choices)
        hint = _read_hints(values.__class__)[name]
        if not _fits(value, hint):
            kinds = (hint, *get_args(hint))
            known = next((_MISFITS[kind] for kind in _MISFITS if kind in kinds), f"is no {hint}")
            raise UsageError(f"{said} {value!r} {found.misfit or known}")
        for number in value if isinstance(value, tuple) else (value,):
            if found.limits:
                _check_limits(said, number, *found.limits)
            if found.bounds:
                _check_bounds(said, number, *found.bounds)


def _fits(value: object, hint: Any) -> bool:
    kind, parts = get_origin(hint) or hint, get_args(hint)
    if kind is UnionType:
        return any(_fits(value, part) for part in parts)
    if kind is tuple and isinstance(value, tuple):
        parts = parts[:1] * len(value) if parts[1:] == (...,) else parts
        return len(value) == len(parts) and all(map(_fits, value, parts))
    if isinstance(value, bool):  # to Python, it is a whole number
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raises UsageError unless a value is one of some names."""
    if not isinstance(value, str) or value not in choices:
        raise UsageError(f"{name} {value!r} is unknown: choose one of {', '.join(choices)}")


def _check_limits(name: str, value: int, low: int, high: int | None) -> None:
    if value < low or (high is not None and value > high):
        allowed = f"{low} or more" if high is None else f"{low} to {high}"
        raise UsageError(f"{name} {value} is out of range: {allowed}")


def _check_bounds(name: str, value: float, low: int, under: float) -> None:
    if not low <= value < under:  # also true of NaN
        limit = "" if under == math.inf else f", under {under}"
        raise UsageError(f"{name} {value} is out of range: {low} or more{limit}")
