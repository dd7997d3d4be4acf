"""Turns originals into records, and refuses what the options forbid.

An original gives one record, or one for each of its frames.
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, Final, TypeAlias

from converter.costs import count_read, enter
from converter.errors import ImageError, ShardmillError, UsageError
from converter.format import examples
from converter.format.schema import (
    DECODED_ROWS,
    FROM_FILES,
    MASK,
    ORIGINAL_ROWS,
    Column,
    make_features,
)
from converter.image_options import check_file_size
from converter.images.conversion import (
    Converted,
    Frame,
    StoredImage,
    convert_frames,
    copy_images,
)
from converter.images.geometry import fit_boxes
from converter.images.isolation import convert_isolated, convert_mask_isolated
from converter.images.masks import convert_mask, wrap_mask_errors
from converter.images.opened_images import Origin
from converter.images.record_images import RecordImage, identify
from converter.inventory import FILTERS, NO_LABEL, NOTES, Entry, Inventory
from converter.names import name_frame, to_bytes
from converter.options import ConvertOptions
from converter.sources.inputs import locate_masks
from converter.sources.originals import Read, Reads, read_entry
from converter.storage.location import Location
from converter.writing.image_notes import count_converted

# The notes that `strict` refuses, the gravest first.
STRICT_NOTES: Final = (
    "duplicate_split", "duplicate_class", "twin_class", "twin_path", "unused_mask",
)  # fmt: skip

_COLORSPACES: Final = {1: b"Grayscale", 3: b"RGB", 4: b"RGBA"}
_PACKED: Final = ("format", "height", "width", "channels")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """An image and its payload, a serialized `tf.train.Example`."""

    payload: bytes
    image: StoredImage


Outcome: TypeAlias = Record | ImageError
"""A record, or the reason why there is none."""

Frames: TypeAlias = Iterator[tuple[Entry, list[Outcome]]]
"""What became of an image, or of each of its frames with its path, in each size."""


def make_records(
    entry: Entry,
    text: str,
    images: Location,
    sizes: Sequence[ConvertOptions],
    columns: Sequence[Column] = (),
    *,
    reads: Reads | None = None,
) -> Frames:
    """Reads and converts one original of `images`, a folder or an archive.

    `text` is the name of its class, if it has a label, and `columns` say what its values are. The
    options in `sizes` differ only in their size. Without pending `reads`, it is read here.
    """
    options = sizes[0]
    try:
        data, mask = _read_both(entry, images, options, reads)
    except ImageError as error:
        enter("other")
        yield entry, [error.strip()] * len(sizes)
        return
    enter("other")
    common = _describe_original(entry, text, data, mask)
    if copies := copy_images(data, sizes):
        frames = iter([Frame(None, copies)])
    else:
        frames = (convert_isolated if options.isolate else convert_frames)(data, sizes)
    if mask is not None:
        # The child process that converts the mask has to be done with the image first.
        frames = iter([*frames])
    for number, converted in frames:
        enter("other")
        found = entry._replace(path=name_frame(entry.path, number))
        try:
            fitted = _fit_mask(mask, converted, sizes)
        except ImageError as error:
            yield found, [error.strip()] * len(sizes)
            continue
        parts = zip(converted, fitted, sizes, strict=True)
        outcomes = [
            _describe_image(found, image, common | more, size, columns)
            for image, more, size in parts
        ]
        if not number:  # of an animation, its first frame stands for all
            count_converted(entry.path, converted, len(data), options)
        yield found, outcomes


def _read_both(
    entry: Entry, images: Location, options: ConvertOptions, reads: Reads | None
) -> tuple[bytes, bytes | None]:
    """The content of an original, and of its mask if it has one."""
    data = _read(entry, images, options, reads.image if reads else None)
    count_read(len(data))
    if entry.mask is None:
        return data, None
    with wrap_mask_errors():
        masks = locate_masks(images, options)
        return data, _read(entry.mask, masks, options, reads.mask if reads else None)


def pack_outcome(entry: Entry, outcome: Outcome) -> tuple[bytes, bytes]:
    """A line of JSON and a record for a spill file, where records wait for their shard."""
    if isinstance(outcome, ImageError):
        payload, head = b"", (outcome.code, outcome.detail)
    else:
        payload, image = outcome.payload, outcome.image
        head = (*(getattr(image, name) for name in _PACKED), image.origin)
    return json.dumps([entry.path, len(payload), *head]).encode("ascii") + b"\n", payload


def unpack_outcomes(file: BinaryIO, entry: Entry, size: int) -> Frames:
    """What became of an original in one size, from the next `size` bytes of a spill file."""
    end = file.tell() + size
    while file.tell() < end:
        path, payload_bytes, *head = json.loads(file.readline())
        found = entry._replace(path=path)
        if not payload_bytes:
            yield found, [ImageError(*head)]
            continue
        *values, origin = head
        fields = dict(zip(_PACKED, values, strict=True))
        # Without the image's bytes: they are in the record, and no caller needs them twice.
        image = StoredImage(data=b"", origin=Origin(*origin), **fields)
        yield found, [Record(payload=file.read(payload_bytes), image=image)]


def describe_values(
    entry: Entry, columns: Sequence[Column], origin: Origin, options: ConvertOptions
) -> dict[str, list[Any]]:
    """The features that the row of an original gives to its record."""
    valued = [column for column in columns if column.name not in FROM_FILES]
    if not valued:
        return {}
    values, turned = json.loads(entry.values), origin.orientation
    return make_features(valued, fit_boxes(valued, values, origin.size, options, turned))


def check_scan(inventory: Inventory, options: ConvertOptions) -> None:
    """Raises UsageError for what `strict` refuses, and ShardmillError for what `on_error` does."""
    if options.on_error == "fail" and inventory.rejected:
        first = inventory.rejected[0]
        raise _describe_failure(first.path, f"{first.code}: {first.detail}")
    if not options.strict:
        return
    if unread := [skip for skip in inventory.skipped if skip.code == "unreadable"]:
        raise UsageError(
            f"{unread[0].path} cannot be read ({unread[0].detail}), one of {len(unread):,}: "
            "make it readable or remove it, or leave out --strict"
        )
    if notes := [note for note in inventory.notes if note.code in STRICT_NOTES]:
        gravest = min(notes, key=lambda note: STRICT_NOTES.index(note.code))
        names = ", ".join(map(repr, gravest.names[:2]))
        raise UsageError(
            f"{gravest.code}, {NOTES[gravest.code]}: {names}: rename or remove one, or leave out "
            "--strict"
        )


def check_policy(entry: Entry, outcome: Outcome, options: ConvertOptions) -> None:
    """Raises ShardmillError for an image without a record, if `on_error` is `fail`."""
    if options.on_error == "reject" or not isinstance(outcome, ImageError):
        return
    # An image that a filter leaves out is not wrong.
    if outcome.code not in FILTERS:
        raise _describe_failure(entry.path, str(outcome)) from outcome


def _describe_failure(path: str, reason: str) -> ShardmillError:
    return ShardmillError(
        f"{ascii(path)[1:-1]} cannot be converted: {reason}: mend or remove it, or leave out "
        "--on-error fail"
    )


def _describe_original(
    entry: Entry, text: str, data: bytes, mask: bytes | None
) -> dict[str, examples.Value]:
    features: dict[str, examples.Value] = {
        examples.FILENAME: to_bytes(entry.path.rpartition("/")[2]),
        examples.SHA256: identify(data).encode(),
    }
    if entry.label != NO_LABEL:
        features |= {examples.LABEL: entry.label, examples.TEXT: to_bytes(text)}
    if isinstance(data, RecordImage):  # what is known of the first original
        rows = {*data.record.features} & {ORIGINAL_ROWS, DECODED_ROWS}
        features |= {name: data.record.features[name][0] for name in rows}
    if mask is not None:
        features |= {examples.MASK_FORMAT: b"png", examples.MASK_SHA256: identify(mask).encode()}
    return features


def _fit_mask(
    mask: bytes | None, images: Sequence[Converted], sizes: Sequence[ConvertOptions]
) -> list[dict[str, examples.Value]]:
    """The feature of the mask in each size; nothing without a mask, or an image to fit it to."""
    origin = next((image.origin for image in images if isinstance(image, StoredImage)), None)
    if mask is None or origin is None:
        return [{}] * len(images)
    if all(isinstance(image, StoredImage) and image.record for image in images):
        return [{MASK: bytes(mask)}] * len(images)
    convert = convert_mask_isolated if sizes[0].isolate else convert_mask
    return [{MASK: fitted} for fitted in convert(mask, origin, sizes)]


def _describe_image(
    entry: Entry,
    image: Converted,
    features: dict[str, examples.Value],
    options: ConvertOptions,
    columns: Sequence[Column],
) -> Outcome:
    if isinstance(image, ImageError):
        return image
    features = {
        **features,
        examples.ENCODED: image.data,
        examples.FORMAT: image.format.encode(),
        examples.HEIGHT: image.height,
        examples.WIDTH: image.width,
        examples.CHANNELS: image.channels,
        examples.COLORSPACE: _COLORSPACES[image.channels],
        examples.SOURCE_ID: to_bytes(entry.path),
        **describe_values(entry, columns, image.origin, options),
    }
    if options.truncated == "fill" and ORIGINAL_ROWS not in features:
        features |= {ORIGINAL_ROWS: image.origin.rows, DECODED_ROWS: image.origin.decoded_rows}
    if image.record and image.record.holds(features):
        return Record(payload=image.record.payload, image=image)
    # A column may be empty in a row, and its feature then has no value that tells its type.
    types = {column.name: column.type for column in columns}
    return Record(payload=examples.encode_example(features, types), image=image)


def _read(entry: Entry, images: Location, options: ConvertOptions, read: Read | None) -> bytes:
    check_file_size(entry.size_bytes, options.max_file_bytes)
    enter("read")
    data = read() if read else read_entry(entry, images)
    if len(data) != entry.size_bytes:
        raise ImageError("changed", f"{entry.size_bytes} bytes when planned, {len(data)} now")
    return data
