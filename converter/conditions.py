"""The language of `where`: what has to hold for an image to be taken. Nothing is ever executed.

    condition = part { "or" part }            "and" binds closer than "or"
    part      = term { "and" term }
    term      = "not" term | "(" condition ")" | test
    test      = name ( "=" | "!=" | "<" | "<=" | ">" | ">=" ) value
              | name ["not"] "in" "(" value { "," value } ")"
              | name ["not"] "like" value     * is any text, ? one character
              | name "is" ["not"] "missing"

A name or a value is a word, or stands in quotes: 'red car', "it's"; a quote is doubled within its
own kind. Words of the language may be written in any case; in quotes they are plain text.

Of a list of values, one has to pass the test. A missing value passes none but `is missing`. `!=`,
`not in` and `not like` hold where `=`, `in` and `like` do not.
"""

import dataclasses
import fnmatch
import functools
import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, NoReturn, TypeAlias

from converter.errors import UsageError
from converter.option_fields import suggest

MAX_CHARACTERS: Final = 10_000
MAX_DEPTH: Final = 50  # of parentheses and `not` in each other

_TOKEN: Final = re.compile(
    r"""(?P<quoted>'(?:[^']|'')*'(?!')|"(?:[^"]|"")*"(?!"))"""
    r"""|(?P<sign><=|>=|!=|[=<>(),])|(?P<word>[^\s()=!<>,'"]+)|(?P<odd>\S)"""
)
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?")
_MAX_DIGITS: Final = 18  # of a whole number that is compared exactly

_WORDS: Final = ("and", "or", "not", "in", "like", "is", "missing")
_ORDERS: Final = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


class Token(NamedTuple):
    """A word, a sign or a text in quotes; the end of the text is an empty one."""

    kind: str  # quoted, sign, word, odd or end
    text: str  # without its quotes
    place: int  # of its first character, from 1

    @property
    def keyword(self) -> str:
        """The word of the language, or the sign, that it is; empty for a name or a value."""
        lower = self.text.lower()
        return lower if self.kind == "sign" or (self.kind == "word" and lower in _WORDS) else ""


