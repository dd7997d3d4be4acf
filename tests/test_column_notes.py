"""Columns that may mean something else than what they are taken for, and which are used."""

from itertools import cycle

import pytest

from converter.inventory import MAX_NAMES, Note
from converter.options import ConvertOptions
from converter.sources.column_notes import ColumnNotes, list_path_columns, list_used, rank_columns

KEY = "\0image"


def note(
    columns: dict[str, list], labels=(), classes=None, **options
) -> dict[str, tuple[str, ...]]:
    """The names in each note about a table of these columns, by code."""
    seen = ColumnNotes(ConvertOptions(**options), KEY)
    for cells in zip(*columns.values(), strict=True):
        seen.add(dict(zip(columns, cells, strict=True)))
    seen.add_labels(labels)
    return {found.code: found.names for found in seen.list_notes(classes or sorted(labels))}


FLAGS = {
    "MEL": ["1", "0", "0"],
    "NV": ["0.0", "1.0", "0.0"],
    "BCC": ["", "-1", "1"],
    "age": ["0", "1", "2"],
}


def test_one_hot_columns_are_noted_in_their_order():
    assert note(FLAGS, label_column="NV") == {"one_hot": ("MEL", "NV", "BCC")}
    assert note(FLAGS, label_column="age") == {}
    assert note(FLAGS, labels_columns=("MEL", "NV", "BCC")) == {}


def test_a_label_of_0_and_1_that_is_alone_with_that_is_none_of_them():
    for column in (FLAGS["age"], ["1", "1", "1"], ["0", "0", "0"], ["", "", ""], ["a", "0", "1"]):
        assert note({"target": ["0", "1", "1"], "other": column}, label_column="target") == {}
    kept = {"target": ["0", "1", "1"], "flag": ["1", "0", "0"]}
    assert note(kept, label_column="target", keep_columns=("flag",)) == {}
    assert "one_hot" in note(kept, label_column="target")


def test_a_column_that_appears_late_counts_with_what_it_has():
    seen = ColumnNotes(ConvertOptions(label_column="a"), KEY)
    for row in ({"a": 1, KEY: object()}, {"a": 0}, {"a": 1, "b": True}, {"b": False, "c": [1]}):
        seen.add(row)
    assert list(seen.list_notes([])) == [Note("one_hot", ("a", "b"), 2)]
    assert seen.describe() == "uses a; leaves out b, c"


def test_a_table_without_labels_is_noted_with_what_may_hold_them():
    rest = {"path": ["x"] * 3, "age": ["5", "6", "7"]}
    assert note(rest) == {"unlabelled": ("age",)}
    assert note({**rest, "sub_class": ["a"] * 3, "Species": ["b"] * 3}) == {
        "unlabelled": ("Species", "sub_class")
    }
    assert note({**rest, **FLAGS}) == {"unlabelled": ("MEL", "NV", "BCC")}
    assert note({"path": ["x"]}) == {}
    for name in ("label_column", "labels_column", "target_column", "caption_column", "mask_column"):
        assert note(rest, **{name: "age"}) == {}
    assert note(rest, mask_dir="masks") == {}
    assert note(rest, boxes_column="age") == {}
    assert note(rest, keep_columns=("age",)) == {}


def test_both_0_and_minus_1_are_noted_where_both_mean_no():
    columns = {"a": ["0", "-1", "1"], "b": ["0", "1", ""], "c": ["-1", "1", "-1"]}
    assert note(columns, labels_columns=("a", "b", "c")) == {"unsure_label": ("a",)}


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (["haze primary", "clear primary"], ("clear primary", "haze primary")),
        (["haze,primary", "clear,primary", "cloudy"], ("clear,primary", "haze,primary")),
        (["a;b", "b;c"], ("a;b", "b;c")),
        (["a|b", "b"], ()),  # like `sports car` beside `car`
        (["b|a", "b"], ("b|a",)),
        (["scab", "scab frog_eye", "healthy"], ("scab frog_eye",)),
        (["rust complex", "scab complex", "complex"], ()),
        (["sports car", "cat"], ()),
        (["sports car", "car", "fire truck", "truck"], ()),
        (["maple tree", "oak tree", "lawn mower", "sweet pepper", "cat"], ()),
        (["New York", "Los Angeles"], ()),
        ([" cat ", "cat"], ()),
        (["cat", "dog"], ()),
        ([], ()),
    ],
)
def test_labels_that_look_like_tags_are_noted(labels, found):
    columns = {"tags": list(labels)}
    expected = {"several_labels": found} if found else {}
    assert note(columns, labels, label_column="tags") == expected
    assert note(columns, labels, labels_column="tags") == expected
    assert note(columns, labels, boxes_column="b", box_labels_column="tags") == {}


