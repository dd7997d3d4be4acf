"""Disks that are full, read-only or closed to us, originals that change: one line, nothing half."""

import itertools
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import (
    convert_folder,
    encode_image,
    make_environment,
    make_image,
    write_folder,
    write_image,
)
from faults.injected import mount_tmpfs, remount

from converter.commits.commit import commit
from converter.errors import OutputError, ShardmillError
from converter.options import ConvertOptions
from converter.planning.plan import write_plan
from converter.storage.files import Layout, name_index
from converter.upkeep.verification import verify_dataset
from converter.writing.shard_writer import Job, write_shard
from pipelines.cli.commands import main
from pipelines.jobs.preview import propose

OPTIONS = ConvertOptions(source="folders", image_size=(16, 16), encoding="raw", num_shards=6)
NEED_ROOT = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mount") is None, reason="mounting takes root"
)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 images that make 6 shards of about 10 kB."""
    root = tmp_path_factory.mktemp("images")
    for seed in range(60):
        write_image(root / "ab"[seed % 2] / f"{seed}.png", seed)
    return root


@pytest.fixture(scope="module")
def reference(images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a conversion without any fault gives."""
    out = tmp_path_factory.mktemp("reference") / "out"
    convert_folder(images, out, OPTIONS)
    return read_files(out)


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def assert_nothing_is_half(out: Path, reference: dict[str, bytes]) -> None:
    if out.exists():
        assert read_files(out).items() <= reference.items()


@NEED_ROOT
@pytest.mark.parametrize("limit", ["8k", "32k", "48k", "4m,nr_inodes=9", "4m,nr_inodes=16"])
def test_a_full_disk_is_named_and_the_same_again_ends_as_if_it_had_had_room(
    images: Path, tmp_path: Path, reference: dict[str, bytes], limit: str
) -> None:
    disk = tmp_path / "disk"
    with mount_tmpfs(disk, f"size={limit}"):
        out = disk / "out"
        with pytest.raises((OutputError, OSError), match="No space left") as caught:
            convert_folder(images, out, OPTIONS)
        if isinstance(caught.value, OutputError):
            assert re.search(r"on device \(\S+ k?M?B free\); finished", str(caught.value))
        assert_nothing_is_half(out, reference)
        assert "manifest.json" not in read_files(out)
        remount(disk, "size=4m,nr_inodes=1000")
        convert_folder(images, out, OPTIONS)
        assert read_files(out) == reference


