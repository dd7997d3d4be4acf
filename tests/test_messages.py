"""Every text for people is in a golden file: a change of prose shows in the diff of that alone.

python tests/test_messages.py > tests/golden_messages.txt

Other tests check what an error is about: its type, its fields and the values that it names.
"""

import ast
import itertools
import pickle
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from damaging import find_flaw
from hypothesis import given
from hypothesis import strategies as st

import converter
from converter.errors import (
    DatasetError,
    ImageError,
    LockedError,
    OutputError,
    RecordError,
    ShardmillError,
    StoreError,
    UsageError,
    WorkerError,
)
from converter.inventory import NOTES, REJECT_CODES, SKIP_RULES
from converter.names import fit_message

GOLDEN = Path(__file__).with_name("golden_messages.txt")
ROOT = Path(converter.__file__).parents[1]

PLACES = {
    "ShardmillError": (0,),
    "UsageError": (0,),
    "WorkerError": (0,),
    "OutputError": (0,),
    "StoreError": (0,),
    "LockedError": (0,),
    "DatasetError": (0,),
    "ValueError": (0,),
    "TypeError": (0,),
    "IndexError": (0,),
    "MemoryError": (0,),
    "AttributeError": (0,),
    "TransientError": (0,),
    "fail": (0,),
    "_refuse": (1,),
    "ImageError": (0, 1),
    "reject": (0, 1),
    "leave_out": (1, 2),
    "RecordError": (2,),
    "OSError": (1,),
    "Fault": (1,),
    "warn": (0,),
    "error": (0,),
    "describe": (0,),
}
"""Which arguments are the text, by the name of what is called."""

NAMES = {
    "error": "RecordError",
    "describe": "RecordError",
    "fail": "shardmill",
    "warn": "SpaceWarning",
    "reject": "ImageError",
    "leave_out": "Skipped",
}
"""What methods make that are called to make an error."""

CODES = {"note": NOTES, "skip": SKIP_RULES, "reject": REJECT_CODES}

MAX_WORDS = 4
"""Of prose in a `match=`, where no table of a parametrised test gives the text."""

MAX_ALTERNATIVES = 12


class Message(NamedTuple):
    """A text as it is in the source, with `{name}` for each value."""

    package: str
    kind: str
    template: str


def list_messages() -> list[Message]:
    found = {
        message
        for package in ("converter", "pipelines", "reader")
        for path in (ROOT / package).rglob("*.py")
        for message in _read_module(path)
    }
    codes = itertools.chain.from_iterable(
        (Message("codes", kind, f"{code}: {text}") for code, text in texts.items())
        for kind, texts in CODES.items()
    )
    return sorted(found) + list(codes)


def _read_module(path: Path) -> Iterator[Message]:
    # A package, not a module: what only moves to a neighbour has not changed.
    package = ".".join(path.parent.relative_to(ROOT).parts)
    reader = _Reader(ast.parse(path.read_text()))
    for kind, template in reader.read():
        yield Message(package, kind, template)


class _Reader:
    """Reads the texts of a module, also those in variables and in functions that return one."""

    def __init__(self, tree: ast.Module) -> None:
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        self._tree = tree
        self._functions = {function.name: function for function in functions}
        self._scopes: dict[ast.AST, ast.FunctionDef] = {}
        for function in functions:  # the innermost comes last
            self._scopes.update(dict.fromkeys(ast.walk(function), function))

    def read(self) -> Iterator[tuple[str, str]]:
        for call in ast.walk(self._tree):
            if isinstance(call, ast.Call):
                kind = getattr(call.func, "attr", getattr(call.func, "id", ""))
                parts = [
                    call.args[place] for place in PLACES.get(kind, ()) if place < len(call.args)
                ]
                parts += [word.value for word in call.keywords if word.arg == "detail"]
                if any(isinstance(part, ast.Starred) for part in parts):
                    continue
                choices = [self._spell(part) for part in parts]
                for texts in itertools.product(*choices) if parts else ():
                    text = ": ".join(texts)
                    if re.search(r"[a-z]{2}", re.sub(r"\{\w*\}", "", text)):
                        yield NAMES.get(kind, kind), text

    def _spell(self, node: ast.AST, depth: int = 0) -> list[str]:
        """What a text can be."""
        if isinstance(node, ast.Constant):
            return [str(node.value)]
        if isinstance(node, ast.JoinedStr):
            parts = [self._spell(part, depth) for part in node.values]
            return self._join(parts)
        if isinstance(node, ast.FormattedValue):
            return self._spell(node.value, depth)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return self._join([self._spell(node.left, depth), self._spell(node.right, depth)])
        if isinstance(node, ast.IfExp):
            return self._spell(node.body, depth) + self._spell(node.orelse, depth)
        if isinstance(node, ast.Call) and _find_owner(node.func) == "fit_message":
            return self._spell(node.args[0], depth)
        found: list[ast.AST] = []
        if isinstance(node, ast.Name) and depth < 3:
            found = list(self._find_values(node))
        if isinstance(node, ast.Call) and depth < 3:
            found = list(self._find_returns(getattr(node.func, "id", "")))
        texts = [text for value in found for text in self._spell(value, depth + 1)]
        return list(dict.fromkeys(texts)) or [f"{{{_find_name(node)}}}"]

    @staticmethod
    def _join(parts: list[list[str]]) -> list[str]:
        joined = ["".join(texts) for texts in itertools.product(*parts)]
        if len(joined) <= MAX_ALTERNATIVES:
            return joined
        return ["".join(f"({'|'.join(part)})" if len(part) > 1 else part[0] for part in parts)]

    def _find_values(self, name: ast.Name) -> Iterator[ast.AST]:
        """The texts that a variable gets in its function, or a constant in its module."""
        scope = self._scopes.get(name)
        for node in itertools.chain(ast.walk(scope) if scope else (), self._tree.body):
            targets = node.targets if isinstance(node, ast.Assign) else []
            targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
            named = [target.id for target in targets if isinstance(target, ast.Name)]
            if name.id in named and _is_text(node.value):
                yield node.value

    def _find_returns(self, name: str) -> Iterator[ast.AST]:
        function = self._functions.get(name)
        for node in ast.walk(function) if function else ():
            if isinstance(node, ast.Return) and _is_text(node.value):
                yield node.value


