"""Declares an option once: its docstring is its help, its field has its default, limits and flag.

The command line is made from these fields. The `Attributes` of the class say what each option means
for editors and `help()`, and `--help` repeats it from there.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

from converter.errors import UsageError

OUTPUT: Final = "what is written"
IMAGES: Final = "which images, and how they look"
FAILURES: Final = "what may go wrong"
LABELS: Final = "labels of folders"
TABLE: Final = "columns of a table"
MASKS: Final = "masks"

GROUPS: Final = (OUTPUT, IMAGES, FAILURES, LABELS, TABLE, MASKS)
"""The headings of `--help`, in order."""


class Option(NamedTuple):
    """How an option is spelled and checked.

    Attributes:
        group: one of `GROUPS`.
        choices: the only values allowed; () for any.
        limits: smallest and largest whole number allowed; None as the largest for no limit.
        bounds: of any number, the smallest allowed and the one that it must stay under.
        parse: reads the value from the command line; None for the type of the default.
        metavar: stands for the value in `--help`.
        flag: the name on the command line. Empty for the field's, or `--no-NAME` if True is the
            default.
        repeated: whether the flag may be given several times, for a list of values.
        shown: the default in `--help`; None for the value itself.
    """

    group: str
    choices: tuple[str, ...] = ()
    limits: tuple[int, int | None] | None = None
    bounds: tuple[int, float] | None = None
    parse: Callable[[str], Any] | None = None
    metavar: str | None = None
    flag: str = ""
    repeated: bool = False
    shown: str | None = None


def option(default: Any, group: str, **traits: Any) -> Any:
    """Declares a field of a dataclass as an option, with the traits of `Option`."""
    return dataclasses.field(default=default, metadata={"option": Option(group, **traits)})


def list_options(owner: Any) -> Iterator[tuple[str, Any, Option]]:
    """Yields name, default and `Option` of each field of a dataclass or its instance, in order."""
    for field in dataclasses.fields(owner):
        yield field.name, field.default, field.metadata["option"]


def read_meanings(owner: type) -> dict[str, str]:
    """Reads what each option means from the docstrings of its dataclass and its parents.

    Returns:
        One line for each option, by name; empty if Python was started with -OO.
    """
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


def check_values(values: Any) -> None:
    """Raises UsageError if an option is outside its choices or limits, or no truth value."""
    for name, default, found in list_options(values):
        value, said = getattr(values, name), name.replace("_", " ")
        if value is None and default is None:
            continue
        if found.choices:
            check_choice(said, value, found.choices)
        if found.limits:
            check_range(said, value, *found.limits)
        if found.bounds:
            _check_bounds(said, value, *found.bounds)
        if isinstance(default, bool) and not isinstance(value, bool):
            raise UsageError(f"{said} {value!r} is neither True nor False")


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raises UsageError unless a value is one of some names."""
    if value not in choices:
        raise UsageError(f"{name} {value!r} is unknown: choose one of {', '.join(choices)}")


def check_range(name: str, value: object, low: int, high: int | None) -> None:
    """Raises UsageError unless a value is a whole number from `low` to `high`, both included."""
    if type(value) is not int:
        raise UsageError(f"{name} {value!r} is not a whole number")
    if value < low or (high is not None and value > high):
        allowed = f"{low} or more" if high is None else f"{low} to {high}"
        raise UsageError(f"{name} {value} is out of range: {allowed}")


def _check_bounds(name: str, value: object, low: int, under: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"{name} {value!r} is not a number")
    if not low <= value < under:
        limit = "" if under == math.inf else f", under {under}"
        raise UsageError(f"{name} {value} is out of range: {low} or more{limit}")
