"""Measures what a conversion is held to, and prints it beside the bar.

    real images   accounts, verify, index lines, TFDS, sizes of shards      (needs --images)
    draft         DCT-scaled decoding of large JPEGs: speed, likeness       (needs --images)
    costs         what it takes to tell where the time goes
    convert       wall time and memory against a bare process pool

Everything that is compared is measured in this one run, because machines differ and drift.
"""

import itertools
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from benchmarks.corpora import convert, make_photos, write_pixels
from benchmarks.measuring import Run, make_parser, measure, report, run_sections
from PIL import Image

from converter.costs import count_read, enter
from converter.format.indexes import parse_index
from converter.format.manifest import read_manifest
from converter.format.tfrecords import unframe_record
from converter.images.geometry import fit_image
from converter.images.opened_images import OpenedImage
from converter.images.openers import open_image
from converter.options import ConvertOptions
from converter.planning.plan import write_plan
from converter.storage.files import name_index
from converter.storage.locate import locate
from converter.upkeep.verification import verify_dataset
from converter.writing.shard_writer import Job, write_shard
from pipelines.jobs.preview import propose

HERE = Path(__file__).resolve()
REAL = HERE.parents[3] / "shared" / "images"


def main() -> int:
    parser = make_parser(__doc__, ("real", "draft", "costs", "convert"))
    parser.add_argument("--images", type=Path, default=REAL, help="photos, clipart and digits")
    parser.add_argument("--counts", type=int, nargs="*", default=[5_000, 20_000])
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    sections = {
        "real": lambda: measure_real(arguments.images, arguments.work),
        "draft": lambda: measure_draft(arguments.images / "photos", arguments.repeats),
        "costs": lambda: measure_costs(arguments.work, arguments.repeats),
        "convert": lambda: measure_convert(arguments.work, arguments.counts, arguments.repeats),
    }
    return run_sections(sections, arguments.only)


def measure_real(images: Path, work: Path) -> Iterator[bool]:
    """Converts real images, twice: as they come, and into shards small enough to be 20."""
    if not images.is_dir():
        print(f"  skipped: no images at {images}")
        return
    for name in ("photos", "clipart", "digits"):
        out = work / name
        convert(images / name, out, "--validation-split=0.2")
        manifest = read_manifest(out)
        totals = manifest.totals
        files = sum(path.is_file() for path in (images / name).rglob("*"))
        left_out = sum(totals.rejected.values()) + sum(totals.skipped.values())
        yield report(
            f"{name}: files = written + left out",
            f"{files} = {totals.written} + {left_out}",
            ok=files == totals.scanned == totals.written + left_out,
        )
        yield report(f"{name}: faults found by verify", str(len(verify_dataset(locate(out)))), "0",
                     ok=not verify_dataset(locate(out)))  # fmt: skip
        yield report(f"{name}: index lines that match", str(count_index_lines(out)),
                     ok=count_index_lines(out) == totals.written)  # fmt: skip
        counts = count_with_tfds(out)
        yield report(f"{name}: read by TFDS", str(counts),
                     ok=counts == {k: v.records for k, v in manifest.splits.items()})  # fmt: skip
        yield measure_shard_size(images / name, work / f"{name}-small", manifest.total_bytes)


def measure_shard_size(images: Path, out: Path, total_bytes: int) -> bool:
    asked = total_bytes // 24
    convert(images, out, f"--shard-size={asked}")
    manifest = read_manifest(out)
    got = manifest.total_bytes / len(manifest.shards)
    return report(
        f"{images.name}: shard size, {len(manifest.shards)} shards",
        f"{got / 1000:,.0f} kB, asked {asked / 1000:,.0f} kB",
        "within 15 %",
        ok=abs(got / asked - 1) <= 0.15 and len(manifest.shards) >= 20,
    )


def count_index_lines(out: Path) -> int:
    """Reads every record by its index line alone, as DALI does."""
    lines = 0
    for shard in read_manifest(out).shards:
        index = name_index(shard.name)
        data = (out / shard.name).read_bytes()
        offsets = parse_index((out / index).read_bytes(), index=index, shard_bytes=len(data))
        for begin, end in itertools.pairwise(offsets.tolist()):
            unframe_record(data[begin:end], shard=shard.name, offset=begin)
        lines += len(offsets) - 1
    return lines


def count_with_tfds(out: Path) -> dict[str, int]:
    code = (
        "import json, sys, tensorflow_datasets as tfds\n"
        "b = tfds.builder_from_directory(sys.argv[1])\n"
        "print(json.dumps({s: sum(1 for _ in b.as_dataset(split=s)) for s in b.info.splits}))"
    )
    return dict(json.loads(measure([sys.executable, "-c", code, str(out)]).output.splitlines()[-1]))


