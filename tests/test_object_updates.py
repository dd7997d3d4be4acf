"""An update in an object store gives what one in a folder gives, wherever it is killed."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from conftest import convert_folder, make_environment, run_conversion, write_image
from damaging import EXHAUSTIVE
from servers import count_writes, kill_at, upload_tree
from test_stores import read_tree

from converter.commits.replacements import find_manifest, replace_dataset, settle_folder
from converter.errors import DatasetError, OutputError, UsageError
from converter.format.manifest import read_manifest
from converter.options import ConvertOptions
from converter.storage import object_requests
from converter.storage.files import Layout
from converter.storage.object_requests import copy_objects, put_object
from converter.storage.objects import ObjectPath
from converter.upkeep.verification import verify_dataset
from pipelines.jobs.convert import Conversion
from reader import open_shards

OPTIONS = ConvertOptions(
    image_size=(8, 10), encoding="png", num_shards=3, validation_split=0.3, seed=3
)
IN_MEMORY = ["--direct_running_mode=in_memory"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data sets `before` and `after` an update, both of a folder, and the `images` of now."""
    root = tmp_path_factory.mktemp("root")
    for seed in range(24):
        write_image(root / "images" / "bd"[seed % 2] / f"{seed}.png", seed)
    (root / "images" / "b" / "bad.png").write_bytes(b"bad")
    convert_folder(root / "images", root / "before", OPTIONS)
    (root / "images" / "b" / "8.png").unlink()
    write_image(root / "images" / "a" / "new.png", 90)
    shutil.copytree(root / "before", root / "after")
    update(root / "images", root / "after")
    return root


@pytest.fixture
def out(server, root: Path) -> ObjectPath:
    """The data set before the update, in each kind of store."""
    return upload_tree(root / "before", server.path(uuid.uuid4().hex))


def update(images, out) -> Conversion:
    return run_conversion(images, out, None, IN_MEMORY, mode="update")


@pytest.mark.parametrize("remote", [False, True])
def test_an_update_gives_the_bytes_of_one_in_a_folder(server, root, out, monkeypatch, remote):
    images = (
        upload_tree(root / "images", server.path(uuid.uuid4().hex)) if remote else root / "images"
    )
    copied = []

    def copy(pairs):
        copied.extend(pairs := list(pairs))
        copy_objects(pairs)

    monkeypatch.setattr(object_requests, "copy_objects", copy)
    found = update(images, out)
    assert read_tree(out) == read_tree(root / "after")
    assert not Layout(out).stage.exists()
    assert (found.update.added, found.update.removed) == (1, 1)
    assert (found.written, found.kept) == (2, 2)
    # What is as it was stays where it is.
    shards = {target.name for _, target in copied if target.suffix == ".tfrecord"}
    assert len(shards) == found.written
    assert not shards & found.update.kept.keys()
    assert update(images, out).unchanged
    assert open_shards(out).class_names == ["b", "d", "a"]


def test_a_shard_with_another_byte_is_written_again(root, s3_server):
    s3_server.set_faults()
    out = upload_tree(root / "before", s3_server.path(uuid.uuid4().hex))
    kept = update(root / "images", out).update.kept
    out.remove_tree()
    upload_tree(root / "before", out)
    damaged = min(name for name in kept if name.startswith("train"))
    data = bytearray((out / damaged).read_bytes())
    data[250] ^= 1
    put_object(out / damaged, bytes(data))
    assert damaged not in update(root / "images", out).update.kept
    assert verify_dataset(out) == []


