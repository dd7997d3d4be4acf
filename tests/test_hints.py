"""What a message proposes where a table does not say where its images are."""

import os
import tarfile
from pathlib import Path

import pytest
from conftest import write_image

from converter.sources.hints import find_path_format, propose_path_option
from converter.storage.disk import DiskPath


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> DiskPath:
    folder = tmp_path_factory.mktemp("hints")
    names = (
        "1.png", "train/abc.png", "train/def.png", "train/abc.txt", "a/b/x1.jpg", "a/b/x2.jpg",
        "{odd}/y.png", "cats/c1.png", "dogs/c2.png", "deep/er/than/z.png", "train/sub/v.JPEG",
    )  # fmt: skip
    for name in names:
        write_image(folder / name, 1)
    return DiskPath(folder)


@pytest.mark.parametrize(
    ("cells", "found"),
    [
        (["1.png"], "{id}"),
        (["1"], "{id}.png"),
        ([1, 2], ""),  # half of them is not enough
        ([1, None], "{id}.png"),
        (["abc", "def", "gone"], "train/{id}.png"),
        (["abc.png"], "train/{id}"),
        (["./train//abc"], "{id}.png"),
        (["sub/v"], "train/{id}.JPEG"),
        (["b/x1", "b/x2"], "a/{id}.jpg"),
        (["x1", "x2"], "a/b/{id}.jpg"),
        (["y"], "{{odd}}/{id}.png"),
        (["c1", "c2"], ""),  # in a folder for each class
        (["z"], ""),  # too deep
        (["bc"], ""),  # the end of a name is another name
        (["ab"], ""),
        (["p"], ""),  # only in suffixes
        (["none"], ""),
        (["../hints/1", "/etc/passwd", "a\0b", "", None, [1], True], ""),
        (["\ud800"], ""),
        (["x" * 5000], ""),
        ([], ""),
    ],
)
def test_files_that_are_there_tell_the_format(root, cells, found):
    assert find_path_format(root, "id", [{"id": cell} for cell in cells]) == found


def test_an_archive_is_looked_into(root, tmp_path):
    with tarfile.open(tmp_path / "images.tar", "w") as tar:
        tar.add(root, ".")
    archive = DiskPath(tmp_path / "images.tar")
    assert find_path_format(archive, "id", [{"id": "abc"}, {"id": "def"}]) == "train/{id}.png"
    assert find_path_format(archive, "id", [{"id": "c1"}, {"id": "c2"}]) == ""


def test_a_folder_that_cannot_be_read_costs_the_proposal_alone(root, tmp_path):
    (tmp_path / "bad.tar").write_bytes(b"no tar")
    assert find_path_format(DiskPath(tmp_path / "bad.tar"), "id", [{"id": "abc"}]) == ""
    if os.geteuid():
        (tmp_path / "closed").mkdir(mode=0)
        assert find_path_format(DiskPath(tmp_path / "closed"), "id", [{"id": "abc"}]) == ""


def test_a_format_cannot_name_every_column(root):
    for column in ("a:b", "a!r", "a{b", "a}"):
        assert find_path_format(root, column, [{column: "abc"}]) == ""


@pytest.mark.parametrize("column", ["filename", "file", "image", "img", "image_path", "image_id",
                                    "id", "file_name", "Image", " ID ", "img-path", "Image Index",
                                    "id_code", "image_name", "isic_id"])  # fmt: skip
def test_a_column_is_proposed_by_its_name(root, column):
    quoted = column if column.isidentifier() or column == "img-path" else f"'{column}'"
    row = {"patient": "abc", column: "1.png"}
    assert propose_path_option(root, [row]).endswith(f": give --path-column {quoted}")
    proposal = propose_path_option(root, [{**row, column: "abc"}])
    assert proposal.endswith(f": give --path-format 'train/{{{column}}}.png'")


@pytest.mark.parametrize(
    ("row", "proposal"),
    [
        ({"patient_id": "7", "image_id": "abc"}, "'train/{image_id}.png'"),
        ({"image": "gone", "id": "abc"}, "'train/{id}.png'"),  # what is there counts
        ({"image": "gone.png"}, "--path-column image, and their folder with --table-root"),
        ({"image": "gone"}, "'{image}.jpg', or another suffix, and their folder with"),
        ({"image": None}, "'{image}.jpg', or another"),
    ],
)
def test_what_is_there_is_proposed_before_what_only_has_the_name(root, row, proposal):
    assert proposal in propose_path_option(root, [row])


def test_nothing_is_proposed_where_no_name_looks_like_it(root):
    assert propose_path_option(root, [{"age": "1.png", "sex": "abc"}]) == ""
    assert propose_path_option(root, []) == ""


def test_few_folders_are_looked_into(tmp_path, monkeypatch):
    listed = []
    names = DiskPath.list_names
    monkeypatch.setattr(
        DiskPath, "list_names", lambda self, prefix="": listed.append(1) or names(self, prefix)
    )
    for number in range(100):
        (tmp_path / f"{number}" / f"{number}").mkdir(parents=True)
    assert find_path_format(DiskPath(tmp_path), "id", [{"id": "abc"}]) == ""
    assert len(listed) <= 2 * (1 + 32 + 32)
    assert Path(tmp_path, "99").is_dir()
