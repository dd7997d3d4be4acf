"""An export appears whole or not at all, wherever it is interrupted, and in no one's way."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest
from exported import list_tree, make_folder, make_table
from faults.injected import mount_tmpfs, remount

from converter.commits.replacements import clean
from converter.errors import DatasetError, LockedError, OutputError, RecordError, UsageError
from converter.exports import exporting, image_folders, targets
from converter.format.manifest import read_manifest
from converter.format.tfrecords import frame_record
from converter.storage.disk import DiskPath
from converter.upkeep.contents import read_bounds
from pipelines import export
from pipelines.cli.commands import main

KINDS = ("folders", "webdataset", "parquet")
NEED_ROOT = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mount") is None, reason="mounting takes root"
)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_table(tmp_path_factory.mktemp("data"))


def list_all(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


class KilledError(BaseException):
    """Stands for a kill: nothing is cleared up after it."""


def kill_at(monkeypatch: pytest.MonkeyPatch, number: int) -> list[int]:
    """Ends the export at that write, rename or removal, and leaves everything as it is then.

    Returns a list to which each of them before is added.
    """
    steps: list[int] = []

    def step() -> None:
        if len(steps) == number:
            raise KilledError
        steps.append(len(steps))

    for name in ("write_new", "create", "move_files", "unlink"):
        real = getattr(DiskPath, name)

        def precede(self, *arguments, real=real, **more):
            if not self.name.startswith("lock"):
                step()
            return real(self, *arguments, **more)

        monkeypatch.setattr(DiskPath, name, precede)
    monkeypatch.setattr(targets.Target, "_discard", lambda _: None)
    return steps


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", [0, 1, 2, 3, 4, -5, -4, -3, -2, -1])
def test_after_a_kill_the_same_command_gives_a_whole_export(kind, number, out, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        steps = kill_at(patch, -1)
        export(out, tmp_path / "whole", kind=kind)
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, number % len(steps))
        with pytest.raises(KilledError):
            export(out, tmp_path / "export", kind=kind)
    visible = {name.partition("/")[0] for name in list_all(tmp_path / "export")} - {".shardmill"}
    whole = {path.name for path in (tmp_path / "whole").iterdir()}
    assert visible in (set(), whole - {targets.MARKER}, whole)
    assert bool(visible) == (number in (-3, -2, -1))
    if targets.MARKER in visible:
        assert list_tree(tmp_path / "whole").items() <= list_tree(tmp_path / "export").items()
    export(out, tmp_path / "export", kind=kind)
    assert list_all(tmp_path / "export") == list_all(tmp_path / "whole")
    assert list_tree(tmp_path / "export") == list_tree(tmp_path / "whole")


SLOW = """
import sys, time
from converter.storage.disk import DiskPath
write = DiskPath.write_new
def slowly(self, data):
    write(self, data)
    sys.stdout.write("wrote\\n")  # in one piece, as `print` of several threads is not
    sys.stdout.flush()
    time.sleep(0.3)
DiskPath.write_new = slowly
from pipelines import export
export(sys.argv[1], sys.argv[2])
"""


STEADY = """
import sys, time
from converter.storage.disk import DiskPath
for name in ("write_new", "create", "move_files", "remove_folder", "unlink"):
    def wait(*given, real=getattr(DiskPath, name), **more):
        time.sleep(0.01)
        return real(*given, **more)
    setattr(DiskPath, name, wait)
from pipelines.cli.commands import main
import converter.exports.exporting
print("begins", flush=True)
main(["export", *sys.argv[1:], "--quiet"])
"""


def start_slowly(out: Path, folder: Path) -> subprocess.Popen[str]:
    """An export in another process, which has written a few images."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(out), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    for _ in range(4):  # by then all threads run
        assert process.stdout.readline() == "wrote\n"
    return process