@NEED_ROOT
def test_a_read_only_disk_is_one_line(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with mount_tmpfs(tmp_path / "disk", "size=4m"):
        remount(tmp_path / "disk", "ro")
        out = tmp_path / "disk" / "out"
        line = f"shardmill: error: {out} cannot be written: Read-only file system\n"
        for command in ("plan", "convert"):
            assert main([command, str(images), str(out)]) == 1
            assert capsys.readouterr().err == line


@NEED_ROOT
def test_a_finished_data_set_on_a_read_only_disk_is_still_confirmed_and_verified(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "disk" / "out"
    with mount_tmpfs(tmp_path / "disk", "size=4m"):
        convert_folder(images, out, OPTIONS)
        remount(tmp_path / "disk", "ro")
        options = ["--image-size=16", "--encoding=raw", "--num-shards=6"]
        assert main(["convert", str(images), str(out), *options]) == 0
        assert "nothing to do" in capsys.readouterr().out
        assert verify_dataset(out) == []
        assert main(["convert", str(images), str(out), *options, "--overwrite"]) == 1
        assert capsys.readouterr().err.endswith("cannot be written: Read-only file system\n")


def test_an_output_that_is_closed_to_us_is_one_line(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    user = os.geteuid()
    tmp_path.chmod(0o555)
    if user == 0:
        os.seteuid(65534)  # root may write everywhere
    try:
        assert main(["convert", str(images), str(tmp_path / "out")]) == 1
    finally:
        os.seteuid(user)
        tmp_path.chmod(0o755)
    message = capsys.readouterr().err
    assert re.fullmatch(r"shardmill: error: \S+( cannot be written)?: Permission denied\n", message)


def is_free(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return True
    return False


@pytest.mark.parametrize("spare", range(5))
def test_too_many_open_files_is_one_line_and_no_image_is_rejected_for_it(
    images: Path, tmp_path: Path, reference: dict[str, bytes], spare: int
) -> None:
    draft = propose(images, OPTIONS, always_sample=False).draft
    plan = write_plan(draft, OPTIONS, images=images, out=tmp_path / "out")
    job = Job(images=images, out=plan.out, options=OPTIONS)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    # What other tests have open may lie beyond what is free.
    free = (number for number in itertools.count() if is_free(number))
    limit = next(itertools.islice(free, spare, None))
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limits[1]))
    try:
        write_shard(plan.shards[0], job)
        failed = None
    except ShardmillError as error:
        failed = str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert (failed is None) == (spare > 2)
    assert failed is None or "Too many open files; finished shards are kept" in failed
    assert_nothing_is_half(plan.out, reference)
    convert_folder(images, plan.out, OPTIONS)
    assert read_files(plan.out) == reference


def test_originals_that_go_or_change_meanwhile_are_accounted_for(tmp_path: Path) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    for seed in range(12):
        write_image(images / "ab"[seed % 2] / f"{seed}.png", seed)
    draft = propose(images, OPTIONS, always_sample=False).draft
    plan = write_plan(draft, OPTIONS, images=images, out=out)
    (images / "a" / "0.png").unlink()
    (images / "a" / "2.png").write_bytes(encode_image(make_image(99), "BMP"))
    for shard in plan.shards:
        write_shard(shard, Job(images=images, out=out, options=OPTIONS))
    totals = commit(plan).totals
    assert (totals.scanned, totals.written) == (12, 10)
    assert totals.rejected == {"changed": 1, "vanished": 1}


STRACE = shutil.which("strace")
CONVERT = """
import sys
from converter.storage.disk import DiskPath as Path
from conftest import convert_folder
from converter.options import ConvertOptions
convert_folder(Path(sys.argv[1]), Path(sys.argv[2]), ConvertOptions(image_size=(8, 8)))
"""


def trace_conversion(images: Path, out: Path, log: Path) -> list[str]:
    """What a conversion asks of the system about files in `out`, in order, in short words."""
    calls = "fsync,rename,link,write"
    subprocess.run(
        [STRACE, "-f", "-y", "-qq", "-s", "0", "-e", f"trace={calls}", "-o", log, sys.executable,
         "-c", CONVERT, images, out],
        check=True, env=make_environment(),
    )  # fmt: skip
    steps = []
    for line in log.read_text().splitlines():
        call = re.match(r"\d+ +(\w+)\((.*)\) += (-?\d+)", line)
        if call is None or str(out) not in call[2] or call[3].startswith("-"):
            continue
        paths = re.findall(rf"{out}([^\"<>,]*)", call[2])
        names = [re.sub(r"\.[0-9a-f]{32}$", ".*", path.removeprefix("/")) for path in paths]
        step = " ".join([call[1], *names])
        if not steps or steps[-1] != step:
            steps.append(step)
    return steps


@pytest.mark.skipif(STRACE is None, reason="strace is not installed")
def test_a_file_is_on_the_disk_before_it_has_its_name_and_the_manifest_is_last(
    images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    steps = trace_conversion(images, out, tmp_path / "log")
    shard = "train-00000-of-00001.tfrecord"
    published = {
        shard: shard,
        name_index(shard): name_index(shard),
        ".shardmill/receipts/train-00000-of-00001.json": "train-00000-of-00001.json",
        "labels.txt": "labels.txt",
        "dataset_info.json": "dataset_info.json",
    }
    for final, name in published.items():
        temporary = f".shardmill/tmp/{name}.*"
        folder = final.rpartition("/")[0]
        order = [
            last(steps, f"write {temporary}"),
            steps.index(f"fsync {temporary}"),
            steps.index(f"rename {temporary} {final}"),
            steps.index(f"fsync {folder}", steps.index(f"rename {temporary} {final}")),
        ]
        assert order == sorted(order), final
    temporary = ".shardmill/tmp/manifest.json.*"
    commit_at = steps.index(f"link {temporary} manifest.json")
    assert last(steps, f"write {temporary}") < steps.index(f"fsync {temporary}") < commit_at
    receipt = steps.index("rename .shardmill/tmp/train-00000-of-00001.json.* "
                          ".shardmill/receipts/train-00000-of-00001.json")  # fmt: skip
    assert steps.index(f"rename .shardmill/tmp/{shard}.* {shard}") < receipt < commit_at
    assert not [step for step in steps[commit_at:] if step.startswith(("rename", "write"))]
    assert steps[commit_at + 1] == "fsync "


def last(steps: list[str], step: str) -> int:
    return len(steps) - 1 - steps[::-1].index(step)


def test_a_conversion_that_failed_leaves_no_lock(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    plan = write_folder(images, out, OPTIONS)
    (out / plan.shards[0].name).unlink()
    (out / plan.shards[0].name).mkdir()
    options = ["--image-size=16", "--encoding=raw", "--num-shards=6", "--no-progress"]
    in_memory = "--direct_running_mode=in_memory"
    assert main(["convert", str(images), str(out), *options, in_memory]) == 1
    assert not Layout(out).lock.exists()
