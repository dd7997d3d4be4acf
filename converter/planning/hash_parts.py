"""Looks for images with the same content, and for paths that look the same, as a job.

    each part      hash_part      draws, and hashes of images whose size another one has
    each bucket    group_bucket   the hashes that begin alike: sets of images, and what is odd

An image crosses from its part to the bucket of its hash as some 60 bytes and its path.
"""

import concurrent.futures
import hashlib
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from converter.entries import Entries
from converter.entry_columns import Places, Texts, deal, find_repeated
from converter.inventory import MAX_NAMES, Note
from converter.planning.listing_parts import read_part
from converter.planning.part_files import (
    Records,
    pack_buckets,
    read_bucket,
    read_pieces,
    to_numbers,
    write_part,
)
from converter.planning.planning_job import (
    Found,
    PlanningJob,
    locate_step,
    locate_steps,
    read_found,
)
from converter.planning.splits import draw_all, draw_together, number_sets, open_given, spread
from converter.sources.duplicates import (
    END_BYTES,
    Sets,
    choose_dropped,
    choose_gravest,
    confirm_sets,
    describe_sets,
    find_alike,
    find_sets,
    hash_images,
)
from converter.sources.name_notes import find_twins, fold_path
from converter.storage.stores import CONNECTIONS

_HASHED: Final = np.dtype([
    ("hash", "<u8", 2), ("place", "<i8"), ("size", "<i8"), ("draw", "<u8"), ("rank", "<u8"),
    ("label", "<i4"), ("split", "i1"), ("length", "<u4"),
])  # fmt: skip
_NAMED: Final = np.dtype([("hash", "<u8"), ("place", "<i8"), ("length", "<u4")])
CHANGED: Final = np.dtype([
    ("place", "<i8"), ("draw", "<u8"), ("given", "i1"), ("length", "<u4"),
])  # fmt: skip
"""What changes for an image in a set. Its text is the path of the one that is kept, if any is."""


def hash_part(job: PlanningJob, number: int) -> None:
    """Hashes the images of a part, and deals the hashes out to buckets."""
    found = read_found(job)
    path = locate_step(job, found, "hash", number)
    if path.exists():
        return
    entries, _, first = read_part(job, found, number)
    pieces = [*_pack_hashes(job, found, entries, first), *_pack_names(found, entries, first)]
    write_part(path, job.scratch, {}, pieces)


def _pack_hashes(job: PlanningJob, found: Found, entries: Entries, first: int) -> list[bytes]:
    alike, hashes = _hash_alike(job, entries)
    some = entries.take(alike)
    draws, ranks = draw_all(some, job.options)
    columns = {
        "hash": hashes, "place": alike + first, "size": some.sizes, "draw": draws, "rank": ranks,
        "label": some.labels, "split": some.splits,
    }  # fmt: skip
    buckets = deal(hashes[:, 0], found.bits)
    return pack_buckets(buckets, found.buckets, _HASHED, columns, some.paths)


def _hash_alike(job: PlanningJob, entries: Entries) -> tuple[Places, npt.NDArray[np.uint64]]:
    """The images whose size another one has, wherever it lies, and their hashes."""
    if job.options.dedupe == "off":
        return np.empty(0, np.uint32), np.empty((0, 2), np.uint64)
    (pieces,) = read_pieces([job.classes], 0)
    alike = find_alike(entries.sizes, to_numbers(pieces[0]))
    with concurrent.futures.ThreadPoolExecutor(CONNECTIONS) as pool:
        hashes = hash_images(alike, entries, job.images, END_BYTES, pool)
    is_read = hashes.any(axis=1)
    return alike[is_read], hashes[is_read]


def _pack_names(found: Found, entries: Entries, first: int) -> list[bytes]:
    hashes = np.fromiter(map(_hash_folded, entries.paths.iterate()), np.uint64, len(entries))
    columns = {"hash": hashes, "place": np.arange(first, first + len(entries))}
    return pack_buckets(deal(hashes, found.bits), found.buckets, _NAMED, columns, entries.paths)


def _hash_folded(path: bytes) -> int:
    # Not by `hash`, which differs between processes.
    return int.from_bytes(hashlib.blake2b(fold_path(path), digest_size=8).digest(), "little")


def group_bucket(job: PlanningJob, number: int) -> None:
    """Finds the sets of images with the same content in a bucket, and the paths that look alike."""
    found = read_found(job)
    path = locate_step(job, found, "group", number)
    if path.exists():
        return
    hashed = [*locate_steps(job, found, "hash")]
    twins = _find_twins(*read_bucket(hashed, number, _NAMED, before=2 * found.buckets))
    records, paths = read_bucket(hashed, number, _HASHED)
    entries = Entries.of_columns(paths, records["size"], records["label"], records["split"])
    sets = find_sets(records["hash"], np.arange(len(entries), dtype=np.uint32), entries.sizes)
    with concurrent.futures.ThreadPoolExecutor(CONNECTIONS) as pool:
        sets = confirm_sets(sets, entries, job.images, pool)
    notes = choose_gravest(describe_sets(entries, sets))
    facts = {
        "twins": [(place, names[:MAX_NAMES]) for place, names in twins[:MAX_NAMES]],
        "twin_names": sum(len(names) for _, names in twins),
        "sets": [(int(records["place"][place]), note) for place, note in notes],
    }
    changed, kept = _find_changes(job, entries, sets, records)
    parts = np.searchsorted(np.array(found.bases[1:]), changed["place"], side="right")
    write_part(path, job.scratch, facts, pack_buckets(parts, job.parts, CHANGED, changed, kept))


def _find_twins(records: Records, paths: Texts) -> list[tuple[int, list[str]]]:
    """Groups of paths that look the same, each with the number of its first image."""
    alike = find_repeated(records["hash"]).tolist()
    places = {paths[n]: int(records["place"][n]) for n in alike}
    return [(places[names[0]], names) for names in find_twins(places)]


def _find_changes(
    job: PlanningJob, entries: Entries, sets: Sets, records: Records
) -> tuple[dict[str, npt.NDArray[Any]], Texts]:
    """The columns of `CHANGED` for the images of some sets, and its texts."""
    if job.options.dedupe == "drop":
        dropped = choose_dropped(entries, sets)
        kept = entries.paths.take(np.array([*dropped.values()], np.int64))
        return {"place": records["place"][[*dropped]]}, kept
    members, units = number_sets(sets)
    some = records[members]
    given = open_given(some["split"], job.options)
    changed = {
        "place": some["place"],
        "draw": draw_together(units, some["draw"], some["rank"], {}, job.options),
        "given": spread(given, units, some["split"]),
    }
    return changed, Texts.of_buffer(b"", np.zeros(len(members) + 1, np.int64))


def merge_notes(facts: Sequence[Mapping[str, Any]]) -> tuple[list[Note], list[Note]]:
    """The notes about paths that look the same, and about sets, from the facts of all buckets."""
    twins = sorted((place, names) for each in facts for place, names in each["twins"])
    listed = [*itertools.chain.from_iterable(names for _, names in twins)]
    total = sum(each["twin_names"] for each in facts)
    found = (
        (place, Note(code, tuple(names), count))
        for each in facts
        for place, (code, names, count) in each["sets"]
    )
    sets = [note for _, note in choose_gravest(found)]
    return [Note("twin_path", tuple(listed[:MAX_NAMES]), total)] if total else [], sets
