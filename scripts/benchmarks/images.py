"""Measures what bombs and odd images cost, beside the bars, and what isolation costs.

    memory    a process for each bomb: its peak over an empty one, and its CPU time
    isolate   many small images, decoded here and in a child process
    sizes     two sizes in one pass, beside two conversions

Bombs are made here; folders with more of them can be named.
"""

import argparse
import io
import json
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from benchmarks.measuring import report, run_sections
from PIL import Image

from converter.image_options import MAX_PIXELS
from converter.images.conversion import convert_frames
from converter.images.isolation import convert_isolated
from converter.options import ConvertOptions
from pipelines import convert, convert_sizes

BYTES_PER_PIXEL = 17
BASE_MB = 60
MAX_SECONDS = 30
MAX_SHARE = 0.95

ONE = """
import json, sys, time
from pathlib import Path
from converter.errors import ImageError
from converter.images.conversion import convert_image
from converter.options import ConvertOptions
def measure():
    status = Path("/proc/self/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) / 1000, time.process_time()
before = measure()
worst = ["", 0.0]
for name in sys.argv[1:]:
    begin = measure()[1]
    try:
        convert_image(Path(name).read_bytes(), ConvertOptions(image_size=(224, 224)))
        outcome = "written"
    except ImageError as error:
        outcome = error.code
    worst = max(worst, [name, measure()[1] - begin], key=lambda pair: pair[1])
after = measure()
print(json.dumps([after[0] - before[0], worst[1], outcome]))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folders", type=Path, nargs="*", default=[], help="more images")
    parser.add_argument("--only", choices=("memory", "isolate", "sizes"))
    arguments = parser.parse_args()
    sections = {
        "memory": lambda: measure_memory(arguments.folders),
        "isolate": measure_isolation,
        "sizes": measure_sizes,
    }
    return run_sections(sections, arguments.only)


def measure_memory(folders: Sequence[Path]) -> Iterator[bool]:
    limit = MAX_PIXELS * BYTES_PER_PIXEL / 1e6 + BASE_MB
    with tempfile.TemporaryDirectory() as work:
        for name, data in make_bombs():
            path = Path(work) / "bomb"
            path.write_bytes(data)
            yield _report(f"{name}, {len(data):,} bytes", [path], limit)
    for folder in folders:
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        yield _report(f"{len(files):,} files in {folder.name}", files, limit)


def _report(what: str, files: Sequence[Path], limit: float) -> bool:
    command = [sys.executable, "-c", ONE, *map(str, files)]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    peak, seconds, outcome = json.loads(printed)
    return report(
        what,
        f"{peak:,.0f} MB, {seconds:.1f} s, {outcome}",
        f"at most {limit:,.0f} MB, {MAX_SECONDS} s",
        ok=peak <= limit and seconds <= MAX_SECONDS,
    )


def make_bombs() -> Iterator[tuple[str, bytes]]:
    """As large as may be, and larger, in few bytes."""
    side = int(MAX_PIXELS**0.5)
    for mode in ("L", "RGB", "RGBA", "LA", "P", "I;16"):
        yield f"{mode} PNG of {side}x{side}", encode(Image.new(mode, (side, side)), "PNG")
    exif = Image.Exif()
    exif[0x0112] = 6
    grey = Image.new("RGB", (side, side))
    yield "turned JPEG", encode(grey, "JPEG", exif=exif)
    yield "progressive JPEG", encode(grey, "JPEG", progressive=True)
    yield "CMYK JPEG", encode(Image.new("CMYK", (side, side)), "JPEG")
    yield "WebP of 16383x5461", encode(Image.new("RGB", (16_383, 5_461)), "WEBP", lossless=True)
    yield "GIF", encode(Image.new("P", (side, side)), "GIF")
    fractions = Image.fromarray(np.zeros((side, side), np.float32))
    yield "fractions, TIFF", encode(fractions, "TIFF", compression="tiff_adobe_deflate")
    yield (
        "inks, TIFF",
        encode(Image.new("CMYK", (side, side)), "TIFF", compression="tiff_adobe_deflate"),
    )
    yield "RGB PNG of 20000x20000", encode(Image.new("1", (20_000, 20_000)), "PNG")
    small = encode(Image.new("RGB", (9, 9)), "PNG")
    text = b"zTXtbomb\0\0" + zlib.compress(bytes(200 << 20), 9)
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    yield "200 MB of text in a PNG", small[:33] + chunk + small[33:]


def encode(image: Image.Image, name: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def measure_isolation(count: int = 400) -> Iterator[bool]:
    """What a child process adds to an image of ImageNet's size."""
    noise = np.random.default_rng(1).integers(0, 256, (47, 63, 3), np.uint8)
    photo = encode(Image.fromarray(noise).resize((500, 375)), "JPEG", quality=97)
    options = ConvertOptions(isolate=True)
    list(convert_isolated(photo, [options]))
    seconds = {}
    for name, decode in (("here", convert_frames), ("isolated", convert_isolated)):
        start = time.monotonic()
        for _ in range(count):
            list(decode(photo, [options]))
        seconds[name] = (time.monotonic() - start) / count
    added = seconds["isolated"] - seconds["here"]
    yield report(
        f"JPEG of {len(photo):,} bytes, 500x375",
        f"{seconds['here'] * 1e3:.2f} ms, {seconds['isolated'] * 1e3:.2f} ms isolated",
        "at most 1 ms more",
        ok=added <= 1e-3,
    )


def measure_sizes(count: int = 1500) -> Iterator[bool]:
    """What a second size costs where the first one is converted anyway."""
    noise = np.random.default_rng(1).integers(0, 256, (47, 63, 3), np.uint8)
    photo = Image.fromarray(noise).resize((500, 375))
    sizes = [ConvertOptions(image_size=(side, side), dedupe="off") for side in (224, 448)]
    with tempfile.TemporaryDirectory() as work:
        images = Path(work) / "images"
        (images / "a").mkdir(parents=True)
        for number in range(count):
            data = encode(photo, "JPEG", quality=95, comment=str(number).encode())
            (images / "a" / f"{number}.jpg").write_bytes(data)
        start = time.monotonic()
        for options in sizes:
            convert(images, Path(work) / str(options.image_size[0]), options)
        separate = time.monotonic() - start
        start = time.monotonic()
        convert_sizes(images, Path(work) / "out", sizes)
        together = time.monotonic() - start
    yield report(
        f"{count:,} JPEGs of 500x375 to 224x224 and 448x448",
        f"{together:.1f} s in one pass, {separate:.1f} s in two",
        f"at most {MAX_SHARE:.0%} of it",
        ok=together <= MAX_SHARE * separate,
    )


if __name__ == "__main__":
    sys.exit(main())
