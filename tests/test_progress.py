"""What is said about a job that is under way: phases, rates, time left, and counts of workers."""

import io
import os
import re
import struct
import sys
import threading
import time
from pathlib import Path

import pytest

from converter import progress
from converter.progress import Counts, Phase
from pipelines.cli.interrupts import Interrupts, describe
from pipelines.jobs import bars
from pipelines.jobs.bar_texts import (
    DOING,
    Pace,
    describe_end,
    fit_parts,
    format_rate,
    format_seconds,
    join_parts,
    label,
    list_parts,
)
from pipelines.jobs.bar_texts import describe as describe_pace
from pipelines.jobs.bars import LogLines, Progress, follow, lay_out


def make_pace(seconds: float = 10, **fields: object) -> Pace:
    """A phase that has run that long."""
    phase = Phase(**{"name": "convert", "total": 1000, "started": 100.0, **fields})
    pace = Pace(phase)
    pace.look(100.0 + seconds)
    return pace


def test_a_phase_is_handed_to_the_listener_of_its_thread_alone():
    seen: list[str] = []
    with progress.listen(lambda phase: seen.append(phase.name)):
        progress.begin("scan")
        progress.advance(3)
        assert progress.get_phase().done == 3
        other = threading.Thread(target=lambda: progress.begin("plan"))
        other.start()
        other.join()
    progress.begin("commit")
    assert seen == ["scan"]


def test_listening_ends_with_the_block_after_an_error_too():
    with pytest.raises(ZeroDivisionError), progress.listen(bool):
        raise ZeroDivisionError
    assert progress.find_listener() is None


