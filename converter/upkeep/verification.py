"""Checks a data set against its manifest: every byte, count and name, and every image.

`check_shard` is all the work there is on one shard, here in a thread or on a worker elsewhere;
`collect_faults` adds what only shows over all shards.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from converter.errors import DatasetError, RecordError
from converter.format.indexes import parse_index
from converter.format.manifest import ImageInfo, Manifest, ShardInfo, read_manifest
from converter.format.schema import Column
from converter.format.tfrecords import FOOTER_BYTES, HEADER_BYTES, scan_records
from converter.image_options import MAX_FILE_BYTES
from converter.images.frame_paths import find_file
from converter.planning.plan import read_plan
from converter.sizes import format_count
from converter.storage.disk import DiskPath
from converter.storage.files import choose_threads
from converter.storage.hashing import hash_file
from converter.storage.layout import MANIFEST, WORK_FOLDER, Layout, name_index
from converter.storage.location import Location
from converter.upkeep.contents import check_content
from converter.upkeep.provenance import Source, describe_change
from converter.writing.shard_writer import read_receipt, receipt_path

MAX_FAULTS: Final = 20
"""So many damaged records of a shard are named; the others are counted."""


class Fault(NamedTuple):
    """One thing that is wrong.

    Attributes:
        file: name of a file of the data set, or path of an original.
        detail: what is wrong with it.
        original: whether `file` is an original, that its record was compared with.
    """

    file: str
    detail: str
    original: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """How shards are checked; the same for all of them.

    Attributes:
        folder: the data set.
        classes: names in label order.
        image: what its images have in common.
        quick: look at names and sizes only.
        decode: decode every image, and not its header alone.
        originals: folder of the originals to compare records with, or None.
        columns: what records hold besides an image and its label.
        labelled: whether they hold a label.
        frames: which frames of files were converted, as in `ConvertOptions`.
        max_file_bytes: of an original, as in `ConvertOptions`.
    """

    folder: Location
    classes: tuple[str, ...]
    image: ImageInfo
    quick: bool = False
    decode: bool = True
    originals: Location | None = None
    columns: tuple[Column, ...] = ()
    labelled: bool = True
    frames: str = "first"
    max_file_bytes: int = MAX_FILE_BYTES


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What was found in one shard.

    Attributes:
        shard: its file name.
        faults: what is wrong with it.
        whole: whether all its records could be read, so that they can be counted.
        labels: number of records by label.
        formats: number of images by stored format.
        max_image_size: the largest height and the largest width, in pixels.
    """

    shard: str
    faults: tuple[Fault, ...]
    whole: bool
    labels: Mapping[int, int]
    formats: Mapping[str, int]
    max_image_size: tuple[int, int]

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {**dataclasses.asdict(self), "labels": list(self.labels.items())}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Report:
        """The inverse of `to_json`."""
        height, width = values["max_image_size"]
        return cls(
            **{
                **values,
                "faults": tuple(Fault(*fault) for fault in values["faults"]),
                "labels": dict(values["labels"]),
                "max_image_size": (height, width),
            }
        )


def verify_dataset(
    folder: Location,
    *,
    quick: bool = False,
    decode: bool = True,
    originals: Location | None = None,
    on_shard: Callable[[ShardInfo], object] | None = None,
) -> list[Fault]:
    """Reads every byte of a data set and lists what does not fit its manifest.

    Memory is bounded by 1 MiB, the largest record and its image, and some 150 bytes for each
    record of a shard, for each core.

    Args:
        folder: the data set. Of an unfinished conversion, what is finished is checked.
        quick: look at names and sizes only.
        decode: decode every image, and not its header alone.
        originals: also compare each record with its original in this folder.
        on_shard: called with each shard once it is checked, in order.

    Returns:
        the faults, in the order of the manifest; none means the data set is whole.

    Raises:
        DatasetError: the manifest itself is missing, damaged or of a newer format.
    """
    if not Layout(folder).manifest.is_file() and Layout(folder).plan.is_file():
        return _verify_unfinished(folder, quick=quick)
    manifest = read_manifest(folder)
    check = make_check(folder, manifest, quick=quick, decode=decode, originals=originals)
    reports = []
    # Threads: hashing, reading and decoding leave the interpreter to others.
    with concurrent.futures.ThreadPoolExecutor(choose_threads(folder, originals)) as pool:
        found = pool.map(lambda shard: check_shard(shard, check), manifest.shards)
        for shard, report in zip(manifest.shards, found, strict=True):
            reports.append(report)
            if on_shard is not None:
                on_shard(shard)
    return collect_faults(manifest, check, reports)


