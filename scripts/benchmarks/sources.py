"""Converts the same 5,000 photos out of a folder and out of files that hold them, side by side.

    parquet     row groups of 100 rows, Snappy, a structure of bytes and path: as `datasets` writes
    webdataset  tars of 500 samples with .cls, .txt and .json, as the library writes them
    one         Parquet in a single row group of 1 GB: memory must not grow with it

Runs alternate, because machines drift; ratios are those of the medians.
"""

import statistics
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from benchmarks.corpora import convert, make_photos
from benchmarks.measuring import Run, make_parser, report, run_sections

MAX_TIME, MAX_MEMORY = 1.1, 1.3  # times what a folder takes
MAX_PEAK_MB = 1_500


def main() -> int:
    parser = make_parser(__doc__, ("compare", "one"))
    parser.add_argument("--count", type=int, default=5_000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    work, count = arguments.work, arguments.count
    sections = {
        "compare": lambda: compare(work, count, arguments.repeats),
        "one": lambda: measure_one(work, count),
    }
    return run_sections(sections, arguments.only)


def compare(work: Path, count: int, repeats: int) -> Iterator[bool]:
    """Converts each source in turn, and compares it with the folder."""
    folder = make_photos(work, count)
    sources = {"folder": folder} | {
        name: keep_file(work / f"photos-{count}", file, folder, pack)
        for name, (file, pack) in PACKERS.items()
    }
    runs: dict[str, list[Run]] = {name: [] for name in sources}
    for _ in range(repeats):
        for name, images in sources.items():
            runs[name].append(convert(images, work / "converted"))
    base = summarize(runs["folder"])
    for name, found in runs.items():
        one = summarize(found)
        report(
            f"{name}, {count:,} images",
            f"{one['seconds']:.1f} s, CPU {one['cpu_seconds']:.1f} s, {one['peak_mb']:.0f} MB",
        )
        if name == "folder":
            continue
        report("  times the CPU time", f"{one['cpu_seconds'] / base['cpu_seconds']:.2f}")
        for what, key, limit in (
            ("wall time", "seconds", MAX_TIME),
            ("memory", "peak_mb", MAX_MEMORY),
        ):
            ratio = one[key] / base[key]
            yield report(
                f"  times the {what}", f"{ratio:.2f}", f"at most {limit}", ok=ratio <= limit
            )


def summarize(runs: list[Run]) -> dict[str, float]:
    """The median of each measure."""
    keys = ("seconds", "cpu_seconds", "peak_mb")
    return {key: statistics.median(getattr(run, key) for run in runs) for key in keys}


def measure_one(work: Path, count: int) -> Iterator[bool]:
    """Converts a gigabyte in one row group, into few and small images."""
    folder = make_photos(work, count)
    file = keep_file(work / f"photos-{count}", "one.parquet", folder, pack_one)
    run = convert(file, work / "converted", "--image-size=32")
    size = f"{file.stat().st_size / 1e6:,.0f} MB in one row group"
    yield report(
        size, f"{run.peak_mb:.0f} MB", f"at most {MAX_PEAK_MB} MB", ok=run.peak_mb <= MAX_PEAK_MB
    )
    report("  launcher, largest worker", f"{run.launcher_mb:.0f} MB, {run.worker_mb:.0f} MB")


def keep_file(folder: Path, name: str, images: Path, pack: Callable[[Path, Path], None]) -> Path:
    """A file beside the photos that holds them, made only if it does not lie there."""
    path = folder / name
    if not path.exists():
        part = folder / f"part-{name}"
        pack(images, part)
        part.rename(path)
    return path


def list_photos(images: Path) -> list[Path]:
    return sorted(images.rglob("*.jpg"))


def pack_parquet(images: Path, path: Path) -> None:
    write_parquet(list_photos(images), path, 100)


def pack_one(images: Path, path: Path) -> None:
    photos = list_photos(images)
    write_parquet(photos * (1 + (1 << 30) // sum(file.stat().st_size for file in photos)), path, 0)


def write_parquet(photos: list[Path], path: Path, group_rows: int) -> None:
    """Writes row groups of so many photos, or a single one, without holding more than a few."""
    import pyarrow as pa
    from pyarrow import parquet

    names = sorted({photo.parent.name for photo in photos})
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    features = (
        f'{{"info": {{"features": {{"image": {{"_type": "Image"}}, "label": '
        f'{{"names": {names!r}, "_type": "ClassLabel"}}}}}}}}'
    ).replace("'", '"')
    schema = pa.schema([("image", image), ("label", pa.int64())], {"huggingface": features})
    # Buffered, so that batches do not begin row groups of their own.
    with parquet.ParquetWriter(path, schema, use_dictionary=False) as writer:
        for begin in range(0, len(photos), 100):
            rows = [
                {
                    "image": {"bytes": photo.read_bytes(), "path": photo.name},
                    "label": names.index(photo.parent.name),
                }
                for photo in photos[begin : begin + 100]
            ]
            if group_rows:
                writer.write_table(pa.Table.from_pylist(rows, schema), group_rows)
            else:
                for batch in pa.Table.from_pylist(rows, schema).to_batches():
                    writer.write_batch(batch, row_group_size=len(photos))


def pack_tars(images: Path, folder: Path) -> None:
    """Writes tars of 500 samples with class, caption and JSON."""
    import webdataset

    photos = list_photos(images)
    names = sorted({photo.parent.name for photo in photos})
    folder.mkdir()
    with webdataset.ShardWriter(str(folder / "train-%06d.tar"), maxcount=500, verbose=0) as writer:
        for number, photo in enumerate(photos):
            about = {"number": number, "name": photo.name}
            label = names.index(photo.parent.name)
            parts = {"jpg": photo.read_bytes(), "cls": label, "txt": photo.name, "json": about}
            writer.write({"__key__": f"{number:06}", **parts})


# The name of each kind, its file, and what writes it.
PACKERS: Mapping[str, tuple[str, Callable[[Path, Path], None]]] = {
    "parquet": ("photos.parquet", pack_parquet),
    "webdataset": ("tars", pack_tars),
}


if __name__ == "__main__":
    sys.exit(main())
