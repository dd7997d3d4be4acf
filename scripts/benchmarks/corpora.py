"""The images and data sets that the benchmarks measure with; what is there already is kept."""

import dataclasses
import io
import itertools
import os
import shutil
import struct
import sys
import tarfile
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from benchmarks.measuring import Run, measure
from PIL import Image

from converter.commits.commit import commit
from converter.format.manifest import SplitInfo, Totals, read_manifest
from converter.options import ConvertOptions
from converter.planning.plan import Draft, write_plan
from converter.planning.splits import plan_shards
from converter.sources.scan import scan_folder
from converter.storage.files import name_index, name_shard
from converter.storage.locate import locate
from converter.storage.location import Location
from converter.writing.shard_writer import Job, write_shard
from reader import open_shards

LINKED_SHARDS = 4
"""ext4 allows 65,000 hard links of a file."""
LINKED_RECORDS = 1_000
"""In each of these shards."""


def make_photos(work: Path, count: int) -> Path:
    """Writes JPEGs of 500x375: crops of the two photographs that come with scikit-learn."""
    from sklearn.datasets import load_sample_images

    folder = work / f"photos-{count}"
    if (folder / "complete").exists():
        return folder / "images"
    sources = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    random = np.random.default_rng(0)
    for number in range(count):
        source = sources[number % len(sources)]
        height = int(random.integers(300, source.height))
        width = height * 4 // 3
        left = int(random.integers(0, source.width - width + 1))
        top = int(random.integers(0, source.height - height + 1))
        image = source.resize((500, 375), box=(left, top, left + width, top + height))
        gain = random.uniform(0.8, 1.2)
        path = folder / "images" / f"class-{number % 10}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.point(lambda value, gain=gain: value * gain).save(path, quality=95)
    (folder / "complete").touch()
    return folder / "images"


def write_pixels(work: Path, count: int) -> Path:
    """So many PNGs of one pixel, all different, a thousand a folder, in 10 classes: 4 kB each."""
    folder = work / f"pixels-{count}"
    if (folder / "complete").exists():
        return folder / "images"
    shutil.rmtree(folder, ignore_errors=True)
    for number in range(count):
        path = folder / "images" / name_pixel(number)
        if number % 1000 == 0:
            path.parent.mkdir(parents=True)
        path.write_bytes(draw_pixel(number))
    (folder / "complete").touch()
    return folder / "images"


def name_pixel(number: int) -> str:
    return f"class-{number // 1000 % 10}/{number // 1000:05d}/{number:08d}.png"


def pack_pixels(work: Path, count: int) -> Path:
    """The files of `write_pixels` in a tar, where each takes a kilobyte and no inode."""
    tar = work / f"pixels-{count}.tar"
    if tar.exists():
        return tar
    with tarfile.open(part := tar.with_suffix(".part"), "w", format=tarfile.USTAR_FORMAT) as file:
        for number in range(count):
            info, data = tarfile.TarInfo(name_pixel(number)), draw_pixel(number)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
            file.members = []  # which would keep a kilobyte of each
    part.rename(tar)
    return tar


