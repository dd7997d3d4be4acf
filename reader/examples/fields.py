"""What a batch needs of its records: images, labels, and whatever else is asked for.

`find_fields` walks all records of a block side by side, feature by feature, with numpy instead of a
loop in Python: 3 microseconds a record. A record that is damaged, or laid out differently from the
first one, is left to `parse_payload`: protobuf's own parser, which reports what is wrong.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from converter.format import examples
from converter.format.manifest import ImageInfo
from converter.format.schema import MASK, Column, check_values
from reader.arrays import Bytes, Flags, Numbers
from reader.examples.image_headers import measure_image, measure_images
from reader.records.blocks import Block

NUMBERS: Final = (examples.HEIGHT, examples.WIDTH, examples.LABEL)  # other features are bytes

MAX_FEATURES: Final = 64  # of a record; later ones are not looked at

# Tags of `tf.train.Example` in the wire format of protobuf: the number of a field of bytes, and 2.
_FIELD_1, _FIELD_2 = 0x0A, 0x12
_MORE: Final = 0x80
_LENGTH_BITS: Final = 35  # a longer length is none of a record that fits into memory

Spans: TypeAlias = tuple[Numbers, Numbers, Flags]  # begins, ends, and which were found
Values: TypeAlias = tuple[Sequence[Any], ...]  # of one record, in the order of `Given.needed`


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """What is given of each record, and what the record has to be."""

    image: ImageInfo  # what the manifest says of all images
    classes: int  # stored labels are less than this
    labelled: bool = True  # whether each record has exactly one label; otherwise it is 0
    with_names: bool = False  # whether paths of the originals are given
    masks: bool = False  # whether masks are given
    with_labels: bool = False  # whether labels are given with the masks
    mask_padding: int = 0  # mask value where an image is padded
    label: Column | None = None  # the column to give as label instead
    columns: Mapping[str, Column] = dataclasses.field(default_factory=dict)  # by the caller's name

    @property
    def needed(self) -> tuple[Column, ...]:
        """The columns that have to be read."""
        label = () if self.label is None else (self.label,)
        return tuple(dict.fromkeys((*label, *self.columns.values())))

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features to find: image, mask, size, label, path."""
        return (
            examples.ENCODED,
            *(MASK,) * self.masks,
            *(examples.HEIGHT, examples.WIDTH) * self.image.is_raw,
            *(examples.LABEL,) * self.labelled,
            *(examples.SOURCE_ID,) * self.with_names,
        )

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
    """Parts of the records of a block, in its order; only those of valid records mean anything."""

    # A span is int64 (2, records): where each part begins and ends in the block's data.
    labels: Numbers  # (records,)
    images: Numbers  # span
    sizes: Numbers  # (records, 2): height and width, as the record or the image's header says
    masks: Numbers  # span, if asked for
    names: Numbers  # span of the paths of the originals, if asked for
    values: npt.NDArray[np.object_]  # (records,): `Values`, if columns are asked for
    valid: Flags  # (records,)


class Field(NamedTuple):
    """The same parts of one record, in place of spans."""

    label: int
    image: bytes
    size: tuple[int, int]
    name: bytes
    mask: bytes
    values: Values


def find_fields(block: Block, given: Given) -> Fields:
    """Finds the fields of all records of a block."""
    data, names = block.data, given.features
    begins, ends, valid = find_spans(data, block.begins, block.ends, names)
    valid &= block.valid
    numbers: dict[str, Numbers] = {name: np.zeros(len(valid), np.int64) for name in NUMBERS}
    for row, name in enumerate(names):
        if name in numbers:
            numbers[name], single = read_numbers(data, begins[row], ends[row])
            valid &= single
    sizes = np.stack((numbers[examples.HEIGHT], numbers[examples.WIDTH]), -1)
    if not given.image.is_raw:
        sizes[valid] = measure_images(data, begins[0, valid], ends[0, valid])
    valid &= (numbers[examples.LABEL] < given.limit) & given.fits(sizes, ends[0] - begins[0])
    for row in np.flatnonzero(valid).tolist() if given.masks else ():
        mask = data[begins[1, row] : ends[1, row]].data
        valid[row] = _is_mask(mask, tuple(sizes[row].tolist()))
    # Columns hold any number of values: each record is parsed by itself.
    columns, values = given.needed, np.full(len(valid), None, np.object_)
    for row in np.flatnonzero(valid).tolist() if columns else ():
        try:
            payload = data[block.begins[row] : block.ends[row]].tobytes()
            values[row] = _read_values(examples.decode_example(payload), columns, given.classes)
        except ValueError:  # noqa: PERF203 (each may be damaged)
            valid[row] = False
    return Fields(
        labels=numbers[examples.LABEL],
        images=np.stack((begins[0], ends[0])),
        sizes=sizes,
        masks=np.stack((begins[int(given.masks)], ends[int(given.masks)])),
        names=np.stack((begins[-1], ends[-1])),
        values=values,
        valid=valid,
    )


