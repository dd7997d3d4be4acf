"""Turns one planned shard into files: read, convert and frame each image, then leave a receipt.

`mill_shard` is all that a worker does. It may run twice, also at the same time: its bytes depend
on the plan alone, and a file gets its final name only when it is whole.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final, TypeAlias

from converter import examples
from converter.boxes import fit_boxes
from converter.costs import count_read, enter
from converter.entries import NO_LABEL, Entry
from converter.errors import DatasetError, ImageError, OutputError, ShardmillError
from converter.images import StoredImage, convert_image, describe_large_file
from converter.indexes import format_line, name_index
from converter.isolation import convert_isolated
from converter.layout import Layout, Location
from converter.names import to_bytes
from converter.options import ConvertOptions
from converter.originals import Read, read_ahead, read_entry
from converter.plan import Shard, name_generator, read_entries
from converter.reasons import FILTERS
from converter.schema import Column, make_features
from converter.storage import create_file, hash_bytes, write_file
from converter.tfrecords import frame_record

_COLORSPACES: Final = {1: b"Grayscale", 3: b"RGB", 4: b"RGBA"}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What all shards of a conversion have in common.

    Attributes:
        images: the folder that entries are relative to.
        out: the data set.
        options: how images are converted.
        columns: what else records hold.
        generator: the versions that the plan was made with; without them, any will do.
    """

    images: Location
    out: Location
    options: ConvertOptions
    columns: tuple[Column, ...] = ()
    generator: str = ""

    def check_versions(self) -> None:
        """Makes sure that this worker writes what the manifest will say was written.

        Raises:
            OutputError: it has other versions of what the bytes depend on.
        """
        here = name_generator()
        if self.generator not in ("", here):
            raise OutputError(
                f"a worker has {here}, the conversion was planned with {self.generator}, and the "
                "bytes depend on it: install the same versions on all machines"
            )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One image, ready to be framed.

    Attributes:
        payload: a serialized `tf.train.Example`.
        image: what it holds.
    """

    payload: bytes
    image: StoredImage


Outcome: TypeAlias = Record | ImageError
"""What becomes of an image."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    """What was written for one shard.

    Attributes:
        name: the shard's file name.
        split: the split it belongs to.
        records: how many it holds.
        bytes: its size.
        sha256: of its content, in hexadecimal.
        index_bytes: the size of its index.
        index_sha256: of the index.
        max_record_bytes: the largest record, framing included.
        max_image_size: the largest height and the largest width of its images, in pixels.
        formats: number of images by stored format.
        labels: number of records by label, as [label, count] pairs in label order; `NO_LABEL` of
            those without one.
        rejects: images that were refused, as path, code and detail, in plan order.
    """

    name: str
    split: str
    records: int
    bytes: int
    sha256: str
    index_bytes: int
    index_sha256: str
    max_record_bytes: int
    max_image_size: tuple[int, int]
    formats: dict[str, int]
    labels: list[tuple[int, int]]
    rejects: list[dict[str, str]]

    @property
    def images(self) -> int:
        """How many images are dealt with: written or rejected."""
        return self.records + len(self.rejects)


def mill_shard(shard: Shard, job: Job) -> Receipt:
    """Converts the images of one shard and writes shard, index and receipt, in this order.

    Memory is bounded by one image; records go to the disk as they come.

    Raises:
        OutputError: a file cannot be written, or reads back differently.
        DatasetError: the plan's entries are not there as planned.
    """
    planned = read_entries(job.out, shard)
    outcomes = (
        (entry, convert_entry(entry, text, job, read))
        for (entry, text), read in read_ahead(planned, job.images, job.options.max_file_bytes)
    )
    return write_shard(shard, job, outcomes)


def convert_entry(entry: Entry, text: str, job: Job, read: Read | None = None) -> Outcome:
    """The record of one image, or why it has none.

    Raises:
        ShardmillError: it has none, and `on_error` is `fail`.
    """
    try:
        return make_record(entry, text, job.images, job.options, job.columns, read=read)
    except ImageError as error:  # one image must not cost the others
        enter("other")
        if job.options.on_error == "fail" and error.code not in FILTERS:
            raise ShardmillError(
                f"{ascii(entry.path)[1:-1]} cannot be converted: {error}: mend or remove it, or "
                "leave out --on-error fail"
            ) from error
        return error


def write_shard(shard: Shard, job: Job, outcomes: Iterable[tuple[Entry, Outcome]]) -> Receipt:
    """Writes shard, index and receipt, in this order, of what became of each image of a shard.

    Raises:
        OutputError: a file cannot be written, or reads back differently.
    """
    layout = Layout(job.out)
    tally = _Tally()
    path = job.out / shard.name
    with (
        create_file(path.with_name(name_index(shard.name)), layout.scratch) as index,
        create_file(path, layout.scratch) as file,
    ):
        for entry, outcome in outcomes:
            if isinstance(outcome, ImageError):
                tally.reject(entry, outcome)
                continue
            tally.add(entry.label, outcome.image)
            enter("write")
            framed = frame_record(outcome.payload)
            index.write(format_line(file.size, len(framed)))
            file.write(framed)
            tally.max_record_bytes = max(tally.max_record_bytes, len(framed))
            enter("other")
        enter("write")  # what is closed here is flushed, read back and renamed
    receipt = Receipt(
        name=shard.name,
        split=shard.split,
        records=sum(tally.labels.values()),
        bytes=file.size,
        sha256=file.sha256,
        index_bytes=index.size,
        index_sha256=index.sha256,
        max_record_bytes=tally.max_record_bytes,
        max_image_size=(tally.max_height, tally.max_width),
        formats=dict(sorted(tally.formats.items())),
        labels=sorted(tally.labels.items()),
        rejects=tally.rejects,
    )
    write_receipt(receipt, layout, shard)
    return receipt


def make_record(
    entry: Entry,
    text: str,
    images: Location,
    options: ConvertOptions,
    columns: Sequence[Column] = (),
    *,
    read: Read | None = None,
) -> Record:
    """Reads and converts one image.

    Args:
        entry: the image.
        text: its class's name, if it has a label.
        images: the folder that the entry is relative to, or the archive that it lies in.
        options: how images are converted.
        columns: what the entry's values are.
        read: gives the original's content; None if nobody has begun to read it.

    Raises:
        ImageError: the image cannot become a record.
    """
    if entry.size_bytes > options.max_file_bytes:
        raise describe_large_file(entry.size_bytes, options)
    enter("read")
    data = read() if read else read_entry(entry, images)
    count_read(len(data))
    if len(data) != entry.size_bytes:
        raise ImageError("changed", f"{entry.size_bytes} bytes when planned, {len(data)} now")
    image = (convert_isolated if options.isolate else convert_image)(data, options)
    enter("other")
    features: dict[str, examples.Value] = {
        examples.ENCODED: image.data,
        examples.FORMAT: image.format.encode(),
        examples.HEIGHT: image.height,
        examples.WIDTH: image.width,
        examples.CHANNELS: image.channels,
        examples.COLORSPACE: _COLORSPACES[image.channels],
        examples.FILENAME: to_bytes(PurePosixPath(entry.path).name),
        examples.SOURCE_ID: to_bytes(entry.path),
        examples.SHA256: hash_bytes(data).encode(),
    }
    if entry.label != NO_LABEL:
        features |= {examples.LABEL: entry.label, examples.TEXT: to_bytes(text)}
    if columns:
        values = json.loads(entry.values)
        features |= make_features(columns, fit_boxes(columns, values, data, options))
    types = {column.name: column.type for column in columns}
    return Record(payload=examples.encode_example(features, types), image=image)


def receipt_path(layout: Layout[Location], shard: Shard) -> Location:
    """Where the receipt of a shard lies."""
    return layout.receipts / f"{Path(shard.name).stem}.json"


def write_receipt(receipt: Receipt, layout: Layout[Location], shard: Shard) -> None:
    """Leaves the sign that a shard is finished.

    Raises:
        OutputError: it cannot be written.
    """
    data = json.dumps(dataclasses.asdict(receipt)).encode("ascii")
    write_file(receipt_path(layout, shard), data, layout.scratch)


def read_receipt(path: Location) -> Receipt:
    """Reads a receipt.

    Raises:
        DatasetError: it is damaged.
    """
    return parse_receipt(path.read_bytes(), path)


def parse_receipt(data: bytes, path: Location) -> Receipt:
    """A receipt of that content; raises what `read_receipt` does."""
    try:
        content: dict[str, Any] = json.loads(data)
        height, width = content.pop("max_image_size")
        labels = [(label, count) for label, count in content.pop("labels")]
        return Receipt(**content, max_image_size=(height, width), labels=labels)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DatasetError(f"{path}: cannot be read as a receipt: {error}") from error


class _Tally:
    """What is counted while records pass by."""

    def __init__(self) -> None:
        self.labels: Counter[int] = Counter()
        self.formats: Counter[str] = Counter()
        self.rejects: list[dict[str, str]] = []
        self.max_record_bytes = self.max_height = self.max_width = 0

    def reject(self, entry: Entry, error: ImageError) -> None:
        self.rejects.append({"path": entry.path, "code": error.code, "detail": error.detail})

    def add(self, label: int, image: StoredImage) -> None:
        self.labels[label] += 1
        self.formats[image.format] += 1
        self.max_height = max(self.max_height, image.height)
        self.max_width = max(self.max_width, image.width)