def test_a_killed_process_leaves_nothing_that_could_be_taken_for_an_export(out, tmp_path):
    with start_slowly(out, tmp_path / "export") as process:
        with pytest.raises(LockedError, match=f"process {process.pid}"):
            export(out, tmp_path / "export")
        process.send_signal(signal.SIGKILL)
    assert [path.name for path in (tmp_path / "export").iterdir()] == [".shardmill"]
    export(out, tmp_path / "export")
    export(out, tmp_path / "whole")
    assert list_tree(tmp_path / "export") == list_tree(tmp_path / "whole")


@pytest.mark.parametrize("kind", KINDS)
def test_after_kills_at_any_moment_the_same_command_gives_a_whole_export(kind, out, tmp_path):
    export(out, tmp_path / "whole", kind=kind)
    whole = {path.name for path in (tmp_path / "whole").iterdir()}
    words = [sys.executable, "-c", STEADY, str(out), str(tmp_path / "export"), "--as", kind]
    random = Random(kind)
    for _ in range(5):
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "begins\n"
            time.sleep(random.uniform(0, 0.4))
            process.kill()
        names = {name.partition("/")[0] for name in list_all(tmp_path / "export")} - {".shardmill"}
        assert names in (set(), whole - {targets.MARKER}, whole)
        if targets.MARKER in names:
            break
    if targets.MARKER not in names:
        export(out, tmp_path / "export", kind=kind)
    assert list_tree(tmp_path / "whole").items() <= list_tree(tmp_path / "export").items()


def test_what_a_late_thread_left_is_in_no_ones_way(out, tmp_path):
    export(out, tmp_path / "whole")
    (name, _), *_ = list_tree(tmp_path / "whole" / "train").items()
    late = tmp_path / "export" / ".shardmill" / "export" / "train" / name
    late.parent.mkdir(parents=True)
    late.write_bytes(b"late")
    export(out, tmp_path / "export")
    assert list_tree(tmp_path / "export") == list_tree(tmp_path / "whole")


def test_an_interruption_leaves_nothing(out, tmp_path):
    with start_slowly(out, tmp_path / "export") as process:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) != 0
    assert not (tmp_path / "export").exists()


def test_an_interrupted_export_of_something_else_is_not_touched(out, tmp_path):
    with start_slowly(out, tmp_path / "export") as process:
        process.kill()
    before = list_all(tmp_path / "export")
    other = make_folder(tmp_path / "other")
    for wrong in ({"kind": "parquet"}, {"split": "test"}):
        with pytest.raises(UsageError, match="of something else"):
            export(out, tmp_path / "export", **wrong)
    with pytest.raises(UsageError, match="of something else"):
        export(other, tmp_path / "export")
    (tmp_path / "export" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"mine\.txt"):
        export(out, tmp_path / "export")
    # But for the lock of a process that is gone.
    assert list_all(tmp_path / "export") == before - {".shardmill/lock"} | {"mine.txt"}


def test_a_finished_export_is_not_touched(out, tmp_path):
    export(out, tmp_path / "export")
    before = list_tree(tmp_path / "export")
    with pytest.raises(UsageError, match="holds a finished export"):
        export(out, tmp_path / "export")
    assert list_tree(tmp_path / "export") == before


def test_a_folder_that_is_not_empty_is_not_touched(out, tmp_path):
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="is not empty"):
        export(out, tmp_path / "export")
    assert list_all(tmp_path / "export") == {"mine.txt"}


