"""The whole conversion on real Beam: processes, threads and in memory."""

import gc
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import (
    convert_folder,
    drop_companions,
    encode_image,
    list_states,
    make_image,
    run_conversion,
    write_folder,
    write_image,
)

from converter.commits.commit import commit
from converter.errors import (
    DatasetError,
    LockedError,
    OutputError,
    ShardmillError,
    UsageError,
    WorkerError,
)
from converter.format.manifest import read_manifest
from converter.inventory import Entry
from converter.options import ConvertOptions
from converter.storage.files import Layout
from converter.upkeep.verification import verify_dataset
from converter.writing.shard_writer import receipt_path
from pipelines import convert

OPTIONS = ConvertOptions(image_size=(16, 20), encoding="png", num_shards=5, validation_split=0.2)
OTHER = ConvertOptions(image_size=(8, 8), encoding="png", num_shards=3)
IN_MEMORY = ["--direct_running_mode=in_memory"]


def hash_tree(folder: Path) -> dict[str, str]:
    hashes = {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
    }
    return drop_companions(hashes)


@pytest.fixture(scope="module")
def reference(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The tree that a plain loop over the shards gives."""
    out = tmp_path_factory.mktemp("reference") / "set"
    convert_folder(image_folder, out, OPTIONS)
    return hash_tree(out)


@pytest.mark.parametrize(
    "beam_args",
    [
        pytest.param([], id="own processes"),
        pytest.param(["--runner=DirectRunner", "--direct_num_workers=1"], id="one process"),
        pytest.param(
            ["--direct_running_mode=multi_processing", "--direct_num_workers=1"],
            id="as Beam spells it",
        ),
        pytest.param(
            ["--direct_running_mode=multi_threading", "--direct_num_workers=2"], id="threads"
        ),
        pytest.param(IN_MEMORY, id="in memory"),
    ],
)
def test_every_way_of_running_writes_the_same_bytes(
    image_folder: Path, tmp_path: Path, reference: dict[str, str], beam_args: list[str]
) -> None:
    manifest = convert(image_folder, tmp_path / "out", OPTIONS, beam_args)

    assert hash_tree(tmp_path / "out") == reference
    assert manifest == read_manifest(tmp_path / "out")
    assert not verify_dataset(tmp_path / "out")


def test_three_workers_write_the_same_bytes(
    image_folder: Path, tmp_path: Path, reference: dict[str, str]
) -> None:
    convert(image_folder, tmp_path / "out", OPTIONS, workers=3)
    assert hash_tree(tmp_path / "out") == reference


def test_bad_images_are_left_out_counted_and_told(tmp_path: Path) -> None:
    images = tmp_path / "images"
    for seed in range(6):
        write_image(images / "a" / f"{seed}.png", seed)
    whole = encode_image(make_image(9))
    (images / "a" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (images / "a" / "empty.jpg").touch()
    (images / "a" / "text.jpg").write_text("not an image")
    (images / "a" / "notes.txt").write_text("notes")

    manifest = convert(images, tmp_path / "out", ConvertOptions(image_size=(8, 8)), IN_MEMORY)

    totals = manifest.totals
    assert (totals.scanned, totals.written) == (10, 6)
    assert totals.rejected == {"decode_error": 1, "empty": 1, "not_an_image": 1}
    assert totals.skipped == {"skipped_extension": 1}
    lines = (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()
    assert len(lines) == 4


def test_a_folder_without_one_good_image_fails_and_is_no_data_set(tmp_path: Path) -> None:
    images = tmp_path / "images" / "a"
    images.mkdir(parents=True)
    for name in ("1.jpg", "2.jpg"):
        (images / name).write_bytes(b"junk")

    with pytest.raises(OutputError, match=r"none of the 2 images .* not_an_image"):
        convert(images.parent, tmp_path / "out", None, IN_MEMORY)
    with pytest.raises(DatasetError, match="no finished data set"):
        read_manifest(tmp_path / "out")


def test_an_unfinished_conversion_goes_on_and_writes_nothing_twice(
    image_folder: Path, tmp_path: Path, reference: dict[str, str]
) -> None:
    out = tmp_path / "out"
    start_unfinished(image_folder, out)
    kept = {path: path.stat().st_mtime_ns for path in out.glob("*.tfrecord")}
    assert kept

    convert(image_folder, out, OPTIONS, IN_MEMORY)

    assert hash_tree(out) == reference
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def start_unfinished(images: Path, out: Path) -> None:
    """Leaves an output as a killed conversion does: two shards finished, a stray temporary."""
    plan = write_folder(images, out, OPTIONS)
    layout = Layout(out)
    for shard in plan.shards[2:]:
        receipt_path(layout, shard).unlink()
        (out / shard.name).unlink()
    (layout.scratch / "train-00003-of-00005.tfrecord.1234").write_bytes(b"half")


def test_an_unfinished_conversion_of_something_else_is_refused(
    image_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    start_unfinished(image_folder, out)
    before = hash_tree_of_files(out)
    other = ConvertOptions(image_size=(16, 21), encoding="png", num_shards=5, validation_split=0.2)

    with pytest.raises(
        UsageError, match=r"other options \(image_size was \[16, 20\], is \[16, 21\]\)"
    ):
        convert(image_folder, out, other, IN_MEMORY)
    assert hash_tree_of_files(out) == before


def test_a_finished_shard_that_was_damaged_is_written_again(
    image_folder: Path, tmp_path: Path, reference: dict[str, str]
) -> None:
    out = tmp_path / "out"
    start_unfinished(image_folder, out)
    shard = out / "train-00000-of-00005.tfrecord"
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)

    conversion = run_conversion(image_folder, out, OPTIONS, IN_MEMORY)

    assert hash_tree(out) == reference
    assert (conversion.kept, conversion.written, conversion.unchanged) == (1, 5, False)


@pytest.mark.parametrize("mode", ["new", "overwrite"])
def test_the_list_of_images_is_let_go_before_any_is_written(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    from pipelines.jobs import convert as conversion

    alive = []

    def look(*_: object, **__: object) -> int:
        gc.collect()
        found = (item for item in gc.get_objects() if isinstance(item, Entry))
        alive.extend(entry for entry in found if "only here" in entry.path)
        raise ShardmillError("seen")

    write_image(tmp_path / "images" / "a" / "only here.png", 1)
    if mode == "overwrite":
        convert_folder(image_folder, tmp_path / "out", OPTIONS)
    monkeypatch.setattr(conversion, "write_remaining", look)
    with pytest.raises(ShardmillError, match="seen"):
        convert(tmp_path / "images", tmp_path / "out", ConvertOptions(), IN_MEMORY, mode=mode)
    assert not alive


def test_the_same_again_does_nothing(
    image_folder: Path, tmp_path: Path, reference: dict[str, str]
) -> None:
    out = tmp_path / "out"
    convert_folder(image_folder, out, OPTIONS)
    before = list_states(out)
    conversion = run_conversion(image_folder, out, OPTIONS)
    assert (conversion.written, conversion.unchanged) == (0, True)
    assert list_states(out) == before
    assert hash_tree(out) == reference


def test_other_images_in_a_finished_data_set_are_refused(
    image_folder: Path, tmp_path: Path
) -> None:
    images, out = shutil.copytree(image_folder, tmp_path / "images"), tmp_path / "out"
    convert_folder(images, out, OPTIONS)
    write_image(images / "ant" / "new.png", 99)
    with pytest.raises(UsageError, match=r"finished data set \(files"):
        convert(images, out, OPTIONS)


def test_what_a_kill_after_the_commit_leaves_is_removed(
    image_folder: Path, tmp_path: Path, reference: dict[str, str]
) -> None:
    out = tmp_path / "out"
    commit(write_folder(image_folder, out, OPTIONS), keep_work=True)
    assert run_conversion(image_folder, out, OPTIONS).unchanged
    assert hash_tree(out) == reference


def test_overwrite_goes_on_with_a_replacement_and_leaves_the_old_one_until_then(
    image_folder: Path, tmp_path: Path, reference: dict[str, str]
) -> None:
    out = tmp_path / "out"
    convert_folder(image_folder, out, OTHER)
    old = hash_tree(out)
    start_unfinished(image_folder, Layout(out).stage)
    (out / "letter.txt").write_text("mine")
    assert hash_tree(out).items() >= old.items()

    conversion = run_conversion(image_folder, out, OPTIONS, IN_MEMORY, mode="overwrite")

    assert (conversion.kept, conversion.written) == (2, 4)
    assert (out / "letter.txt").read_text() == "mine"
    (out / "letter.txt").unlink()
    assert hash_tree(out) == reference
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_overwrite_replaces_what_is_damaged_beyond_reading(
    image_folder: Path, tmp_path: Path, reference: dict[str, str]
) -> None:
    out = tmp_path / "out"
    convert_folder(image_folder, out, OTHER)
    (out / "manifest.json").write_bytes(b"{")
    with pytest.raises(DatasetError, match=r"manifest\.json is damaged"):
        convert(image_folder, out, OPTIONS)
    convert(image_folder, out, OPTIONS, IN_MEMORY, mode="overwrite")
    assert hash_tree(out) == reference


def test_overwrite_that_fails_leaves_the_old_one(image_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    convert_folder(image_folder, out, OTHER)
    old = hash_tree(out)
    (tmp_path / "images" / "a").mkdir(parents=True)
    (tmp_path / "images" / "a" / "1.png").write_bytes(b"junk")
    with pytest.raises(OutputError, match="none of the 1 images"):
        convert(tmp_path / "images", out, ConvertOptions(), IN_MEMORY, mode="overwrite")
    assert hash_tree(out) == old
    # What is left beside it does no harm.
    convert(image_folder, out, OPTIONS, IN_MEMORY, mode="overwrite")
    assert {path.name for path in tmp_path.iterdir()} == {"images", "out"}


def test_overwrite_that_was_killed_after_the_exchange_is_not_done_twice(
    image_folder: Path, tmp_path: Path, reference: dict[str, str]
) -> None:
    out = tmp_path / "out"
    commit(write_folder(image_folder, out, OPTIONS), keep_work=True)
    convert_folder(image_folder, Layout(out).stage, OTHER)
    assert run_conversion(image_folder, out, OPTIONS, mode="overwrite").unchanged
    assert hash_tree(out) == reference
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_overwrite_gives_up_an_unfinished_conversion_of_something_else(
    image_folder: Path, tmp_path: Path, reference: dict[str, str]
) -> None:
    out = tmp_path / "out"
    write_folder(image_folder, out, OTHER)
    (out / "letter.txt").write_text("mine")
    convert(image_folder, out, OPTIONS, IN_MEMORY, mode="overwrite")
    (out / "letter.txt").unlink()
    assert hash_tree(out) == reference


def test_an_output_that_someone_else_writes_to_is_refused_before_any_work(
    image_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with out.lock():
        before = hash_tree_of_files(tmp_path)
        with pytest.raises(LockedError, match="being written by process"):
            convert(tmp_path / "no images are looked for", out, OPTIONS)
        assert hash_tree_of_files(tmp_path) == before


def test_a_link_to_a_data_set_stays_a_link(image_folder: Path, tmp_path: Path) -> None:
    convert_folder(image_folder, tmp_path / "real", OTHER)
    (tmp_path / "out").symlink_to("real")
    convert(image_folder, tmp_path / "out", OPTIONS, IN_MEMORY, mode="overwrite")
    assert (tmp_path / "out").is_symlink()
    assert not verify_dataset(tmp_path / "real")
    assert {path.name for path in tmp_path.iterdir()} == {"out", "real"}


def test_a_mount_point_is_not_replaced(image_folder: Path, tmp_path: Path) -> None:
    if os.geteuid() or shutil.which("mount") is None:
        pytest.skip("mounting takes root")
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", out], check=True)
    try:
        convert_folder(image_folder, out, OTHER)
        with pytest.raises(UsageError, match="is a mount point"):
            convert(image_folder, out, OPTIONS, mode="overwrite")
        assert not verify_dataset(out)
    finally:
        subprocess.run(["umount", out], check=True)


def hash_tree_of_files(folder: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_an_output_that_vanishes_meanwhile_is_one_clear_line(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.beam import remaining

    def sabotage(plan: object, **_: object) -> list[object]:
        Layout(tmp_path / "out").scratch.rmdir()
        return []

    monkeypatch.setattr(remaining, "list_finished", sabotage)
    with pytest.raises(ShardmillError, match=r"^\S+\.tfindex\S+ .*: No such file"):
        convert(image_folder, tmp_path / "out", OPTIONS, IN_MEMORY)


@pytest.fixture(scope="module")
def slow_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 images that take a worker about 50 ms each."""
    root = tmp_path_factory.mktemp("slow")
    data = encode_image(make_image(1, 1200, 1600), "PNG", compress_level=1)
    for number in range(80):
        path = root / "only" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    return root


def wait_for_receipt(out: Path, deadline_s: float = 60) -> None:
    end = time.monotonic() + deadline_s
    while not list(Layout(out).receipts.glob("*.json")):
        assert time.monotonic() < end, "no shard was finished"
        time.sleep(0.05)


def start_conversion(images: Path, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pipelines", "convert", str(images), str(out)]
    return subprocess.Popen(
        [*command, "--num-shards=40", "--no-progress", "--workers=2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What a shell starts in the background, these tests perhaps, ignores Ctrl-C, and hands
        # that on: the conversion would be done, with exit code 0.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )


def test_a_killed_worker_ends_the_run_within_ten_seconds_and_loses_nothing(
    slow_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with start_conversion(slow_folder, out) as process:
        wait_for_receipt(out)
        workers = psutil.Process(process.pid).children(recursive=True)
        assert len(workers) == 2
        workers[0].send_signal(signal.SIGKILL)
        killed = time.monotonic()
        _, errors = process.communicate(timeout=30)
    assert time.monotonic() - killed < 10
    assert process.returncode == 1
    assert errors.splitlines() == [
        "shardmill: error: a worker process was killed by signal 9 (often: out of memory): "
        "finished shards are kept, run the same command again to go on"
    ]
    assert not psutil.wait_procs(workers, timeout=5)[1]

    options = ConvertOptions(num_shards=40)
    assert convert(slow_folder, out, options, IN_MEMORY).totals.written == 80
    assert not verify_dataset(out)


def test_a_launcher_keeps_others_out_and_takes_its_workers_along_when_it_is_killed(
    slow_folder: Path, tmp_path: Path
) -> None:
    with start_conversion(slow_folder, tmp_path / "out") as process:
        wait_for_receipt(tmp_path / "out")
        with pytest.raises(LockedError, match=f"written by process {process.pid} on"):
            convert(slow_folder, tmp_path / "out", mode="overwrite")
        workers = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.communicate(timeout=30)
    assert not psutil.wait_procs(workers, timeout=10)[1]
    with (tmp_path / "out").lock():
        pass


def test_ctrl_c_ends_with_one_line(slow_folder: Path, tmp_path: Path) -> None:
    with start_conversion(slow_folder, tmp_path / "out") as process:
        wait_for_receipt(tmp_path / "out")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    said = "interrupted: finished shards are kept, run the same command again to go on"
    assert (process.returncode, errors) == (130, f"shardmill: {said}\n")
    assert Layout(tmp_path / "out").plan.exists()
    assert not Layout(tmp_path / "out").lock.exists()


def test_a_worker_that_cannot_start_is_named(image_folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys, os, converter, pipelines\n"
        "from pipelines import convert\n"
        "os.environ['PYTHONPATH'] = sys.argv[3]\n"
        "convert(sys.argv[1], sys.argv[2])\n"
    )
    broken = tmp_path / "broken" / "apache_beam"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('this Beam is broken')")
    done = subprocess.run(
        [sys.executable, "-c", code, str(image_folder), str(tmp_path / "out"), str(broken.parent)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "exit code 1, its last words: ImportError: this Beam is broken" in done.stderr


def test_worker_error_is_a_shardmill_error() -> None:
    assert issubclass(WorkerError, ShardmillError)
