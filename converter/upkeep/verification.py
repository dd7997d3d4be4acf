"""Checks a data set against its manifest: every byte, count, name and image.

`check_shard` does all the work on one shard, in a thread here or on a worker elsewhere;
`collect_faults` adds what shows only across all shards.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain, pairwise
from pathlib import Path
from typing import Final

from converter import progress
from converter.commits.receipts import Receipts, open_receipts
from converter.errors import DatasetError, ImageError, RecordError
from converter.format.examples import find_source
from converter.format.indexes import parse_index
from converter.format.manifest import Manifest, ShardInfo, read_manifest
from converter.format.tfrecords import FOOTER_BYTES, HEADER_BYTES, scan_records, unframe_record
from converter.names import find_file
from converter.options import ConvertOptions
from converter.planning.plan import Shard, read_plan
from converter.sizes import format_count
from converter.sources.scan import Originals
from converter.storage.disk import DiskPath
from converter.storage.files import (
    COMPANIONS,
    MANIFEST,
    WORK_FOLDER,
    Layout,
    hash_file,
    name_index,
)
from converter.storage.location import Location, map_in_threads
from converter.upkeep.contents import (
    OnShard,
    Source,
    check_content,
    count_sources,
    describe_change,
    read_bounds,
)
from converter.upkeep.shard_reports import Fault, Findings, Report
from converter.writing.shard_writer import receipt_path

MAX_FAULTS: Final = 20  # damaged records of a shard that are named; the others are counted


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """What to check, and how."""

    folder: Location
    manifest: Manifest  # on workers without its shards, which `check_shard` does not need
    quick: bool = False  # only names and sizes
    decode: bool = True  # whole images, not only their headers
    originals: Originals | None = None  # to compare records with


def verify_dataset(
    folder: Location, *, quick: bool = False, decode: bool = True, originals: Location | None = None
) -> list[Fault]:
    """Reads the manifest of a data set and checks it by `run_check`, as a `Check` says.

    Of an unfinished conversion, the finished shards are checked. The faults come in the order of
    the manifest. Raises DatasetError if the manifest is missing, damaged or of a newer format.
    """
    if not Layout(folder).manifest.is_file() and Layout(folder).plan.is_file():
        return _verify_unfinished(folder, quick=quick)
    manifest = read_manifest(folder)
    options = ConvertOptions.from_json(manifest.options)
    stated = Originals.locate(originals, options) if originals else None
    check = Check(folder=folder, manifest=manifest, quick=quick, decode=decode, originals=stated)
    return run_check(check)


def run_check(check: Check, on_shard: OnShard | None = None) -> list[Fault]:
    """Checks a data set in threads of this process.

    Memory is bounded, per core, by 1 MiB, the largest record with its image, and about 150 bytes
    for each record of a shard.
    """
    places = check.folder, check.originals and check.originals.root
    Originals.forget()
    work = functools.partial(check_shard, check=check)
    findings = Findings(check.manifest)
    for shard, report in map_in_threads(work, check.manifest.shards, *places, on_item=on_shard):
        findings.add(shard, report)
    return collect_faults(check, findings)


def check_shard(shard: ShardInfo, check: Check) -> Report:
    """Checks one shard and its index."""
    sources: list[Source] = []
    if check.quick:
        faults = list(_check_pair(check.folder, shard.name, shard, quick=True))
    else:
        with check.folder.bring_local((shard.name, name_index(shard.name))) as folder:
            faults = list(_check_pair(folder, shard.name, shard, quick=False))
            # With changed bytes but the right size, the records still tell where the damage is.
            if not any(_check_file(folder / shard.name, shard.bytes, shard.sha256, quick=True)):
                with_index = all(fault.file == shard.name for fault in faults)
                faults += _check_records(folder, shard, check, sources, with_index=with_index)
    return Report(faults, count_sources(sources) if len(sources) == shard.records else None)


def collect_faults(check: Check, findings: Findings) -> list[Fault]:
    """The faults of all shards, then those of the data set as a whole."""
    manifest, faults = check.manifest, findings.list_faults()
    for name, info in manifest.files.items():
        faults += _check_file(check.folder / name, info.bytes, info.sha256, quick=check.quick)
    return faults + list(_find_strangers(check.folder, manifest))


def _verify_unfinished(folder: Location, *, quick: bool) -> list[Fault]:
    plan, layout = read_plan(folder), Layout(folder)
    faults: list[Fault] = []
    with open_receipts(layout) as receipts:
        finished = [shard for shard in plan.shards if shard in receipts]

        def check(shard: Shard) -> list[Fault]:
            return [*_check_finished(folder, shard, receipts, quick=quick)]

        for _, found in map_in_threads(check, finished, folder):
            faults += found
    state = (
        f"is missing: the conversion is not finished, {len(finished)} of {len(plan.shards)} shards "
        "are; run the same convert command again to go on"
    )
    return [*faults, Fault(MANIFEST, state)]


def _check_finished(
    folder: Location, shard: Shard, receipts: Receipts, *, quick: bool
) -> Iterator[Fault]:
    try:
        receipt = receipts[shard]
    except DatasetError:
        yield Fault(receipt_path(Layout(folder), shard).name, "cannot be read as a receipt")
        return
    yield from _check_pair(folder, shard.name, receipt, quick=quick)


def _check_pair(folder: Location, name: str, stated: ShardInfo, *, quick: bool) -> Iterator[Fault]:
    yield from _check_file(folder / name, stated.bytes, stated.sha256, quick=quick)
    index = folder / name_index(name)
    yield from _check_file(index, stated.index_bytes, stated.index_sha256, quick=quick)


def _check_file(path: Location, size: int, sha256: str, *, quick: bool) -> Iterator[Fault]:
    try:
        found = path.measure()
        if found is None:
            yield Fault(path.name, "is not a file" if path.exists() else "is missing")
        elif found != size:
            yield Fault(path.name, f"has {found} bytes, expected {size}")
        elif not quick and hash_file(path) != sha256:
            yield Fault(path.name, "its checksum does not match: bytes were changed")
    except OSError as error:
        yield Fault(path.name, f"cannot be read: {error.strerror}")


def _check_records(
    folder: DiskPath, shard: ShardInfo, check: Check, sources: list[Source], *, with_index: bool
) -> Iterator[Fault]:
    """Names damaged records, compares with the index, and collects what the records say."""
    try:
        with open(folder / shard.name, "rb") as file:
            bounds = [0, *accumulate(scan_records(file, shard.name, shard.bytes))]
    except RecordError as error:
        damage = _find_damage(folder, shard) if with_index else iter(())
        first = next(damage, _describe(error))
        yield from _limit(shard.name, chain([first], damage))
        return
    if len(bounds) != shard.records + 1:
        found = format_count(len(bounds) - 1, "record")
        yield Fault(shard.name, f"holds {found}, expected {shard.records}")
    if with_index:
        yield from _check_index(folder, shard, bounds)
    largest = max((end - start for start, end in pairwise(bounds)), default=0)
    if largest != shard.max_record_bytes:
        yield Fault(
            shard.name, f"its largest record has {largest} bytes, expected {shard.max_record_bytes}"
        )
        return
    yield from _limit(shard.name, _check_contents(folder, shard, check, bounds, sources))


def _find_damage(folder: DiskPath, shard: ShardInfo) -> Iterator[Fault]:
    """Every damaged record, with its original: the index says where each begins."""
    try:
        bounds = read_bounds(folder, shard)
    except DatasetError:
        return
    if max(end - start for start, end in pairwise(bounds)) > shard.max_record_bytes:
        return
    with open(folder / shard.name, "rb") as file:
        for number, (start, end) in enumerate(pairwise(bounds)):
            record = memoryview(file.read(end - start))
            try:
                unframe_record(record, shard=shard.name, offset=start, number=number)
            except RecordError as error:
                source = find_source(record[HEADER_BYTES:])
                yield _describe(RecordError(shard.name, start, error.detail, number, source))


def _describe(error: RecordError) -> Fault:
    unnumbered = RecordError(error.shard, error.offset, error.detail, source=error.source)
    detail = str(unnumbered).removeprefix(f"{error.shard}: ")
    return Fault(error.shard, detail, record=error.record)


def _check_index(folder: Path, shard: ShardInfo, bounds: list[int]) -> Iterator[Fault]:
    index = name_index(shard.name)
    try:
        data = (folder / index).read_bytes()
        if parse_index(data, index=index, shard_bytes=shard.bytes).tolist() != bounds:
            yield Fault(index, "does not match the records of its shard")
    except DatasetError as error:
        yield Fault(index, str(error).removeprefix(f"{index}: "))


def _check_contents(
    folder: DiskPath, shard: ShardInfo, check: Check, bounds: Sequence[int], sources: list[Source]
) -> Iterator[Fault]:
    with open(folder / shard.name, "rb") as file:
        for number, (start, end) in enumerate(pairwise(bounds)):
            payload = file.read(end - start)[HEADER_BYTES:-FOOTER_BYTES]
            progress.count_image(end - start)
            try:
                source = check_content(payload, check.manifest, decode=check.decode)
            except ValueError as error:
                yield Fault(shard.name, f"record at byte {start}: {error}", record=number)
                continue
            sources.append(source)
            if check.originals is not None:
                yield from _check_original(source, check.originals)


def _check_original(source: Source, originals: Originals) -> Iterator[Fault]:
    options = originals.options
    change: str | None = "is gone"
    with contextlib.suppress(ImageError):
        entry = originals.find(find_file(source.path, options.frames))
        change = describe_change(entry, source.sha256, originals.root, options.max_file_bytes)
    if change:
        yield Fault(source.path, f"the original {change}", original=True)


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


def _find_strangers(folder: Location, manifest: Manifest) -> Iterator[Fault]:
    pairs = ((shard.name, name_index(shard.name)) for shard in manifest.shards)
    names = {MANIFEST, *COMPANIONS, *manifest.files, *chain.from_iterable(pairs)}
    for name in folder.list_names():
        if name == WORK_FOLDER:
            # With an owner, a replacement is in progress; this data set is whole until it ends.
            if folder.find_owner() is None:
                yield Fault(name, "is left over from a conversion: shardmill clean removes it")
        elif name not in names:
            yield Fault(name, "does not belong to the data set")
