"""Writes several shards in one reading of an archive that is compressed as a whole.

Images are converted in the order in which they lie in the archive, and records wait in a file of
the scratch folder until each shard is put together in its own order. So the archive is decompressed
once for each group of shards, and not for each shard; and its shards are finished when all of the
archive is read.
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
from converter.storage.atomic import describe_errors
from converter.storage.layout import Layout
from converter.writing.records import Outcome, make_records, pack_outcomes, unpack_outcomes
from converter.writing.shard_writer import Job, Receipt, check_policy, write_outcomes

_PIECE_BYTES: Final = 1 << 20


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Spooled:
    """What became of the images of some shards, of each size in a file of its own.

    Attributes:
        entries: of the images, shard by shard.
        places: of each shard, by its name, which of them it is made of.
        files: one for each size.
        spans: int64 (images, sizes, 2), where in its file an image begins, and its bytes there.
    """

    entries: list[Entry]
    places: dict[str, range]
    files: list[BinaryIO]
    spans: npt.NDArray[np.int64]

    def unpack(self, shard: Shard, size: int = 0) -> Iterator[tuple[Entry, Outcome]]:
        """What became of a shard's images, in its order; errors are those of reading a file."""
        for number in self.places[shard.name]:
            begin, taken = self.spans[number, size].tolist()
            self.files[size].seek(begin)
            yield from unpack_outcomes(self.files[size], self.entries[number], taken)

    def read_packed(self, shard: Shard, size: int) -> Iterator[Iterator[bytes]]:
        """The same as `pack_outcomes` gave it: the pieces of each image, to be read in order."""
        for number in self.places[shard.name]:
            yield self._read_pieces(self.files[size], *self.spans[number, size].tolist())

    @staticmethod
    def _read_pieces(file: BinaryIO, begin: int, taken: int) -> Iterator[bytes]:
        file.seek(begin)
        while taken:
            piece = file.read(min(taken, _PIECE_BYTES))
            if not piece:
                raise OSError(errno.EIO, "a temporary file is shorter than what was written to it")
            taken -= len(piece)
            yield piece


def write_together(shards: Sequence[Shard], job: Job) -> list[Receipt]:
    """Converts the images of some shards; errors are those of `write_shard`.

    Memory is bounded by one image and some 300 bytes for each image of these shards; the scratch
    folder takes their records, and gives them back.
    """
    with spool_images(shards, [job]) as spooled:
        return [write_outcomes(shard, job, spooled.unpack(shard)) for shard in shards]


@contextlib.contextmanager
def spool_images(shards: Sequence[Shard], jobs: Sequence[Job]) -> Iterator[Spooled]:
    """Converts the images of some shards in the order of the archive, to the size of each job.

    Args:
        shards: of the first job.
        jobs: that differ in nothing but the output and the size.

    Raises:
        OutputError: there is no room for the files: in the scratch folder, or in that of `TMPDIR`
            if the output lies in a store.
    """
    planned = [(shard, *item) for shard in shards for item in read_entries(jobs[0].out, shard)]
    folder = Layout(jobs[0].out).scratch.temporary
    with contextlib.ExitStack() as stack:
        files = [
            cast("BinaryIO", stack.enter_context(tempfile.TemporaryFile(dir=folder))) for _ in jobs
        ]
        spans = np.zeros((len(planned), len(jobs), 2), np.int64)
        for number in sorted(range(len(planned)), key=lambda number: planned[number][1].place):
            _, entry, text = planned[number]
            spans[number, :, 0] = [file.tell() for file in files]
            _spool(entry, text, jobs, files)
            spans[number, :, 1] = [file.tell() for file in files] - spans[number, :, 0]
        ends = np.cumsum([shard.records for shard in shards]).tolist()
        places = {s.name: range(end - s.records, end) for s, end in zip(shards, ends, strict=True)}
        entries = [entry for _, entry, _ in planned]
        yield Spooled(entries=entries, places=places, files=files, spans=spans)


def _spool(entry: Entry, text: str, jobs: Sequence[Job], files: Sequence[BinaryIO]) -> None:
    options = [job.options for job in jobs]
    for found, outcomes in make_records(entry, text, jobs[0].images, options, jobs[0].columns):
        for job, outcome, file in zip(jobs, outcomes, files, strict=True):
            check_policy(found, outcome, job.options)
            with describe_errors(Layout(job.out).scratch / "spool"):
                file.writelines(pack_outcomes([(found, outcome)]))


def deal_shards(shards: Sequence[Shard], groups: int) -> list[tuple[Shard, ...]]:
    """Deals shards out to groups that weigh the same, in as far as they can."""
    ordered = sorted(shards, key=lambda shard: (-shard.source_bytes, shard.name))
    return [tuple(ordered[first::groups]) for first in range(min(groups, len(ordered)))]
