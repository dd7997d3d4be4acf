"""What IMAGES is taken for, where it is taken for nothing."""

from pathlib import Path

import pytest

from converter.errors import ShardmillError, UsageError
from converter.options import ConvertOptions
from converter.sources.recognition import resolve_options
from converter.sources.scan import scan_images
from converter.storage.locate import locate


@pytest.mark.parametrize("name", ["train-000000.tar", "000.tar.gz"])
def test_tars_that_are_links_out_of_their_folder_are_to_be_named(tmp_path: Path, name) -> None:
    """As in the cache of Hugging Face, where files are links to blobs beside the snapshots."""
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "blob").write_bytes(b"\0" * 10_240)
    (tmp_path / "snapshot" / name).symlink_to(tmp_path / "blob")
    with pytest.raises(UsageError, match=r"\*\.tar'$"):
        resolve_options(locate(tmp_path / "snapshot"), ConvertOptions())


@pytest.mark.parametrize("source", ["table", "webdataset", "parquet", "tfds", "shardmill", "coco"])
def test_what_is_said_to_be_something_else_is_refused_in_one_line(tmp_path: Path, source) -> None:
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats" / "1.png").touch()
    with pytest.raises(ShardmillError) as caught:
        scan_images(locate(tmp_path), ConvertOptions(source=source))
    assert str(tmp_path) in str(caught.value)
