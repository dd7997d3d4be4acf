"""Changes single bytes of good images, and converts what comes of it: nothing may escape.

    ./scripts/run faults/fuzz_images --count 10000 --seed 1

An image that is damaged is written or rejected with a known code. Anything else ends this with exit
code 1 and the seed of the image: another exception, or more than ten seconds.
"""

import argparse
import io
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence

from PIL import Image

from converter.errors import ImageError
from converter.images.conversion import convert_image
from converter.inventory import REJECT_CODES
from converter.options import ConvertOptions

FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "GIF",
    "BMP",
    "TIFF",
    "AVIF",
    "MPO",
    "JPEG2000",
    "ICO",
    "TGA",
    "PPM",
)
MODES = ("RGB", "L", "RGBA", "LA", "P", "CMYK", "I;16", "1")
OPTIONS = ConvertOptions(
    image_size=(16, 16),
    formats=tuple(name.lower() for name in FORMATS),
    max_pixels=4_000_000,
)
MAX_SECONDS = 10


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    for seed in range(arguments.seed, arguments.seed + arguments.count):
        start = time.monotonic()
        outcome = try_mutation(seed)
        slowest = max(slowest, time.monotonic() - start)
        outcomes[outcome] += 1
        if outcome not in ("written", *REJECT_CODES) or slowest > MAX_SECONDS:
            print(f"seed {seed}: {outcome}, {slowest:.1f} s at most so far")
            return 1
    for outcome, count in outcomes.most_common():
        print(f"{count:>9,}  {outcome}")
    print(f"slowest: {slowest:.2f} s")
    return 0


def try_mutation(seed: int) -> str:
    """`written`, a code, or what escaped."""
    try:
        convert_image(mutate(seed), OPTIONS)
    except ImageError as error:
        return error.code
    except Exception as error:  # noqa: BLE001 (that is what is looked for)
        return f"{type(error).__name__}: {error}"
    return "written"


def mutate(seed: int) -> bytes:
    """A good image of some format and mode, in which one byte is another one."""
    random_ = random.Random(seed)  # noqa: S311
    data = bytearray(make_good(seed % len(FORMATS), random_.choice(MODES)))
    data[random_.randrange(len(data))] ^= random_.randrange(1, 256)
    return bytes(data)


def make_good(number: int, mode: str) -> bytes:
    image = Image.linear_gradient("L").resize((24, 20)).convert("RGB")
    image = image.convert("L").convert(mode) if mode == "I;16" else image.convert(mode)
    several = {"save_all": True, "append_images": [image]}
    for save, options in ((image, several), (image, {}), (image.convert("RGB"), {})):
        file = io.BytesIO()
        try:
            save.save(file, FORMATS[number], **options)
        except (OSError, ValueError, KeyError, TypeError):
            continue  # not every format has every mode, or several pictures
        return file.getvalue()
    raise AssertionError(FORMATS[number])


if __name__ == "__main__":
    sys.exit(main())