def test_an_empty_folder_and_a_link_to_one_are_used(out, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    export(out, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "metadata.jsonl").exists()


@pytest.mark.parametrize(
    ("folder", "match"),
    [
        ("{out}", "inside the data set"),
        ("{out}/export", "inside the data set"),
        ("{out}/..", "lies inside"),
        ("{out}/manifest.json", "inside the data set"),
        ("{here}/file", "is a file"),
        ("{here}/other/export", "inside the data set"),
        ("", "is not empty"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused(folder, match, out, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    other = make_folder(tmp_path)
    other.rename(tmp_path / "other")
    monkeypatch.chdir(tmp_path)
    before = list_all(out), list_all(tmp_path)
    with pytest.raises(UsageError, match=match):
        export(out, folder.format(out=out, here=tmp_path) or ".")
    assert (list_all(out), list_all(tmp_path)) == before


def test_a_file_in_the_way_is_named(out, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is in the way"):
        export(out, tmp_path / "file" / "export")


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_is_one_line_and_leaves_nothing(kind, out, tmp_path, monkeypatch):
    calls = iter(range(3))

    def fill(real):
        def write(self, *arguments, **more):
            if next(calls, None) is None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
            return real(self, *arguments, **more)

        return write

    name = "write_new" if kind == "folders" else "create"
    monkeypatch.setattr(DiskPath, name, fill(getattr(DiskPath, name)))
    with pytest.raises(OutputError, match="No space left") as caught:
        export(out, tmp_path / "export", kind=kind)
    assert "nothing is left" in str(caught.value)
    assert not (tmp_path / "export").exists()


@NEED_ROOT
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("limit", ["4k", "8k", "16k", "4m,nr_inodes=5", "4m,nr_inodes=9"])
def test_a_real_disk_that_is_full_is_one_line(kind, limit, out, tmp_path, capsys):
    disk = tmp_path / "disk"
    with mount_tmpfs(disk, f"size={limit}"):
        words = ["export", str(out), str(disk / "export"), "--as", kind, "--no-progress"]
        code = main(words)
        printed, errors = capsys.readouterr()
        assert (code, printed, errors.count("\n")) == (1, "", 1)
        assert "No space left on device" in errors
        assert list_all(disk) == set()
        remount(disk, "size=4m,nr_inodes=1000")
        assert main([*words, "--quiet"]) == 0
        export(out, tmp_path / "here", kind=kind)
        assert list_tree(disk / "export") == list_tree(tmp_path / "here")


@NEED_ROOT
def test_a_read_only_disk_is_one_line(out, tmp_path, capsys):
    with mount_tmpfs(tmp_path / "disk", "size=4m"):
        (tmp_path / "disk" / "empty").mkdir()
        remount(tmp_path / "disk", "ro")
        for name in ("export", "empty"):
            folder = tmp_path / "disk" / name
            assert main(["export", str(out), str(folder)]) == 1
            line = f"shardmill: error: {folder} cannot be written: Read-only file system\n"
            assert capsys.readouterr().err == line


@NEED_ROOT
def test_a_mount_point_is_used_as_it_is(out, tmp_path):
    with mount_tmpfs(tmp_path / "disk", "size=4m"):
        export(out, tmp_path / "disk")
        assert (tmp_path / "disk" / "metadata.jsonl").exists()


def test_a_folder_of_the_kernel_is_one_line(out):
    with pytest.raises(UsageError, match="/proc/export"):
        export(out, "/proc/export")


def damage(out: Path, record: int, at: int = -9) -> str:
    """Changes a byte of a record of the first shard; returns the shard's name."""
    shard = read_manifest(DiskPath(out)).shards[0]
    begin, end = read_bounds(DiskPath(out), shard)[record : record + 2]
    data = bytearray((out / shard.name).read_bytes())
    data[(begin if at > 0 else end) + at] ^= 1
    (out / shard.name).write_bytes(data)
    return shard.name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", [3, 20, -1, -9])
def test_a_damaged_record_ends_an_export_and_is_named(kind, at, tmp_path):
    out = make_table(tmp_path)
    shard = damage(out, 2, at)
    with pytest.raises(RecordError) as caught:
        export(out, tmp_path / "export", kind=kind)
    assert (caught.value.shard, caught.value.record) == (shard, 2)
    assert not (tmp_path / "export").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_record_can_be_left_out(kind, tmp_path):
    out = make_table(tmp_path)
    whole = export(out, tmp_path / "whole", kind=kind)
    shard, split = damage(out, 2), read_manifest(out).shards[0].split
    damage(out, 5)
    result = export(out, tmp_path / "export", kind=kind, on_damage="skip")
    assert result.damaged == 2
    assert [(error.shard, error.record) for error in result.errors] == [(shard, 2), (shard, 5)]
    assert result.splits[split].images == whole.splits[split].images - 2
    assert {s: f for s, f in result.splits.items() if s != split} == {
        s: f for s, f in whole.splits.items() if s != split
    }


def test_a_sound_record_that_does_not_fit_the_manifest_is_damage(tmp_path):
    out = make_folder(tmp_path)
    shard = read_manifest(out).shards[0]
    begin, end = read_bounds(out, shard)[:2]
    data = (out / shard.name).read_bytes()
    payload = data[12 : end - begin - 4].replace(b"image/class/label", b"image/class/lapel")
    (out / shard.name).write_bytes(frame_record(payload) + data[end:])
    with pytest.raises(RecordError, match="image/class/label is missing"):
        export(out, tmp_path / "export")


@pytest.mark.parametrize("suffix", [".tfrecord", ".tfindex"])
@pytest.mark.parametrize("change", ["lost", "short", "folder"])
def test_a_shard_that_is_missing_or_cut_ends_an_export(suffix, change, tmp_path):
    out = make_folder(tmp_path)
    name = read_manifest(out).shards[0].name.replace(".tfrecord", suffix)
    data = (out / name).read_bytes()
    (out / name).unlink()
    if change == "short":
        (out / name).write_bytes(data[:-30])
    elif change == "folder":
        (out / name).mkdir()
    with pytest.raises(DatasetError, match=name.partition(".")[0]):
        export(out, tmp_path / "export", on_damage="skip")
    assert not (tmp_path / "export").exists()


def test_an_unfinished_data_set_is_refused(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(DatasetError, match=r"no manifest\.json"):
        export(tmp_path / "out", tmp_path / "export")


def test_a_data_set_that_is_replaced_meanwhile_ends_an_export(tmp_path, monkeypatch):
    out = make_folder(tmp_path)
    write = exporting.write_folders

    def replace(*arguments):
        time.sleep(0.01)
        (out / "manifest.json").write_bytes((out / "manifest.json").read_bytes())
        return write(*arguments)

    monkeypatch.setattr(exporting, "write_folders", replace)
    with pytest.raises(DatasetError, match="was replaced"):
        export(out, tmp_path / "export")
    assert not (tmp_path / "export").exists()


def test_no_image_is_written_any_more_when_an_export_ends(out, tmp_path, monkeypatch):
    real = DiskPath.write_new

    def write_late(self, data):
        time.sleep(0.05)
        real(self, data)

    def refuse(_):
        raise ValueError("no row")

    monkeypatch.setattr(DiskPath, "write_new", write_late)
    monkeypatch.setattr(image_folders, "dump_row", refuse)
    with pytest.raises(ValueError, match="no row") as caught:
        export(out, tmp_path / "export")
    time.sleep(0.3)
    assert caught  # with its frames, and what they hold
    assert not (tmp_path / "export").exists()


def test_clean_does_not_take_an_export_for_a_data_set(out, tmp_path):
    export(out, tmp_path / "export")
    before = list_all(tmp_path / "export")
    with pytest.raises(UsageError):
        clean(tmp_path / "export")
    assert list_all(tmp_path / "export") == before


def test_the_marker_says_what_was_exported(out, tmp_path):
    export(out, tmp_path / "export", split="test")
    marker = json.loads((tmp_path / "export" / targets.MARKER).read_bytes())
    assert (marker["kind"], marker["split"], marker["damaged"]) == ("folders", "test", 0)
    assert marker["splits"].keys() == {"test"}
