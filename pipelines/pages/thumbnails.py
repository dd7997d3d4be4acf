"""Pictures of records for people: small or whole, with their boxes and masks drawn.

It needs Pillow, so import it in the function that draws.
"""

from __future__ import annotations

import colorsys
import dataclasses
import io
import math
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

from PIL import Image, ImageDraw, ImageFont

from converter.errors import ImageError
from converter.format.schema import BOX_LABELS, BOXES
from converter.images.openers import wrap_decoder_errors
from pipelines.pages.texts import name_class
from reader import Record
from reader.examples.image_headers import measure_image

Color: TypeAlias = tuple[int, int, int]

MAX_DRAWN: Final = 1_000  # boxes of an image; a forged record can have millions
THUMBNAIL_PIXELS: Final = 160

VOID: Final = 255
"""The value of a mask that usually means "no class": drawn in grey."""

_FORMATS: Final = {"jpeg": "JPEG", "png": "PNG", "webp": "WEBP"}
_QUALITY: Final = {
    "jpeg": {"quality": 82}, "webp": {"quality": 75, "method": 2}, "png": {"compress_level": 1},
}  # fmt: skip
_MODES: Final = {1: "L", 3: "RGB", 4: "RGBA"}  # of raw images, by channels
_MASK_ALPHA: Final = 140
_BACKGROUND: Final = ("background", "_background_", "bg", "void", "")
_GOLDEN: Final = 0.618034  # neighbours by number are far apart in hue
_NAMED_PIXELS: Final = 240  # names are not readable in smaller pictures
_MAX_NAME: Final = 24


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Drawing:
    """How a record is drawn.

    Attributes:
        side_pixels: the longer side of the picture at most; None for the size as stored. Pictures
            are never enlarged.
        file_format: `jpeg` (transparent pixels become white), `png` or `webp`.
        boxes: whether to draw boxes.
        names: whether boxes get the names of their classes where the picture is large.
        mask: whether to draw the mask over the image.
    """

    side_pixels: int | None = THUMBNAIL_PIXELS
    file_format: str = "jpeg"
    boxes: bool = True
    names: bool = True
    mask: bool = True


class Picture(NamedTuple):
    """An encoded picture and its size."""

    data: bytes
    media_type: str  # `image/jpeg`, `image/png` or `image/webp`
    width: int  # in pixels
    height: int


class Box(NamedTuple):
    """A box in fractions of the image, within it, and the number of its class if it has one."""

    top: float
    left: float
    bottom: float
    right: float
    label: int | None


def draw_record(
    record: Record, classes: Sequence[str] = (), drawing: Drawing | None = None
) -> Picture:
    """Draws the image of a record.

    A JPEG is decoded at a fraction of its size where that is enough; other images take 3 or 4 bytes
    of memory a pixel while they are drawn.

    Args:
        record: of format `jpeg`, `png`, `webp` or `raw`, with 1, 3 or 4 channels.
        classes: names in label order.
        drawing: a thumbnail by default.

    Raises:
        ImageError: the image or its mask is damaged, has another size than the record says, or has
            more pixels than Pillow takes for harmless (89 million).
    """
    drawing = Drawing() if drawing is None else drawing
    with wrap_decoder_errors():
        image = _decode(record)
        _shrink(image, drawing.side_pixels)
        canvas = _prepare(image, transparent=drawing.file_format != "jpeg")
        if drawing.mask and record.mask is not None:
            canvas = _paint_mask(canvas, _open_mask(record), classes)
        if drawing.boxes:
            _draw_boxes(canvas, list_boxes(record), classes if drawing.names else None)
        return _encode(canvas, drawing.file_format)


def draw_mask(
    record: Record, classes: Sequence[str] = (), side_pixels: int | None = None
) -> Picture:
    """Draws the mask of a record alone, as a PNG that is transparent where there is no class.

    Raises:
        ImageError: there is no mask, or it is damaged.
    """
    with wrap_decoder_errors():
        mask = _open_mask(record)
        _shrink(mask, side_pixels, Image.Resampling.NEAREST)
        layer = Image.new("RGBA", mask.size)
        layer.paste(_color_mask(mask), mask=mask.point(_list_alphas(classes, 255)))
        return _encode(layer, "png")


def choose_color(label: int) -> Color:
    """The colour of a class, red, green and blue; neighbours by number differ most."""
    hue, step = (label * _GOLDEN + 0.97) % 1, label % 3
    red, green, blue = colorsys.hsv_to_rgb(hue, (0.85, 0.65, 0.95)[step], (0.95, 1, 0.75)[step])
    return round(red * 255), round(green * 255), round(blue * 255)


def list_boxes(record: Record) -> list[Box]:
    """The boxes of a record that can be drawn: finite, cut at the borders, not too many."""
    found = record.values.get(BOXES, ())[:MAX_DRAWN]
    labels: Sequence[int | None] = record.values.get(BOX_LABELS, ())
    if len(labels) < len(found):
        labels = [None] * len(found)
    boxes = []
    for sides, label in zip(found, labels, strict=False):
        top, left, bottom, right = (min(1.0, max(0.0, side)) for side in sides)
        if all(map(math.isfinite, sides)) and top <= bottom and left <= right:
            boxes.append(Box(top, left, bottom, right, label))
    return boxes


