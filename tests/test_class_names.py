"""Lines that choose, rename and merge classes."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.class_names import is_renamed, list_new_names, parse_renames, read_class_names
from converter.errors import UsageError
from converter.options import ConvertOptions


@pytest.mark.parametrize(
    ("names", "renames", "labels"),
    [
        (("b", "a"), {"b": "b", "a": "a"}, ("b", "a")),
        (("cats", "kitten -> cats"), {"cats": "cats", "kitten": "cats"}, ("cats",)),
        (("kitten -> cats", "dogs", "cats"),
         {"kitten": "cats", "dogs": "dogs", "cats": "cats"}, ("cats", "dogs")),
        (("a -> b", "b -> a"), {"a": "b", "b": "a"}, ("b", "a")),
        (("a -> b", "b -> c", "c -> a"), {"a": "b", "b": "c", "c": "a"}, ("b", "c", "a")),
        (("a->b", "  c  ->  d d "), {"a": "b", "c": "d d"}, ("b", "d d")),
        (("a -> a",), {"a": "a"}, ("a",)),
        ((" a ", "a"), {" a ": " a ", "a": "a"}, (" a ", "a")),
        (("a - > b", "-", ">"), {"a - > b": "a - > b", "-": "-", ">": ">"}, ("a - > b", "-", ">")),
    ],
)  # fmt: skip
def test_names_and_their_order(names, renames, labels):
    assert dict(parse_renames(names)) == renames
    assert list(parse_renames(names)) == list(renames)
    assert list_new_names(names) == labels
    assert ConvertOptions(class_names=names).class_names == names


def test_only_an_arrow_renames():
    assert not is_renamed(("a", "b - c"))
    assert is_renamed(("a", "b -> c"))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("a", "b", "a"), "line 3: 'a' is given twice"),
        (("a -> b", "a"), "line 2: 'a' is given twice"),
        (("a -> b", "a -> c"), "line 2: 'a' is given twice"),
        (("c", "a -> b -> c"), "line 2: 'a -> b -> c' has more than one ->"),
        (("->->",), "line 1: '->->' has more than one ->"),
        (("a", "-> b"), "line 2: '-> b' lacks a name"),
        (("a ->",), "line 1: 'a ->' lacks a name"),
        (("->",), "line 1: '->' lacks a name"),
        (("  ->  ",), "lacks a name"),
    ],
)
def test_lines_that_make_no_sense_are_named(names, said, tmp_path):
    with pytest.raises(UsageError, match=f"^class names, .*{re.escape(said)}"):
        ConvertOptions(class_names=names)
    path = tmp_path / "classes.txt"
    path.write_text("\n".join(names))
    with pytest.raises(UsageError, match=rf"classes\.txt, .*{re.escape(said)}"):
        read_class_names(str(path))


def test_the_line_that_is_named_is_that_of_the_file(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_bytes(b"a\r\n\r\n   \r\nb -> c -> d\r\n")
    with pytest.raises(UsageError, match=r"classes\.txt, line 4: "):
        read_class_names(str(path))


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (b"b\na\n", ("b", "a")),
        (b"b\r\na", ("b", "a")),
        (b"b\ra", ("b", "a")),
        (b"\xef\xbb\xbfb\r\na -> b\r\n", ("b", "a -> b")),
        (b"\n\nb\n\n \t\na\n\n", ("b", "a")),
        (b" b \n", (" b ",)),
        (b"caf\xe9\nna\xc3\xafve", ("caf\udce9", "naïve")),
        (b"a\0b\n", ("a\0b",)),
        ("a\u2028b\x85c\x0bd\n".encode(), ("a\u2028b\x85c\x0bd",)),
        (b"", ()),
    ],
)
def test_a_file_is_read_as_it_is_written(tmp_path, data, names):
    path = tmp_path / "classes.txt"
    path.write_bytes(data)
    assert read_class_names(str(path)) == names


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(UsageError, match=rf"^{re.escape(str(path))}: "):
            read_class_names(str(path))


def test_the_home_folder_may_be_short(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    Path(tmp_path, "names.txt").write_text("a\n")
    assert read_class_names("~/names.txt") == ("a",)


@given(st.lists(st.text(st.characters() | st.sampled_from("-> \0"), max_size=8), max_size=6))
def test_any_names_are_taken_or_refused_in_one_line(names):
    try:
        found = ConvertOptions(class_names=tuple(names)).class_names
    except UsageError as error:
        said = str(error)
    else:
        said = ""
        assert len(parse_renames(found)) == len(names)
    assert said.isprintable()


def test_many_names_are_as_fast_as_few(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("".join(f"class {n} -> group {n % 100}\n" for n in range(50_000)))
    names = read_class_names(os.fspath(path))
    assert len(parse_renames(names)) == 50_000
    assert list_new_names(names) == tuple(f"group {n}" for n in range(100))
