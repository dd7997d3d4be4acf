"""What IMAGES is taken for, where it is taken for nothing."""

from pathlib import Path

import pytest

from converter.errors import ShardmillError, UsageError
from converter.options import ConvertOptions
from converter.sources.recognition import resolve_options
from converter.sources.scan import scan_images
from converter.storage.locate import locate


@pytest.mark.parametrize("source", ["auto", "webdataset"])
@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("train-000000.tar", "*.tar"), ("000.tar.gz", "*.tar.gz"), ("train/0.TAR", "train/*.TAR"),
    ],
)  # fmt: skip
def test_tars_that_are_links_out_of_their_folder_are_to_be_named(
    tmp_path: Path, name, pattern, source
) -> None:
    """As in the cache of Hugging Face, where files are links to blobs beside the snapshots."""
    (tmp_path / "snapshot" / "train").mkdir(parents=True)
    (tmp_path / "blob").write_bytes(b"\0" * 10_240)
    (tmp_path / "snapshot" / name).symlink_to(tmp_path / "blob")
    (tmp_path / "snapshot" / "0.parquet").symlink_to(tmp_path / "blob")
    with pytest.raises(UsageError) as caught:
        resolve_options(locate(tmp_path / "snapshot"), ConvertOptions(source=source))
    assert str(caught.value).endswith(f"give the pattern '{tmp_path}/snapshot/{pattern}'")


def test_class_folders_beside_a_link_to_a_tar_stay_class_folders(tmp_path: Path) -> None:
    (tmp_path / "images" / "cats").mkdir(parents=True)
    (tmp_path / "images" / "cats" / "1.png").touch()
    (tmp_path / "backup.tar").touch()
    (tmp_path / "images" / "backup.tar").symlink_to(tmp_path / "backup.tar")
    inventory = scan_images(locate(tmp_path / "images"))
    assert inventory.classes == ("cats",)
    assert [(file.path, file.code) for file in inventory.skipped] == [
        ("backup.tar", "skipped_link")
    ]


@pytest.mark.parametrize("source", ["table", "webdataset", "parquet", "tfds", "shardmill", "coco"])
def test_what_is_said_to_be_something_else_is_refused_in_one_line(tmp_path: Path, source) -> None:
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats" / "1.png").touch()
    with pytest.raises(ShardmillError) as caught:
        scan_images(locate(tmp_path), ConvertOptions(source=source))
    assert str(tmp_path) in str(caught.value)
