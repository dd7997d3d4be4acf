"""The command line: what it prints, and what it refuses."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import convert_folder, encode_image, make_image, write_image

import converter
from converter.errors import RecordError, UsageError
from converter.format.examples import find_source
from converter.format.manifest import read_manifest
from converter.format.tfrecords import frame_record, read_records
from converter.options import ConvertOptions
from pipelines.cli.arguments import parse_arguments
from pipelines.cli.commands import main
from pipelines.cli.given_options import read_options

Capture = pytest.CaptureFixture[str]
IN_MEMORY = "--direct_running_mode=in_memory"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for seed in range(6):
        write_image(tmp_path / "images" / "ab"[seed % 2] / f"{seed}.png", seed)
    return tmp_path / "images"


def list_files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_convert_tells_what_it_did(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "a" / "bad.jpg").write_bytes(b"bad")
    (images / "a" / "notes.txt").touch()

    assert main(["convert", str(images), str(tmp_path / "out"), "--image-size=8", IN_MEMORY]) == 0

    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines[0].startswith(f"wrote 6 images to {tmp_path / 'out'} in ")
    assert lines[1].startswith("  train      6 records in 1 shard, ")
    bottleneck = lines.pop(7)
    assert re.match(r"  bottleneck: \w+ \d+% of \d+\.\d s of worker time \(", bottleneck)
    assert lines[2:] == [
        "  8 files: 6 written, 1 rejected, 1 skipped",
        "          1  not_an_image       the content is no image of a known format",
        "          1  skipped_extension  the name does not end like an image's",
        f"  every file that was left out, and why: {tmp_path / 'out' / 'rejects.jsonl'}",
        "  mend or replace them, and take them in: the same command with --update",
        f"  report: {tmp_path / 'out' / 'report.html'}",
    ]
    assert printed.err == ""  # of a log, phases under ten seconds are no part


@pytest.mark.parametrize(
    ("allowed", "code"), [("1", 0), ("0", 3), ("15%", 0), ("12%", 3), (None, 0)]
)
def test_too_many_rejected_images_are_an_exit_code(
    allowed: str | None,
    code: int,
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (images / "a" / "bad.jpg").write_bytes(b"bad")
    write_image(images / "a" / "small.png", 9)
    (images / "a" / "small.png").write_bytes(encode_image(make_image(9, 8, 8), "PNG"))
    limit = [] if allowed is None else [f"--max-rejects={allowed}"]
    command = ["convert", str(images), str(tmp_path / "out"), "--min-side=9", IN_MEMORY, *limit]
    for _ in range(2):  # of what is finished, the same is said
        assert main(command) == code
        said = capsys.readouterr().err.splitlines()
        assert (said[-1:] == [f"shardmill: {EXCESS.get(allowed)}"]) == (code == 3)
    totals = read_manifest(tmp_path / "out").totals
    assert (totals.written, totals.rejected) == (6, {"filtered_side": 1, "not_an_image": 1})


EXCESS = {
    "0": "1 of 8 images could not be converted, more than --max-rejects (0): the data set is "
    "complete without them",
    "12%": "1 of 8 images could not be converted, more than --max-rejects (0.12 of them): the "
    "data set is complete without them",
}


def test_a_policy_may_change_when_a_conversion_goes_on(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "a" / "bad.jpg").write_bytes(b"bad")
    command = ["convert", str(images), str(tmp_path / "out"), IN_MEMORY, "--no-progress"]
    assert main([*command, "--on-error=fail"]) == 1
    assert capsys.readouterr().err == (
        "shardmill: error: a/bad.jpg cannot be converted: not_an_image: begins with b'bad': mend "
        "or remove it, or leave out --on-error fail\n"
    )
    assert main([*command, "--isolate"]) == 0
    manifest = read_manifest(tmp_path / "out")
    assert manifest.totals.rejected == {"not_an_image": 1}
    assert not {"on_error", "isolate"} & set(manifest.options)
    assert main(command) == 0  # and it is the same data set


def test_a_format_that_is_not_installed_is_said_at_once(
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    command = ["convert", str(images), str(tmp_path / "out"), "--formats=+heif", IN_MEMORY]
    assert main(command) == 2
    assert "pip install pillow-heif" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_convert_takes_every_option(images: Path, tmp_path: Path) -> None:
    arguments = (
        "--image-size=8x10 --resize=pad --interpolation=lanczos --encoding=png --quality=80 "
        "--num-shards=2 --validation-split=0.3 --test-split=0.3 --seed=5 --no-progress "
        "--formats=+ppm,-gif --color-mode=rgba --color-profiles=ignore --background=#0a0b0c "
        "--frames=reject --max-frames=9 --strict --no-enlarge --enlarge-interpolation=nearest "
        "--truncated=fill --min-decoded=0.75 --min-side=2 --min-area=9 "
        "--max-aspect=4 --max-pixels=5000 --max-file-bytes=1MB --on-error=fail --max-rejects=1% "
        "--isolate --max-seconds=9"
    )
    assert main(["convert", str(images), str(tmp_path / "out"), *arguments.split(), IN_MEMORY]) == 0

    expected = ConvertOptions(
        formats=("jpeg", "mpo", "png", "webp", "bmp", "tiff", "avif", "ppm"),
        color_mode="rgba",
        color_profiles="ignore",
        background=(10, 11, 12),
        frames="reject",
        max_frames=9,
        truncated="fill",
        min_decoded=0.75,
        enlarge=False,
        enlarge_interpolation="nearest",
        min_side=2,
        min_area=9,
        max_aspect=4.0,
        max_pixels=5000,
        max_file_bytes=1_000_000,
        image_size=(8, 10),
        resize="pad",
        interpolation="lanczos",
        encoding="png",
        quality=80,
        num_shards=2,
        validation_split=0.3,
        test_split=0.3,
        source="folders",
        seed=5,
    )
    assert read_manifest(tmp_path / "out").options == expected.to_json()


def test_plan_says_what_would_happen_and_writes_nothing(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = list_files(tmp_path)
    assert main(["plan", str(images), str(tmp_path / "out"), "--image-size=8"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["source: folders", "6 files: 6 images in 2 classes, 0 skipped"]
    assert [line.split() for line in lines[2:4]] == [["0", "a", "3"], ["1", "b", "3"]]
    assert lines[5] == "originals 24x32 (6 read), height x width, stored as 8x8 (stretch)"
    assert lines[6].startswith("writes train: 6 records, about ")
    assert lines[-2].startswith(f"would make {tmp_path / 'out'}: write ")
    assert lines[-1] == "nothing was written"
    assert list_files(tmp_path) == before


def test_plan_says_what_is_skipped_and_why_and_names_a_file(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a/notes.txt", "b/more.txt", "b/.hidden"):
        (images / name).write_text("words")
    assert main(["plan", str(images), str(tmp_path / "out"), "--image-size=8"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "9 files: 6 images in 2 classes, 3 skipped"
    assert lines[2].split(maxsplit=2)[:2] == ["1", "skipped_hidden"]
    assert lines[2].endswith(": b/.hidden")
    assert lines[3].split(maxsplit=2)[:2] == ["2", "skipped_extension"]
    assert lines[3].endswith(": a/notes.txt")


def test_verify_passes_a_whole_data_set(
    converted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(converted)]) == 0
    assert capsys.readouterr().out.startswith("no fault in 72 records in ")


def test_verify_names_each_fault(
    converted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = tmp_path / "set"
    shutil.copytree(converted, damaged)
    shard = damaged / "train-00000-of-00003.tfrecord"
    data = bytearray(shard.read_bytes())
    data[300] ^= 1
    shard.write_bytes(data)
    (damaged / "labels.txt").unlink()
    with open(converted / shard.name, "rb") as file:
        _, payload = next(read_records(file, shard.name, shard.stat().st_size))
    source = find_source(memoryview(payload))

    assert main(["verify", str(damaged)]) == 1

    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "train-00000-of-00003.tfrecord: its checksum does not match: bytes were changed",
        f"train-00000-of-00003.tfrecord:0: damaged record at byte 0 (from {source!r}): "
        "checksum of the payload does not match",
        "labels.txt: is missing",
    ]
    assert lines[3].startswith("3 faults in 72 records in ")
    assert lines[4:] == [f"to rebuild what is damaged: shardmill repair {damaged} --images IMAGES"]


def test_what_does_not_belong_is_not_called_damaged(
    converted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = shutil.copytree(converted, tmp_path / "set")
    (found / "notes.txt").write_text("mine")
    assert main(["verify", str(found)]) == 1
    assert "repair" not in capsys.readouterr().out


def test_originals_that_changed_are_taken_in_by_an_update(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, out = tmp_path / "images", tmp_path / "set"
    for seed in range(4):
        write_image(images / "a" / f"{seed}.png", seed)
    convert_folder(images, out, ConvertOptions(image_size=(8, 8)))
    write_image(images / "a" / "1.png", 9)
    assert main(["verify", str(out), "--sources", str(images)]) == 1
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == (
        f"to take in originals that changed: shardmill convert IMAGES {out} --update"
    )
    assert "repair" not in "".join(printed)


def test_splits_far_from_the_shares_asked_for_are_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    for number in range(128):
        write_image(images / "ab"[number % 2] / f"{number}.png", number // 43)
    arguments = [str(images), str(tmp_path / "out"), "--image-size=8", "--validation-split=0.2"]
    assert main(["plan", *arguments]) == 0
    planned = capsys.readouterr().out
    assert main(["convert", *arguments, "--no-progress", IN_MEMORY]) == 0
    done = capsys.readouterr().out
    (line,) = [line for line in done.splitlines() if "of the images, not 20%" in line]
    assert line in planned.splitlines()
    assert line.startswith("  note: validation has ")


def test_what_an_update_leaves_out_is_still_told(tmp_path: Path, capsys: Capture) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    write_image(images / "a" / "whole.png", 1)
    for name in ("cut.png", "empty.png"):
        (images / "a" / name).write_bytes(b"")
    convert = ["convert", str(images), str(out), "--no-progress", IN_MEMORY]
    assert main([*convert, "--image-size=8"]) == 0
    assert "--update" in capsys.readouterr().out
    write_image(images / "a" / "cut.png", 2)
    assert main([*convert, "--update"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "  still left out: 1 rejected (empty 1), 0 skipped" in lines
    assert f"  every file that was left out, and why: {out}/rejects.jsonl" in lines

    (out / "labels.txt").unlink()
    assert main(["verify", str(out)]) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"to rebuild what is damaged: shardmill repair {out} --images {images}"


def test_inspect_shows_counts_and_a_record(
    converted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(converted)]) == 0

    text = capsys.readouterr().out
    assert f"{converted}: 72 images in 3 classes" in text
    assert "  images      16x20, 3 channels, 72 png\n" in text
    assert re.search(r"^ +2 +\d+ +\d+ +24  cat with hat$", text, re.MULTILINE)
    assert "record 0 of train, number 0 in train-00000-of-00003.tfrecord:" in text
    assert re.search(r"^  image/height +int +16$", text, re.MULTILINE)


def refuse(arguments: list[str], capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    """Runs a command that has to fail with one line; returns the line."""
    assert main(arguments) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    return printed.err.removeprefix("shardmill: error: ").rstrip("\n")


def test_inspect_does_not_wait_for_a_pipe(
    converted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(converted, out)
    first = out / "train-00000-of-00003.tfrecord"
    first.unlink()
    for _ in range(2):
        assert main(["inspect", str(out)]) == 1
        error = f"shardmill: error: {first} is missing or is no file: "
        assert capsys.readouterr().err.startswith(error)
        first.unlink(missing_ok=True)
        os.mkfifo(first)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--image-size=0"], "image size 0 is out of range: 1 to 16383"),
        (["--image-size=99999"], "image size 99999 is out of range: 1 to 16383"),
        (["--image-size=big"], "'big' is not an image size: write one number"),
        (["--image-size=2x3", "--resize=shorter"], "resize shorter takes one number, not 2x3"),
        (["--resize=squash"], "invalid choice: 'squash'"),
        (["--quality=101"], "quality 101 is out of range: 1 to 100"),
        (["--shard-size=many"], "'many' is not a size: write a number and a unit"),
        (["--shard-size=1B"], "shard bytes 1 is out of range: 1000 or more"),
        (["--num-shards=0"], "num shards 0 is out of range: 1 to 99999"),
        (["--num-shards=7"], "num shards 7 is more than the 6 images of the largest split"),
        (["--validation-split=1"], "validation split 1.0 is out of range"),
        (["--validation-split=0.5", "--test-split=0.5"], "leave nothing to train on"),
        (["--seed=-1"], "seed -1 is out of range"),
        (["--sed=1"], "--sed is not known: did you mean --seed?"),
        (["--direct_num_worker=1"], "did you mean --direct_num_workers?"),
        (["--zzzzzz"], "--zzzzzz is not known, neither by shardmill nor by Beam"),
        (["--direct_running_mode=sideways"], "invalid choice: 'sideways'"),
        (["--workers=-1"], "workers -1 is out of range"),
        (["surplus"], "does not exist"),
    ],
)
def test_nonsense_is_refused_with_one_line_and_nothing_is_written(
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    message: str,
) -> None:
    before = list_files(tmp_path)
    assert message in refuse(["convert", str(images), str(tmp_path / "out"), *flags], capsys)
    assert list_files(tmp_path) == before


def test_folders_that_make_no_sense_are_refused_and_nothing_is_lost(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bare" / "class").mkdir(parents=True)
    (tmp_path / "flat").mkdir()
    write_image(tmp_path / "flat" / "1.png", 1)
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    before = list_files(tmp_path)
    for source, out, message in (
        ("missing", "out", "missing does not exist"),
        ("empty", "out", "empty has no class folders"),
        ("bare", "out", "bare has 1 class folders but no image"),
        ("flat", "out", "flat has no class folders"),
        ("file", "out", "file is a file"),
        ("images", "images", "lies inside the images"),
        ("images", "images/a/out", "lies inside the images"),
        ("images/a", "images", "lie inside the output"),
        ("images", "file", "file is a file: choose a folder"),
        ("images", "full", "is not empty and not ours (it holds 'letter.txt')"),
    ):
        arguments = ["convert", str(tmp_path / source), str(tmp_path / out)]
        assert message in refuse(arguments, capsys), (source, out)
    assert list_files(tmp_path) == before


def test_a_finished_data_set_is_never_overwritten(
    images: Path, converted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = list_files(converted)
    line = refuse(["convert", str(images), str(converted)], capsys)
    assert line.startswith(
        f"output {converted} holds a finished data set (image_size was [16, 20], is [256, 256]; "
        "encoding was png, is jpeg; "
    )
    assert line.endswith(
        "): take changed files in with --update, replace it with --overwrite, or choose another "
        "folder"
    )
    assert list_files(converted) == before


def test_commands_on_what_is_no_data_set_fail_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("verify", "inspect"):
        assert "is no finished data set" in refuse([command, str(tmp_path)], capsys, code=1)


def test_wrong_usage_of_the_program_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert "required" in refuse(["--nonsense"], capsys)
    for word in ("konvert", "convret", "convrt"):
        assert refuse([word], capsys) == f"{word!r} is not a command: did you mean convert?"
    message = "'zzz' is not a command: choose one of plan, convert, inspect, "
    assert refuse(["zzz"], capsys).startswith(message)
    assert "--nonsense is not known" in refuse(["verify", "x", "--nonsense"], capsys)
    assert "a path is empty: write . for the current" in refuse(["plan", "", "x"], capsys)


def test_names_that_would_change_the_terminal_are_escaped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refuse(["convert", str(tmp_path / "\x1b]0;red"), str(tmp_path / "out")], capsys)
    assert "\\x1b]0;red does not exist" in line


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="no finished data set"):
        main(["verify", str(tmp_path), "--debug"])


def test_the_console_script_and_the_module_are_the_same_program() -> None:
    script = Path(sys.executable).with_name("shardmill")
    outputs = [
        subprocess.run([*command, "--version"], capture_output=True, text=True, check=True).stdout
        for command in ([str(script)], [sys.executable, "-m", "pipelines"])
    ]
    assert outputs == [f"shardmill {converter.__version__}\n"] * 2


def write_records(path: Path, count: int) -> None:
    path.write_bytes(b"".join(frame_record(bytes(number)) for number in range(count)))


def test_index_tells_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_records(tmp_path / "a.tfrecord", 1200)
    write_records(tmp_path / "b.tfrecord-00000-of-00001", 34)

    assert main(["index", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert printed.out == "indexed 1,234 records in 2 files, 739.7 kB\n"
    assert printed.err == ""
    assert list_files(tmp_path) == [
        "a.tfindex",
        "a.tfrecord",
        "b.tfrecord-00000-of-00001",
        "b.tfrecord-00000-of-00001.tfindex",
    ]

    (tmp_path / "a.tfindex").unlink()
    assert main(["index", str(tmp_path / "*")]) == 0
    line = "indexed 1,234 records in 2 files, 739.7 kB, 1 of them earlier\n"
    assert capsys.readouterr().out == line


def test_index_names_each_fault_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b\x1b[31m", "c"):
        write_records(tmp_path / f"{name}.tfrecord", 3)
    damaged = tmp_path / "b\x1b[31m.tfrecord"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\xff")
    (tmp_path / "a.tfindex").write_bytes(b"another")

    assert main(["index", str(tmp_path)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path}/a.tfindex exists already and does not fit a.tfrecord: move it away, or "
        "replace it with --overwrite (overwrite=True)",
        f"{tmp_path}/b\\x1b[31m.tfrecord: damaged record at byte 33 (record 2): "
        "checksum of the payload does not match",
        "indexed 3 records in 1 file, 51 B; 2 files failed",
    ]
    assert (tmp_path / "c.tfindex").exists()

    assert main(["index", str(tmp_path), "--overwrite", "--no-checksums"]) == 0
    line = "indexed 9 records in 3 files, 153 B, 1 of them earlier\n"
    assert capsys.readouterr().out == line
    assert (tmp_path / "a.tfindex").read_bytes() == b"0 16\n16 17\n33 18\n"


def test_index_of_no_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "FILES" in refuse(["index"], capsys)
    assert "holds no file named *.tfrecord*" in refuse(["index", str(tmp_path)], capsys)
    assert "no file matches it" in refuse(["index", str(tmp_path / "*.tfrecord")], capsys)
    assert "--nonsense is not known" in refuse(["index", str(tmp_path), "--nonsense"], capsys)


def test_index_shows_the_traceback_of_a_fault(tmp_path: Path) -> None:
    (tmp_path / "a.tfrecord").write_bytes(b"no record")
    with pytest.raises(RecordError, match="cut off after 9 bytes"):
        main(["index", str(tmp_path), "--debug"])


def test_verify_answers_programs(converted: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(["verify", str(converted), "--json"]) == 0
    found = {"folder": str(converted), "whole": True, "faults": []}
    printed = capsys.readouterr()
    assert json.loads(printed.out) == found
    assert printed.err == ""

    damaged = shutil.copytree(converted, tmp_path / "set")
    (damaged / "labels.txt").unlink()
    assert main(["verify", str(damaged), "--json", "--quick"]) == 1
    fault = {"file": "labels.txt", "detail": "is missing", "original": False, "record": None}
    assert json.loads(capsys.readouterr().out)["faults"] == [fault]

    (damaged / "manifest.json").write_bytes(b"{}")
    assert main(["verify", str(damaged), "--json"]) == 1
    [fault] = json.loads(capsys.readouterr().out)["faults"]
    assert "is not the manifest of a shardmill data set" in fault["detail"]


def test_verify_compares_with_originals_and_names_what_is_unknown(
    converted: Path, image_folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert main(["verify", str(converted), "--sources", str(image_folder), "--no-decode"]) == 0
    assert main(["verify", str(converted), "--sources", str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.endswith(": the original is gone")]) == 72
    assert "--nonsense is not known" in refuse(["verify", str(converted), "--nonsense=1"], capsys)


def test_repair_tells_what_it_did(
    converted: Path, image_folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    damaged = shutil.copytree(converted, tmp_path / "set")
    (damaged / "labels.txt").unlink()
    (damaged / "letter.txt").touch()
    arguments = ["repair", str(damaged), "--images", str(image_folder), "--no-progress"]
    assert main(arguments) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["repaired labels.txt", "letter.txt: does not belong to the data set"]
    assert lines[2].startswith(f"1 fault left in {damaged}: ")
    (damaged / "letter.txt").unlink()
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"no fault in {damaged}, rebuilt: 0 files\n"


def test_clean_tells_what_it_did(converted: Path, tmp_path: Path, capsys: Capture) -> None:
    left = shutil.copytree(converted, tmp_path / "set")
    assert main(["clean", str(left)]) == 0
    assert capsys.readouterr().out == f"nothing was left behind in {left}\n"
    (left / ".shardmill" / "repair").mkdir(parents=True)
    line = f"{left}/.shardmill/repair: a repair that was not finished\n"
    assert main(["clean", str(left), "--dry-run"]) == 0
    assert capsys.readouterr().out == f"would remove {line}"
    assert main(["clean", str(left)]) == 0
    assert capsys.readouterr().out == f"removed {line}"
    assert list_files(left) == list_files(converted)
    assert "is neither a data set nor" in refuse(["clean", str(tmp_path)], capsys)


def test_convert_again_updates_and_overwrites(
    images: Path, tmp_path: Path, capsys: Capture
) -> None:
    convert = ["convert", str(images), str(tmp_path / "out")]
    assert main([*convert, "--image-size=8", "--seed=3", "--no-progress", IN_MEMORY]) == 0
    capsys.readouterr()

    assert main([*convert, "--image-size=8", "--seed=3"]) == 0
    line = f"nothing to do: {tmp_path / 'out'} is finished, 6 images in 1 shard\n"
    assert capsys.readouterr().out == line
    (tmp_path / "out" / "report.html").unlink()  # as after a kill at the very end
    assert main([*convert, "--image-size=8", "--seed=3"]) == 0
    assert "there is no report.html: shardmill report" in capsys.readouterr().out
    assert main([*convert, "--image-size=8", "--seed=3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["datasets"][0]["report"] is None

    write_image(images / "a" / "new.png", 9)
    assert main([*convert, "--update", IN_MEMORY]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"updated {tmp_path / 'out'} in ")
    assert lines[0].endswith(" s: wrote 1 shard, left 0 as they were")
    assert lines[1] == "  images: 1 added, 0 changed, 0 removed"
    assert "left out" not in "".join(lines)
    assert read_manifest(tmp_path / "out").options["seed"] == 3

    assert "(seed was 3, is 4)" in refuse([*convert, "--update", "--seed=4"], capsys)
    assert "not allowed with" in refuse([*convert, "--update", "--overwrite"], capsys)
    assert main([*convert, "--overwrite", "--image-size=9", IN_MEMORY]) == 0
    assert read_manifest(tmp_path / "out").image.height == 9


def test_every_option_about_sources_is_read(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes(b"b\r\ncaf\xe9\na\n\n")
    arguments = parse_arguments(
        f"plan IMAGES OUT --validation-split=0.5 --stratify --group-by=folder --dedupe=drop "
        f"--label-from=parent --split-folders=no --labels={tmp_path}/labels.txt --label-offset=1 "
        "--path-column=p --labels-column=l --target-column=t --caption-column=c --boxes-column=b "
        "--box-labels-column=x --box-format=yolo --split-column=s --group-column=g "
        "--keep-column=one --keep-column=two --table-root=../photos --mask-column=m "
        "--mask-padding=255 --labels-separator=;".split()
    )
    (options,) = read_options(arguments)
    assert options == ConvertOptions(
        validation_split=0.5,
        stratify=True,
        group_by="folder",
        dedupe="drop",
        label_from="parent",
        split_folders="no",
        class_names=("b", "caf\udce9", "a"),
        label_offset=1,
        path_column="p",
        labels_column="l",
        labels_separator=";",
        target_column="t",
        caption_column="c",
        boxes_column="b",
        box_labels_column="x",
        box_format="yolo",
        split_column="s",
        group_column="g",
        mask_column="m",
        mask_padding=255,
        keep_columns=("one", "two"),
        table_root="../photos",
    )
    with pytest.raises(UsageError, match=r"--labels: .*/none: No such file"):
        parse_arguments(["plan", "IMAGES", "OUT", f"--labels={tmp_path}/none"])


def test_a_table_with_split_folders_and_notes_is_summarized(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    for split in ("train", "Valid"):
        for seed in range(3):
            write_image(images / split / "ab"[seed % 2] / f"{seed}.png", seed)
    arguments = ["convert", str(images), str(tmp_path / "out"), "--image-size=8", "--no-progress"]
    assert main([*arguments, IN_MEMORY]) == 0
    printed = capsys.readouterr().out
    assert "  validation 3 records in 1 shard" in printed
    assert (
        "  note: duplicate_split (6 in 3 sets): the same content in different splits: "
        "Valid/a/0.png, train/a/0.png\n"
    ) in printed


def test_an_engine_with_loggers_of_its_own_adds_no_line_to_an_error(tmp_path: Path) -> None:
    code = (
        "import logging, sys; from pipelines.cli.commands import main\n"
        "logging.getLogger('engine').setLevel(logging.INFO)\n"
        "code = main(sys.argv[1:]); logging.getLogger('engine').error('noise')"
    )
    command = [sys.executable, "-c", code, "clean", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("shardmill: error: ")


def test_a_tilde_is_the_home_folder_in_every_path(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "names.txt").write_text("b\na\n")
    command = ["convert", "~/images", "~/out", "--labels=~/names.txt", "--no-progress", IN_MEMORY]
    assert main([*command, "--image-size=8"]) == 0
    assert read_manifest(tmp_path / "out").classes == ("b", "a")
    assert main(["verify", "~/out", "--sources=~/images", "--no-progress"]) == 0
    assert main(["repair", "~/out", "--images=~/images", "--no-progress"]) == 0
    write_records(tmp_path / "a.tfrecord", 1)
    assert main(["index", "~/a.tfrecord"]) == 0
    assert (tmp_path / "a.tfindex").exists()
    capsys.readouterr()
    assert "~nobody-here/images does not exist" in refuse(
        ["plan", "~nobody-here/images", "x"], capsys
    )


def test_paths_are_relative_to_the_current_folder_and_stored_relative_to_the_source(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tables").mkdir()
    table = tmp_path / "tables" / "t.csv"
    table.write_text("path\n" + "".join(f"{'ab'[n % 2]}/{n}.png\n" for n in range(6)))
    command = ["convert", "tables/t.csv", "out", "--image-size=8", "--no-progress", IN_MEMORY]
    for root in ("images", str(images), "~/images"):
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            patch.setenv("HOME", str(tmp_path))
            assert main([*command, f"--table-root={root}"]) == 0  # the same options each time
        assert read_manifest(tmp_path / "out").options["table_root"] == "../images"


def test_an_empty_path_is_not_the_current_folder(
    images: Path, tmp_path: Path, capsys: Capture
) -> None:
    (images / "t.csv").write_text("path\na/0.png\n")
    for arguments in (["--table-root="], ["--mask-dir="]):
        command = ["plan", str(images / "t.csv"), str(tmp_path / "out"), *arguments]
        assert "a path is empty: write . for the current" in refuse(command, capsys)


def test_jpg_is_another_name_of_jpeg(images: Path, tmp_path: Path) -> None:
    command = ["convert", str(images), str(tmp_path / "out"), "--no-progress", IN_MEMORY]
    assert main([*command, "--encoding=jpg", "--formats=jpg,png"]) == 0
    options = read_manifest(tmp_path / "out").options
    assert (options["encoding"], options["formats"]) == ("jpeg", ["jpeg", "png"])
    assert ConvertOptions(encoding="jpg", formats=("jpg",)) == ConvertOptions(formats=("jpeg",))


def test_a_command_points_from_a_folder_of_several_sizes_to_each(
    images: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "out"
    sizes = ["--image-size=8", "--image-size=9", "--quiet", IN_MEMORY]
    assert main(["convert", str(images), str(out), *sizes]) == 0
    for command, *more in (["inspect"], ["verify"], ["clean"], ["repair", f"--images={images}"]):
        message = f"{out} holds data sets of several sizes: {command} one of {out}/8x8, {out}/9x9"
        assert refuse([command, str(out), *more], capsys) == message


def test_convert_and_inspect_answer_programs(images: Path, tmp_path: Path, capsys: Capture) -> None:
    (images / "a" / "bad.jpg").write_bytes(b"bad")
    out = tmp_path / "out"
    command = ["convert", str(images), str(out), "--image-size=8", "--json", IN_MEMORY]
    for result, shards in (("written", [1, 0]), ("unchanged", [0, 1])):
        assert main([*command, "--max-rejects=0"]) == 3
        printed = capsys.readouterr()
        (found,) = json.loads(printed.out)["datasets"]
        assert (found["folder"], found["result"]) == (str(out), result)
        assert list(found["shards"].values()) == shards
        assert found["totals"]["rejected"] == {"not_an_image": 1}
        assert printed.err.count("\n") == 1
    assert main(["inspect", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["classes"] == {"a": 3, "b": 3}
    assert found["splits"]["train"]["records"] == 6
    assert found["record"]["features"]["image/height"] == [8]
    assert found["record"]["features"]["image/format"] == ["jpeg"]


def test_quiet_prints_errors_alone(images: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out"
    command = ["convert", str(images), str(out), "--image-size=8", "--quiet", IN_MEMORY]
    write_records(tmp_path / "a.tfrecord", 1)
    for arguments in (
        command,
        command,
        [*command, "--update"],
        ["verify", str(out), "--quiet"],
        ["repair", str(out), "--images", str(images), "--quiet"],
        ["clean", str(out), "--quiet"],
        ["index", str(tmp_path / "a.tfrecord"), "--quiet"],
    ):
        assert main(arguments) == 0
        assert capsys.readouterr() == ("", ""), arguments
    (out / "labels.txt").unlink()
    assert main(["verify", str(out), "--quiet"]) == 1
    assert capsys.readouterr() == ("labels.txt: is missing\n", "")
    assert main(["verify", str(out), "--quiet", "--json"]) == 2
    assert "not allowed with" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "kind", "code"),
    [
        (["inspect", "none"], "DatasetError", 1),
        (["clean", "none"], "UsageError", 2),
        (["verify", "none", "--nonsense"], "UsageError", 2),
        (["plan", "none", "out"], "UsageError", 2),
        (["index", "*.none"], "UsageError", 2),
        (["konvert"], "UsageError", 2),
    ],
)
def test_an_error_is_an_object_for_a_program_and_a_line_for_a_person(
    arguments: list[str], kind: str, code: int, tmp_path: Path, monkeypatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*arguments, "--json"]) == code
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert list(found) == ["error"]
    assert (found["error"]["kind"], found["error"]["exit_code"]) == (kind, code)
    assert printed.err == f"shardmill: error: {found['error']['message']}\n"
    assert refuse(arguments, capsys, code) == found["error"]["message"]


def test_repair_clean_and_index_answer_programs(
    converted: Path, image_folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = shutil.copytree(converted, tmp_path / "set")
    (out / "labels.txt").unlink()
    (out / "letter.txt").touch()
    (out / ".shardmill" / "repair").mkdir(parents=True)
    write_records(tmp_path / "a.tfrecord", 3)
    (tmp_path / "b.tfrecord").write_bytes(b"no record")

    def ask(*arguments: str) -> tuple[int, object]:
        code = main([*arguments, "--json"])
        printed = capsys.readouterr()
        assert printed.err == ""
        return code, json.loads(printed.out)

    (removed,) = ask("clean", str(out))[1]["removed"]
    assert removed == {"path": f"{out}/.shardmill/repair", "what": "a repair that was not finished"}
    assert ask("clean", str(out)) == (0, {"folder": str(out), "removed": []})

    code, found = ask("repair", str(out), "--images", str(image_folder))
    assert (code, found["whole"], found["repaired"]) == (1, False, ["labels.txt"])
    assert [fault["file"] for fault in found["faults"]] == ["letter.txt"]
    (out / "letter.txt").unlink()
    code, found = ask("repair", str(out), "--images", str(image_folder))
    assert (code, found["whole"], found["repaired"]) == (0, True, [])

    code, found = ask("index", str(tmp_path / "*.tfrecord"))
    assert code == 1
    (file,) = found["files"]
    assert file == {
        "path": f"{tmp_path}/a.tfrecord",
        "index": f"{tmp_path}/a.tfindex",
        "records": 3,
        "bytes": 51,
        "written": True,
    }
    (failed,) = found["failed"]
    assert failed.startswith(f"{tmp_path}/b.tfrecord: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["repair", "--images=x", "--jsom"], "--jsom is not known: did you mean --json?"),
        (["repair", "--images=x", "--as=x"], "--as is not known, neither by shardmill nor by"),
        (["repair", "--images=x", "--quite"], "--quite is not known: did you mean --quiet?"),
        (["clean", "--as=x"], "--as is not known: see shardmill clean --help"),
        (["clean", "--dry-rum"], "--dry-rum is not known: did you mean --dry-run?"),
        (["plan", "images", "--quality=9", "--updat"], "--updat is not known: did you mean --upd"),
        (["--dry-run", "clean"], "--dry-run stands before the command: write it after clean"),
        (["--seed=5", "plan", "images"], "--seed stands before the command"),
        (["plan", "images", "--runner=x"], "--runner is not known: see shardmill plan --help"),
    ],
)
def test_an_unknown_flag_is_not_taken_for_one_that_only_looks_alike(
    arguments: list[str], message: str, tmp_path: Path, capsys: Capture
) -> None:
    assert message in refuse([*arguments, str(tmp_path)], capsys)


def test_ctrl_c_before_the_command_has_begun_is_one_line(monkeypatch, capsys):
    from pipelines import __main__ as entry

    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr("pipelines.cli.commands.main", interrupt)
    monkeypatch.setattr("pipelines.cli.interrupts.SIGNALS", ())  # pytest has its own
    monkeypatch.setattr("sys.argv", ["shardmill", "verify"])
    before = signal.getsignal(signal.SIGINT)
    try:
        assert entry.main() == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == (
        "shardmill: interrupted: nothing was changed, run the same command again\n"
    )
