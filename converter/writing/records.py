"""Reads, converts and describes an original: one record, or one for each of its frames."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import BinaryIO, Final, TypeAlias

from converter.costs import count_read, enter
from converter.errors import ImageError
from converter.format import examples
from converter.format.schema import MASK, Column, make_features
from converter.images.boxes import fit_boxes
from converter.images.conversion import Converted, Origin, StoredImage
from converter.images.frames import convert_frames
from converter.images.isolation import convert_isolated, convert_mask_isolated
from converter.images.masks import convert_mask, wrap_mask_errors
from converter.images.openers import check_file_size
from converter.inventory import NO_LABEL, Entry
from converter.names import name_frame, to_bytes
from converter.options import ConvertOptions
from converter.sources.inputs import locate_masks
from converter.sources.originals import Read, Reads, read_entry
from converter.storage.files import hash_bytes
from converter.storage.location import Location

_COLORSPACES: Final = {1: b"Grayscale", 3: b"RGB", 4: b"RGBA"}
_PACKED: Final = ("format", "height", "width", "channels")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """An image and its payload, a serialized `tf.train.Example`."""

    payload: bytes
    image: StoredImage


Outcome: TypeAlias = Record | ImageError
"""A record, or the reason why there is none."""


def make_records(
    entry: Entry,
    text: str,
    images: Location,
    sizes: Sequence[ConvertOptions],
    columns: Sequence[Column] = (),
    *,
    reads: Reads | None = None,
) -> Iterator[tuple[Entry, list[Outcome]]]:
    """Reads and converts one original.

    Args:
        entry: the original.
        text: the name of its class, if it has a label.
        images: the folder that the entry is relative to, or the archive that holds it.
        sizes: how it is converted: options that differ only in their size.
        columns: what the entry's values are.
        reads: pending reads of the original and its mask; None to read them here.

    Yields:
        for each frame that is taken, the entry with the path of the frame, and for each size the
        record, or why there is none.
    """
    options = sizes[0]
    try:
        data = _read(entry, images, options, reads.image if reads else None)
        count_read(len(data))
        mask = None
        if entry.mask is not None:
            with wrap_mask_errors():
                masks = locate_masks(images, options)
                mask = _read(entry.mask, masks, options, reads.mask if reads else None)
    except ImageError as error:
        enter("other")
        yield entry, [error.strip()] * len(sizes)
        return
    enter("other")
    mask_sha256 = "" if mask is None else hash_bytes(mask)
    facts = _Facts(entry, text, tuple(columns), hash_bytes(data), mask, mask_sha256)
    frames = (convert_isolated if options.isolate else convert_frames)(data, sizes)
    if mask is not None:
        # The child process that converts the mask has to be done with the image first.
        frames = iter([*frames])
    for number, outcomes in frames:
        enter("other")
        found = entry._replace(path=name_frame(entry.path, number))
        yield found, facts.describe(found.path, outcomes, sizes)


def pack_outcomes(outcomes: Iterable[tuple[Entry, Outcome]]) -> Iterator[bytes]:
    """The outcomes of one file as pieces of a spill file, where records wait for their shard.

    For each frame there is a line of JSON, and then its record.
    """
    for entry, outcome in outcomes:
        payload = b""
        if isinstance(outcome, ImageError):
            head: list[object] = [outcome.code, outcome.detail]
        else:
            payload, image = outcome.payload, outcome.image
            head = [*(getattr(image, name) for name in _PACKED), image.origin]
        yield json.dumps([entry.path, len(payload), *head]).encode("ascii") + b"\n"
        yield payload


def unpack_outcomes(file: BinaryIO, entry: Entry, size: int) -> Iterator[tuple[Entry, Outcome]]:
    """The inverse of `pack_outcomes`, for the next `size` bytes of a spill file."""
    end = file.tell() + size
    while file.tell() < end:
        path, payload_bytes, *head = json.loads(file.readline())
        found = entry._replace(path=path)
        if not payload_bytes:
            yield found, ImageError(*head)
            continue
        *values, origin = head
        fields = dict(zip(_PACKED, values, strict=True))
        image = StoredImage(data=b"", origin=Origin(*origin), **fields)
        yield found, Record(payload=file.read(payload_bytes), image=image)


@dataclasses.dataclass(frozen=True, slots=True)
class _Facts:
    """What all records of an original have in common."""

    entry: Entry
    text: str
    columns: tuple[Column, ...]
    sha256: str
    mask: bytes | None
    mask_sha256: str

    def describe(
        self, path: str, images: Sequence[Converted], sizes: Sequence[ConvertOptions]
    ) -> list[Outcome]:
        """The record of each image of a frame."""
        masks: list[bytes | None] = [None] * len(images)
        origin = next((i.origin for i in images if isinstance(i, StoredImage)), None)
        if self.mask is not None and origin is not None:
            try:
                convert = convert_mask_isolated if sizes[0].isolate else convert_mask
                masks = [*convert(self.mask, origin, sizes)]
            except ImageError as error:
                return [error.strip()] * len(images)
        parts = zip(images, masks, sizes, strict=True)
        return [self._describe_image(path, *part) for part in parts]

    def _describe_image(
        self, path: str, image: Converted, mask: bytes | None, options: ConvertOptions
    ) -> Outcome:
        if isinstance(image, ImageError):
            return image
        entry = self.entry
        features: dict[str, examples.Value] = {
            examples.ENCODED: image.data,
            examples.FORMAT: image.format.encode(),
            examples.HEIGHT: image.height,
            examples.WIDTH: image.width,
            examples.CHANNELS: image.channels,
            examples.COLORSPACE: _COLORSPACES[image.channels],
            examples.FILENAME: to_bytes(PurePosixPath(entry.path).name),
            examples.SOURCE_ID: to_bytes(path),
            examples.SHA256: self.sha256.encode(),
        }
        if entry.label != NO_LABEL:
            features |= {examples.LABEL: entry.label, examples.TEXT: to_bytes(self.text)}
        if mask is not None:
            features |= {
                MASK: mask,
                examples.MASK_FORMAT: b"png",
                examples.MASK_SHA256: self.mask_sha256.encode(),
            }
        valued = [column for column in self.columns if column.name != MASK]
        if valued:
            values = json.loads(entry.values)
            features |= make_features(valued, fit_boxes(valued, values, image.origin.size, options))
        types = {column.name: column.type for column in self.columns}
        return Record(payload=examples.encode_example(features, types), image=image)


def _read(entry: Entry, images: Location, options: ConvertOptions, read: Read | None) -> bytes:
    check_file_size(entry.size_bytes, options)
    enter("read")
    data = read() if read else read_entry(entry, images)
    if len(data) != entry.size_bytes:
        raise ImageError("changed", f"{entry.size_bytes} bytes when planned, {len(data)} now")
    return data
