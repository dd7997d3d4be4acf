"""What a batch needs of its records: images, labels, and whatever else is asked for.

`find_fields` looks at all records of a block at once. `parse_payload` uses protobuf's own parser on
a single record where that fails, and reports what is wrong.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np

from converter.format import examples
from converter.format.manifest import ImageInfo
from converter.format.schema import MASK, Column, check_values
from reader.arrays import Flags, Numbers
from reader.examples.image_headers import measure_image, measure_images
from reader.examples.vector_parse import find_spans, read_numbers
from reader.records.blocks import Block

_NUMBERS: Final = (examples.HEIGHT, examples.WIDTH, examples.LABEL)

Values: TypeAlias = tuple[Sequence[Any], ...]  # of one record, in the order of `Wanted.columns`


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """Which parts of records to read, and what they have to be."""

    image: ImageInfo  # what the manifest says of all images
    classes: int
    with_names: bool = False  # read the paths of the originals
    labelled: bool = True  # read labels; otherwise they are 0
    masks: bool = False  # read the masks of images
    columns: tuple[Column, ...] = ()  # whose values to read

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features to find: image, mask, size, label, path."""
        sizes = (examples.HEIGHT, examples.WIDTH) if self.image.is_raw else ()
        labels = (examples.LABEL,) if self.labelled else ()
        names = (examples.SOURCE_ID,) if self.with_names else ()
        masks = (MASK,) if self.masks else ()
        return (examples.ENCODED, *masks, *sizes, *labels, *names)

    @property
    def limit(self) -> int:
        """Labels have to be less than this."""
        return self.classes if self.labelled else 1

    def fits(self, sizes: Numbers, image_bytes: Numbers) -> Flags:
        """Whether images of some sizes (records, 2) and bytes (records,) fit the manifest."""
        image = self.image
        least, most = (image.height or 1, image.width or 1), (image.max_height, image.max_width)
        inside = (sizes >= least) & (sizes <= most)
        fits: Flags = inside[:, 0] & inside[:, 1]
        if image.is_raw:
            fits &= image_bytes == sizes[:, 0] * sizes[:, 1] * image.channels
        return fits


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Fields:
    """Parts of the records of a block, in its order; only those of valid records mean anything.

    A span is int64 (2, records): where each part begins and ends in the block's data.
    """

    labels: Numbers  # (records,)
    images: Numbers  # span
    sizes: Numbers  # (records, 2): height and width, as the record or the image's header says
    masks: Numbers  # span, if asked for
    names: Numbers  # span of the paths of the originals, if asked for
    values: list[Values]  # of each record's columns, if asked for
    valid: Flags  # (records,)


class Field(NamedTuple):
    """The same parts of one record, in place of spans."""

    label: int
    image: bytes
    size: tuple[int, int]
    name: bytes
    mask: bytes
    values: Values


def find_fields(block: Block, wanted: Wanted) -> Fields:
    """Finds the wanted fields in all records of a block."""
    data, names = block.data, wanted.features
    begins, ends, valid = find_spans(data, block.begins, block.ends, names)
    valid &= block.valid
    numbers = {name: np.zeros(len(valid), np.int64) for name in _NUMBERS}
    for row, name in enumerate(names):
        if name in numbers:
            numbers[name], single = read_numbers(data, begins[row], ends[row])
            valid &= single
    sizes = np.stack((numbers[examples.HEIGHT], numbers[examples.WIDTH]), -1)
    if not wanted.image.is_raw:
        sizes[valid] = measure_images(data, begins[0, valid], ends[0, valid])
    valid &= (numbers[examples.LABEL] < wanted.limit) & wanted.fits(sizes, ends[0] - begins[0])
    for row in np.flatnonzero(valid).tolist() if wanted.masks else ():
        mask = data[begins[1, row] : ends[1, row]]
        valid[row] = _is_mask(mask.data, tuple(sizes[row].tolist()))
    values: list[Values] = [()] * len(valid)
    for row in np.flatnonzero(valid).tolist() if wanted.columns else ():
        try:
            payload = data[block.begins[row] : block.ends[row]].tobytes()
            values[row] = _read_values(examples.decode_example(payload), wanted)
        except ValueError:  # noqa: PERF203 (each may be damaged)
            valid[row] = False
    return Fields(
        labels=numbers[examples.LABEL],
        images=np.stack((begins[0], ends[0])),
        sizes=sizes,
        masks=np.stack((begins[int(wanted.masks)], ends[int(wanted.masks)])),
        names=np.stack((begins[-1], ends[-1])),
        values=values,
        valid=valid,
    )


def parse_payload(payload: memoryview, wanted: Wanted) -> Field:
    """Finds the fields of one record, as `find_fields` does.

    Raises:
        ValueError: the payload is not a `tf.train.Example`, or lacks a field, or one is not what
            the manifest says.
    """
    features = examples.decode_example(bytes(payload))
    get = functools.partial(examples.read_value, features)
    image = get(examples.ENCODED, bytes)
    label = get(examples.LABEL, int) if wanted.labelled else 0
    name = get(examples.SOURCE_ID, bytes) if wanted.with_names else b""
    mask = get(MASK, bytes) if wanted.masks else b""
    if wanted.image.is_raw:
        size = get(examples.HEIGHT, int), get(examples.WIDTH, int)
    else:
        size = measure_image(memoryview(image))
    # Before a decoder allocates what a header claims.
    if not wanted.fits(np.array([size]), np.array([len(image)])).all():
        raise ValueError(
            f"an image of {size[0]}x{size[1]} in {len(image)} bytes, expected up to "
            f"{wanted.image.max_height}x{wanted.image.max_width}"
        )
    if not 0 <= label < wanted.limit:
        raise ValueError(f"label {label}, expected less than {wanted.limit}")
    if wanted.masks and not _is_mask(memoryview(mask), size):
        raise ValueError(f"its mask is not a PNG of {size[0]}x{size[1]}")
    return Field(label, image, size, name, mask, _read_values(features, wanted))


def _read_values(features: Mapping[str, Sequence[Any]], wanted: Wanted) -> Values:
    check_values(wanted.columns, features, wanted.classes)
    return tuple(features.get(column.name, ()) for column in wanted.columns)


def _is_mask(mask: memoryview, size: tuple[int, ...]) -> bool:
    """Whether this is a PNG of the size of its image, by its header."""
    try:
        return bytes(mask[1:4]) == b"PNG" and measure_image(mask) == size
    except ValueError:
        return False