def make_check(
    folder: Location, manifest: Manifest, *, quick: bool, decode: bool, originals: Location | None
) -> Check:
    """What workers have to know to check a shard of a data set."""
    return Check(
        folder=folder,
        classes=manifest.classes,
        image=manifest.image,
        quick=quick,
        decode=decode,
        originals=originals,
        columns=manifest.columns,
        labelled=manifest.labelled,
        frames=str(manifest.options.get("frames")),
        max_file_bytes=int(manifest.options.get("max_file_bytes", MAX_FILE_BYTES)),
    )


def check_shard(shard: ShardInfo, check: Check) -> Report:
    """Checks one shard and its index."""
    contents: list[Source] = []
    if check.quick:
        faults = list(_check_sizes(check.folder, shard))
    else:
        with check.folder.bring_local((shard.name, name_index(shard.name))) as folder:
            faults = list(_check_bytes(folder, shard, check, contents))
    return Report(
        shard=shard.name,
        faults=tuple(faults),
        whole=len(contents) == shard.records,
        labels=dict(sorted(Counter(content.label for content in contents).items())),
        formats=dict(sorted(Counter(content.format for content in contents).items())),
        max_image_size=(
            max((content.height for content in contents), default=0),
            max((content.width for content in contents), default=0),
        ),
    )


def _check_sizes(folder: Location, shard: ShardInfo) -> Iterator[Fault]:
    yield from _check_file(folder / shard.name, shard.bytes, None)
    yield from _check_file(folder / name_index(shard.name), shard.index_bytes, None)


def _check_bytes(
    folder: DiskPath, shard: ShardInfo, check: Check, contents: list[Source]
) -> Iterator[Fault]:
    index = folder / name_index(shard.name)
    yield from _check_file(folder / shard.name, shard.bytes, shard.sha256)
    index_faults = [*_check_file(index, shard.index_bytes, shard.index_sha256)]
    yield from index_faults
    if not any(_check_file(folder / shard.name, shard.bytes, None)):  # whole, or bytes changed
        yield from _check_records(folder, shard, check, contents, with_index=not index_faults)


def collect_faults(manifest: Manifest, check: Check, reports: Sequence[Report]) -> list[Fault]:
    """The faults of all shards, and those of the data set as a whole."""
    faults = [fault for report in reports for fault in report.faults]
    if not check.quick and all(report.whole for report in reports):
        faults += _check_counts(manifest, reports)
    for name, info in manifest.files.items():
        sha256 = None if check.quick else info.sha256
        faults += _check_file(check.folder / name, info.bytes, sha256)
    return faults + list(_find_strangers(check.folder, manifest))


def _verify_unfinished(folder: Location, *, quick: bool) -> list[Fault]:
    plan, faults, finished = read_plan(folder), [], 0
    for shard in plan.shards:
        path = receipt_path(Layout(folder), shard)
        if not path.exists():
            continue
        finished += 1
        try:
            receipt = read_receipt(path)
        except DatasetError:
            faults.append(Fault(path.name, "cannot be read as a receipt"))
            continue
        for name, size, sha256 in (
            (shard.name, receipt.bytes, receipt.sha256),
            (name_index(shard.name), receipt.index_bytes, receipt.index_sha256),
        ):
            faults += _check_file(folder / name, size, None if quick else sha256)
    state = (
        f"is missing: the conversion is not finished, {finished} of {len(plan.shards)} shards are; "
        "run the same convert command again to go on"
    )
    return [*faults, Fault(MANIFEST, state)]


def _check_file(path: Location, size: int, sha256: str | None) -> Iterator[Fault]:
    try:
        found = path.measure()
        if found is None:
            yield Fault(path.name, "is not a file" if path.exists() else "is missing")
        elif found != size:
            yield Fault(path.name, f"has {found} bytes, expected {size}")
        elif sha256 is not None and hash_file(path) != sha256:
            yield Fault(path.name, "its checksum does not match: bytes were changed")
    except OSError as error:
        yield Fault(path.name, f"cannot be read: {error.strerror}")