def test_counts_of_all_threads_are_those_of_the_process():
    before = progress.read_counts()
    threads = [
        threading.Thread(target=lambda: [progress.count_image(10, 1) for _ in range(500)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert progress.read_counts().minus(before) == Counts(2000, 20_000, 2000)


def test_counts_cross_to_another_process_in_an_open_file(tmp_path, monkeypatch):
    monkeypatch.setattr(progress._counter, "descriptor", None)
    monkeypatch.setattr(progress._counter, "counts", Counts())
    with open(tmp_path / "counts", "w+b") as file:
        assert progress.read_shared(file.fileno()) == Counts()
        progress.share_counts(file.fileno())
        progress.count_image(1 << 40)
        progress.count_image(1, rejected=2)
        assert progress.read_shared(file.fileno()) == Counts(2, (1 << 40) + 1, 2)
        os.ftruncate(file.fileno(), 7)  # torn
        assert progress.read_shared(file.fileno()) == Counts()
        assert os.fstat(file.fileno()).st_size < struct.calcsize("<3Q")


def test_a_full_disk_fails_no_image(monkeypatch):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("/dev/full is of Linux")
    with full.open("wb") as file:
        monkeypatch.setattr(progress._counter, "descriptor", file.fileno())
        before = progress.read_counts()
        progress.count_image(5)
    assert progress.read_counts().minus(before).images == 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (9.6, "0:10"), (65, "1:05"), (3599.4, "59:59"), (3600, "1:00:00"),
     (360_000, "100:00:00")],
)  # fmt: skip
def test_times_are_short(seconds, text):
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(("rate", "text"), [(0.04, "0.0"), (9.96, "10.0"), (1234.5, "1,234")])
def test_rates_have_the_digits_that_mean_something(rate, text):
    assert format_rate(rate) == text


def test_a_phase_says_counts_rates_rejects_and_time_left():
    pace = make_pace(10, done=250, bytes=50_000_000, rejected=3, note="1/4 shards")
    assert join_parts(list_parts(pace)) == (
        "250/1,000 images, 25/s, 5.0 MB/s, 3 rejected, 0:30 left, 1/4 shards"
    )


def test_what_an_earlier_run_did_makes_no_rate():
    pace = make_pace(10, done=900, before=800)
    assert pace.rates[0] == 10
    assert pace.seconds_left == 10
    assert make_pace(10, done=800, before=800).seconds_left is None


def test_rates_follow_the_last_seconds():
    pace = make_pace(0, total=10_000)
    for second in range(1, 61):
        pace.phase.done += 10 if second <= 30 else 100
        pace.look(100.0 + second)
    assert pace.rates[0] == 100


def test_a_phase_without_a_total_says_what_was_found_and_for_how_long():
    pace = make_pace(4, name="scan", total=None, done=12_345)
    assert join_parts(list_parts(pace)) == "12,345 images found, 3,086/s, 0:04"
    assert label(pace.phase) == "scanning   "


def test_a_phase_that_has_done_nothing_yet_shows_that_time_passes():
    pace = make_pace(2, note="starting workers")
    assert join_parts(list_parts(pace)) == "0/1,000 images, 0:02, starting workers"
    assert join_parts(list_parts(make_pace(2, name="start", total=None))) == "0:02"


def test_a_phase_without_work_divides_by_nothing():
    pace = make_pace(0, total=0, started=0.0)
    assert "%" not in label(pace.phase)
    assert pace.seconds_left is None


def test_names_of_phases_line_up():
    totals = {len(label(Phase(name, 10))) for name in DOING}
    assert len(totals) == 1
    assert len({len(label(Phase(name))) for name in DOING}) == 1


FULL = {"done": 123_456, "total": 1_281_167, "bytes": 900_000_000, "rejected": 12_345}


@pytest.mark.parametrize("columns", range(20, 121, 5))
def test_a_bar_fits_and_says_first_what_matters_most(columns):
    pace = make_pace(60, **FULL, note="12/160 shards, 3 finished before")
    line = lay_out(pace, columns)
    drawn = line.replace("{bar}", "#" * bars.BAR_COLUMNS)
    assert len(drawn) <= columns
    assert "converting" in drawn
    assert ("123,456" in drawn) == (columns >= 24)
    assert ("left" in drawn) == (columns >= 53)
    assert ("{bar}" in line) >= (columns >= 80)


def test_parts_are_left_out_by_rank_and_the_first_stays():
    parts = list_parts(make_pace(60, **FULL, note="note"))
    kept = fit_parts(parts, 60)
    assert kept == [part for part in parts if part in kept]
    assert min(set(parts) - set(kept)) > max(kept)
    assert fit_parts(parts, 1) == [min(parts)]


def test_braces_in_a_note_are_text():
    line = lay_out(make_pace(1, done=5, note="{n}"), 100)
    assert line.format(bar="").endswith("{n}")


def test_a_log_has_plain_lines():
    pace = make_pace(20, done=250, rejected=3)
    assert describe_pace(pace) == ("converting: 25%, 250/1,000 images, 12/s, 3 rejected, 1:00 left")
    assert describe_end(pace) == "converting: 250 images in 0:20, 3 rejected"


class Clock:
    """A clock that is set by hand."""

    def __init__(self, monkeypatch):
        self.now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


def test_a_log_gets_a_line_every_ten_seconds_and_one_at_the_end(monkeypatch, capsys):
    clock, log = Clock(monkeypatch), LogLines()
    phase = Phase("verify", 100, "records", started=clock.now)
    pace = Pace(phase)
    for _ in range(250):
        clock.now += 0.1
        phase.done = min(100, phase.done + 1)
        pace.look(clock.now)
        log.draw(pace)
    log.end(pace)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["verifying"] * 3
    assert lines[-1] == "verifying: 100 records in 0:25"
    assert not any(re.search(r"[\r\x1b]", line) for line in lines)

    short = Pace(Phase("commit", 3, "shards", started=clock.now))
    short.look(clock.now + 9.0)
    log.draw(short)
    log.end(short)
    assert capsys.readouterr().err == ""


class Recorder:
    """A display that notes what it is asked to show."""

    def __init__(self):
        self.shown: list[tuple[str, str]] = []

    def draw(self, pace):
        self.shown.append(("draw", pace.phase.name))

    def end(self, pace):
        self.shown.append(("end", pace.phase.name))

    def close(self):
        self.shown.append(("close", ""))


def test_each_phase_is_drawn_at_once_ended_once_and_timed(monkeypatch):
    clock, display = Clock(monkeypatch), Recorder()
    monkeypatch.setattr(bars, "DRAW_S", 3600)
    job = Progress(display)
    for name, seconds in (("scan", 1.0), ("plan", 2.0), ("plan", 3.0), ("convert", 4.0)):
        job.enter(Phase(name, started=clock.now))
        clock.now += seconds
    job.close()
    expected = {"start": 0, "scan": 1, "plan": 5, "convert": 4}
    assert job.seconds == pytest.approx(expected, abs=0.01)
    assert [*job.seconds] == [*expected]
    names = ["scan", "plan", "plan", "convert"]
    assert [name for what, name in display.shown if what == "draw"] == names
    assert [name for what, name in display.shown if what == "end"] == ["start", *names]
    assert display.shown[-1] == ("close", "")


def test_a_phase_is_brought_up_to_date_before_it_is_drawn_and_when_it_ends(monkeypatch):
    monkeypatch.setattr(bars, "DRAW_S", 3600)
    job, polled = Progress(Recorder()), []
    with progress.listen(job.enter):
        progress.begin("verify", 5).poll = lambda: polled.append(1)
        progress.begin("commit")
    job.close()
    assert polled == [1]


def test_a_phase_that_counts_nothing_is_drawn_all_the_same(monkeypatch):
    monkeypatch.setattr(bars, "DRAW_S", 0.001)
    display = Recorder()
    job = Progress(display)
    deadline = time.monotonic() + 10
    while display.shown.count(("draw", "start")) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    job.close()


def test_a_display_that_cannot_write_ends_no_job(monkeypatch):
    class Broken(Recorder):
        def draw(self, pace):
            raise OSError(5, "Input/output error")

        end = draw

        def close(self):
            self.draw(None)

    monkeypatch.setattr(bars, "DRAW_S", 3600)
    job = Progress(Broken())
    job.enter(Phase("scan"))
    job.close()
    assert [*job.seconds] == ["start", "scan"]


def test_a_job_in_a_job_is_a_part_of_it():
    with follow(shown=False) as outer, follow(shown=True) as inner:
        assert inner is outer
    assert progress.find_listener() is None


def test_without_a_bar_no_thread_is_started():
    before = threading.active_count()
    with follow(shown=False):
        assert threading.active_count() == before


@pytest.mark.parametrize(("is_terminal", "kind"), [(True, bars.TerminalBar), (False, LogLines)])
def test_the_display_suits_standard_error(monkeypatch, is_terminal, kind):
    stream = io.StringIO()
    stream.isatty = lambda: is_terminal
    monkeypatch.setattr(sys, "stderr", stream)
    assert isinstance(bars.choose_display(), kind)


@pytest.mark.parametrize(
    ("arguments", "phase", "said"),
    [
        (["convert", "a", "b"], "scan", "before it converted an image, run the same command again"),
        (["--debug", "convert"], "commit", "finished shards are kept"),
        (["convert"], "convert", "finished shards are kept"),
        (["verify"], "verify", "nothing was changed"),
        (["inspect"], "start", "nothing was changed"),
        (["export"], "export", "an export appears only once it is whole"),
        (["index"], "index", "finished indexes are kept"),
        ([], "start", "nothing was changed"),
    ],
)
def test_an_interruption_says_what_is_lost_and_how_to_go_on(arguments, phase, said):
    text = describe(arguments, phase)
    assert text.startswith(said)
    assert "run the same command again" in text


def test_an_interruption_is_told_once(capsys):
    interrupts = Interrupts()
    interrupts.number = 15
    assert interrupts.end(["verify"]) == interrupts.end(["verify"]) == 143
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].endswith("interrupted: nothing was changed, run the same command again")