def measure_draft(photos: Path, repeats: int) -> Iterator[bool]:
    """Decodes camera photos to 256 pixels, whole and at a fraction."""
    if not photos.is_dir():
        print(f"  skipped: no photos at {photos}")
        return
    options = ConvertOptions(image_size=(256, 256))
    files = [path.read_bytes() for path in sorted(photos.rglob("*")) if path.is_file()]

    def resize(data: bytes, *, draft: bool) -> Image.Image:
        with open_image(data, options.formats) as image:
            # There are no drafts of frames.
            opened = OpenedImage(image, data, [options], framed=not draft)
            return opened.resize(fit_image(opened.origin.size, options), options)

    def decode(*, draft: bool) -> list[Image.Image]:
        return [resize(data, draft=draft) for data in files]

    whole, drafted = decode(draft=False), decode(draft=True)
    ratio = median_ratio(
        lambda: clock(lambda: decode(draft=False)),
        lambda: clock(lambda: decode(draft=True)),
        repeats,
    )
    yield report(
        f"{len(files)} photos, times as fast", f"{ratio:.2f}", "at least 1.9", ok=ratio >= 1.9
    )
    worst = min(compute_psnr(a, b) for a, b in zip(whole, drafted, strict=True))
    yield report(
        "least PSNR against the full decode", f"{worst:.1f} dB", "at least 38", ok=worst >= 38
    )


def compute_psnr(one: Image.Image, other: Image.Image) -> float:
    difference = np.asarray(one, np.float64) - np.asarray(other, np.float64)
    mean_square = float(np.mean(difference**2))
    return math.inf if mean_square == 0 else 10 * math.log10(255**2 / mean_square)


def measure_costs(work: Path, repeats: int) -> Iterator[bool]:
    """Times the calls that tell a worker's steps apart, beside the work on one image."""
    calls = 20_000

    def tell_steps() -> None:
        for _ in range(calls):
            count_read(1)
            for step in ("read", "decode", "convert", "encode", "other", "write", "other"):
                enter(step)

    telling = min(clock(tell_steps) for _ in range(repeats)) / calls
    kinds = {"500x375 to 256x256": (make_photos(work, 500), 256),
             "of one pixel": (write_pixels(work, 2_000), 1)}  # fmt: skip
    for kind, (images, side) in kinds.items():
        out = work / "costs"
        shutil.rmtree(out, ignore_errors=True)
        options = ConvertOptions(image_size=(side, side), num_shards=1)
        draft = propose(images, options, always_sample=False).draft
        plan = write_plan(draft, options, images=images, out=out)
        job = Job.of_plan(plan)
        writing = min(clock(partial(write_shard, plan.shards[0], job)) for _ in range(repeats))
        share = telling / (writing / plan.records)
        value = f"{telling * 1e6:.1f} µs, {share:.2%}"
        yield report(f"telling the steps of images {kind}", value, "at most 1 %", ok=share <= 0.01)


def measure_convert(work: Path, counts: list[int], repeats: int) -> Iterator[bool]:
    """Converts JPEGs of 500x375 to 256x256, beside a pool that calls the same function."""
    peaks = []
    for count in counts:
        images, out, pooled = make_photos(work, count), work / "converted", work / "pooled"
        runs: list[Run] = []
        pools: list[Run] = []
        for _ in range(repeats):
            shutil.rmtree(pooled, ignore_errors=True)
            prepare_plan(images, pooled)
            pools.append(measure([sys.executable, "-c", POOL, str(pooled)]))
            runs.append(convert(images, out))
        ratio = statistics.median(
            run.seconds / pool.seconds for run, pool in zip(runs, pools, strict=True)
        )
        limit = 1.25 if count < 20_000 else 1.1
        seconds = statistics.median(run.seconds for run in runs)
        pool_seconds = statistics.median(run.seconds for run in pools)
        peaks.append(max(run.peak_mb for run in runs))
        report(f"{count:,} images", f"{seconds:.1f} s, {count / seconds:,.0f}/s")
        report("  bare process pool", f"{pool_seconds:.1f} s, {count / pool_seconds:,.0f}/s")
        yield report(
            "  times the pool's wall time", f"{ratio:.2f}", f"at most {limit}", ok=ratio <= limit
        )
        yield report(
            "  peak of launcher and workers (RSS)",
            f"{peaks[-1]:.0f} MB",
            "at most 600 MB",
            ok=peaks[-1] <= 600,
        )
    if len(peaks) > 1:
        growth = peaks[-1] / peaks[0] - 1
        yield report(
            f"memory at {counts[-1]:,} against {counts[0]:,}",
            f"{growth:+.1%}",
            "within 10 %",
            ok=abs(growth) <= 0.1,
        )


POOL = """
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from converter.writing.shard_writer import Job, write_shard
from converter.planning.plan import read_plan

if __name__ == "__main__":
    plan = read_plan(Path(sys.argv[1]))
    job = Job.of_plan(plan)
    with ProcessPoolExecutor() as pool:
        receipts = pool.map(partial(write_shard, job=job), plan.shards)
        print(sum(receipt.records for receipt in receipts))
"""

PLAN = """
import sys
from pathlib import Path
from converter.options import ConvertOptions
from converter.planning.plan import write_plan
from pipelines.jobs.preview import propose

images, out = Path(sys.argv[1]), Path(sys.argv[2])
options = ConvertOptions(caption_column=sys.argv[3] if len(sys.argv) > 3 else None)
draft = propose(images, options, always_sample=False).draft
write_plan(draft, options, images=images if images.is_dir() else images.parent, out=out)
"""


def prepare_plan(images: Path, out: Path) -> None:
    subprocess.run([sys.executable, "-c", PLAN, str(images), str(out)], check=True)


def clock(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def median_ratio(one: Callable[[], float], other: Callable[[], float], repeats: int) -> float:
    return statistics.median(one() / other() for _ in range(repeats))


if __name__ == "__main__":
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    sys.exit(main())