def list_mask_labels(record: Record, classes: Sequence[str] = ()) -> list[int]:
    """The numbers that a mask holds and that are drawn, in order; raises as `draw_mask` does."""
    with wrap_decoder_errors():
        counts, alphas = _open_mask(record).histogram(), _list_alphas(classes, 1)
    return [label for label, count in enumerate(counts) if count and alphas[label]]


def count_mask_pixels(record: Record) -> dict[int, int]:
    """How many pixels of a mask have each number that it holds; raises as `draw_mask` does."""
    with wrap_decoder_errors():
        return {label: n for label, n in enumerate(_open_mask(record).histogram()) if n}


def _decode(record: Record) -> Image.Image:
    """Opens an image whose pixels are loaded when they are needed."""
    size = record.height, record.width
    if record.format == "raw":
        channels = len(record.encoded) // max(1, size[0] * size[1])
        if channels not in _MODES or len(record.encoded) != size[0] * size[1] * channels:
            found = f"{len(record.encoded):,} raw bytes"
            raise ImageError("decode_error", f"{found} are no image of {size[0]}x{size[1]}")
        return Image.frombytes(_MODES[channels], size[::-1], record.encoded)
    if record.format not in _FORMATS:
        raise ImageError("not_an_image", f"stored as {record.format[:20]!r}, which is unsupported")
    height, width = measure_image(memoryview(record.encoded))
    if (height, width) != size:
        stated = f"{size[0]}x{size[1]}"
        raise ImageError("decode_error", f"{height}x{width} pixels, stated are {stated}")
    return Image.open(io.BytesIO(record.encoded), formats=[_FORMATS[record.format]])


def _open_mask(record: Record) -> Image.Image:
    if record.mask is None:
        raise ImageError("not_an_image", "the record has no mask")
    if measure_image(memoryview(record.mask)) != (record.height, record.width):
        raise ImageError("decode_error", "its mask has another size")
    mask = Image.open(io.BytesIO(record.mask), formats=["PNG"])
    if mask.mode not in ("L", "P"):
        raise ImageError("decode_error", f"a mask of mode {mask.mode}, not of one channel")
    # The numbers count, not what a palette makes of them.
    return Image.frombytes("L", mask.size, mask.tobytes())


def _shrink(
    image: Image.Image,
    side_pixels: int | None,
    how: Image.Resampling = Image.Resampling.BICUBIC,
) -> None:
    if side_pixels is not None:
        image.thumbnail((side_pixels, side_pixels), how)


def _prepare(image: Image.Image, *, transparent: bool) -> Image.Image:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if transparent:
            return image
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _paint_mask(canvas: Image.Image, mask: Image.Image, classes: Sequence[str]) -> Image.Image:
    mask = mask.resize(canvas.size, Image.Resampling.NEAREST)
    alpha = mask.point(_list_alphas(classes, _MASK_ALPHA))
    return Image.composite(_color_mask(mask).convert(canvas.mode), canvas, alpha)


def _color_mask(mask: Image.Image) -> Image.Image:
    colors = [choose_color(label) for label in range(VOID)] + [(128, 128, 128)]
    painted = mask.copy()
    painted.putpalette([band for color in colors for band in color])
    return painted.convert("RGB")


def _list_alphas(classes: Sequence[str], alpha: int) -> list[int]:
    """How opaque each number of a mask is: not at all where 0 is what lies behind all things."""
    first = classes[0] if classes else ""
    return [0 if first.strip().lower() in _BACKGROUND else alpha, *[alpha] * VOID]


def _draw_boxes(canvas: Image.Image, boxes: Sequence[Box], classes: Sequence[str] | None) -> None:
    if not boxes:
        return
    draw, (width, height) = ImageDraw.Draw(canvas), canvas.size
    line = max(1, round(max(width, height) / 160))
    for box in boxes:
        color = choose_color(box.label or 0)
        left, top = round(box.left * (width - 1)), round(box.top * (height - 1))
        right, bottom = round(box.right * (width - 1)), round(box.bottom * (height - 1))
        # A dark rim keeps a bright line visible on a bright image.
        draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=(0, 0, 0))
        draw.rectangle((left, top, right, bottom), outline=color, width=line)
        is_large = max(width, height) >= _NAMED_PIXELS
        if is_large and classes is not None and box.label is not None:
            _draw_name(draw, (left, top), name_class(box.label, classes), color)


def _draw_name(draw: ImageDraw.ImageDraw, at: tuple[int, int], name: str, color: Color) -> None:
    # Pillow's own font has Latin letters only.
    text = name if name.isascii() and name.isprintable() else ascii(name)[1:-1]
    text = text if len(text) <= _MAX_NAME else f"{text[: _MAX_NAME - 3]}..."
    font = ImageFont.load_default(12)
    left, top, right, bottom = draw.textbbox((at[0] + 3, at[1] + 1), text, font=font)
    draw.rectangle((left - 3, top - 2, right + 3, bottom + 2), fill=color)
    draw.text((at[0] + 3, at[1] + 1), text, fill=_choose_ink(color), font=font)


def _choose_ink(color: Color) -> Color:
    red, green, blue = color
    return (0, 0, 0) if red * 299 + green * 587 + blue * 114 > 128_000 else (255, 255, 255)


def _encode(canvas: Image.Image, file_format: str) -> Picture:
    file = io.BytesIO()
    canvas.save(file, _FORMATS[file_format], **_QUALITY[file_format])
    return Picture(file.getvalue(), f"image/{file_format}", *canvas.size)
