"""Surveys for the tests of findings and pages, made from numbers alone."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from converter.commits.run_log import Run
from converter.costs import STEPS
from converter.format.manifest import ImageInfo, Manifest, ShardInfo, SplitInfo, Totals
from converter.histograms import OriginalTally
from converter.options import ConvertOptions
from pipelines.pages.record_facts import RecordFacts
from pipelines.pages.survey import Survey, survey_dataset


def make_manifest(
    counts: Mapping[str, Sequence[int]],
    classes: Sequence[str] | None = None,
    *,
    rejected: Mapping[str, int] | None = None,
    skipped: Mapping[str, int] | None = None,
    shards: int = 1,
    options: Mapping[str, Any] | None = None,
    **more: Any,
) -> Manifest:
    """A manifest of splits with so many records of each class; nothing of it is on a disk."""
    width = max(map(len, counts.values()))
    names = tuple(classes or (f"class {number}" for number in range(width)))
    made, splits = [], {}
    for split, labels in counts.items():
        records = sum(labels)
        for number in range(shards):
            info = {"records": records // shards, "bytes": 1000 * (records // shards) + number}
            made.append(
                ShardInfo(
                    name=f"{split}-{number:05d}-of-{shards:05d}.tfrecord", split=split,
                    sha256="", index_bytes=1, index_sha256="", max_record_bytes=1000, **info,
                )
            )  # fmt: skip
        size = sum(shard.bytes for shard in made if shard.split == split)
        splits[split] = SplitInfo(records=records, bytes=size, shards=shards, labels=tuple(labels))
    written = sum(split.records for split in splits.values())
    lost = dict(rejected or {}), dict(skipped or {})
    manifest = Manifest(
        generator="shardmill 0.2.0",
        options=ConvertOptions(**(options or {})).to_json(),
        plan="0" * 64,
        classes=names,
        image=ImageInfo(
            height=64, width=96, max_height=64, max_width=96, channels=3, formats={"jpeg": written}
        ),
        splits=splits,
        shards=tuple(made),
        files={},
        totals=Totals(
            scanned=written + sum(map(sum, (each.values() for each in lost))),
            written=written, rejected=lost[0], skipped=lost[1],
        ),
    )  # fmt: skip
    return dataclasses.replace(manifest, **more)


def make_survey(
    counts: Mapping[str, Sequence[int]] | None = None,
    classes: Sequence[str] | None = None,
    *,
    manifest: Mapping[str, Any] | None = None,
    **more: Any,
) -> Survey:
    """A survey of such a data set; by default one that is as it should be."""
    counts = {"train": [800, 700], "validation": [200, 180]} if counts is None else counts
    made = make_manifest(counts, classes, **(manifest or {}))
    given = {"rejects": {}, "records": RecordFacts(), **more}
    return survey_dataset("/data/flowers", made, **given)


def make_run(**changed: Any) -> Run:
    """A run that wrote all shards of a data set."""
    tally = OriginalTally()
    for number in range(100):
        tally.add(f"{number}.jpg", "jpeg", (480, 640 + number), 70_000, enlarged=False)
    usual = {
        "command": "shardmill convert photos flowers",
        "started": "2026-11-30T01:50:00Z",
        "generator": "shardmill 0.2.0",
        "workers": 2,
        "phases_msec": {"scan": 400, "convert": 90_000, "commit": 500},
        "steps_msec": {step: 1000 * place for place, step in enumerate(STEPS, 1)},
        "launcher_peak_bytes": 10**8,
        "worker_peak_bytes": 2 * 10**8,
        "shards_written": 3,
        "images_read": 100,
        "bytes_read": 7 * 10**6,
        "originals": tally.describe(),
    }
    return Run(**{**usual, **changed})
