"""What IMAGES is by its name, and which options make no sense for it."""

import pytest

from converter.errors import UsageError
from converter.options import IN_FILES, SOURCES, ConvertOptions
from converter.sources.inputs import find_given, leave_given, list_names
from converter.sources.recognition import FORMATS, resolve_options
from converter.storage.disk import DiskPath


def test_the_first_option_that_is_given_is_named_as_messages_do():
    options = ConvertOptions(table_root="x", label_column="y")
    assert find_given(("path_format", "table_root", "label_column"), options) == "table root"
    assert find_given(("path_format", "image_column"), options) == ""


def test_options_that_are_given_are_not_implied():
    implied = {"label_column": "found", "caption_column": "text"}
    options = ConvertOptions(label_column="given")
    assert leave_given(implied, options) == {"caption_column": "text"}


def test_every_source_that_can_be_named_can_be_opened():
    assert sorted([*FORMATS, "folders", "archive"]) == sorted(SOURCES)
    assert FORMATS.keys() > {*IN_FILES}


def test_only_folders_have_names_in_them(tmp_path):
    (tmp_path / "file").touch()
    assert list_names(tmp_path) == ["file"]
    assert list_names(tmp_path / "file") == list_names(tmp_path / "nothing") == []


@pytest.mark.parametrize("name", ["path_column", "path_format", "table_root"])
@pytest.mark.parametrize("source", IN_FILES)
def test_what_holds_its_images_takes_no_options_of_paths(tmp_path, source, name):
    options = ConvertOptions(source=source, **{name: "{x}"})
    with pytest.raises(UsageError, match="for tables of paths") as caught:
        resolve_options(tmp_path, options)
    assert str(caught.value).startswith(name.replace("_", " "))


def test_a_table_of_paths_takes_no_image_column(tmp_path):
    (tmp_path / "rows.csv").write_text("path\na.png\n")
    with pytest.raises(UsageError, match="paths: give their"):
        resolve_options(tmp_path / "rows.csv", ConvertOptions(image_column="image"))


def test_folders_take_no_image_column(image_folder):
    with pytest.raises(UsageError, match="image column: for"):
        resolve_options(DiskPath(image_folder), ConvertOptions(image_column="image"))
