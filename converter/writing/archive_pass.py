"""Writes several shards in one reading of an archive that is compressed as a whole.

Images are converted in the order of the archive, and their records wait in a spill file of the
scratch folder until each shard is put together in its own order. So the archive is decompressed
once for each group of shards, whose shards are all finished at the end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import tempfile
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Final, cast

import numpy as np
import numpy.typing as npt

from converter.inventory import Entry
from converter.planning.plan import Shard, read_entries
from converter.storage.files import Layout, describe_errors
from converter.writing.records import Outcome, make_records, pack_outcomes, unpack_outcomes
from converter.writing.shard_writer import Job, Receipt, check_policy, write_outcomes

_PIECE_BYTES: Final = 1 << 20


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Spooled:
    """The outcomes of the images of some shards, in a spill file for each size.

    `places` gives each shard, by its name, the range of its images in `entries`. `spans` is int64
    (images, sizes, 2): where an image begins in the spill file of a size, and its bytes there.
    """

    entries: list[Entry]
    places: dict[str, range]
    files: list[BinaryIO]
    spans: npt.NDArray[np.int64]

    def unpack(self, shard: Shard) -> Iterator[tuple[Entry, Outcome]]:
        """The outcomes of a shard's images in the first size, in the order of the shard."""
        for number in self.places[shard.name]:
            begin, size_bytes = self.spans[number, 0].tolist()
            self.files[0].seek(begin)
            yield from unpack_outcomes(self.files[0], self.entries[number], size_bytes)

    def read_packed(self, shard: Shard, size: int) -> Iterator[Iterator[bytes]]:
        """What `pack_outcomes` made of each image in a size: pieces to read in order."""
        for number in self.places[shard.name]:
            yield _read_span(self.files[size], *self.spans[number, size].tolist())


def _read_span(file: BinaryIO, begin: int, remaining: int) -> Iterator[bytes]:
    file.seek(begin)
    while remaining:
        piece = file.read(min(remaining, _PIECE_BYTES))
        if not piece:
            raise OSError(errno.EIO, "a temporary file is shorter than what was written to it")
        remaining -= len(piece)
        yield piece


def write_together(shards: Sequence[Shard], job: Job) -> list[Receipt]:
    """Converts the images of some shards; errors are those of `write_shard`.

    Memory is bounded by one image and some 300 bytes for each image of these shards. Their records
    take room in the scratch folder until the end.

    Args:
        shards: to write.
        job: what they have in common.

    Returns:
        the receipt of each shard, in order.
    """
    with spool_images(shards, [job]) as spooled:
        return [write_outcomes(shard, job, spooled.unpack(shard)) for shard in shards]


@contextlib.contextmanager
def spool_images(shards: Sequence[Shard], jobs: Sequence[Job]) -> Iterator[Spooled]:
    """Converts the images of shards of the first job, in the order of the archive.

    The jobs differ only in output and size. Without room for the spill files, in the scratch folder
    or in `TMPDIR` if the output lies in a store, this raises `OutputError`.
    """
    planned = [item for shard in shards for item in read_entries(jobs[0].out, shard)]
    folder = Layout(jobs[0].out).scratch.temporary
    with contextlib.ExitStack() as stack:
        files = [
            cast("BinaryIO", stack.enter_context(tempfile.TemporaryFile(dir=folder))) for _ in jobs
        ]
        spans = np.zeros((len(planned), len(jobs), 2), np.int64)
        for number in sorted(range(len(planned)), key=lambda number: planned[number][0].place):
            spans[number, :, 0] = [file.tell() for file in files]
            _spool(*planned[number], jobs, files)
            spans[number, :, 1] = [file.tell() for file in files] - spans[number, :, 0]
        ends = np.cumsum([shard.records for shard in shards]).tolist()
        places = {s.name: range(end - s.records, end) for s, end in zip(shards, ends, strict=True)}
        entries = [entry for entry, _ in planned]
        yield Spooled(entries=entries, places=places, files=files, spans=spans)


def _spool(entry: Entry, text: str, jobs: Sequence[Job], files: Sequence[BinaryIO]) -> None:
    options = [job.options for job in jobs]
    for found, outcomes in make_records(entry, text, jobs[0].images, options, jobs[0].columns):
        for job, outcome, file in zip(jobs, outcomes, files, strict=True):
            check_policy(found, outcome, job.options)
            with describe_errors(Layout(job.out).scratch / "spool"):
                file.writelines(pack_outcomes([(found, outcome)]))


def deal_shards(shards: Sequence[Shard], groups: int) -> list[tuple[Shard, ...]]:
    """Deals shards out to at most `groups` groups, so that all have about the same bytes."""
    ordered = sorted(shards, key=lambda shard: (-shard.source_bytes, shard.name))
    return [tuple(ordered[first::groups]) for first in range(min(groups, len(ordered)))]
