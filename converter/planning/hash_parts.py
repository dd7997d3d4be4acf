"""Looks for images with the same content, and for paths that look the same, as a job.

    each part      hash_part      draws, and hashes of images whose size another one has
    each bucket    group_bucket   the hashes that begin alike: sets of images, and what is odd

An image crosses from its part to the bucket of its hash as some 60 bytes and its path.
"""

import concurrent.futures
import hashlib
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from converter.entries import Entries
from converter.entry_columns import Places, Texts, deal, find_repeated
from converter.inventory import MAX_NAMES, NO_LABEL, Note
from converter.names import from_bytes
from converter.planning.part_files import (
    Records,
    join_buckets,
    pack_buckets,
    read_buckets,
    read_facts,
    read_pieces,
    to_numbers,
    unpack_entries,
    write_part,
)
from converter.planning.planning_job import (
    Found,
    PlanningJob,
    locate_step,
    locate_steps,
    name_part,
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


class Part(NamedTuple):
    """The images of a part that are wanted, with labels, and what is not converted."""

    entries: Entries
    skipped: bytes
    first: int  # the number of the first image among those of all parts


def read_part(job: PlanningJob, found: Found, number: int) -> Part:
    """Reads what `label_part` left, with the labels that are known since."""
    path = job.listing / name_part("label", number)
    (pieces,) = read_pieces([path], 0, 6)
    (facts,) = read_facts([path])
    entries = unpack_entries(pieces[1:])
    # One more at the end, for the number -1.
    labels = np.array([*(found.labels[name] for name in facts["names"]), NO_LABEL], np.int32)
    entries.assign(labels[entries.labels], entries.splits)
    return Part(entries, pieces[0], found.bases[number])


def hash_part(job: PlanningJob, number: int) -> None:
    """Hashes the images of a part, and deals the hashes out to buckets."""
    found = read_found(job)
    if found.error or (path := locate_step(job, found, "hash", number)).exists():
        return
    entries, _, first = read_part(job, found, number)
    alike, hashes = _hash_alike(job, entries)
    records = np.zeros(len(alike), _HASHED)
    draws, ranks = draw_all(entries, job.options)
    records["hash"], records["place"] = hashes, alike + first
    columns: dict[str, npt.NDArray[Any]] = {
        "size": entries.sizes, "draw": draws, "rank": ranks, "label": entries.labels,
        "split": entries.splits,
    }  # fmt: skip
    for name, values in columns.items():
        records[name] = values[alike]
    paths = [entries.paths.read(place) for place in alike.tolist()]
    buckets = deal(hashes[:, 0], found.bits)
    pieces = pack_buckets(buckets, found.buckets, records, paths)
    write_part(path, job.scratch, {}, [*pieces, *_pack_names(entries, first, found)])


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


def _pack_names(entries: Entries, first: int, found: Found) -> list[bytes]:
    records = np.zeros(len(entries), _NAMED)
    paths = [*entries.paths.iterate()]
    digests = (hashlib.blake2b(fold_path(path), digest_size=8).digest() for path in paths)
    records["hash"] = np.frombuffer(b"".join(digests), "<u8")
    records["place"] = np.arange(first, first + len(entries))
    return pack_buckets(deal(records["hash"], found.bits), found.buckets, records, paths)


def group_bucket(job: PlanningJob, number: int) -> None:
    """Finds the sets of images with the same content in a bucket, and the paths that look alike."""
    found = read_found(job)
    if number >= found.buckets or (path := locate_step(job, found, "group", number)).exists():
        return
    hashed = [*locate_steps(job, found, "hash")]
    named = join_buckets(read_buckets(hashed, number, _NAMED, before=2 * found.buckets), _NAMED)
    twins = _find_twins(*named)
    del named
    records, paths = join_buckets(read_buckets(hashed, number, _HASHED), _HASHED)
    entries = _join_entries(records, paths)
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
    write_part(path, job.scratch, facts, pack_buckets(parts, job.parts, changed, kept))


def _join_entries(records: Records, paths: Sequence[bytes]) -> Entries:
    texts = Texts()
    for path in paths:
        texts.append_bytes(path)
    return Entries.of_columns(texts, records["size"], records["label"], records["split"])


def _find_twins(records: Records, paths: Sequence[bytes]) -> list[tuple[int, list[str]]]:
    """Groups of paths that look the same, each with the number of its first image."""
    alike = find_repeated(records["hash"]).tolist()
    places = {from_bytes(paths[n]): int(records["place"][n]) for n in alike}
    return [(places[names[0]], names) for names in find_twins(places)]


def _find_changes(
    job: PlanningJob, entries: Entries, sets: Sets, records: Records
) -> tuple[Records, list[bytes]]:
    """What changes for the images of some sets, and the paths of those that are kept instead."""
    if job.options.dedupe == "drop":
        dropped = choose_dropped(entries, sets)
        changed = np.zeros(len(dropped), CHANGED)
        changed["place"] = records["place"][[*dropped]]
        return changed, [entries.paths.read(place) for place in dropped.values()]
    members, units = number_sets(sets)
    given = open_given(records["split"][members], job.options)
    draws, ranks = records["draw"][members], records["rank"][members]
    changed = np.zeros(len(members), CHANGED)
    changed["place"] = records["place"][members]
    changed["draw"] = draw_together(units, draws, ranks, {}, job.options)
    changed["given"] = spread(given, units, records["split"][members])
    return changed, [b""] * len(members)


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
