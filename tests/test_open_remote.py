"""A data set in a store that is being replaced is opened once it is there again."""

import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import convert_folder, write_image
from servers import Server, upload_tree

from converter.errors import DatasetError
from converter.options import ConvertOptions
from converter.storage.files import Layout
from converter.storage.object_requests import put_object
from converter.storage.objects import ObjectPath
from reader import open_shards


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root")
    for seed in range(4):
        write_image(root / "images" / "a" / f"{seed}.png", seed)
    convert_folder(root / "images", root / "out", ConvertOptions(image_size=(8, 10)))
    return root / "out"


@pytest.fixture
def replaced(server: Server, folder: Path) -> Iterator[ObjectPath]:
    """A data set that is being replaced, with a shard that is not yet what the manifest states."""
    out = upload_tree(folder, server.path(uuid.uuid4().hex))
    put_object(Layout(out).replacing, b"{}")
    Layout(out).manifest.unlink(missing_ok=True)
    return out


def test_opening_it_meanwhile_waits(replaced: ObjectPath, folder: Path) -> None:
    shard = "train-00000-of-00001.tfrecord"
    put_object(replaced / shard, b"of the old one")
    put_object(Layout(replaced).manifest, (folder / "manifest.json").read_bytes())

    def finish() -> None:
        time.sleep(0.5)
        put_object(replaced / shard, (folder / shard).read_bytes())
        Layout(replaced).replacing.unlink(missing_ok=True)

    thread = threading.Thread(target=finish)
    with replaced.lock():
        thread.start()
        assert open_shards(replaced).splits["train"].records == 4
        thread.join()


def test_a_replacement_that_was_killed_is_not_waited_for(replaced: ObjectPath) -> None:
    begun = time.monotonic()
    with pytest.raises(DatasetError, match=r"replaced when .* interrupted"):
        open_shards(replaced)
    assert time.monotonic() - begun < 5


def test_waiting_has_an_end(replaced: ObjectPath, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARDMILL_STORE_SECONDS", "1")
    with (
        replaced.lock(),
        pytest.raises(DatasetError, match="replaced for longer than 1 s"),
    ):
        open_shards(replaced)


def test_what_ends_between_two_looks_is_seen(
    replaced: ObjectPath, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest was not there, and the sign of the replacement is not there any more."""
    manifest = (folder / "manifest.json").read_bytes()
    is_file = ObjectPath.is_file

    def finish(path: ObjectPath) -> bool:
        if path == Layout(replaced).replacing:
            put_object(Layout(replaced).manifest, manifest)
            path.unlink(missing_ok=True)
        return is_file(path)

    monkeypatch.setattr(ObjectPath, "is_file", finish)
    open_shards(replaced)
    assert Layout(replaced).manifest.read_bytes() == manifest