def test_an_update_goes_on_wherever_it_was_killed(server, root, out, monkeypatch):
    total = count_writes(monkeypatch, lambda: update(root / "images", out))
    old, new = read_tree(root / "before"), read_tree(root / "after")
    for number in range(1, total + 1, 1 if EXHAUSTIVE else total // 4):
        out.remove_tree()
        upload_tree(root / "before", out)
        with monkeypatch.context() as patch:
            kill_at(patch, number)
            with contextlib.suppress(Exception):  # Beam wraps it
                update(root / "images", out)
        tree = read_tree(out)
        if "manifest.json" in tree:
            wanted = new if tree["manifest.json"] == new["manifest.json"] else old
            assert wanted.items() <= tree.items(), number
        assert find_manifest(out) is not None
        Layout(out).lock.unlink(missing_ok=True)
        Layout(Layout(out).stage).lock.unlink(missing_ok=True)
        update(root / "images", out)
        assert read_tree(out) == new, number
        assert not Layout(out).stage.exists()


def start(server, images: Path, out: ObjectPath, run: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pipelines", "convert", str(images), str(out), "--update"]
    return subprocess.Popen(
        [*command, "--no-progress", run],
        env=make_environment(**server.environment), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


# At every request that writes, both stores are looked at above; here it is a process.
@pytest.mark.parametrize(
    ("server", "moment"), [("s3", "writing"), ("gs", "replacing")], indirect=["server"]
)
def test_a_killed_process_loses_nothing(server, root, out, moment):
    layout = Layout(out)
    sign = {
        "writing": Layout(layout.stage).plan,
        "replacing": layout.replacing,
    }[moment]
    server.set_faults(latency=0.04)
    process = start(server, root / "images", out, "--workers=1")
    while process.poll() is None and not sign.is_file():
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    server.set_faults()
    again = start(server, root / "images", out, *IN_MEMORY)
    said = again.communicate(timeout=120)
    assert again.returncode == 0, said
    assert read_tree(out) == read_tree(root / "after")
    assert not layout.stage.exists()


def test_of_two_updates_at_once_one_does_the_work(server, root, out):
    server.set_faults(latency=0.03)
    processes = [start(server, root / "images", out, *IN_MEMORY) for _ in range(2)]
    said = [process.communicate(timeout=120) for process in processes]
    codes = [process.returncode for process in processes]
    server.set_faults()
    assert 0 in codes, said
    for code, (_, errors) in zip(codes, said, strict=True):
        if code:
            assert "is being written by process" in errors
            assert errors.strip().count("\n") == 0
    assert read_tree(out) == read_tree(root / "after")


def test_files_that_someone_else_wrote_meanwhile_are_left_alone(server, root, out, monkeypatch):
    manifest = json.loads(Layout(out).manifest.read_bytes())
    other = json.dumps({**manifest, "plan": "another"}).encode()

    def replace(out):
        put_object(Layout(out).manifest, other)
        replace_dataset(out)

    monkeypatch.setattr("pipelines.jobs.convert.replace_dataset", replace)
    with pytest.raises(OutputError, match="written by someone else"):
        update(root / "images", out)
    assert read_tree(out).items() >= {**read_tree(root / "before"), "manifest.json": other}.items()


def test_a_manifest_that_appears_in_between_is_not_overwritten(server, root, out, monkeypatch):
    def copy(pairs):
        copy_objects(pairs)
        put_object(Layout(out).manifest, b"of another")

    monkeypatch.setattr(object_requests, "copy_objects", copy)
    with pytest.raises(OutputError, match=r"manifest\.json exists again"):
        update(root / "images", out)
    assert settle_folder(out)
    assert Layout(out).manifest.read_bytes() == b"of another"
    assert not Layout(out).stage.exists()


def test_what_an_update_takes_over_has_to_be_there(s3_server, root, monkeypatch):
    s3_server.set_faults()
    out = upload_tree(root / "before", s3_server.path(uuid.uuid4().hex))
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.jobs.convert.replace_dataset", lambda out: None)
        kept = [*update(root / "images", out).update.kept]
    (out / kept[0]).unlink(missing_ok=True)
    with pytest.raises(DatasetError, match=f"^{kept[0]} is not in"):
        replace_dataset(out)
    assert read_manifest(out).updated == 0


def test_an_unfinished_conversion_in_a_store_is_not_updated(s3_server, root):
    out = s3_server.path(uuid.uuid4().hex)
    with pytest.raises(UsageError, match="holds no finished"):
        update(root / "images", out)
