"""Turns one planned shard into files: reads, converts and frames each image, then adds a receipt.

`write_shard` is all that a worker does. It may run twice, also at the same time: its bytes depend
on the plan alone, and a file gets its final name only when it is complete.
"""

import contextlib
import dataclasses
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from converter import progress
from converter.costs import enter
from converter.errors import DatasetError, ImageError, OutputError
from converter.format.indexes import format_line
from converter.format.manifest import ShardInfo
from converter.format.schema import Column
from converter.format.tfrecords import frame_record
from converter.images.conversion import StoredImage, name_generator
from converter.inventory import Entry, NoteTally
from converter.options import ConvertOptions
from converter.planning.plan import Plan, Shard, read_entries
from converter.sources.inputs import locate_masks
from converter.sources.originals import Reads, read_ahead
from converter.storage.files import HashedFile, Layout, hash_bytes, name_index, write_file
from converter.storage.location import Location
from converter.writing.image_notes import note_image
from converter.writing.records import Frames, check_policy, make_records

Planned: TypeAlias = tuple[Entry, str]
"""An image, and the name of its class."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What all shards of a conversion have in common: a part of its `Plan`."""

    images: Location
    out: Location
    options: ConvertOptions
    columns: tuple[Column, ...] = ()
    generator: str = ""  # which accepts workers of any version
    in_order: bool = False  # originals can only be read one after another, by file and place
    digest: str = ""  # of the plan, which receipts name

    @classmethod
    def of_plan(cls, plan: Plan) -> "Job":
        return cls(**{each.name: getattr(plan, each.name) for each in dataclasses.fields(cls)})

    def check_versions(self) -> None:
        """Raises OutputError if this worker has other versions than the manifest will state."""
        here = name_generator()
        if self.generator not in ("", here):
            raise OutputError(
                f"a worker has {here}, the conversion was planned with {self.generator}, and the "
                "bytes depend on it: install the same versions on all machines"
            )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Receipt(ShardInfo):
    """What was written for one shard, and what became of its images."""

    min_image_size: tuple[int, int]  # the least height and the least width, in pixels
    max_image_size: tuple[int, int]
    formats: dict[str, int]  # number of images by stored format
    labels: list[tuple[int, int]]  # label, or `NO_LABEL`, and number of records, in label order
    rejects: list[dict[str, str]]  # path, code and detail, in plan order
    frames: int  # records and rejects beyond the first of each file
    notes: list[dict[str, Any]]  # code, first names and total
    tag: str = ""  # of the shard in a store, and of its index: see `HashedFile.tag`
    index_tag: str = ""
    plan: str = ""  # the digest of its plan; empty if that is unknown

    @property
    def images(self) -> int:
        """The number of files that were written or rejected."""
        return self.records + len(self.rejects) - self.frames


def write_shard(shard: Shard, job: Job) -> Receipt:
    """Converts the images of one shard and writes shard, index and receipt, in this order.

    Memory is bounded by one image, because each record is written at once. Raises OutputError if a
    file cannot be written, or reads back differently, and DatasetError for entries not as planned.
    """
    return write_images(shard, job, convert_images(read_entries(job.out, shard), [job]))


def convert_images(planned: Iterable[Planned], jobs: Sequence[Job]) -> Iterator[Frames]:
    """Converts images one after another, as `convert_original` does; reads the next ones ahead."""
    images, options = jobs[0].images, jobs[0].options
    masks = locate_masks(images, options)
    for item, reads in read_ahead(planned, images, masks, options.max_file_bytes):
        yield convert_original(item, jobs, reads)


def convert_original(planned: Planned, jobs: Sequence[Job], reads: Reads | None = None) -> Frames:
    """Converts one image, or each of its frames, for jobs that differ only in output and size."""
    sizes, rejected = [job.options for job in jobs], 0
    for found, outcomes in make_records(
        *planned, jobs[0].images, sizes, jobs[0].columns, reads=reads
    ):
        for outcome in outcomes:
            check_policy(found, outcome, sizes[0])
        rejected += isinstance(outcomes[0], ImageError)
        yield found, outcomes
    progress.count_image(planned[0].size_bytes, rejected)


def write_images(shard: Shard, job: Job, images: Iterable[Frames]) -> Receipt:
    """Writes shard, index and receipt, in this order; raises what `write_shard` does."""
    return compose_shard(shard, job, images)()


