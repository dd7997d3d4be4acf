"""Texts for people."""

import os

import pytest

from converter.format.manifest import ImageInfo, Manifest, SplitInfo, Totals
from converter.names import escape
from pipelines.cli import reports


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain ü 猫", "plain ü 猫"),
        ("bell\x07", "bell\\x07"),
        ("new\nline", "new\\nline"),
        ("\x1b[2J", "\\x1b[2J"),
        (os.fsdecode(b"latin-\xfc"), "latin-\\xfc"),
        ("half of a pair \ud800", "half of a pair \\ud800"),
        ("right\u202eleft", "right\\u202eleft"),
    ],
)
def test_names_are_made_safe_to_print(name: str, shown: str) -> None:
    assert escape(name) == shown


def test_long_bytes_are_only_measured() -> None:
    features = {"b": [b"x" * 1234], "a": [7], "c": [b"short"], "d": list(range(10))}
    assert list(reports.summarize_record(features)) == [
        "  a                    7",
        "  b                    1,234 bytes",
        "  c                    short",
        "  d                    0, 1, 2, 3, 4, 5, 6, 7 …",
    ]


def make_manifest(classes: int, updated: int = 0) -> Manifest:
    return Manifest(
        updated=updated,
        generator="shardmill 0",
        options={},
        plan="",
        classes=tuple(f"c{label}" for label in range(classes)),
        image=ImageInfo(
            height=None, width=None, max_height=9, max_width=8, channels=3, formats={"png": classes}
        ),
        splits={"train": SplitInfo(records=classes, bytes=4_000, shards=2, labels=(1,) * classes)},
        shards=(),
        files={},
        totals=Totals(scanned=classes + 1, written=classes, rejected={"empty": 1}, skipped={}),
    )


def test_a_data_set_of_mixed_sizes_says_so(tmp_path: os.PathLike[str]) -> None:
    lines = list(reports.summarize_dataset(make_manifest(2), tmp_path))  # type: ignore[arg-type]
    assert lines[1] == "  images     of different sizes, up to 9x8, 3 channels, 2 png"
    assert lines[2] == "  train      2 records in 2 shards, 4.0 kB (2.0 kB a shard)"
    assert lines[3] == "  left out   1 rejected (empty 1), 0 skipped"


def test_a_data_set_that_was_updated_says_so(tmp_path: os.PathLike[str]) -> None:
    line = "  updated    3 times since it was converted as a whole"
    for updated in (0, 3):
        manifest = make_manifest(2, updated)
        lines = list(reports.summarize_dataset(manifest, tmp_path))  # type: ignore[arg-type]
        assert (line in lines) == bool(updated)


def test_many_classes_are_cut_short(tmp_path: os.PathLike[str]) -> None:
    lines = list(reports.summarize_dataset(make_manifest(25), tmp_path))  # type: ignore[arg-type]
    assert lines[-1] == "         … and 5 more classes"
    assert len(lines) == 5 + 21
