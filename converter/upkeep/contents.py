"""What the records of a data set say: about their originals, their labels and their images.

`read_sources` trusts the records, and reads the fields before and after each image: a fraction of
the bytes. `check_content` looks at all of a record, and decodes its image and its mask.
"""

import dataclasses
import functools
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, BinaryIO, Final, NamedTuple, TypeAlias

from converter.errors import DatasetError, ImageError, RecordError
from converter.format import examples
from converter.format.indexes import parse_index
from converter.format.manifest import ImageInfo, Manifest, ShardInfo
from converter.format.schema import DECODED_ROWS, MASK, ORIGINAL_ROWS, check_values
from converter.format.tfrecords import FOOTER_BYTES, HEADER_BYTES
from converter.images.conversion import StoredImage, check_image
from converter.inventory import NO_LABEL, Entry
from converter.names import from_bytes, to_bytes
from converter.sources.originals import hash_original
from converter.storage.disk import DiskPath
from converter.storage.files import hash_file, name_index
from converter.storage.location import Location, map_in_threads

# Called with each shard that is done, in order.
OnShard: TypeAlias = Callable[[ShardInfo], object]

_HEAD_BYTES: Final = 1024  # in which the image nearly always begins

# Records hold their features in the order of their names; the image stands between these.
_BEFORE: Final = (examples.LABEL, examples.ENCODED)
_AFTER: Final = (
    examples.FORMAT, examples.HEIGHT, examples.SHA256, examples.SOURCE_ID, examples.WIDTH,
)  # fmt: skip

_BYTES: Final = (
    examples.COLORSPACE, examples.ENCODED, examples.FILENAME, examples.FORMAT, examples.SHA256,
    examples.SOURCE_ID, examples.TEXT,
)  # fmt: skip
_NUMBERS: Final = (examples.CHANNELS, examples.HEIGHT, examples.LABEL, examples.WIDTH)


class Source(NamedTuple):
    """What a record says about its original, by path and SHA-256, and about the stored image."""

    path: str
    sha256: str
    label: int  # an index into the class names, or `NO_LABEL`
    format: str
    height: int
    width: int
    details: bytes = b""  # the record without its image, if requested


class SourceCounts(NamedTuple):
    """Counts over the records of a shard; see `converter.writing.shard_writer.Receipt`."""

    labels: list[tuple[int, int]]
    formats: dict[str, int]
    min_image_size: tuple[int, int]
    max_image_size: tuple[int, int]


def count_sources(sources: Sequence[Source]) -> SourceCounts:
    """Counts the records of a shard, ordered by label and by format."""
    heights = [source.height for source in sources] or [0]
    widths = [source.width for source in sources] or [0]
    return SourceCounts(
        labels=sorted(Counter(source.label for source in sources).items()),
        formats=dict(sorted(Counter(source.format for source in sources).items())),
        min_image_size=(min(heights), min(widths)),
        max_image_size=(max(heights), max(widths)),
    )


def read_sources(
    folder: Location, shard: ShardInfo, *, labelled: bool = True, detailed: bool = False
) -> list[Source]:
    """Reads what the records of a shard were made from, in record order; compares no checksum.

    With `detailed`, records are read whole to fill in `Source.details`. Raises DatasetError if a
    file is missing or has another size than stated, or if a record cannot be read.
    """
    with folder.bring_local((shard.name, name_index(shard.name))) as here:
        try:
            bounds = read_bounds(here, shard)
            # Without a buffer, which `os.pread` does not use.
            with open(here / shard.name, "rb", buffering=0) as file:
                return [
                    _read_source(file, shard.name, span, labelled=labelled, detailed=detailed)
                    for span in pairwise(bounds)
                ]
        except OSError as error:
            raise DatasetError(f"{error.filename or shard.name}: {error.strerror}") from error


def read_bounds(folder: DiskPath, shard: ShardInfo) -> list[int]:
    """Reads where each record of a shard begins, and where the last one ends, from its index.

    Raises OSError, and DatasetError if shard or index are not as large as the manifest states.
    """
    index = name_index(shard.name)
    data = (folder / index).read_bytes()
    bounds: list[int] = parse_index(data, index=index, shard_bytes=shard.bytes).tolist()
    if len(bounds) != shard.records + 1 or (folder / shard.name).stat().st_size != shard.bytes:
        raise DatasetError(f"{shard.name} is not as large as the manifest states")
    return bounds


def read_all_sources(
    folder: Location,
    manifest: Manifest,
    shards: Sequence[ShardInfo] | None = None,
    *,
    detailed: bool = False,
) -> Iterator[tuple[ShardInfo, list[Source]]]:
    """Yields shards, all if not given, with what `read_sources` reads of several at a time."""
    chosen = manifest.shards if shards is None else shards
    read = functools.partial(read_sources, folder, labelled=manifest.labelled, detailed=detailed)
    return map_in_threads(read, chosen, folder)


def is_stated(folder: Location, shard: ShardInfo) -> bool:
    """Whether a shard and its index are, byte for byte, what the manifest states."""
    return (
        hash_file(folder / shard.name) == shard.sha256
        and hash_file(folder / name_index(shard.name)) == shard.index_sha256
    )


def describe_change(entry: Entry, sha256: str, images: Location, max_bytes: int) -> str | None:
    """How an original, of at most `max_bytes`, differs from its record; None if it does not."""
    try:
        now = hash_original(entry, images, max_bytes)
    except ImageError as error:
        return "is gone" if error.code == "vanished" else f"cannot be read: {error.detail}"
    return None if now == sha256 else "has other content"