def compose_shard(shard: Shard, job: Job, images: Iterable[Frames]) -> Callable[[], Receipt]:
    """Writes the first size of images to temporary files; raises what `write_shard` does.

    The result gives them their names and then writes the receipt. Any thread may call it, once.
    """
    layout, tally = Layout(job.out), _Tally()
    with contextlib.ExitStack() as stack:
        # Closed in reverse order: the shard gets its name before its index, and then both are
        # vouched for by the receipt.
        index = stack.enter_context((job.out / name_index(shard.name)).create(layout.scratch))
        file = stack.enter_context((job.out / shard.name).create(layout.scratch))
        for entry, (outcome, *_) in itertools.chain.from_iterable(images):
            if isinstance(outcome, ImageError):
                tally.reject(entry, outcome)
                continue
            tally.add(entry, outcome.image, job.columns, job.options)
            enter("write")
            framed = frame_record(outcome.payload)
            index.write(format_line(file.size, len(framed)))
            file.write(framed)
            tally.max_record_bytes = max(tally.max_record_bytes, len(framed))
            enter("other")
        files = stack.pop_all()  # which keeps them open

    def publish() -> Receipt:
        enter("write")  # closing flushes a file, reads it back and renames it
        files.close()
        receipt = dataclasses.replace(tally.describe(shard, file, index), plan=job.digest)
        write_receipt(receipt, layout, shard)
        return receipt

    return publish


def receipt_path(layout: Layout[Location], shard: Shard) -> Location:
    """The path of a shard's receipt."""
    return layout.receipts / f"{Path(shard.name).stem}.json"


def write_receipt(receipt: Receipt, layout: Layout[Location], shard: Shard) -> None:
    """Writes the sign that a shard is finished; raises OutputError if it cannot."""
    write_file(receipt_path(layout, shard), dump_receipt(receipt), layout.scratch)


def dump_receipt(receipt: Receipt) -> bytes:
    """The content of a receipt's file: one line, which begins with the name of the shard."""
    content = dataclasses.asdict(receipt)
    return json.dumps({**content, "digest": _digest(content)}).encode("ascii")


def read_receipt(path: Location) -> Receipt:
    """Reads a receipt; raises what `parse_receipt` does."""
    return parse_receipt(path.read_bytes(), path)


def parse_receipt(data: bytes, path: Location) -> Receipt:
    """Reads a receipt from its content; raises DatasetError if it is damaged."""
    try:
        content: dict[str, Any] = json.loads(data)
        if content.pop("digest") != _digest(content):
            raise ValueError("its digest does not match")  # noqa: TRY301
        for name in ("min_image_size", "max_image_size"):
            height, width = content[name]
            content[name] = (height, width)
        labels = [(label, count) for label, count in content.pop("labels")]
        return Receipt(**content, labels=labels)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DatasetError(f"{path}: cannot be read as a receipt: {error}") from error


def _digest(content: Mapping[str, Any]) -> str:
    return hash_bytes(json.dumps(content).encode("ascii"))


class _Tally:
    def __init__(self) -> None:
        self.labels: Counter[int] = Counter()
        self.formats: Counter[str] = Counter()
        self.rejects: list[dict[str, str]] = []
        self.notes = NoteTally()
        self.max_record_bytes = 0
        self.heights: set[int] = set()
        self.widths: set[int] = set()

    def reject(self, entry: Entry, error: ImageError) -> None:
        self.rejects.append({"path": entry.path, "code": error.code, "detail": error.detail})

    def add(
        self,
        entry: Entry,
        image: StoredImage,
        columns: Sequence[Column],
        options: ConvertOptions,
    ) -> None:
        self.labels[entry.label] += 1
        note_image(entry, columns, image.origin, options, self.notes)
        self.formats[image.format] += 1
        self.heights.add(image.height)
        self.widths.add(image.width)

    def describe(self, shard: Shard, file: HashedFile, index: HashedFile) -> Receipt:
        written = sum(self.labels.values())
        return Receipt(
            name=shard.name,
            split=shard.split,
            records=written,
            bytes=file.size,
            sha256=file.sha256,
            index_bytes=index.size,
            index_sha256=index.sha256,
            max_record_bytes=self.max_record_bytes,
            min_image_size=(min(self.heights, default=0), min(self.widths, default=0)),
            max_image_size=(max(self.heights, default=0), max(self.widths, default=0)),
            formats=dict(sorted(self.formats.items())),
            labels=sorted(self.labels.items()),
            rejects=self.rejects,
            frames=written + len(self.rejects) - shard.records,
            notes=[note._asdict() for note in self.notes.list_notes()],
            tag=file.tag,
            index_tag=index.tag,
        )
