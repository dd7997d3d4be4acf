"""Hostile images: each has the outcome that stands in the table, and none does more than that."""

import json
import subprocess
import sys
from collections import Counter

import pytest
from conftest import convert_folder, make_environment
from damaging import find_flaw
from faults import fuzz_images
from making import HOSTILE, OPTIONS, describe_outcome, list_hostile, make_images, read_golden

from converter.format.manifest import read_manifest
from converter.inventory import REJECT_CODES
from converter.storage.files import REJECTS


def test_every_generated_image_has_the_outcome_in_the_table():
    golden = read_golden()
    found = {name: describe_outcome(data) for name, data in make_images()}
    assert found == {name: golden[name] for name in found}
    assert len(found) > 110


@pytest.mark.skipif(not HOSTILE.is_dir(), reason=f"no hostile images at {HOSTILE}")
def test_every_image_of_others_has_the_outcome_in_the_table():
    golden = read_golden()
    found = {name: describe_outcome(data) for name, data in list_hostile()}
    generated = {name for name, _ in make_images()}
    assert found == {name: golden[name] for name in golden if name not in generated}


def test_all_of_them_are_accounted_for(tmp_path):
    files = [*make_images(), *(list_hostile() if HOSTILE.is_dir() else ())]
    (tmp_path / "images" / "all").mkdir(parents=True)
    for number, (_, data) in enumerate(files):
        (tmp_path / "images" / "all" / f"{number:05d}.jpg").write_bytes(data)
    (tmp_path / "images" / "all" / "Thumbs.db").write_bytes(b"not looked at")

    convert_folder(tmp_path / "images", tmp_path / "out", OPTIONS)

    golden, totals = read_golden(), read_manifest(tmp_path / "out").totals
    lines = [*map(json.loads, (tmp_path / "out" / REJECTS).read_bytes().splitlines())]
    assert not {line["detail"] for line in lines if find_flaw(line["detail"])}
    found = {line["path"]: line["code"] for line in lines}
    assert found.pop("all/Thumbs.db") == "skipped_hidden"
    expected = {f"all/{n:05d}.jpg": golden[name] for n, (name, _) in enumerate(files)}
    assert found == {path: code for path, code in expected.items() if code in REJECT_CODES}
    assert totals.scanned == len(files) + 1
    assert totals.scanned == totals.written + len(found) + sum(totals.skipped.values())
    assert totals.rejected == dict(sorted(Counter(found.values()).items()))


def test_converting_them_starts_no_process_and_opens_no_socket():
    script = """
import os, sys
from making import describe_outcome, list_hostile, make_images
for name, data in make_images():
    describe_outcome(data)  # by now, whatever is loaded late is loaded
    break
events = []
SPAWNING = ("subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.system", "os.spawn",
            "socket.", "pty.", "urllib.", "os.startfile", "webbrowser.")
def listen(event, arguments):
    if event.startswith(SPAWNING):
        events.append((event, arguments))
sys.addaudithook(listen)
count = sum(1 for _, data in (*make_images(), *list_hostile()[::20]) if describe_outcome(data))
print(count, events)
os.system("true")
print(len(events))
"""
    ended = subprocess.run(
        [sys.executable, "-c", script],
        env=make_environment(),
        check=True,
        capture_output=True,
        text=True,
    )
    first, last = ended.stdout.splitlines()
    assert first.endswith(" []")
    assert int(first.split()[0]) > 110
    assert last == "1"  # the ear hears


def test_no_changed_byte_lets_anything_escape():
    for seed in range(600):
        assert fuzz_images.try_mutation(seed) in {"written", *REJECT_CODES}, seed


def test_what_escapes_would_be_seen(monkeypatch):
    def convert(data, options):
        raise struct_error

    struct_error = ValueError("planted")
    monkeypatch.setattr(fuzz_images, "convert_image", convert)
    assert fuzz_images.try_mutation(0) == "ValueError: planted"
    assert fuzz_images.main(["--count=3"]) == 1