def draw_pixel(number: int) -> bytes:
    """A PNG of one pixel, whose colour is the number; written by hand, as Pillow takes 100 us."""
    row = b"\0" + number.to_bytes(3, "big")
    chunks = (
        (b"IHDR", struct.pack(">2I5B", 1, 1, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(row)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def write_table(images: Path, count: int) -> Path:
    """A CSV of the files of `write_pixels`, with a label and a caption of 50 letters for each."""
    table = images / "images.csv"
    with open(table, "w", encoding="ascii") as file:
        file.write("path,label,caption\n")
        for number in range(count):
            caption = f"a photograph of one pixel only, number {number:07d}, one"
            file.write(f'{name_pixel(number)},class-{number // 1000 % 10},"{caption}"\n')
    return table


def convert(images: Location, out: Location, *arguments: str) -> Run:
    if isinstance(out, Path):
        shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "pipelines", "convert", str(images), str(out)]
    return measure([*command, "--no-progress", *arguments])


def keep(out: Path, make: Callable[[], object]) -> Path:
    """A data set, made only if it does not lie there finished."""
    if not (out / "manifest.json").exists():
        print(f"  making {out.name}", flush=True)
        make()
    return out


def convert_photos(work: Path, count: int, encoding: str) -> Path:
    """The photographs of `make_photos` as a data set of 256x256."""
    out = work / (f"read-{count}" if encoding == "jpeg" else f"read-{count}-{encoding}")
    return keep(out, lambda: convert(make_photos(work, count), out, f"--encoding={encoding}"))


def unpack_photos(work: Path, count: int) -> Path:
    """The images of `convert_photos` as files of their own, in class folders."""
    folder = work / f"resized-{count}"
    if (folder / "complete").exists():
        return folder / "images"
    for record in open_shards(convert_photos(work, count, "jpeg")).source("train"):
        path = folder / "images" / record.source_id
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(record.encoded)
    (folder / "complete").touch()
    return folder / "images"


def repeat_photos(work: Path, count: int, times: int, encoding: str) -> Path:
    """A data set that holds each photograph so many times, without as many files."""
    out = work / f"read-{count}x{times}-{encoding}"
    options = ConvertOptions(encoding=encoding)
    return keep(
        out, lambda: write_repeated(make_photos(work, count), out, count * times, options, 30_000)
    )


def make_tiny(work: Path, records: int) -> Path:
    """A data set of so many PNGs of 8x8, of which 20 differ."""
    out, images = work / f"tiny-{records}", work / "tiny" / "images"
    random = np.random.default_rng(0)
    for number in range(20):
        path = images / f"class-{number % 10}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).save(path)
    options = ConvertOptions(image_size=(8, 8), encoding="png")
    return keep(out, lambda: write_repeated(images, out, records, options, 600))


def multiply_tiny(work: Path, records: int, times: int) -> Path:
    """A data set with the shards of `make_tiny` so many times, as hard links: made in seconds."""
    source, out = make_tiny(work, records), work / f"tiny-{records}x{times}"
    return keep(out, lambda: link_shards(source, out, {"train": times}))


def link_photos(work: Path, times: Mapping[str, int]) -> Path:
    """A data set with `LINKED_SHARDS` shards of photographs so many times in each split.

    They are hard links, each with an index of its own name, so all can be read and take no space.
    """
    source = work / "linked"
    records = LINKED_SHARDS * LINKED_RECORDS
    options = ConvertOptions(num_shards=LINKED_SHARDS)
    images = make_photos(work, LINKED_RECORDS)
    keep(source, lambda: write_repeated(images, source, records, options, 30_000))
    out = work / f"linked-{'-'.join(map(str, times.values()))}"
    return keep(out, lambda: link_shards(source, out, times))


def link_shards(source: Path, out: Path, times: Mapping[str, int]) -> None:
    """Writes a data set with all shards of another one so many times in each split."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    manifest = read_manifest(source)
    of, (one,) = len(manifest.shards), manifest.splits.values()
    shards = [
        dataclasses.replace(
            manifest.shards[number % of], split=split, name=name_shard(split, number, count * of)
        )
        for split, count in times.items()
        for number in range(count * of)
    ]
    for number, shard in enumerate(shards):
        old = manifest.shards[number % of].name
        for name, new in ((old, shard.name), (name_index(old), name_index(shard.name))):
            os.link(source / name, out / new)
    for name in manifest.files:
        shutil.copy(source / name, out)
    splits = {
        split: SplitInfo(
            records=one.records * count,
            bytes=one.bytes * count,
            shards=one.shards * count,
            labels=tuple(label * count for label in one.labels),
        )
        for split, count in times.items()
    }
    records, copies = sum(split.records for split in splits.values()), sum(times.values())
    formats = {name: count * copies for name, count in manifest.image.formats.items()}
    written = dataclasses.replace(
        manifest,
        image=dataclasses.replace(manifest.image, formats=formats),
        splits=splits,
        shards=tuple(shards),
        totals=Totals(scanned=records, written=records, rejected={}, skipped={}),
    )
    (out / "manifest.json").write_bytes(written.to_bytes())


def write_repeated(
    images: Path, out: Path, records: int, options: ConvertOptions, record_bytes: int
) -> None:
    """Converts the images of a folder again and again, until there are `records`."""
    shutil.rmtree(out, ignore_errors=True)
    inventory = scan_folder(locate(images))
    entries = list(itertools.islice(itertools.cycle(inventory.entries), records))
    order = np.random.default_rng(0).permutation(records)
    splits = {"train": [entries[place] for place in order]}
    shard_records = plan_shards(splits, options, record_bytes)
    draft = Draft(inventory=inventory, splits=splits, shard_records=shard_records)
    plan = write_plan(draft, options, images=images, out=out)
    job = Job.of_plan(plan)
    with ProcessPoolExecutor() as pool:
        list(pool.map(partial(write_shard, job=job), plan.shards))
    commit(plan)
