"""Decodes images straight to their place in a batch, without TensorFlow.

On every prefix and on a flip of every byte of dozens of small images, the outcome was an error or
the pixels that TensorFlow gives. Only where a progressive JPEG lacks scans, versions of libjpeg
guess differently what is missing; then the pixels are Pillow's.
"""

import contextlib
import functools
import io
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import simplejpeg
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from converter.errors import UsageError
from reader.arrays import Array, Bytes, Scratch
from reader.plan.choices import ImagePlan

Size: TypeAlias = tuple[int, int]


class Task(NamedTuple):
    """An image to decode."""

    encoded: Bytes
    size: Size  # height and width as stored
    seed: int  # of its random changes
    row: Array  # its place: (height, width, channels), of any strides


# Decodes images to their places; returns what is wrong with each, or None.
Decoder: TypeAlias = Callable[[Sequence[Task]], list[str | None]]

# How errors begin that simplejpeg alone raises: libjpeg's warnings (jerror.h), except that of a
# missing end; and channels that are sampled in a way that has no name.
_REFUSALS: Final = (
    "Corrupt JPEG data",
    "Inconsistent progression",
    "Invalid SOS parameters for sequential",
    "Unknown Adobe color transform",
    "Warning: ",
    "tjDecompressHeader3(): Could not determine subsampling",
)
# Appended to a JPEG: wherever libjpeg reads on in there, it finds a marker at which it gives up.
_BEYOND: Final = np.frombuffer(b"\xff\xc8" * 65_536, np.uint8)
_SCAN: Final = b"\xff\xda"
_END: Final = b"\xff\xd9"
_COLOR_SPACES: Final = {1: "GRAY", 3: "RGB"}
_MODES: Final = {1: "L", 3: "RGB", 4: "RGBA"}
_OPAQUE: Final = 255

_SIGNATURE_BYTES: Final = 8
_FRAMING_BYTES: Final = 12  # of a chunk: length, name and checksum
_PIXEL_CHUNKS: Final = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_ANCILLARY: Final = 0x20  # bit of a name's first letter: decoders may skip the chunk
_HEADER: Final = struct.Struct(">IIBBxxB")  # width, height, bit depth, color type, interlace method
_SAMPLES: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a pixel, by color type

# Passes of an interlaced image: top and left of the first pixel, steps down and to the right.
_ADAM7: Final = (
    (0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2),
    (1, 0, 2, 1),
)  # fmt: skip
_PIECE_BYTES: Final = 1 << 16


def make_decoder(images: ImagePlan) -> Decoder:
    """Makes a decoder that changes nothing but channels; raises a `UsageError` if more is asked."""
    _check_natural(images)
    channels = images.channels
    # Alpha is decoded only if it is stored: a decoder does not make it up.
    decoded = images.stored.channels if images.stored.is_raw or channels == 4 else channels
    decode = _copy_raw if images.stored.is_raw else _decode_encoded
    scratch = Scratch()

    def place(task: Task) -> None:
        row = task.row
        if decoded == channels and row.dtype == np.uint8 and row.flags.c_contiguous:
            decode(task.encoded, row)
            return
        height, width = task.size
        with scratch.borrow() as memory:
            pixels = memory.take(height * width * decoded).reshape(height, width, decoded)
            decode(task.encoded, pixels)
            copy_pixels(pixels, row)

    return functools.partial(_do_each, place)


def make_mask_decoder() -> Decoder:
    """Makes a decoder of masks: PNGs of one channel, whose numbers stay as they are."""
    return functools.partial(_do_each, lambda task: _decode_png(task.encoded, task.row))


def _do_each(place: Callable[[Task], None], tasks: Sequence[Task]) -> list[str | None]:
    problems: list[str | None] = [None] * len(tasks)
    for number, task in enumerate(tasks):
        try:
            place(task)
        except ValueError as error:  # noqa: PERF203 (each may be damaged)
            problems[number] = str(error)
    return problems