def _is_text(node: ast.AST | None) -> bool:
    if isinstance(node, ast.IfExp):
        return _is_text(node.body) or _is_text(node.orelse)
    if isinstance(node, ast.BinOp):
        return _is_text(node.left) or _is_text(node.right)
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def _find_name(node: ast.AST) -> str:
    """A word for a value: the last name in it, without what only formats it."""
    if isinstance(node, ast.Name):
        return "" if node.id in ("map", "repr", "sorted", "str") else node.id.strip("_")
    if isinstance(node, ast.Attribute):
        return "type" if node.attr == "__name__" else node.attr.strip("_")
    if isinstance(node, ast.Call):
        inner = [_find_name(part) for part in node.args]
        return next(filter(None, inner), "") or _find_owner(node.func)
    names = (_find_name(child) for child in ast.iter_child_nodes(node))
    return next(filter(None, names), "")


def _find_owner(function: ast.AST) -> str:
    is_text_method = isinstance(function, ast.Attribute) and function.attr in ("replace", "upper")
    return _find_name(function.value if is_text_method else function)


def describe_all() -> str:
    lines: list[str] = []
    for package, messages in itertools.groupby(list_messages(), lambda message: message.package):
        lines += ["", package, *(f"    {kind}: {text}" for _, kind, text in messages)]
    return "\n".join(lines[1:]) + "\n"


@pytest.fixture(scope="module")
def messages() -> list[Message]:
    return list_messages()


def test_the_messages_are_those_of_the_golden_file():
    assert describe_all() == GOLDEN.read_text(), (
        "run: python tests/test_messages.py > tests/golden_messages.txt"
    )


def test_a_message_is_one_plain_line(messages):
    assert len(messages) > 500
    wrong = {
        message for message in messages if re.search(r"\n|  |\.$|[Pp]lease|!", message.template)
    }
    assert not wrong


PROPER_NAMES = {"Dataflow", "InputStats", "SHARDMILL_STORE_SECONDS", "ResumeTraining"}
"""With which a message may begin, for they are spelled so."""


def test_a_message_begins_in_lower_case_or_with_a_value_or_name(messages):
    first = {message.template.split()[0].rstrip(":") for message in messages}
    assert {word for word in first if word[0].isupper()} <= PROPER_NAMES
    assert not {word for word in first if not (word[0].isalpha() or word[0] == "{")}


VALUES = {
    "long": "x" * 6000,
    "digits": 10**4000,
    "escapes": "\x1b[2J\n\r\t" * 300,
    "not UTF-8": "\udcff\udc80" * 600,
    "blanks": "a bc " * 1200,
    "lines": "a line\n" * 900,
    "quotes": "'\"\\" * 2000,
    "one quote": f"'{'x y ' * 500}",
    "brackets": "([{" * 2000,
    "wide": "猫\u3000" * 600,
    "right to left": "\u202eabc" * 1500,
    "gaps": "…" * 6000,
    "bytes": b"\x89PNG\r\n\x1a\n\0\xff" * 3_500,
    "list": ["x" * 90] * 100,
    "error": ValueError("x" * 6000),
}


def fill(template: str, value: object, *, quote: bool) -> str:
    shown = repr(value) if quote else str(value)
    return re.sub(r"\{\w*\}", lambda _: shown, template)


@pytest.mark.parametrize("quote", [True, False], ids=["quoted", "plain"])
@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_no_message_is_unfit_whatever_its_values_are(messages, value, quote):
    for _, _, template in messages:
        text = fill(template, value, quote=quote)
        shown = str(UsageError(text))
        assert not find_flaw(shown), template
        assert shown == fit_message(shown)
        way_out = re.sub(r"^\S+", "", template.rpartition("}")[2])  # what stands at a value is cut
        assert shown.endswith(way_out[-100:]), template