def test_one_odd_label_among_many_tags_changes_nothing():
    tags = [f"{one} {other}" for one in "abcd" for other in "efgh"]
    assert "several_labels" in note({"t": ["x"]}, [*tags, "New York"], label_column="t")
    assert note({"t": ["x"]}, [*tags, "New York", "Los Angeles"], label_column="t") == {}


@pytest.mark.parametrize(
    ("classes", "found"),
    [
        (("0", "1", "3"), ("3 is label 2",)),
        (("1", "2"), ("1 is label 0", "2 is label 1")),
        (("0.0", "1.0", "10.0", "2.0"), ("10.0 is label 2", "2.0 is label 3")),
        (("1", "-1"), ("1 is label 0", "-1 is label 1")),
        (("07", "7"), ("07 is label 0", "7 is label 1")),
        (("0", "1", "2"), ()),
        (("0.0", "1.0"), ()),
        (("0", "2", "cat"), ()),
        (("9" * 5000,), (f"{'9' * 5000} is label 0",)),
    ],
)
def test_numbers_that_are_not_their_labels_are_noted(classes, found):
    columns = {"label": [name for name, _ in zip(cycle(classes), range(4), strict=False)]}
    notes = note(columns, set(classes), classes, label_column="label")
    assert notes == ({"class_number": found} if found else {})


def test_labels_from_1_on_are_numbers_where_label_0_is_the_background():
    columns, classes = {"label": ["1", "2"]}, ("background", "1", "2")
    assert note(columns, {"1", "2"}, classes, label_column="label", label_offset=1) == {}
    # No labels are added where the classes are given.
    assert note(columns, (), ("1", "2"), label_column="label", class_names=("1", "2")) == {}


def test_many_numbers_are_counted_and_few_named():
    seen = ColumnNotes(ConvertOptions(label_column="label"), KEY)
    names = [f"{number}" for number in range(1, 1001)]
    seen.add_labels(names)
    [found] = seen.list_notes(names)
    assert (found.total, len(found.names)) == (1000, MAX_NAMES)


@pytest.mark.parametrize(
    ("cells", "is_noted"),
    [
        (["0,5", "1"], True),
        (["0,5", "", None, "1.5", 2], True),
        (["1", "0.5"], False),
        (["0,5", "about 1"], False),
        (["a,b", "c"], False),
        (["x", "0,5"], False),
        ([1, 2.5], False),
    ],
)
def test_numbers_with_a_comma_are_noted_if_they_are_kept(cells, is_noted):
    columns = {"path": ["a"] * len(cells), "size": cells}
    notes = note(columns, label_column="path", keep_columns=("size",))
    assert notes == ({"decimal_comma": ("size",)} if is_noted else {})
    assert "decimal_comma" not in note(columns, label_column="path")


def test_the_columns_that_are_used_and_those_that_are_not_are_told():
    options = ConvertOptions(path_format="{dir}/{id}.png", label_column="dir", keep_columns=("x",))
    assert list_path_columns(options) == ["dir", "id"]
    assert list_used(options) == ["dir", "x"]
    seen = ColumnNotes(options, KEY)
    seen.add(dict.fromkeys(["x", "id", "age", "dir", "sex", KEY], "a"))
    assert seen.describe() == "uses dir, id, x; leaves out age, sex"
    odd = ColumnNotes(ConvertOptions(), KEY)
    odd.add({"path": "a", "": "1", "a\nb": "2", "x" * 9999: "3"})
    assert odd.describe() == f"uses path; leaves out '', a\\nb, …{'x' * 119}"
    many = ColumnNotes(ConvertOptions(labels_columns=tuple(f"c{n}" for n in range(40))), KEY)
    many.add({"path": "a", **{f"c{n}": 1 for n in range(40)}})
    assert many.describe().endswith("c9, c10 and 29 more")
    assert many.describe().startswith("uses path, c0, ")


def test_columns_are_ranked_by_the_words_in_their_names():
    words = ("image", "id", "name")
    names = ["last name", "ID", "patient_id", "Image-Index", "age", "identity", " image "]
    assert rank_columns(names, words) == [" image ", "ID", "Image-Index", "patient_id", "last name"]
