"""What a batch needs of its records: labels, images, and what else is asked for.

`find_fields` looks at all records of a block at once; what it does not find, `parse_payload` looks
for in one record, and says what is wrong with it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from converter.format import examples
from converter.format.schema import MASK, Column, check_values
from reader.arrays import Flags, Numbers
from reader.examples.image_headers import measure_image
from reader.examples.vector_parse import find_spans, read_numbers
from reader.records.blocks import Block

_NUMBERS: Final = (examples.HEIGHT, examples.WIDTH, examples.LABEL)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Fields:
    """Parts of the records of a block, in its order.

    Attributes:
        labels: int64 (records,), numbers of the classes.
        begins: int64 (records,), where each image begins in the block's data.
        ends: int64 (records,), where it ends.
        sizes: int64 (records, 2), height and width: as the record says if that was asked for, else
            as the image's header does.
        masks: int64 (2, records), where each mask begins and ends, if asked for.
        names: int64 (2, records), where the path of each original begins and ends, if asked for.
        sound: bool (records,); where it is not, nothing else means anything.
    """

    labels: Numbers
    begins: Numbers
    ends: Numbers
    sizes: Numbers
    masks: Numbers
    names: Numbers
    sound: Flags


class Field(NamedTuple):
    """The same parts of one record; where columns are wanted, `name` is all but the image."""

    label: int
    image: memoryview
    size: tuple[int, int]
    name: bytes
    mask: memoryview


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """Which parts of records are looked for.

    Attributes:
        raw: whether images are stored without headers, so that records say their sizes.
        with_names: the paths of the originals too.
        labelled: labels; where there are none, they are 0.
        masks: the masks of images.
        columns: all but the image, with these columns in it, instead of the path alone.
        classes: how many there are.
    """

    raw: bool = False
    with_names: bool = False
    labelled: bool = True
    masks: bool = False
    columns: tuple[Column, ...] = ()
    classes: int = 0

    @property
    def features(self) -> tuple[str, ...]:
        """Their names in a record: image, mask, size, label, path."""
        sizes = (examples.HEIGHT, examples.WIDTH) if self.raw else ()
        labels = (examples.LABEL,) if self.labelled else ()
        names = (examples.SOURCE_ID,) if self.with_names else ()
        masks = (MASK,) if self.masks else ()
        return (examples.ENCODED, *masks, *sizes, *labels, *names)


def find_fields(block: Block, wanted: Wanted) -> Fields:
    """Finds the fields of all records of a block; where columns are wanted, names mean nothing.

    Args:
        block: that holds them.
        wanted: which fields.
    """
    data, names = block.data, wanted.features
    begins, ends, sound = find_spans(data, block.begins, block.ends, names)
    sound &= block.sound
    numbers = {name: np.zeros(len(sound), np.int64) for name in _NUMBERS}
    for row, name in enumerate(names):
        if name in numbers:
            numbers[name], single = read_numbers(data, begins[row], ends[row])
            sound &= single
    sizes = np.stack((numbers[examples.HEIGHT], numbers[examples.WIDTH]), -1)
    for row in np.flatnonzero(sound).tolist() if not wanted.raw else ():
        try:
            sizes[row] = measure_image(data[begins[0, row] : ends[0, row]].data)
        except ValueError:  # noqa: PERF203 (each may be damaged)
            sound[row] = False
    for row in np.flatnonzero(sound).tolist() if wanted.masks else ():
        mask = data[begins[1, row] : ends[1, row]].data
        sound[row] = _fits(mask, tuple(sizes[row].tolist()))
    return Fields(
        labels=numbers[examples.LABEL],
        begins=begins[0],
        ends=ends[0],
        sizes=sizes,
        masks=np.stack((begins[int(wanted.masks)], ends[int(wanted.masks)])),
        names=np.stack((begins[-1], ends[-1])),
        sound=sound,
    )


def parse_payload(payload: memoryview, wanted: Wanted) -> Field:
    """Finds the fields of one record, as `find_fields` does.

    Raises:
        ValueError: it is not a `tf.train.Example`, or does not have them.
    """
    found = examples.find_values(payload, wanted.features)
    for name in wanted.features:
        if name not in found:
            raise ValueError(f"feature {name!r} is missing")
    numbers = {name: _read_number(payload, found[name]) for name in _NUMBERS if name in found}
    begin, end = found[examples.ENCODED]
    name_begin, name_end = found.get(examples.SOURCE_ID, (0, 0))
    path = bytes(payload[name_begin:name_end])
    if wanted.columns:
        path = read_details(payload, wanted.columns, wanted.classes)
    image = payload[begin:end]
    if wanted.raw:
        size = numbers[examples.HEIGHT], numbers[examples.WIDTH]
    else:
        size = measure_image(image)
    mask_begin, mask_end = found.get(MASK, (0, 0))
    mask = payload[mask_begin:mask_end]
    if wanted.masks and not _fits(mask, size):
        raise ValueError(f"its mask is not a PNG of {size[0]}x{size[1]}")
    return Field(numbers.get(examples.LABEL, 0), image, size, path, mask)


def read_details(payload: memoryview, columns: Sequence[Column], classes: int) -> bytes:
    """All of a record but its image, as a `tf.train.Example`.

    Raises:
        ValueError: it is none, or does not hold what its columns say.
    """
    details = examples.strip_feature(payload, examples.ENCODED)
    check_values(columns, examples.decode_example(details), classes)
    return details


def _fits(mask: memoryview, size: tuple[int, ...]) -> bool:
    """Whether a mask is of the size of its image, by its header."""
    try:
        return bytes(mask[1:4]) == b"PNG" and measure_image(mask) == size
    except ValueError:
        return False


def _read_number(payload: memoryview, span: tuple[int, int]) -> int:
    try:
        value, end = examples.read_varint(payload, span[0])
    except IndexError as error:
        raise ValueError("a number is cut off") from error
    if end != span[1]:
        raise ValueError("not one number where one has to be")
    return value
