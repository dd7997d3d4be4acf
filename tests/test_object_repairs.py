"""A repair in an object store gives back the bytes that were there, wherever it is killed."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
import test_repairs
from conftest import convert_folder, make_environment, write_image
from damaging import EXHAUSTIVE
from servers import Server, count_writes, kill_at, upload_tree
from test_stores import read_tree

from converter.commits.replacements import clean
from converter.errors import DatasetError
from converter.storage.files import Layout
from converter.storage.object_requests import put_object
from converter.storage.objects import ObjectPath
from pipelines import repair

IN_MEMORY = ["--direct_running_mode=in_memory"]
ONE = test_repairs.ONE


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, one of them bad, and the data set of them: `images` and `out`."""
    root = tmp_path_factory.mktemp("root")
    for seed in range(30):
        write_image(root / "images" / "ab"[seed % 2] / f"{seed}.png", seed)
    (root / "images" / "b" / "bad.png").write_bytes(b"bad")
    convert_folder(root / "images", root / "out", test_repairs.OPTIONS)
    return root


def damage_stored(
    damage: Callable[[Path], None], root: Path, tmp_path: Path, server: Server
) -> ObjectPath:
    """The data set in a store, damaged."""
    shutil.copytree(root / "out", tmp_path / "damaged")
    damage(tmp_path / "damaged")
    return upload_tree(tmp_path / "damaged", server.path(uuid.uuid4().hex))


def damage_much(out: Path) -> None:
    test_repairs.cut_two_shards(out)
    test_repairs.lose_every_small_file(out)


@pytest.mark.parametrize("damage", [*test_repairs.DAMAGES, damage_much])
def test_what_is_damaged_comes_back_byte_for_byte(
    server: Server, root: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    out = damage_stored(damage, root, tmp_path, server)
    result = repair(out, root / "images", IN_MEMORY)
    assert result.left == ()
    assert read_tree(out) == read_tree(root / "out")


def test_originals_may_lie_in_a_store(server: Server, root: Path, tmp_path: Path) -> None:
    images = upload_tree(root / "images", server.path(uuid.uuid4().hex))
    put_object(images / "a" / "new.png", (root / "images" / "a" / "2.png").read_bytes())
    out = damage_stored(test_repairs.flip_in_an_image, root, tmp_path, server)
    assert repair(out, images, IN_MEMORY).left == ()
    assert read_tree(out) == read_tree(root / "out")
    assert repair(tmp_path / "damaged", images, IN_MEMORY).left == ()
    assert read_tree(tmp_path / "damaged") == read_tree(root / "out")
    put_object(images / "a" / "2.png", b"another")
    put_object(out / f"{ONE}.tfrecord", b"")
    result = repair(out, images, IN_MEMORY)
    assert {fault.file for fault in result.left} == {f"{ONE}.tfrecord"}


def test_a_repair_goes_on_wherever_it_was_killed(
    server: Server, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = damage_stored(damage_much, root, tmp_path, server)
    whole = read_tree(root / "out")
    total = count_writes(monkeypatch, lambda: repair(out, root / "images", IN_MEMORY))
    for number in range(1, total + 1, 1 if EXHAUSTIVE else total // 4):
        out.remove_tree()
        upload_tree(tmp_path / "damaged", out)
        before = read_tree(out)
        with monkeypatch.context() as patch:
            kill_at(patch, number)
            with contextlib.suppress(Exception):  # Beam wraps it
                repair(out, root / "images", IN_MEMORY)
        for name, data in read_tree(out).items():
            assert name.startswith(".shardmill/") or data in (whole[name], before.get(name)), number
        Layout(out).lock.unlink(missing_ok=True)
        assert repair(out, root / "images", IN_MEMORY).left == ()
        assert read_tree(out) == whole, number


def start_repair(server: Server, root: Path, out: ObjectPath, run: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pipelines", "repair", str(out)]
    return subprocess.Popen(
        [*command, "--images", str(root / "images"), "--no-progress", run],
        env=make_environment(**server.environment), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


# At every request that writes, both stores are looked at above; here it is a process.
@pytest.mark.parametrize("server", ["gs"], indirect=True)
def test_a_killed_process_loses_nothing(server: Server, root: Path, tmp_path: Path) -> None:
    out = damage_stored(damage_much, root, tmp_path, server)
    server.set_faults(latency=0.04)
    process = start_repair(server, root, out, "--workers=1")
    while process.poll() is None and not Layout(Layout(out).repair).receipts.is_dir():
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    server.set_faults()
    assert Layout(out).repair in [path for path, _ in clean(out, dry_run=True)]
    again = start_repair(server, root, out, *IN_MEMORY)
    said = again.communicate(timeout=120)
    assert again.returncode == 0, said
    assert read_tree(out) == read_tree(root / "out")


def test_without_a_manifest_there_is_nothing_to_go_by(s3_server: Server, root: Path) -> None:
    s3_server.set_faults()
    out = upload_tree(root / "out", s3_server.path(uuid.uuid4().hex))
    Layout(out).manifest.unlink(missing_ok=True)
    with pytest.raises(DatasetError, match=": convert it again"):
        repair(out, root / "images")
