"""What folders say: splits under their usual names, classes by top or parent folder, or none."""

import os
import re
import unicodedata
from pathlib import Path

import pytest

from converter.errors import UsageError
from converter.inventory import NO_LABEL, Note
from converter.options import ConvertOptions
from converter.sources.scan import scan_folder
from converter.sources.split_names import SPLIT_FOLDERS


def fill(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"xxx")


def read_places(root: Path, **options: object) -> dict[str, tuple[str, str]]:
    """The split and the class of each image, by path."""
    inventory = scan_folder(root, ConvertOptions(**options))
    return {
        entry.path: (
            entry.split,
            "" if entry.label == NO_LABEL else inventory.classes[entry.label],
        )
        for entry in inventory.entries
    }


def list_skipped(root: Path, **options: object) -> dict[str, str]:
    return {skip.path: skip.code for skip in scan_folder(root, ConvertOptions(**options)).skipped}


@pytest.mark.parametrize(
    ("label_from", "expected"),
    [
        ("top", {"a/1.png": "a", "a/x/2.png": "a", "b/x/y/3.png": "b"}),
        ("parent", {"a/1.png": "a", "a/x/2.png": "x", "b/x/y/3.png": "y"}),
        ("none", {"0.png": "", "a/1.png": "", "a/x/2.png": "", "b/x/y/3.png": ""}),
    ],
)
def test_the_label_is_the_folder_asked_for(tmp_path, label_from, expected):
    fill(tmp_path, "0.png", "a/1.png", "a/x/2.png", "b/x/y/3.png")
    places = read_places(tmp_path, label_from=label_from)
    assert {path: name for path, (_, name) in places.items()} == expected
    left_out = {} if label_from == "none" else {"0.png": "skipped_no_class"}
    assert list_skipped(tmp_path, label_from=label_from) == left_out


def test_parents_of_one_name_are_one_class_wherever_they_lie(tmp_path):
    fill(tmp_path, "a/cat/1.png", "b/cat/2.png", "b/ant/3.png")
    inventory = scan_folder(tmp_path, ConvertOptions(label_from="parent"))
    assert inventory.classes == ("ant", "cat")
    assert [entry.label for entry in inventory.entries] == [1, 0, 1]


@pytest.mark.parametrize(("name", "split"), SPLIT_FOLDERS.items())
def test_a_split_folder_has_any_usual_name_in_any_case(tmp_path, name, split):
    fill(tmp_path, f"{name}/a/1.png", f"{name.upper()}/b/2.png")
    assert read_places(tmp_path) == {
        f"{name}/a/1.png": (split, "a"),
        f"{name.upper()}/b/2.png": (split, "b"),
    }


def test_classes_are_those_of_all_splits(tmp_path):
    fill(tmp_path, "train/b/1.png", "train/a/2.png", "val/c/3.png", "val/b/4.png", "beside.png")
    (tmp_path / "train" / "empty").mkdir()
    inventory = scan_folder(tmp_path)
    assert inventory.classes == ("a", "b", "c", "empty")
    assert [(entry.split, entry.label) for entry in inventory.entries] == [
        ("train", 0), ("train", 1), ("validation", 1), ("validation", 2)
    ]  # fmt: skip
    assert list_skipped(tmp_path) == {"beside.png": "skipped_no_split"}
    assert inventory.notes == (Note("empty_class", ("empty",), 1),)


def test_a_class_may_be_called_like_a_split(tmp_path):
    fill(tmp_path, "train/1.png", "plane/2.png")  # vehicles
    assert read_places(tmp_path) == {"train/1.png": ("", "train"), "plane/2.png": ("", "plane")}


def test_two_splits_and_something_else_are_asked_about(tmp_path):
    fill(tmp_path, "train/a/1.png", "test/a/2.png", "plane/a/3.png")
    with pytest.raises(UsageError, match=r"^the folders test, train .* 'plane' .* --split-folders"):
        scan_folder(tmp_path)
    assert list_skipped(tmp_path, split_folders="yes") == {"plane/a/3.png": "skipped_no_split"}
    assert set(read_places(tmp_path, split_folders="no").values()) == {
        ("", "train"), ("", "test"), ("", "plane")
    }  # fmt: skip


