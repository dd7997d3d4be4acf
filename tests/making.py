"""Makes every odd and every hostile image that the converter is tried on, and tells what it did.

`python tests/making.py > tests/golden_images.tsv` rewrites the table of outcomes. It is there to
be read by a person before it is committed: each line is a promise.
"""

import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from conftest import SHARED, encode_image, make_image
from PIL import Image

from converter.errors import ImageError
from converter.images.conversion import convert_image
from converter.options import ConvertOptions

GOLDEN = Path(__file__).with_name("golden_images.tsv")
HOSTILE = SHARED / "hostile"
OPTIONS = ConvertOptions(resize="none", encoding="png")

# How the values of a TIFF's tags are packed, by their type; a fraction is two of them.
_CODES = {3: "H", 4: "L", 5: "L"}
_RATIONAL = 5

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "MPO")


def describe_outcome(data: bytes, options: ConvertOptions = OPTIONS) -> str:
    """`written` with height and width, or the code of the refusal."""
    try:
        image = convert_image(data, options)
    except ImageError as error:
        return error.code
    return f"written {image.height}x{image.width}"


def read_golden() -> dict[str, str]:
    """The outcome of every image, by its name."""
    lines = GOLDEN.read_text().splitlines()
    return dict(line.split("\t") for line in lines)


def list_hostile() -> list[tuple[str, bytes]]:
    """Images of others, where the machine has them."""
    return [
        (f"{path.relative_to(HOSTILE)}", path.read_bytes())
        for path in sorted(HOSTILE.rglob("*"))
        if path.is_file() and "LICENSE" not in path.name and path.suffix != ".json"
    ]


def make_images() -> Iterator[tuple[str, bytes]]:
    """All others, by name."""
    yield from _make_good()
    yield from _make_modes()
    yield from _make_orientations()
    yield from _make_damaged()
    yield from _make_foreign()
    yield from _make_liars()
    yield from _make_unusual()


def _make_good() -> Iterator[tuple[str, bytes]]:
    for name in _FORMATS:
        suffix = name.lower()
        yield f"good.{suffix}", encode_image(make_image(1), name)
        if name not in ("JPEG", "BMP"):
            several = {"save_all": True, "append_images": [make_image(2)]}
            yield f"several.{suffix}", encode_image(make_image(1), name, **several)
    for name in ("JPEG", "PNG", "WEBP", "BMP", "TIFF"):
        yield f"one pixel.{name.lower()}", encode_image(Image.new("RGB", (1, 1)), name)
        yield f"line.{name.lower()}", encode_image(Image.new("RGB", (9000, 1)), name)
    yield "progressive.jpeg", encode_image(make_image(1), "JPEG", progressive=True)
    yield "interlaced.gif", encode_image(make_image(1).quantize(8), "GIF", interlace=1)
    yield "behind its end.jpeg", encode_image(make_image(1), "JPEG") + bytes(1000)
    yield "behind its end.png", encode_image(make_image(1), "PNG") + bytes(1000)


def _make_modes() -> Iterator[tuple[str, bytes]]:
    for mode in ("L", "LA", "RGBA", "CMYK"):
        name = "TIFF" if mode == "CMYK" else "PNG"
        yield f"{mode}.{name.lower()}", encode_image(make_image(1, mode=mode), name)
    yield "CMYK.jpeg", encode_image(make_image(1, mode="CMYK"), "JPEG")
    yield "1.png", encode_image(make_image(1).convert("1"), "PNG")
    yield "P.png", encode_image(make_image(1).quantize(7), "PNG", transparency=3)
    yield "YCbCr.tiff", encode_image(make_image(1).convert("YCbCr"), "TIFF")
    yield "LAB.tiff", encode_image(Image.new("LAB", (4, 4), (99, 5, 7)), "TIFF")
    ramp = np.arange(1024).reshape(32, 32)
    yield "16 bits.png", encode_image(Image.fromarray((ramp * 64).astype(np.uint16)), "PNG")
    yield "16 bits.tiff", encode_image(Image.fromarray((ramp * 64).astype(np.uint16)), "TIFF")
    yield "32 bits.tiff", encode_image(Image.fromarray(ramp.astype(np.int32) << 20), "TIFF")
    yield "fractions.tiff", encode_image(Image.fromarray((ramp / 7).astype(np.float32)), "TIFF")
    yield "not a number.tiff", encode_image(Image.new("F", (4, 4), float("nan")), "TIFF")
    yield "no profile.png", encode_image(make_image(1), "PNG", icc_profile=b"no profile")