def check_content(payload: bytes, manifest: Manifest, *, decode: bool) -> Source:
    """Checks a record, without `decode` only its image's header; ValueError says what is wrong."""
    return check_features(examples.decode_example(payload), manifest, decode=decode)


def check_features(
    features: Mapping[str, Sequence[Any]], manifest: Manifest, *, decode: bool
) -> Source:
    """`check_content` for the features of a record."""
    found = _read_singles(features, labelled=manifest.labelled)
    check_values(manifest.columns, features, len(manifest.classes))
    label = _check_label(found, manifest.classes) if manifest.labelled else NO_LABEL
    image = StoredImage(
        data=found[examples.ENCODED],
        format=found[examples.FORMAT].decode("ascii", "replace"),
        height=found[examples.HEIGHT],
        width=found[examples.WIDTH],
        channels=found[examples.CHANNELS],
    )
    _check_size(image, manifest.image)
    _check_decodes("image", image, decode=decode)
    names = {column.name for column in manifest.columns}
    if MASK in names:
        _check_mask(features, image, decode=decode)
    if DECODED_ROWS in names:
        _check_rows(features)
    return Source(
        path=from_bytes(found[examples.SOURCE_ID]),
        sha256=found[examples.SHA256].decode("ascii", "replace"),
        label=label,
        format=image.format,
        height=image.height,
        width=image.width,
    )


def _read_source(
    file: BinaryIO, shard: str, span: tuple[int, int], *, labelled: bool, detailed: bool
) -> Source:
    wanted = _BEFORE if labelled else _BEFORE[1:]
    begin, end = span[0] + HEADER_BYTES, span[1] - FOOTER_BYTES
    try:
        head = _read(file, begin, min(begin + _HEAD_BYTES, end))
        try:
            before = examples.find_values(head, wanted, end - begin)
        except ValueError:
            # A class with a very long name stands before the image.
            head = _read(file, begin, end)
            before = examples.find_values(head, wanted, end - begin)
        label = examples.read_varint(head, before[examples.LABEL][0])[0] if labelled else NO_LABEL
        tail = _read(file, begin + before[examples.ENCODED][1], end)
        after = examples.find_entries(tail, _AFTER, 0, len(tail))
        path, sha256, form = (
            from_bytes(bytes(tail[slice(*after[name])]))
            for name in (examples.SOURCE_ID, examples.SHA256, examples.FORMAT)
        )
        height, width = (
            examples.read_varint(tail, after[name][0])[0]
            for name in (examples.HEIGHT, examples.WIDTH)
        )
        details = b""
        if detailed:
            details = examples.strip_feature(_read(file, begin, end), examples.ENCODED)
        return Source(path, sha256, label, form, height, width, details)
    except (ValueError, KeyError, IndexError) as error:
        raise RecordError(shard, span[0], f"its source cannot be read: {error}") from error


def _read(file: BinaryIO, begin: int, end: int) -> memoryview:
    return memoryview(os.pread(file.fileno(), end - begin, begin))


def _read_singles(features: Mapping[str, Sequence[Any]], *, labelled: bool) -> Mapping[str, Any]:
    """The first value of each feature; the fixed ones must have exactly one, of their type."""
    unexpected = () if labelled else (examples.LABEL, examples.TEXT)
    for names, kind in ((_BYTES, bytes), (_NUMBERS, int)):
        for name in names:
            if name not in unexpected:
                examples.read_value(features, name, kind)
    return {name: values[0] for name, values in features.items() if values}


def _check_label(found: Mapping[str, Any], classes: Sequence[str]) -> int:
    label: int = found[examples.LABEL]
    if not 0 <= label < len(classes):
        raise ValueError(f"label {label} is out of range: there are {len(classes)} classes")
    if found[examples.TEXT] != to_bytes(classes[label]):
        raise ValueError(f"label {label} does not go with class {found[examples.TEXT][:100]!r}")
    return label


def _check_size(image: StoredImage, expected: ImageInfo) -> None:
    size = (image.height, image.width, image.channels)
    height, width = expected.height or expected.max_height, expected.width or expected.max_width
    limits, fixed = (height, width, expected.channels), (expected.height, expected.width, True)
    for found, limit, exact in zip(size, limits, fixed, strict=True):
        if found < 1 or found > limit or (exact and found != limit):
            raise ValueError(
                f"image of {'x'.join(map(str, size))}, where the manifest states "
                f"{'' if all(fixed) else 'up to '}{'x'.join(map(str, limits))}"
            )


def _check_mask(features: Mapping[str, Sequence[Any]], image: StoredImage, *, decode: bool) -> None:
    if features.get(examples.MASK_FORMAT) != [b"png"] or len(features[MASK]) != 1:
        raise ValueError(f"{examples.MASK_FORMAT} is not png")
    examples.read_value(features, examples.MASK_SHA256, bytes)
    mask = dataclasses.replace(image, data=features[MASK][0], format="png", channels=1)
    _check_decodes("mask", mask, decode=decode)


def _check_rows(features: Mapping[str, Sequence[Any]]) -> None:
    whole, decoded = (
        examples.read_value(features, name, int) for name in (ORIGINAL_ROWS, DECODED_ROWS)
    )
    if not 0 < decoded <= whole:
        raise ValueError(f"{DECODED_ROWS} is {decoded}, of {whole} rows")


def _check_decodes(what: str, image: StoredImage, *, decode: bool) -> None:
    try:
        check_image(image, decode=decode)
    except ImageError as error:
        raise ValueError(f"{what} does not decode: {error.detail}") from error