def parse_payload(payload: memoryview, given: Given) -> Field:
    """Finds the fields of one record as `find_fields` does; a `ValueError` says what is wrong."""
    features = examples.decode_example(bytes(payload))
    get = functools.partial(examples.read_value, features)
    image = get(examples.ENCODED, bytes)
    label = get(examples.LABEL, int) if given.labelled else 0
    name = get(examples.SOURCE_ID, bytes) if given.with_names else b""
    mask = get(MASK, bytes) if given.masks else b""
    if given.image.is_raw:
        size = get(examples.HEIGHT, int), get(examples.WIDTH, int)
    else:
        size = measure_image(memoryview(image))
    # Before a decoder allocates what a header claims.
    if not given.fits(np.array([size]), np.array([len(image)])).all():
        raise ValueError(
            f"an image of {size[0]}x{size[1]} in {len(image)} bytes, expected up to "
            f"{given.image.max_height}x{given.image.max_width}"
        )
    if not 0 <= label < given.limit:
        raise ValueError(f"label {label}, expected less than {given.limit}")
    if given.masks and not _is_mask(memoryview(mask), size):
        raise ValueError(f"its mask is not a PNG of {size[0]}x{size[1]}")
    values = _read_values(features, given.needed, given.classes)
    return Field(label, image, size, name, mask, values)


def _read_values(
    features: Mapping[str, Sequence[Any]], columns: Sequence[Column], classes: int
) -> Values:
    check_values(columns, features, classes)
    return tuple(features.get(column.name, ()) for column in columns)


def _is_mask(mask: memoryview, size: tuple[int, ...]) -> bool:
    """Whether this is a PNG of the size of its image, by its header."""
    try:
        return bytes(mask[1:4]) == b"PNG" and measure_image(mask) == size
    except ValueError:
        return False


def find_spans(
    data: Bytes, begins: Numbers, ends: Numbers, names: Sequence[str], *, within: bool = False
) -> Spans:
    """Finds the values of some scalar features in serialized `tf.train.Example`s.

    The records, at least one, lie in `data` from `begins` to `ends`; with `within`, only the end of
    each, from the start of a feature on. Returns where each value, which is bytes or a varint,
    begins and ends, int64 (names, records); and whether all were found, bool (records,).
    """
    spans = np.zeros((2, len(names), len(begins)), np.int64)
    missing = {name.encode(): row for row, name in enumerate(names)}
    at, stops = begins, ends
    valid: Flags = np.ones(len(begins), np.bool_)
    if not within:
        at, stops, valid = _enter(data, begins, ends, _FIELD_1)  # Example.features
    for _ in range(MAX_FEATURES):
        if not missing or at[0] >= stops[0]:
            break
        entry, at, inside = _enter(data, at, stops, _FIELD_1)  # Features.feature
        key = data[entry[0] : entry[0] + 2 + data.take(entry[0] + 1, mode="clip")]
        values = entry + len(key)
        valid &= inside & (values <= at)
        valid &= (data.take(entry[:, None] + np.arange(len(key)), mode="clip") == key).all(axis=1)
        row = missing.pop(key[2:].tobytes(), None)
        if row is not None:
            spans[0, row], spans[1, row], scalar = _find_values(data, values, at)
            valid &= scalar & (key[0] == _FIELD_1)
    return spans[0], spans[1], valid & (not missing)


def read_numbers(data: Bytes, begins: Numbers, ends: Numbers) -> tuple[Numbers, Flags]:
    """Reads varints: int64 (records,), and bool (records,), whether each fills its span."""
    values, stops, valid = _read_varints(data, begins)
    return values, valid & (stops == ends)


def _find_values(data: Bytes, at: Numbers, ends: Numbers) -> Spans:
    """Enters one feature, which has to hold a single value: bytes or a packed integer."""
    feature, stops, valid = _enter(data, at, ends, _FIELD_2)  # FeatureEntry.value
    kind = data.take(feature, mode="clip")
    values, stops, listed = _enter(data, feature, stops, kind)
    value, value_ends, single = _enter(data, values, stops, _FIELD_1)
    return value, value_ends, valid & listed & single & (value_ends == stops)


def _enter(data: Bytes, at: Numbers, ends: Numbers, tag: int | Bytes) -> Spans:
    """Enters the fields that have to begin at `at` and to end by `ends`."""
    sizes, begins, valid = _read_varints(data, at + 1)
    stops = begins + sizes
    valid &= data.take(at, mode="clip") == tag
    valid &= stops <= ends
    return begins, stops, valid


def _read_varints(data: Bytes, at: Numbers) -> tuple[Numbers, Numbers, Flags]:
    byte = data.take(at, mode="clip")
    values, at = byte.astype(np.int64), at + 1
    more = byte >= _MORE
    for shift in range(7, _LENGTH_BITS, 7):
        if not more.any():
            break
        byte = data.take(at, mode="clip")
        # The bit above the digits so far is the flag for "more": it is taken off again.
        values += more * ((byte.astype(np.int64) << shift) - (1 << shift))
        at += more
        more &= byte >= _MORE
    return values, at, ~more
