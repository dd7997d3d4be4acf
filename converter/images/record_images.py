"""Images of our own records: what the record says of them, and when they need not be opened."""

import dataclasses
import hashlib
import re
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final

from converter.errors import ImageError
from converter.format import examples
from converter.format.schema import MASK
from converter.image_options import ImageOptions
from converter.images.geometry import fit_image
from converter.images.openers import check_filters
from converter.names import from_bytes
from converter.options import MAX_SIDE_PIXELS, ConvertOptions

# What `Entry.part` says of an image in a record, by the options that it was stored with; or that
# the mask is meant. The colon is for features of others, which `Entry.part` names, too.
PLAIN, KEPT, UNKNOWN, OF_MASK = OWN_PARTS = (":plain", ":kept", ":unknown", ":mask")

_SHA256: Final = re.compile(rb"[0-9a-f]{64}")

# A TIFF of one strip. Each tag is u16 number | u16 type | u32 count | u32 value or its place; the
# types are 3 for u16 and 4 for u32.
_SHORT, _LONG = 3, 4
_PHOTOMETRIC: Final = {1: 1, 3: 2, 4: 2}  # of channels: black is zero, RGB


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class OwnRecord:
    """A record of ours whose checksum is right, as it is stored."""

    payload: bytes
    features: Mapping[str, Sequence[Any]]
    trust: str  # `PLAIN` has no metadata; `KEPT` has sRGB colours; `UNKNOWN` may be anything

    @property
    def format(self) -> str:
        stated: bytes = self.features[examples.FORMAT][0]
        return stated.decode("ascii", "replace")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the stored image."""
        names = examples.HEIGHT, examples.WIDTH, examples.CHANNELS
        height, width, channels = (int(self.features[name][0]) for name in names)
        return height, width, channels

    def holds(self, features: Mapping[str, examples.Value]) -> bool:
        """Whether these are its features, all of them and no other."""
        # NaN is not equal to itself: such a record is encoded again, to the same bytes.
        return self.features.keys() == features.keys() and all(
            self.features[name] == ([value] if isinstance(value, bytes | int | float) else value)
            for name, value in features.items()
        )


class RecordImage(bytes):
    """The image, or the mask, of a record of ours; pixels without a header as a TIFF."""

    record: OwnRecord
    sha256: str  # of the first original, as the record states it

    @classmethod
    def of_payload(cls, payload: bytes, part: str, path: str) -> "RecordImage":
        """The image of that path in a record; a `ValueError` if this is no record of ours.

        Raises an `ImageError` if it holds another image now.
        """
        features = examples.decode_example(payload)
        masked = part == OF_MASK
        name = MASK if masked else examples.ENCODED
        source_id = examples.read_value(features, examples.SOURCE_ID, bytes)
        # Of several IMAGES, the path begins with where the data set lies.
        if not f"/{path}".endswith("/" + from_bytes(source_id)):
            raise ImageError("changed", "another image is in its record now")
        key = examples.MASK_SHA256 if masked else examples.SHA256
        sha256 = examples.read_value(features, key, bytes)
        if not _SHA256.fullmatch(sha256):
            raise ValueError(f"{key} is no SHA-256")
        for side in (examples.HEIGHT, examples.WIDTH, examples.CHANNELS):
            if (stated := examples.read_value(features, side, int)) < 1:
                raise ValueError(f"{side} is {stated}")
        examples.read_value(features, examples.FORMAT, bytes)
        record = OwnRecord(payload=payload, features=features, trust=part)
        data = examples.read_value(features, name, bytes)
        if not masked and record.format == "raw":
            data = wrap_pixels(data, *record.shape)
        image = cls(data)
        image.record, image.sha256 = record, sha256.decode("ascii")
        return image


def choose_trust(options: Mapping[str, Any]) -> str:
    """What the options of a data set say of its images, for `OwnRecord.trust`."""
    if options.get("encoding") != "keep":
        return PLAIN
    return KEPT if options.get("color_profiles") == "srgb" else UNKNOWN


def identify(data: bytes) -> str:
    """The SHA-256 of an original; of an image from a data set, that of the first original."""
    return data.sha256 if isinstance(data, RecordImage) else hashlib.sha256(data).hexdigest()


def may_copy(record: OwnRecord, options: ConvertOptions) -> bool:
    """Whether the image of a record is what is asked for, without a look at its pixels.

    Our records hold what was decoded once, in the size, mode and encoding that they state.
    """
    height, width, channels = record.shape
    keep = options.encoding == "keep"
    encoding = record.format if keep and record.format != "raw" else options.encoding
    return (
        record.format == encoding
        and (record.trust == PLAIN or (keep and record.trust == KEPT))
        and channels == options.channels
        and max(height, width) <= MAX_SIDE_PIXELS
        and fit_image((height, width), options).canvas == (height, width)
        and _is_asked(record, options)
    )


def _is_asked(record: OwnRecord, options: ImageOptions) -> bool:
    height, width, _ = record.shape
    try:
        check_filters((height, width), options)
    except ImageError:
        return False  # and opening it says so
    is_known = record.format == "raw" or record.format in options.formats
    return is_known and height * width <= options.max_pixels


def measure_wrapped(height: int, width: int, channels: int) -> int:
    """The size of what `wrap_pixels` returns, in bytes."""
    return len(_describe_tiff(height, width, channels)) + height * width * channels


def wrap_pixels(data: bytes, height: int, width: int, channels: int) -> bytes:
    """A TIFF of uint8 pixels (height, width, channels), not compressed; a `ValueError` if short."""
    if channels not in _PHOTOMETRIC or len(data) != height * width * channels or not data:
        raise ValueError(f"{len(data):,} raw bytes are not {height}x{width}x{channels} pixels")
    return _describe_tiff(height, width, channels) + data


def _describe_tiff(height: int, width: int, channels: int) -> bytes:
    tags = [
        (256, _LONG, 1, width), (257, _LONG, 1, height), (258, _SHORT, channels, 8),
        (259, _SHORT, 1, 1), (262, _SHORT, 1, _PHOTOMETRIC.get(channels, 1)), (273, _LONG, 1, 0),
        (277, _SHORT, 1, channels), (278, _LONG, 1, height),
        (279, _LONG, 1, height * width * channels),
        *([(338, _SHORT, 1, 2)] if channels == 4 else []),  # the fourth is alpha
    ]  # fmt: skip
    depths = struct.pack(f"<{channels}H", *[8] * channels) if channels > 1 else b""
    end = 8 + 2 + 12 * len(tags) + 4
    places = {273: end + len(depths), **({258: end} if depths else {})}
    directory = b"".join(
        struct.pack("<HHII", number, kind, count, places.get(number, value))
        for number, kind, count, value in tags
    )
    head = b"II*\0" + struct.pack("<IH", 8, len(tags))
    return b"".join((head, directory, bytes(4), depths))