def _make_orientations() -> Iterator[tuple[str, bytes]]:
    for value in (*range(10), 255, 65_535):
        exif = Image.Exif()
        exif[0x0112] = value
        yield f"orientation {value}.jpeg", encode_image(make_image(1), "JPEG", exif=exif)
    yield "orientation broken.jpeg", encode_image(make_image(1), "JPEG", exif=b"Exif\0\0MM\0*\xff")


def _make_damaged() -> Iterator[tuple[str, bytes]]:
    yield "empty.jpeg", b""
    for name in _FORMATS:
        data = encode_image(make_image(1), name)
        for share in (0.1, 0.5, 0.9):
            yield f"cut at {share}.{name.lower()}", data[: int(len(data) * share)]
        yield (
            f"zeros from the middle.{name.lower()}",
            data[: len(data) // 2] + bytes(len(data) - len(data) // 2),
        )


def _make_foreign() -> Iterator[tuple[str, bytes]]:
    yield "text.jpeg", b"no image at all\n"
    yield "svg.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>"
    yield "pdf.jpeg", b"%PDF-1.7\n%%EOF\n"
    yield "photoshop.tiff", b"8BPS\0\1" + bytes(40)
    yield "metafile.jpeg", b"\xd7\xcd\xc6\x9a" + bytes(40)
    yield "zip.png", b"PK\3\4" + bytes(40)
    for name in ("EPS", "PPM", "ICO", "TGA", "JPEG2000", "PCX", "DDS", "SGI"):
        yield f"{name.lower()}.jpeg", encode_image(make_image(1, 32, 32), name)
    for name in ("PNG", "GIF", "TIFF"):
        yield f"{name.lower()} inside.jpeg", encode_image(make_image(1), name)


def _make_liars() -> Iterator[tuple[str, bytes]]:
    for width, height in ((2**31 - 1, 2**31 - 1), (100_000, 100_000), (9000, 9000), (0, 5)):
        yield f"claims {width}x{height}.png", _claim_png(width, height)
    for width, height in ((65_500, 65_500), (9000, 9000), (0, 5)):
        yield f"claims {width}x{height}.jpeg", _claim_jpeg(width, height)
    gif, bmp = encode_image(make_image(1), "GIF"), encode_image(make_image(1), "BMP")
    yield "claims 65535x65535.gif", gif[:6] + b"\xff" * 4 + gif[10:]
    yield "claims 2000x2000.gif", gif[:6] + struct.pack("<HH", 2000, 2000) + gif[10:]
    yield "claims 100000x100000.bmp", bmp[:18] + struct.pack("<ii", 100_000, 100_000) + bmp[26:]
    yield "claims 9000x9000.bmp", bmp[:18] + struct.pack("<ii", 9000, 9000) + bmp[26:]
    progressive = encode_image(make_image(1, 64, 64), "JPEG", progressive=True)
    last = progressive.rindex(b"\xff\xda")
    yield "scans.jpeg", progressive[:-2] + progressive[last:-2] * 200 + progressive[-2:]
    png = encode_image(make_image(1), "PNG")
    for name, head in ((b"zTXt", b"bomb\0\0"), (b"iTXt", b"b\0\1\0\0\0"), (b"iCCP", b"bomb\0\0")):
        chunk = make_chunk(name, head + zlib.compress(bytes(80 << 20), 9))
        yield f"bomb in {name.decode()}.png", png[:33] + chunk + png[33:]
    chunks = make_chunk(b"tEXt", b"a\0b") * 10_000
    yield "ten thousand chunks.png", png[:33] + chunks + png[33:]
    yield "tall.png", encode_image(Image.new("L", (1, 20_000)), "PNG")
    yield "wide.jpeg", encode_image(Image.new("L", (65_000, 1)), "JPEG")


def _make_unusual() -> Iterator[tuple[str, bytes]]:
    """Images whose samples break the convention of their format, or whose file does not say it."""
    row = bytes(range(6))
    levels = [10, 200, 30, 40, 50, 255] + [0] * 250
    wide = np.array([0, 16, 1000, 2047, 4000, 4095], "<u2").tobytes()
    yield "map of 8 bits.tiff", make_tiff(row, photo=3, more={320: (3, levels * 3)})
    yield "map of 4 bits.tiff", make_tiff(row[:3], (4,), photo=3, more={320: (3, levels[:16] * 3)})
    yield "12 bits in 16.tiff", make_tiff(wide, (16,))
    yield "12 bits.tiff", make_tiff(bytes(9), (12,))
    yield "10 bits.tiff", make_tiff(bytes(8), (10,))
    yield "14 bits.tiff", make_tiff(bytes(11), (14,))
    yield "signed bytes.tiff", make_tiff(b"\x80\xff\0\1\x64\x7f", more={339: (3, [2])})
    yield "no photometric.tiff", make_tiff(row, photo=None)
    yield "no photometric RGB.tiff", make_tiff(row * 3, (8,) * 3, photo=None)
    yield "rows of YCbCr.tiff", make_tiff(row * 3, (8,) * 3, photo=6, more={530: (3, [1, 1])})
    yield "other inks.tiff", make_tiff(row * 4, (8,) * 4, photo=5, more={332: (3, [2])})
    yield "ICC Lab.tiff", make_tiff(row * 3, (8,) * 3, photo=9)
    yield "half floats.tiff", make_tiff(row * 2, (16,), more={339: (3, [3])})
    yield "double floats.tiff", make_tiff(row * 8, (64,), more={339: (3, [3])})
    yield "no alpha at all.tiff", make_tiff(bytes(24), (8,) * 4, photo=2)
    cmyk = encode_image(make_image(1, mode="CMYK"), "JPEG")
    mark = cmyk.index(b"\xff\xee")
    yield "CMYK without Adobe.jpeg", cmyk[:mark] + cmyk[mark + 16 :]


def make_tiff(
    rows: bytes,
    bits: tuple[int, ...] = (8,),
    *,
    photo: int | None = 1,
    order: str = "<",
    more: dict[int, tuple[int, list[int]]] | None = None,
) -> bytes:
    """A TIFF of one row of 6 pixels, with more tags: by number, the type and the values."""
    tags = {
        256: (4, [6]), 257: (4, [1]), 258: (3, list(bits)), 259: (3, [1]), 273: (4, [8]),
        277: (3, [len(bits)]), 278: (4, [1]), 279: (4, [len(rows)]),
        **({} if photo is None else {262: (3, [photo])}), **(more or {}),
    }  # fmt: skip
    rows += bytes(len(rows) % 2)
    behind, entries, end = b"", b"", 8 + len(rows) + 2 + 12 * len(tags) + 4
    for number, (kind, values) in sorted(tags.items()):
        content = struct.pack(order + _CODES[kind] * len(values), *values)
        place = content.ljust(4, b"\0")
        if len(content) > 4:
            place, behind = struct.pack(order + "L", end + len(behind)), behind + content
        count = len(values) // (2 if kind == _RATIONAL else 1)
        entries += struct.pack(order + "HHL", number, kind, count) + place
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "L", 8 + len(rows))
    return head + rows + struct.pack(order + "H", len(tags)) + entries + bytes(4) + behind


def make_chunk(name: bytes, body: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(name + body))
    return struct.pack(">I", len(body)) + name + body + checksum


def _claim_png(width: int, height: int) -> bytes:
    data = encode_image(make_image(1), "PNG")
    header = struct.pack(">II", width, height) + data[24:29]
    return data[:8] + make_chunk(b"IHDR", header) + data[33:]


def _claim_jpeg(width: int, height: int) -> bytes:
    data = bytearray(encode_image(make_image(1), "JPEG"))
    start = data.index(b"\xff\xc0") + 5
    data[start : start + 4] = struct.pack(">HH", height, width)
    return bytes(data)


if __name__ == "__main__":
    for name, data in (*make_images(), *list_hostile()):
        sys.stdout.write(f"{name}\t{describe_outcome(data)}\n")