def test_splits_that_are_asked_for_have_to_be_there(tmp_path):
    fill(tmp_path, "a/1.png")
    with pytest.raises(UsageError, match=r"none .* is a split"):
        scan_folder(tmp_path, ConvertOptions(split_folders="yes"))


def test_splits_without_classes_have_no_labels_if_so_asked(tmp_path):
    fill(tmp_path, "train/1.png", "test/deep/er/2.png")
    assert read_places(tmp_path, label_from="none") == {
        "train/1.png": ("train", ""), "test/deep/er/2.png": ("test", "")
    }  # fmt: skip
    with pytest.raises(UsageError, match="any of the 1 classes"):
        scan_folder(tmp_path, ConvertOptions(split_folders="no", class_names=("z",)))


def test_pinned_classes_keep_their_order_and_leave_others_out(tmp_path):
    fill(tmp_path, "a/1.png", "b/2.png", "c/3.png")
    options = {"class_names": ("c", "new", "a")}
    inventory = scan_folder(tmp_path, ConvertOptions(**options))
    assert inventory.classes == ("c", "new", "a")
    assert [(entry.path, entry.label) for entry in inventory.entries] == [
        ("a/1.png", 2),
        ("c/3.png", 0),
    ]
    assert list_skipped(tmp_path, **options) == {"b/2.png": "skipped_no_label"}


def test_an_offset_leaves_label_0_to_the_background(tmp_path):
    fill(tmp_path, "a/1.png", "b/2.png")
    inventory = scan_folder(tmp_path, ConvertOptions(label_offset=1))
    assert inventory.classes == ("background", "a", "b")
    assert [entry.label for entry in inventory.entries] == [1, 2]
    fill(tmp_path, "background/3.png")
    with pytest.raises(UsageError, match=r"label offset 1 .*'background'"):
        scan_folder(tmp_path, ConvertOptions(label_offset=1))
    options = {"label_offset": 1, "class_names": ("b", "a")}
    assert [entry.label for entry in scan_folder(tmp_path, ConvertOptions(**options)).entries] == [
        2,
        1,
    ]
    assert list_skipped(tmp_path, **options) == {"background/3.png": "skipped_no_label"}


def test_names_that_look_alike_are_noted_and_stay_apart(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    fill(tmp_path, "Cat/1.png", "cat/1.png", f"dog/{composed}.png", f"dog/{decomposed}.png")
    inventory = scan_folder(tmp_path)
    assert inventory.classes == ("Cat", "cat", "dog")
    assert len({entry.path for entry in inventory.entries}) == 4
    twins = (f"dog/{decomposed}.png", f"dog/{composed}.png")
    assert inventory.notes == (
        Note("twin_class", ("Cat", "cat"), 2),
        Note("twin_path", ("Cat/1.png", "cat/1.png", *twins), 4),
    )


def test_names_that_are_not_utf8_or_of_many_lines_are_labelled(tmp_path):
    fill(tmp_path, os.fsdecode(b"train/caf\xe9/a\nb.png"), "test/-x/*?[].png")
    places = read_places(tmp_path)
    assert {os.fsencode(path): os.fsencode(name) for path, (_, name) in places.items()} == {
        b"train/caf\xe9/a\nb.png": b"caf\xe9",
        b"test/-x/*?[].png": b"-x",
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_from": "file"}, "label from 'file' is unknown: choose one of top, parent, none"),
        ({"split_folders": "maybe"}, "split folders 'maybe' is unknown"),
        ({"class_names": ()}, "class names are empty"),
        ({"class_names": ("a", "b", "a")}, "'a' is given twice in the class names"),
        ({"class_names": "ab"}, "class names 'ab' are not a tuple of names"),
        ({"label_offset": 2}, "label offset 2 is out of range: 0 to 1"),
        ({"label_from": "none", "label_offset": 1}, "which stratify and label offset need"),
        ({"label_from": "none", "class_names": ("a",)}, "label from 'none' asks for no labels"),
        ({"stratify": True}, "stratify draws splits class by class: ask for a validation_split"),
        ({"group_by": "("}, "group by '(' is not a regular expression"),
        ({"dedupe": "yes"}, "dedupe 'yes' is unknown: choose one of report, drop, off"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        ConvertOptions(**options)