def test_a_message_of_usual_values_is_whole(messages):
    for _, _, template in messages:
        text = re.sub(r"\{\w*\}", "a-usual-value/of-this-size", template)
        assert str(UsageError(text)) == text


@pytest.mark.parametrize("size", [1, 60, 119, 120])
def test_a_value_of_120_characters_is_whole_in_every_message_that_has_one(messages, size):
    path = f"/{'p' * (size - 1)}"
    for _, _, template in messages:
        if re.fullmatch(r"[^{]*(?<!\S)['\[(]*\{\w+\}['\]):;,.]*(?!\S)[^{]*", template):
            for quote in (True, False):
                text = fill(template, path, quote=quote)
                assert str(UsageError(text)) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("plain ü 猫: 'a b'", "plain ü 猫: 'a b'"),
        ("two\nlines\x1b[0m \udcff", "two\\nlines\\x1b[0m \\xff"),
        (f"/{'x' * 120}: gone", f"/{'x' * 58}…{'x' * 60}: gone"),
        (f"it is '{'ab ' * 50}' here", f"it is '{('ab ' * 50)[:59]}…{('ab ' * 50)[-60:]}' here"),
        (f"the images' a {'b ' * 80} 'c'", f"the images' a {'b ' * 80} 'c'"),
        (f"({'x' * 120}):", f"({'x' * 120}):"),
        (f"{b'PNG' + bytes(400)} is bad", r"b'PNG\x00\x…\x00\x00\x00' is bad"),
        ("a " * 300, f"{'a ' * 124}a…{'a ' * 125}"),
    ],
)
def test_what_is_left_of_a_long_value(text, shown):
    assert fit_message(text) == shown


@given(st.text(st.characters(), max_size=2000), st.sampled_from(["", "'", '"', " ", "\\", "…"]))
def test_any_text_becomes_fit_and_stays_as_it_is_then(text, mark):
    text = mark.join(text)
    shown = fit_message(text)
    assert not find_flaw(shown)
    assert fit_message(shown) == shown


def test_a_huge_text_takes_no_time():
    start = time.process_time()
    for text in ("x" * 10**8, "' " * 10**7, "\\" * 10**7, "\0" * 10**7, "b'" * 10**7):
        assert not find_flaw(fit_message(text))
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    "error",
    [
        ShardmillError(),
        ShardmillError("plain"),
        UsageError("x" * 6000),
        WorkerError("\0" * 6000),
        OutputError("a b " * 6000),
        StoreError("'a b' " * 6000),
        LockedError("é"),
        DatasetError("…"),
        RecordError("a.tfrecord", 7, "x\n" * 600, 3, "bee/ü 1.png" * 30),
        ImageError("decode_error", "x\n" * 600),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_is_the_same_in_another_process(error):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
    assert not find_flaw(str(copy))


def list_patterns(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and text of each `match=` that is written in a test, be it by a variable of its own."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        for call in ast.walk(function):
            for word in call.keywords if isinstance(call, ast.Call) else ():
                if word.arg == "match":
                    yield word.value.lineno, join_literals(word.value, function)


def join_literals(node: ast.AST, function: ast.FunctionDef) -> str:
    """What is written there: not the values in it, nor the columns of a parametrised table."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.FormattedValue):
        return "…"
    if isinstance(node, ast.Name):
        given = [
            join_literals(part.value, function)
            for part in ast.walk(function)
            if isinstance(part, ast.Assign) and node.id in map(_find_name, part.targets)
        ]
        return max(given, key=count_words, default="")
    children = (join_literals(child, function) for child in ast.iter_child_nodes(node))
    return ("" if isinstance(node, ast.JoinedStr) else " ").join(children)


def count_words(pattern: str) -> int:
    """Counts what is prose in a pattern: no names, numbers, options, paths or quoted values."""
    plain = re.sub(r"'[^']*'|\\[a-zA-Z]|[.*+^$?]+(?= |$)|^\^", " ", pattern)
    words = [word for word in re.split(r"[\s|()]+", plain) if not re.search(r"[\d_/=\\.]|--", word)]
    return sum(bool(re.fullmatch(r"[a-z]{2,}\W*", word)) for word in words)


@pytest.mark.parametrize(
    "path",
    sorted(set(Path(__file__).parent.glob("test_*.py")) - {Path(__file__)}),
    ids=lambda path: path.stem,
)
def test_other_tests_match_what_an_error_is_about_and_not_its_prose(path):
    patterns = list_patterns(ast.parse(path.read_text()))
    long = [f"{line}: {text}" for line, text in patterns if count_words(text) > MAX_WORDS]
    assert not long


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("", 0),
        (r"^max_ram 1\.0 MB is too small: batches of 32 images", 6),
        (r"'the quoted value' is unknown", 2),
        (r"^s3://bucket/set is an address, --overwrite", 3),
        (r"\(seed was 3, .*\)$", 2),
        (r"one|two .* three", 3),
    ],
)
def test_words_of_prose_are_counted(pattern, words):
    assert count_words(pattern) == words


if __name__ == "__main__":
    print(describe_all(), end="")