def _check_natural(images: ImagePlan) -> None:
    stored, options = images.stored, images.options
    if images.is_resized:
        asked = "random_crop" if options.random_crop else f"image_size {options.image_size}"
        raise UsageError(
            f"{asked} resizes images, which only TensorFlow does to the same numbers: use "
            "load_dataset, or convert to that size with --image-size"
        )
    if images.channels == 1 and stored.channels > 1 and tuple(stored.formats) != ("jpeg",):
        raise UsageError(
            f"color_mode 'grayscale' mixes the channels of {', '.join(stored.formats)}, which only "
            "TensorFlow does to the same numbers: use load_dataset, or convert with --color-mode "
            "grayscale"
        )


def copy_pixels(pixels: Array, row: Array) -> None:
    """Copies contiguous pixels to a place of any dtype, strides and number of channels."""
    if row.strides[1] < 0:
        # Mirrored pixel by pixel: value by value takes three times as long.
        pixel = np.dtype((np.void, pixels.shape[2] * pixels.itemsize))
        mirrored, row = np.empty_like(pixels), row[:, ::-1]
        mirrored.view(pixel)[...] = pixels.view(pixel)[:, ::-1]
        pixels = mirrored
    if row.shape[-1] == pixels.shape[-1]:
        np.copyto(row, pixels, casting="unsafe")
        return
    # Gray is copied to each color.
    np.copyto(row[..., :3], pixels[..., :3], casting="unsafe")
    row[..., 3:] = _OPAQUE


def _copy_raw(encoded: Bytes, pixels: Array) -> None:
    pixels[...] = encoded.reshape(pixels.shape)


def _decode_encoded(encoded: Bytes, pixels: Array) -> None:
    if encoded[0] == 0xFF:
        _decode_jpeg(encoded, pixels)
    elif pixels.shape[2] not in _MODES:
        raise ValueError(f"no format encodes {pixels.shape[2]} channels")
    elif encoded[0] == 0x89:
        _decode_png(encoded, pixels)
    else:
        _decode_with_pillow(WebPImageFile, encoded.tobytes(), pixels)


def _decode_jpeg(encoded: Bytes, pixels: Array) -> None:
    # simplejpeg is libjpeg-turbo with the exact inverse DCT and smooth upsampling, so it gives the
    # pixels of Pillow and of `tf.io.decode_jpeg(dct_method="INTEGER_ACCURATE")`. It refuses all
    # that libjpeg warns of. TensorFlow accepts some of that, but no file that ends too early.
    if (color_space := _COLOR_SPACES.get(pixels.shape[2])) is None:
        raise ValueError("a JPEG among images with an alpha channel")
    try:
        decoded = simplejpeg.decode_jpeg(encoded, color_space, False, False, buffer=pixels)
    except ValueError as error:
        if not _is_taken_by_others(encoded, error, pixels):
            raise
        _decode_with_pillow(_BareJpegFile, encoded.tobytes(), pixels)
        return
    # It fills only as much of the buffer as the image needs.
    if decoded.shape != pixels.shape:
        raise ValueError(f"an image of {decoded.shape}, expected {pixels.shape}")


def _is_taken_by_others(encoded: Bytes, error: ValueError, pixels: Array) -> bool:
    """Whether a JPEG is complete, and refused by simplejpeg alone."""
    if not str(error).startswith(_REFUSALS):
        return False
    data = encoded.tobytes()
    if data.rfind(_END) < data.find(_SCAN):
        return False
    # libjpeg reports only its first warning, which may hide that of a missing end; but it reports
    # an error after any warning.
    longer, color_space = np.concatenate([encoded, _BEYOND]), _COLOR_SPACES[pixels.shape[2]]
    try:
        simplejpeg.decode_jpeg(longer, color_space, False, False, buffer=pixels)
    except ValueError as other:
        return str(other).startswith(_REFUSALS)
    return True


class _BareJpegFile(JpegImageFile):
    def _read_dpi_from_exif(self) -> None:
        pass  # the result is not used, and Pillow warns of an odd EXIF


