"""Assigns images to splits and orders them, as a job, and hands the launcher finished lines.

each part      assign_part    splits, by draws; a line for each image, and what is left out
each bucket    order_bucket   lines whose ranks begin alike, in order, split by split
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

import numpy as np

from converter.entries import Entries
from converter.entry_columns import Places, Texts, deal
from converter.inventory import SPLITS, Skipped
from converter.names import to_bytes
from converter.planning.hash_parts import CHANGED
from converter.planning.listing_parts import load_skipped, read_part
from converter.planning.part_files import pack_buckets, read_bucket, write_part
from converter.planning.plan import describe_skipped, dump_entry, dump_line, dump_texts
from converter.planning.planning_job import (
    Found,
    PlanningJob,
    locate_step,
    locate_steps,
    read_found,
)
from converter.planning.splits import draw_all, draw_freely, open_given
from converter.planning.strata import OPEN, Draws, Hints
from converter.sources.duplicates import skip_duplicate

_RANKED: Final = np.dtype([
    ("rank", "<u8"), ("size", "<i8"), ("split", "i1"), ("length", "<u4"),
])  # fmt: skip
LINES: Final = np.dtype([("size", "<i8"), ("length", "<u4")])
"""A line of `entries.jsonl`, and the bytes of its original."""


def assign_part(job: PlanningJob, number: int) -> None:
    """Assigns the images of a part to splits, and deals their lines out to buckets of ranks."""
    found = read_found(job)
    path = locate_step(job, found, "assign", number)
    if path.exists():
        return
    entries, data, first = read_part(job, found, number)
    skipped = load_skipped(data)
    groups = locate_steps(job, found, "group")
    changed, kept = read_bucket(groups, number, CHANGED)
    draws, ranks = draw_all(entries, job.options)
    given = open_given(entries.splits, job.options)
    if job.options.dedupe == "drop":
        left = _drop(entries, changed["place"] - first, kept, skipped)
        entries, draws, ranks, given = entries.take(left), draws[left], ranks[left], given[left]
    else:
        draws[changed["place"] - first] = changed["draw"]
        given[changed["place"] - first] = changed["given"]
    chosen = np.where(given == OPEN, draw_freely(draws, job.options), given)
    facts = _describe(entries, chosen, skipped)
    pieces = _pack_lines(entries, chosen, ranks, found)
    write_part(path, job.scratch, facts, [_dump_left_out(skipped), *pieces])


def _drop(entries: Entries, places: Places, kept: Iterable[str], skipped: list[Skipped]) -> Places:
    """Leaves out duplicates; returns the places of all other images."""
    for place, path in zip(places.tolist(), kept, strict=True):
        skipped.append(skip_duplicate(entries.paths[place], path))
    skipped.sort(key=lambda file: to_bytes(file.path))
    return np.delete(np.arange(len(entries)), places)


def _describe(entries: Entries, chosen: Hints, skipped: list[Skipped]) -> dict[str, Any]:
    counts = np.bincount(chosen, minlength=len(SPLITS)).tolist()
    unread = (file for file in skipped if file.code == "unreadable")
    return {
        "splits": dict(zip(SPLITS, counts, strict=True)),
        "given": [SPLITS[n] for n in np.unique(entries.splits).tolist() if n != OPEN],
        "codes": Counter(file.code for file in skipped),
        "unread": next(unread, None),
        "ends": [skipped[0].path, skipped[-1].path] if skipped else None,
    }


def _dump_left_out(skipped: list[Skipped]) -> bytes:
    return b"".join(dump_line(describe_skipped(file)) for file in skipped)


def _pack_lines(entries: Entries, chosen: Hints, ranks: Draws, found: Found) -> list[bytes]:
    names, lines = dump_texts(found.classes), Texts()
    for entry in entries:
        lines.append_bytes(dump_entry(entry, names))
    return pack_buckets(
        deal(ranks, found.bits),
        found.buckets,
        _RANKED,
        {"rank": ranks, "size": entries.sizes, "split": chosen},
        lines,
    )


def order_bucket(job: PlanningJob, number: int) -> None:
    """Orders the lines in a bucket of ranks, those of each split by themselves."""
    found = read_found(job)
    path = locate_step(job, found, "order", number)
    if path.exists():
        return
    paths = locate_steps(job, found, "assign")
    ranked, lines = read_bucket(paths, number, _RANKED, before=1)
    order = np.argsort(ranked["rank"], kind="stable")
    splits, sizes = ranked["split"][order], {"size": ranked["size"][order]}
    pieces = pack_buckets(splits, len(SPLITS), LINES, sizes, lines.take(order))
    write_part(path, job.scratch, {}, pieces)