@dataclasses.dataclass(frozen=True, slots=True)
class Test:
    """A test of one value: `in`, `like`, `missing` or an order."""

    name: Token
    operator: str
    values: tuple[Token, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Not:
    """Holds if a condition does not."""

    part: "Condition"


@dataclasses.dataclass(frozen=True, slots=True)
class Group:
    """Conditions of which all have to hold, or any."""

    parts: tuple["Condition", ...]
    needs_all: bool


Condition: TypeAlias = Test | Not | Group
Predicate: TypeAlias = Callable[[Any], bool]


class Field(NamedTuple):
    """What a name in a condition stands for."""

    is_number: bool  # else text
    read: Callable[[Any], Sequence[Any]]  # the values that an item has; none if they are missing
    spell: Callable[[str], str] = str  # a text as `read` spells it


@functools.lru_cache(maxsize=16)
def parse_condition(text: str) -> Condition:
    """Parses a condition; raises UsageError with the place of what does not belong there."""
    if len(text) > MAX_CHARACTERS:
        raise UsageError(
            f"where has {len(text):,} characters, at most {MAX_CHARACTERS:,}: a long list of "
            "classes belongs in a file for --classes"
        )
    return _Parser(text).parse()


def bind_condition(condition: Condition, fields: Mapping[str, Field]) -> Predicate:
    """Makes a function of an item, given what the names mean.

    Raises UsageError for a name that is not among `fields`, and for a value of the wrong kind.
    """
    match condition:
        case Test():
            return _bind_test(condition, fields)
        case Not():
            inner = bind_condition(condition.part, fields)
            return lambda item: not inner(item)
    parts = [bind_condition(part, fields) for part in condition.parts]
    if condition.needs_all:
        return lambda item: all(part(item) for part in parts)
    return lambda item: any(part(item) for part in parts)


def _bind_test(test: Test, fields: Mapping[str, Field]) -> Predicate:
    name = test.name
    if name.text not in fields:
        near = suggest(name.text, fields)
        hint = f", did you mean {near}?" if near else ":"
        known = ", ".join(sorted(fields))
        _refuse(name, f"{name.text!r} is unknown{hint} there are {known}")
    field = fields[name.text]
    read = field.read
    match test.operator:
        case "missing":
            return lambda item: not read(item)
        case "in":
            wanted = frozenset(_read_value(name, value, field) for value in test.values)
            return lambda item: not wanted.isdisjoint(read(item))
        case "like":
            fits = _read_pattern(name, test.values[0], field).fullmatch
            return lambda item: any(map(fits, read(item)))
    limit, compare = _read_limit(name, test.values[0], field), _ORDERS[test.operator]
    return lambda item: any(compare(value, limit) for value in read(item))


def _read_limit(name: Token, value: Token, field: Field) -> Any:
    if not field.is_number and value.kind == "word" and _NUMBER.fullmatch(value.text):
        _refuse(value, f"{name.text!r} holds text: put {value.text!r} in quotes")
    return _read_value(name, value, field)


def _read_value(name: Token, value: Token, field: Field) -> str | float:
    if not field.is_number:
        return field.spell(value.text)
    if value.kind != "word" or not _NUMBER.fullmatch(value.text):
        _refuse(value, f"{name.text!r} holds numbers, and {value.text!r} is not a number")
    try:
        whole = int(value.text) if len(value.text) <= _MAX_DIGITS else float(value.text)
    except ValueError:  # it has a fraction or an exponent
        whole = float(value.text)
    if math.isinf(whole):
        _refuse(value, f"{value.text!r} is too large")
    return whole


def _read_pattern(name: Token, value: Token, field: Field) -> re.Pattern[str]:
    if field.is_number:
        _refuse(
            value, f"{name.text!r} holds numbers, and like is for text: compare them with =, < or >"
        )
    # `translate` makes patterns that do not try all ways to share a text between many stars.
    return re.compile(fnmatch.translate(value.text.replace("[", "[[]")))


def _refuse(token: Token, reason: str) -> NoReturn:
    raise UsageError(f"where, character {token.place}: {reason}")


class _Parser:
    """Goes through the tokens once, from left to right."""

    def __init__(self, text: str) -> None:
        self._tokens = [*_split(text)]
        self._at = self._depth = 0

    def parse(self) -> Condition:
        condition = self._parse_condition()
        if self._next.kind != "end":
            self._fail("and, or, or the end")
        return condition

    @property
    def _next(self) -> Token:
        return self._tokens[self._at]

    def _take(self, *keywords: str) -> str:
        """Takes the next token if it is one of these; empty if it is not."""
        found = self._next.keyword
        if not found or found not in keywords:
            return ""
        self._at += 1
        return found

    def _expect(self, keyword: str) -> None:
        if not self._take(keyword):
            self._fail(keyword)

    def _fail(self, expected: str) -> NoReturn:
        token = self._next
        found = "the condition ends" if token.kind == "end" else f"{token.text!r} stands"
        _refuse(token, f"{found} where {expected} is expected")

    def _parse_condition(self) -> Condition:
        parts = [self._parse_part()]
        while self._take("or"):
            parts.append(self._parse_part())
        return _join(parts, needs_all=False)

    def _parse_part(self) -> Condition:
        parts = [self._parse_term()]
        while self._take("and"):
            parts.append(self._parse_term())
        return _join(parts, needs_all=True)

    def _parse_term(self) -> Condition:
        opening = self._next
        word = self._take("not", "(")
        if not word:
            return self._parse_test()
        self._depth += 1
        if self._depth > MAX_DEPTH:
            _refuse(opening, f"parentheses and nots are nested more than {MAX_DEPTH} deep")
        if word == "not":
            inner: Condition = Not(self._parse_term())
        else:
            inner = self._parse_condition()
            self._expect(")")
        self._depth -= 1
        return inner

    def _parse_test(self) -> Condition:
        name = self._read_text("a name, not or (")
        if self._take("is"):
            negated = self._take("not")
            self._expect("missing")
            return Not(Test(name, "missing")) if negated else Test(name, "missing")
        if sign := self._take("=", "!=", *_ORDERS):
            found = "in" if sign in ("=", "!=") else sign
            test = Test(name, found, (self._read_text("a value"),))
            return Not(test) if sign == "!=" else test
        negated, word = self._take("not"), self._take("in", "like")
        if not word:
            self._fail("in or like" if negated else "=, !=, <, <=, >, >=, in, like, not or is")
        values = self._read_values() if word == "in" else (self._read_text("a pattern"),)
        return Not(Test(name, word, values)) if negated else Test(name, word, values)

    def _read_values(self) -> tuple[Token, ...]:
        self._expect("(")
        values = [self._read_text("a value")]
        while self._take(","):
            values.append(self._read_text("a value"))
        if not self._take(")"):
            self._fail(", or )")
        return tuple(values)

    def _read_text(self, expected: str) -> Token:
        """Takes a name or a value."""
        token = self._next
        if token.kind not in ("word", "quoted") or token.keyword:
            self._fail(expected)
        self._at += 1
        return token


def _split(text: str) -> Iterator[Token]:
    for found in _TOKEN.finditer(text):
        kind, word = str(found.lastgroup), found[0]
        if kind == "quoted":
            word = word[1:-1].replace(word[0] * 2, word[0])
        elif kind == "odd" and word in "'\"":
            _refuse(Token(kind, word, found.start() + 1), f"the quote {word} is not closed")
        yield Token(kind, word, found.start() + 1)
    yield Token("end", "", len(text) + 1)


def _join(parts: Sequence[Condition], *, needs_all: bool) -> Condition:
    return parts[0] if len(parts) == 1 else Group(tuple(parts), needs_all)
