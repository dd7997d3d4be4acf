"""Names of exported files: safe on every system, each taken once, near those of the originals."""

import os
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.exports.safe_names import (
    Namer,
    clean_folders,
    clean_name,
    name_folders,
    split_path,
    split_suffix,
)
from converter.names import fold_name, from_bytes
from converter.sources.folders import is_clutter

WINDOWS = '<>:"\\|?*'

HOSTILE = [
    "..", ".", "...", "/etc/passwd", "../../up", "a/../../b", "", "/", "//", "\0", "a\0b", "nul",
    "CON", "com1.txt", "LPT9", "aux.tar.gz", "a\nb", "a\x1b[2J", "C:\\x", "a:b", "trailing.",
    "trailing ", ".hidden", "Thumbs.db", "__MACOSX", "__meta__", "x" * 5_000, "ü" * 300, "%2e",
    from_bytes(b"\xff\xfe"), "a" + from_bytes(b"\x80") + ".png", "d/" * 2_000 + "x",
    "metadata.jsonl", "a.png", "~", "a~1",
]  # fmt: skip


@pytest.mark.parametrize(
    "name", ["photo", "IMG_0001", "a photo (2)", "a.v2", "ünïcode", "日本", "a#3", "~x"]
)
def test_what_every_system_takes_stays(name):
    assert clean_name(name) == name


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("..", "%2E%2E"),
        ("a:b", "a%3Ab"),
        ("50%", "50%25"),
        ("a\0", "a%00"),
        ("end.", "end%2E"),
        ("con", "%63on"),
        ("COM¹.x", "%43OM¹.x"),
        ("console", "console"),
        (".x", "%2Ex"),
        ("__x__", "%5F_x__"),
        (from_bytes(b"a\xff"), "a%FF"),
        ("desktop.ini", "%64esktop.ini"),
    ],
)
def test_what_some_system_refuses_is_spelt(name, clean):
    assert clean_name(name) == clean


def check_path(path: str) -> None:
    """A path that exists on every system, below the folder that it is joined to."""
    assert len(path.encode("utf-8")) <= 1_000
    assert not path.startswith("/")
    for part in path.split("/"):
        assert part not in ("", ".", "..")
        assert part == "".join(char for char in part if char.isprintable() or ord(char) > 160)
        assert not set(part) & set(WINDOWS)
        assert part[-1] not in ". "
        assert len(part.encode("utf-8")) <= 230
        assert not is_clutter(part)


def make_path(source: str, form: str = "png") -> str:
    folders, name = split_path(source, "train", None)
    return clean_folders(folders) + "".join(split_suffix(name, form))


@pytest.mark.parametrize("source", HOSTILE)
def test_a_hostile_name_gives_a_safe_path(source):
    check_path(make_path(source))


@given(st.binary(max_size=400))
def test_any_bytes_give_a_safe_path(source):
    check_path(make_path(from_bytes(source)))


@given(
    st.lists(st.sampled_from(["a", "A", "a~1", "a~2", "a~1~1", "ä", "a\u0308", "Ä"]), max_size=40)
)
def test_no_name_is_taken_twice(stems):
    namer = Namer()
    taken = [namer.take(stem, [".png"], number) for number, stem in enumerate(stems)]
    assert len({fold_name(name) for name in taken}) == len(taken)


def test_the_first_keeps_its_name_and_later_ones_get_the_number_of_their_record():
    namer = Namer()
    assert namer.take("a", [".png"], 3) == "a"
    assert namer.take("A", [".png"], 7) == "A~7"
    assert namer.take("a", [".jpg"], 8) == "a"
    assert namer.take("a", [".gif", ".jpg"], 9) == "a~9"


@pytest.mark.parametrize(
    ("source", "split", "label", "parts"),
    [
        ("cats/one.jpg", "train", "cats", ([], "one.jpg")),
        ("training/cats/x/one.jpg", "train", "cats", (["x"], "one.jpg")),
        ("val/cats/one.jpg", "train", "cats", (["val", "cats"], "one.jpg")),
        ("train/one.jpg", "train", None, ([], "one.jpg")),
        ("train/dogs/one.jpg", "train", "cats", (["train", "dogs"], "one.jpg")),
        ("2024/cats/one.jpg", "train", "cats", (["2024", "cats"], "one.jpg")),
        ("one.jpg", "train", "one.jpg", ([], "one.jpg")),
        ("train", "train", None, ([], "train")),
    ],
)
def test_the_folders_of_split_and_class_are_not_repeated(source, split, label, parts):
    assert split_path(source, split, label) == parts


@pytest.mark.parametrize(
    ("name", "form", "result"),
    [
        ("a.JPEG", "jpeg", "a.JPEG"),
        ("a.mpo", "jpeg", "a.jpg"),
        ("a.gif", "png", "a.png"),
        ("a.gif#3", "png", "a.gif#3.png"),
        ("a", "webp", "a.webp"),
        ("a.b", "jpeg", "a.b.jpg"),
        ("..jpg", "jpeg", "%2E.jpg.jpg"),
        (".jpg", "jpeg", "%2Ejpg.jpg"),
    ],
)
def test_a_suffix_is_that_of_the_stored_format(name, form, result):
    assert "".join(split_suffix(name, form)) == result


def test_long_names_keep_their_suffix_and_long_paths_their_last_folders():
    path = make_path("first/" + "long/" * 300 + "x" * 999 + ".png")
    assert PurePosixPath(path).suffix == ".png"
    assert not path.startswith("first/")
    assert PurePosixPath(path).parts[-2] == "long"


def test_folders_differ_in_more_than_case_and_are_never_called_like_a_file():
    names = name_folders(["Cat", "cat", "a.png", "metadata.jsonl", "a/b", "", ".."])
    assert names == ["Cat", "cat~1", "a%2Epng", "metadata%2Ejsonl", "a%2Fb", "%", "%2E%2E"]
    assert all(os.path.splitext(name)[1] != ".png" for name in names)