def _check_records(
    folder: DiskPath, shard: ShardInfo, check: Check, contents: list[Source], *, with_index: bool
) -> Iterator[Fault]:
    """Names damaged records, compares with the index, and collects what the records hold."""
    try:
        with open(folder / shard.name, "rb") as file:
            bounds = [0, *accumulate(scan_records(file, shard.name, shard.bytes))]
    except RecordError as error:
        yield Fault(shard.name, str(error).removeprefix(f"{shard.name}: "))
        return
    if len(bounds) != shard.records + 1:
        yield Fault(
            shard.name, f"holds {format_count(len(bounds) - 1, 'record')}, expected {shard.records}"
        )
    if with_index:
        yield from _check_index(folder, shard, bounds)
    largest = max((end - start for start, end in pairwise(bounds)), default=0)
    if largest != shard.max_record_bytes:
        yield Fault(
            shard.name, f"its largest record has {largest} bytes, expected {shard.max_record_bytes}"
        )
        return
    yield from _limit(shard.name, _check_contents(folder, shard, check, bounds, contents))


def _check_index(folder: Path, shard: ShardInfo, bounds: Sequence[int]) -> Iterator[Fault]:
    index = name_index(shard.name)
    try:
        data = (folder / index).read_bytes()
        offsets = parse_index(data, index=index, shard_bytes=shard.bytes)
        if not np.array_equal(offsets, bounds):
            yield Fault(index, "does not match the records of its shard")
    except DatasetError as error:
        yield Fault(index, str(error).removeprefix(f"{index}: "))


def _check_contents(
    folder: DiskPath, shard: ShardInfo, check: Check, bounds: Sequence[int], contents: list[Source]
) -> Iterator[Fault]:
    with open(folder / shard.name, "rb") as file:
        for number, (start, end) in enumerate(pairwise(bounds)):
            record = file.read(end - start)
            payload = record[HEADER_BYTES:-FOOTER_BYTES]
            try:
                content = check_content(
                    payload,
                    check.classes,
                    check.image,
                    decode=check.decode,
                    columns=check.columns,
                    labelled=check.labelled,
                )
            except ValueError as error:
                yield Fault(shard.name, f"record {number} at byte {start}: {error}")
                continue
            contents.append(content)
            if check.originals is not None:
                path = find_file(content.path, check.frames)
                change = describe_change(
                    path, content.sha256, check.originals, check.max_file_bytes
                )
                if change is not None:
                    yield Fault(content.path, f"the original {change}", original=True)


def _limit(name: str, faults: Iterable[Fault]) -> Iterator[Fault]:
    """Cuts a long list of damaged records short; originals are all named."""
    more = 0
    for number, fault in enumerate(faults):
        if fault.original or number < MAX_FAULTS:
            yield fault
        else:
            more += 1
    if more:
        yield Fault(name, f"{more} more records do not fit the manifest")


def _check_counts(manifest: Manifest, reports: Sequence[Report]) -> Iterator[Fault]:
    """Compares the manifest's counts with the records themselves."""
    by_split: dict[str, Counter[int]] = {split: Counter() for split in manifest.splits}
    for shard, report in zip(manifest.shards, reports, strict=True):
        by_split[shard.split].update(report.labels)
    for split, info in manifest.splits.items():
        for label, expected in enumerate(info.labels):
            if (found := by_split[split][label]) != expected:
                detail = (
                    f"split {split}: label {label} is on {found} records, stated are {expected}"
                )
                yield Fault(MANIFEST, detail)
    formats: Counter[str] = Counter()
    for report in reports:
        formats.update(report.formats)
    image = manifest.image
    if formats != image.formats:
        yield Fault(MANIFEST, f"formats are {dict(formats)}, stated are {image.formats}")
    height = max(report.max_image_size[0] for report in reports)
    width = max(report.max_image_size[1] for report in reports)
    if (height, width) != (image.max_height, image.max_width):
        stated = f"{image.max_height}x{image.max_width}"
        yield Fault(MANIFEST, f"images are up to {height}x{width}, stated is {stated}")


def _find_strangers(folder: Location, manifest: Manifest) -> Iterator[Fault]:
    names = {MANIFEST, *manifest.files}
    for shard in manifest.shards:
        names |= {shard.name, name_index(shard.name)}
    for name in folder.list_names():
        if name == WORK_FOLDER:
            # Of whoever makes a replacement just now; this data set is whole until then.
            if folder.find_owner() is None:
                yield Fault(name, "is left over from a conversion: shardmill clean removes it")
        elif name not in names:
            yield Fault(name, "does not belong to the data set")
