"""What the columns of an exported table are called, and what is in them."""

import pytest

from converter.exports.exported_columns import ColumnNames, read_values
from converter.format import schema
from converter.format.schema import Column

COLUMNS = (
    Column(schema.LABELS, "labels"),
    Column(schema.BOXES, "boxes"),
    Column(schema.MASK, "mask"),
    Column("age", "int"),
)


def test_columns_have_the_names_that_tables_know():
    names = ColumnNames.choose(COLUMNS)
    assert (names.file, names.label, names.split) == ("file_name", "label", "split")
    assert [*names.columns.values()] == ["labels", "boxes", "mask_file_name", "age"]


def test_every_feature_with_a_fixed_meaning_has_a_name_that_a_column_can_have():
    columns = [Column(name, kind) for name, kind in schema._RESERVED.items()]
    names = ColumnNames.choose(columns).columns
    assert [schema.check_column_name(name) for name in names.values()] == [*names.values()]


@pytest.mark.parametrize("taken", ["file_name", "label", "split", "boxes"])
def test_a_column_that_was_carried_along_keeps_its_name(taken):
    names = ColumnNames.choose([*COLUMNS, Column(taken, "int"), Column(f"{taken}_", "text")])
    shown = [names.file, names.label, names.split, *names.columns.values()]
    assert names.columns[taken] == taken
    assert names.columns[f"{taken}_"] == f"{taken}_"
    assert f"{taken}__" in shown
    assert len(set(shown)) == len(shown)


def test_columns_with_a_value_for_each_box_have_short_names_that_no_other_has():
    columns = [Column("image/object/is_crowd", "ints"), Column("image/object/age", "floats")]
    names = ColumnNames.choose([*COLUMNS, *columns])
    assert names.columns["image/object/is_crowd"] == "is_crowd"
    assert (names.columns["age"], names.columns["image/object/age"]) == ("age", "age_")
    flags = names.list_flags("parquet", labelled=True)
    assert flags[flags.index("is_crowd") - 1] == flags[flags.index("age_") - 1] == "--box-column"
    assert flags[flags.index("age") - 1] == "--keep-column"


def test_usual_names_can_be_others():
    names = ColumnNames.choose(COLUMNS, file_name="image", mask_file_name="mask")
    assert (names.file, names.columns[schema.MASK]) == ("image", "mask")


def test_values_are_those_of_json():
    columns = [*COLUMNS, Column("weight", "float"), Column("words", "texts"), Column("n", "floats")]
    features = {
        schema.LABELS: [1, 0],
        schema.BOXES: [0.0, 0.25, 0.5, 1.0, 0.0, 0.0, 1.0, 1.0],
        schema.MASK: [b"png"],
        "age": [7],
        "weight": [float("nan")],
        "words": [b"\xff", "ü".encode()],
        "n": [1.5, float("inf")],
    }
    assert read_values(columns, features, ["no", "yes"]) == {
        schema.LABELS: ["yes", "no"],
        schema.BOXES: [[0.0, 0.25, 0.5, 1.0], [0.0, 0.0, 1.0, 1.0]],
        "age": 7,
        "weight": None,
        "words": ["\udcff", "ü"],
        "n": [1.5, None],
    }


def test_a_row_has_no_label_where_there_are_none():
    names = ColumnNames.choose(COLUMNS[-1:])
    assert names.make_row("a.png", None, "train", {"age": 7}) == {
        "file_name": "a.png",
        "split": "train",
        "age": 7,
    }
    assert names.make_row("a.png", "cat", "train", {})["label"] == "cat"
