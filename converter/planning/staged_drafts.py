"""What the launcher makes of a plan whose steps ran as a job: counts, and streams of lines.

Neither images nor lines are held: memory is that of a few buckets, whatever the number of images.
"""

import dataclasses
import functools
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, overload

import numpy as np

from converter.entries import Listing
from converter.entry_columns import Texts
from converter.errors import UsageError
from converter.inventory import SPLITS, Entry, Inventory, Note, Skipped
from converter.planning.hash_parts import merge_notes
from converter.planning.part_files import Bucket, read_facts, read_pieces, unpack_bucket
from converter.planning.plan import Draft, Shard
from converter.planning.planning_job import Found, PlanningJob, locate_steps, read_found
from converter.planning.ranked_parts import LINES
from converter.planning.splits import check_filled, check_given
from converter.sources.scan import list_row_columns
from converter.storage.files import HashedFile
from converter.storage.location import Location

_AHEAD: Final = 2  # buckets that are fetched from a store while one is written: 6 MB each, about
_SAMPLE: Final = 1_024  # entries that are held, once they are asked for


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class StagedDraft(Draft):
    """A plan of which the lines lie in files, in order."""

    job: PlanningJob
    found: Found
    skipped: Mapping[str, int]
    repeated: frozenset[int]  # parts whose first hidden folder is that of the part before
    given: frozenset[str]  # splits that images have already

    def write_entries(self, file: HashedFile) -> Iterator[Shard]:
        lines = {split: _Lines(self.job, self.found, split) for split in self.shard_records}
        for split, index, records in self.iterate_shards():
            offset = file.size
            source_bytes = lines[split].copy(records, file)
            yield self.make_shard(split, index, offset, file.size - offset, source_bytes)

    def is_read_in_order(self, images: Location) -> bool:  # noqa: ARG002 (each is a file)
        return False

    def dump_left_out(self) -> Iterator[bytes]:
        paths = locate_steps(self.job, self.found, "assign")
        for number, (lines,) in enumerate(read_pieces(paths, 0, 1, ahead=_AHEAD)):
            yield lines.partition(b"\n")[2] if number in self.repeated else lines

    def count_skipped(self) -> Mapping[str, int]:
        return self.skipped


class StagedEntries(Listing):
    """The images of a split, of which only the first are ever looked at."""

    def __init__(self, job: PlanningJob, found: Found, split: str, count: int) -> None:
        self._where = job, found, split
        self._count = count

    @property
    def files(self) -> set[str]:
        return set()

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, place: int) -> Entry: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Entry]: ...

    def __getitem__(self, place: int | slice) -> Entry | Sequence[Entry]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(self._count))]
        place = range(self._count)[place]
        known = self._first
        return known[place] if place < len(known) else next(itertools.islice(self, place, None))

    def __iter__(self) -> Iterator[Entry]:
        for _, lines in _read_lines(*self._where):
            for name, label, _, size in map(json.loads, lines.iterate()):
                yield Entry(name, label, size)

    @functools.cached_property
    def _first(self) -> list[Entry]:
        return [*itertools.islice(self, _SAMPLE)]


def read_draft(job: PlanningJob) -> StagedDraft:
    """The plan without shards yet; UsageError if there is nothing to convert."""
    found = read_found(job)
    if found.error:
        raise UsageError(found.error)
    parts = [*read_facts(locate_steps(job, found, "assign"))]
    counts = {split: sum(part["splits"][split] for part in parts) for split in SPLITS}
    codes, repeated = _count_codes(parts)
    unread = [Skipped(*part["unread"]) for part in parts if part["unread"]]
    return StagedDraft(
        inventory=Inventory(
            classes=found.classes,
            entries=(),
            # Of others, only the number is known here.
            skipped=tuple(unread[:1]) * codes["unreadable"],
            notes=_list_notes(job, found),
            columns=list_row_columns(job.options),
            labelled=job.options.label_from != "none",
        ),
        splits={
            split: StagedEntries(job, found, split, count)
            for split, count in counts.items()
            if count
        },
        shard_records={},
        job=job,
        found=found,
        skipped=codes,
        repeated=repeated,
        given=frozenset(split for part in parts for split in part["given"]),
    )


def check_splits(draft: StagedDraft) -> None:
    """Raises what `assign_splits` raises of splits."""
    check_given(draft.given, draft.job.options)
    counts = {split: draft.splits.get(split, ()) for split in SPLITS}
    check_filled(counts, draft.job.options, is_given=bool(draft.given))


def _count_codes(parts: Sequence[Mapping[str, Any]]) -> tuple[Counter[str], frozenset[int]]:
    codes: Counter[str] = Counter()
    repeated, last = set(), ""
    for number, part in enumerate(parts):
        codes.update(part["codes"])
        if part["ends"]:
            first, end = part["ends"]
            # A hidden folder of a store is one line, also where several parts list what is in it.
            if first == last and first.endswith("/"):
                repeated.add(number)
            last = end
    codes["skipped_hidden"] -= len(repeated)
    return +codes, frozenset(repeated)


def _list_notes(job: PlanningJob, found: Found) -> tuple[Note, ...]:
    (facts,) = read_facts([job.classes])
    before, twins, empty = (
        [Note(code, tuple(names), total) for code, names, total in facts[name]]
        for name in ("notes", "twins", "empty")
    )
    paths, sets = merge_notes([*read_facts(locate_steps(job, found, "group"))])
    return (*before, *twins, *paths, *empty, *sets)


class _Lines:
    """The lines of a split, in order, handed out a shard at a time."""

    def __init__(self, job: PlanningJob, found: Found, split: str) -> None:
        self._buckets = _read_lines(job, found, split)
        self._records, self._lines = np.empty(0, LINES), Texts()
        self._place = 0

    def copy(self, records: int, file: HashedFile) -> int:
        """Writes so many lines; returns the bytes of their originals."""
        source_bytes = 0
        while records:
            if self._place == len(self._lines):
                self._records, self._lines = next(self._buckets)
                self._place = 0
            begin, end = self._place, min(self._place + records, len(self._lines))
            file.write(self._lines.read(begin, end))
            source_bytes += int(self._records["size"][begin:end].sum())
            records, self._place = records - (end - begin), end
        return source_bytes


def _read_lines(job: PlanningJob, found: Found, split: str) -> Iterator[Bucket]:
    first = 2 * SPLITS.index(split)
    paths = locate_steps(job, found, "order")
    for pieces in read_pieces(paths, first, first + 2, ahead=_AHEAD):
        yield unpack_bucket([pieces], LINES)
