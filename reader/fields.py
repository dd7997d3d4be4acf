"""What a batch needs of its records: labels, images, and what else is asked for.

`find_fields` looks at all records of a block at once; what it does not find, `parse_payload` looks
for in one record, and says what is wrong with it.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from converter import examples
from reader.blocks import Block
from reader.headers import measure_image
from reader.orders import Numbers
from reader.spans import Mask, find_spans, read_numbers


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Fields:
    """Parts of the records of a block, in its order.

    Attributes:
        labels: int64 (records,), numbers of the classes.
        begins: int64 (records,), where each image begins in the block's data.
        ends: int64 (records,), where it ends.
        sizes: int64 (records, 2), height and width: as the record says if that was asked for, else
            as the image's header does.
        names: int64 (2, records), where the path of each original begins and ends, if asked for.
        sound: bool (records,); where it is not, nothing else means anything.
    """

    labels: Numbers
    begins: Numbers
    ends: Numbers
    sizes: Numbers
    names: Numbers
    sound: Mask


class Field(NamedTuple):
    """The same parts of one record."""

    label: int
    image: memoryview
    size: tuple[int, int]
    name: bytes


def find_fields(block: Block, *, raw: bool, with_names: bool) -> Fields:
    """Finds the fields of all records of a block.

    Args:
        block: that holds them.
        raw: whether images are stored without headers, so that records say their sizes.
        with_names: look for the paths of the originals too.
    """
    data, names = block.data, _list_features(raw=raw, with_names=with_names)
    begins, ends, sound = find_spans(data, block.begins, block.ends, names)
    sound &= block.sound
    numbers = []
    for row in (0, 2, 3) if raw else (0,):
        values, single = read_numbers(data, begins[row], ends[row])
        numbers.append(values)
        sound &= single
    sizes = np.stack(numbers[1:], -1) if raw else np.zeros((len(sound), 2), np.int64)
    for row in np.flatnonzero(sound).tolist() if not raw else ():
        try:
            sizes[row] = measure_image(data[begins[1, row] : ends[1, row]].data)
        except ValueError:  # noqa: PERF203 (each may be damaged)
            sound[row] = False
    return Fields(
        labels=numbers[0],
        begins=begins[1],
        ends=ends[1],
        sizes=sizes,
        names=np.stack((begins[-1], ends[-1])),
        sound=sound,
    )


def parse_payload(payload: memoryview, *, raw: bool, with_names: bool) -> Field:
    """Finds the fields of one record; arguments as of `find_fields`.

    Raises:
        ValueError: it is not a `tf.train.Example`, or does not have them.
    """
    names = _list_features(raw=raw, with_names=with_names)
    found = examples.find_values(payload, names)
    for name in names:
        if name not in found:
            raise ValueError(f"feature {name!r} is missing")
    label, *size = (
        _read_number(payload, found[name]) for name in (names[0], *names[2:4][: 2 * raw])
    )
    begin, end = found[examples.ENCODED]
    name_begin, name_end = found.get(examples.SOURCE_ID, (0, 0))
    image = payload[begin:end]
    height, width = size or measure_image(image)
    return Field(label, image, (height, width), bytes(payload[name_begin:name_end]))


def _list_features(*, raw: bool, with_names: bool) -> tuple[str, ...]:
    sizes = (examples.HEIGHT, examples.WIDTH) if raw else ()
    names = (examples.SOURCE_ID,) if with_names else ()
    return (examples.LABEL, examples.ENCODED, *sizes, *names)


def _read_number(payload: memoryview, span: tuple[int, int]) -> int:
    try:
        value, end = examples.read_varint(payload, span[0])
    except IndexError as error:
        raise ValueError("a number is cut off") from error
    if end != span[1]:
        raise ValueError("not one number where one has to be")
    return value