def _decode_png(encoded: Bytes, pixels: Array) -> None:
    _decode_with_pillow(PngImageFile, _reduce_png(encoded.data), pixels)
    # Pillow leaves missing rows black.
    is_interlaced = _HEADER.unpack_from(encoded.data, _SIGNATURE_BYTES + 8)[-1]
    if (is_interlaced or not pixels[-1].any()) and _lacks_rows(encoded.data):
        raise ValueError("a PNG of fewer rows than its header says")


def _decode_with_pillow(kind: type[ImageFile], encoded: bytes | bytearray, pixels: Array) -> None:
    mode = _MODES[pixels.shape[2]]
    try:
        # Not `Image.open`, which warns of many pixels: sizes have been compared with the manifest.
        with kind(io.BytesIO(encoded)) as image:
            if kind is _BareJpegFile and mode == "L":
                # The stored luminance, as simplejpeg gives it; `convert` would compute it of RGB.
                image.draft("L", None)
            decoded = np.asarray(_convert(image, mode, pixels.shape[:2]))
    except MemoryError:
        raise  # not the fault of the image
    except Exception as error:
        raise ValueError(str(error) or type(error).__name__) from error
    np.copyto(pixels, decoded.reshape(pixels.shape))


def _convert(image: Image.Image, mode: str, size: tuple[int, ...]) -> Image.Image:
    if image.size[::-1] != size:  # of two headers, Pillow believes the second
        raise ValueError(f"an image of {image.size[::-1]}, expected {size}")
    if image.mode == mode:
        return image
    if image.format == "WEBP":
        raise ValueError(f"a WebP of mode {image.mode}, expected {mode}")  # as TensorFlow does
    if image.mode == "P":  # directly to RGB, Pillow warns of levels of transparency that are lost
        image = image.convert("RGBA")
    return image.convert(mode)


def _reduce_png(png: memoryview) -> bytearray:
    """Keeps the chunks that make pixels; raises `ValueError` if one is damaged or misplaced."""
    # Pillow does not compare checksums. Of other chunks it warns, or takes memory to unpack them.
    kept = bytearray(png[:_SIGNATURE_BYTES])
    before, ended = b"", False
    for name, chunk in _list_chunks(png):
        ended |= before == b"IDAT" and name != before
        if name == b"IDAT" and ended:
            raise ValueError("a PNG whose IDAT chunks are not consecutive")
        if name in _PIXEL_CHUNKS:
            if zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
                raise ValueError(f"a PNG whose {name.decode()} has another checksum")
            kept += chunk
        elif not (name.isalpha() and name[0] & _ANCILLARY):
            raise ValueError(f"a PNG with an unknown critical chunk {name!r}")
        before = name
    return kept


def _lacks_rows(png: memoryview) -> bool:
    """Whether a PNG of whole chunks holds fewer bytes of pixels than its header says."""
    width, height, depth, color_type, interlaced = _HEADER.unpack_from(png, _SIGNATURE_BYTES + 8)
    missing = 0
    for top, left, down, right in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        rows, columns = -((top - height) // down), -((left - width) // right)
        if rows > 0 and columns > 0:
            missing += rows * (1 - -columns * depth * _SAMPLES[color_type] // 8)
    unpacker = zlib.decompressobj()
    with contextlib.suppress(zlib.error):
        for name, chunk in _list_chunks(png):
            packed = bytes(chunk[8:-4]) if name == b"IDAT" else b""
            # A `max_length` of 0 is none at all.
            while missing and (piece := unpacker.decompress(packed, min(missing, _PIECE_BYTES))):
                missing -= len(piece)
                packed = unpacker.unconsumed_tail
    return missing > 0


def _list_chunks(png: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    at, name = _SIGNATURE_BYTES, b""
    while name != b"IEND":
        name = bytes(png[at + 4 : at + 8])
        end = at + _FRAMING_BYTES + int.from_bytes(png[at : at + 4], "big")
        if end > len(png):
            raise ValueError("a PNG that ends within a chunk")
        yield name, png[at:end]
        at = end
