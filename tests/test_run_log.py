"""The log of runs: it grows by a line a run, within limits, and may be damaged or hostile."""

import dataclasses
import json
import shlex
from pathlib import Path

import pytest
from conftest import limit_memory

from converter.commits.run_log import (
    MAX_BYTES,
    MAX_LINE_BYTES,
    MAX_RUNS,
    Run,
    append_run,
    read_runs,
    recall_images,
)
from converter.costs import STEPS
from converter.errors import DatasetError, OutputError
from converter.histograms import Histograms
from converter.storage.files import RUN_LOG, Layout

RUN = Run(
    command="shardmill convert photos out",
    started="2026-11-30T01:50:00Z",
    generator="shardmill 0.2.0",
    workers=2,
    options={"seed": 7},
    phases_msec={"scan": 4, "convert": 900, "commit": 5},
    steps_msec=dict.fromkeys(STEPS, 100),
    launcher_peak_bytes=10**8,
    worker_peak_bytes=2 * 10**8,
    shards_written=3,
    images_read=40,
    bytes_read=10**6,
    originals=Histograms(images=40, formats={"jpeg": 40}, sides={"256": 40}),
)


SIZED = {"path": "a.jpg", "height": 4, "width": 6}
SEEN = dataclasses.asdict(RUN.originals)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Layout(tmp_path).work.mkdir()
    return tmp_path


def write(folder: Path, **changed) -> None:
    content = json.loads(json.dumps(dataclasses.asdict(RUN)))
    (folder / RUN_LOG).write_text(json.dumps({**content, **changed}) + "\n")


def test_each_run_is_a_line(folder):
    second = dataclasses.replace(RUN, kind="update", shards_kept=2)
    append_run(folder, RUN, before=folder)
    append_run(folder, second, before=folder)
    assert read_runs(folder) == (RUN, second)
    assert len((folder / RUN_LOG).read_text().splitlines()) == 2
    assert list(Layout(folder).work.iterdir()) == []


def test_without_a_log_there_are_no_runs(folder):
    assert read_runs(folder) == ()
    (folder / RUN_LOG).mkdir()  # no file
    assert read_runs(folder) == ()


def test_a_log_goes_on_where_an_update_is_written(folder, tmp_path):
    other = tmp_path / "stage"
    Layout(other).work.mkdir(parents=True)
    append_run(folder, RUN, before=folder)
    append_run(other, RUN, before=folder)
    assert (len(read_runs(folder)), len(read_runs(other))) == (1, 2)


def test_a_log_recalls_what_was_converted(folder, tmp_path):
    assert recall_images(folder) == ""
    photos = [tmp_path / "my photos", tmp_path / "more"]
    words = ["shardmill", "convert", *map(str, photos), "/out", "--seed", "7"]
    write(folder, command=shlex.join(words))
    assert recall_images(folder) == ""
    for photo in photos:
        photo.mkdir()
    assert recall_images(folder) == f"'{photos[0]}' {photos[1]}"


@pytest.mark.parametrize("command", ["", "shardmill convert", "shardmill convert 'out", "--a --b"])
def test_a_hostile_command_recalls_nothing(folder, command):
    write(folder, command=command)
    assert recall_images(folder) == ""


def test_only_the_last_runs_are_kept(folder):
    for number in range(MAX_RUNS + 3):
        append_run(folder, dataclasses.replace(RUN, shards_written=number), before=folder)
    runs = read_runs(folder)
    assert [run.shards_written for run in runs] == [*range(3, MAX_RUNS + 3)]


def test_what_a_newer_version_adds_is_ignored(folder):
    write(folder, colour="blue")
    assert read_runs(folder) == (RUN,)


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"command": 7}, "is not a string"),
        ({"command": "x" * 5_000}, "command has over"),
        ({"workers": -1}, "-1"),
        ({"workers": 2**60}, "no count of this world"),
        ({"phases_msec": {"scan": "soon"}}, "soon"),
        ({"phases_msec": {str(n): 1 for n in range(300)}}, "more than 200"),
        ({"steps_msec": {"dance": 1}}, "dance"),
        ({"originals": {**SEEN, "sides": {"<b>": 1}}}, "<b>"),
        ({"originals": {**SEEN, "formats": {"x" * 50: 1}}}, "40 characters"),
        ({"originals": {**SEEN, "smallest": [{**SIZED, "path": "x" * 5_000}]}}, "a path of over"),
        ({"originals": {**SEEN, "smallest": [SIZED] * 300}}, "more than 200"),
        ({"originals": {**SEEN, "largest": [{**SIZED, "width": 2**60}]}}, "no count of this world"),
        ({"originals": {**SEEN, "largest": [{**SIZED, "path": 7}]}}, "is not a string"),
        ({"originals": []}, "is not a JSON object"),
        ({"originals": {}}, "is missing"),
        ({"options": "none"}, "JSON object"),
    ],
)
def test_a_damaged_or_hostile_log_is_one_line(folder, changed, match):
    write(folder, **changed)
    with pytest.raises(DatasetError, match=match) as caught:
        read_runs(folder)
    assert str(caught.value).startswith(f"{folder / RUN_LOG}, line 1")
    assert "delete it" in str(caught.value)
    assert len(str(caught.value)) <= 500


@pytest.mark.parametrize("line", [b"{", b"\xff\xfe", b"[" * 50_000, b"null", b"7", b'{"a": NaN}'])
def test_what_is_no_json_is_one_line(folder, line):
    (folder / RUN_LOG).write_bytes(line + b"\n")
    with pytest.raises(DatasetError, match="line 1"):
        read_runs(folder)


def test_a_log_is_never_read_into_much_memory(folder):
    (folder / RUN_LOG).write_bytes(b"x" * (MAX_BYTES + 1))
    with limit_memory(1 << 20), pytest.raises(DatasetError, match="at most"):
        read_runs(folder)
    (folder / RUN_LOG).write_bytes(b"[" * (MAX_LINE_BYTES + 1))
    with pytest.raises(DatasetError, match="at most"):
        read_runs(folder)


def test_a_damaged_log_begins_again(folder):
    (folder / RUN_LOG).write_bytes(b"what?")
    append_run(folder, RUN, before=folder)
    assert read_runs(folder) == (RUN,)


def test_options_that_are_too_long_are_left_out(folder):
    many = dataclasses.replace(RUN, options={"class_names": ["x" * 20] * 20_000})
    append_run(folder, many, before=folder)
    assert read_runs(folder) == (RUN.__class__(**{**_values(many), "options": {}}),)


def _values(run: Run) -> dict[str, object]:
    return {field.name: getattr(run, field.name) for field in dataclasses.fields(run)}


def test_a_log_that_cannot_be_written_is_an_error(folder):
    Layout(folder).work.rmdir()
    with pytest.raises(OutputError, match=RUN_LOG):
        append_run(folder, RUN, before=folder)
