"""Makes a data set out of finished shards: receipts in, manifest out, last of all."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from converter.errors import DatasetError, OutputError
from converter.indexes import name_index
from converter.layout import REJECTS, Layout
from converter.manifest import (
    FileInfo,
    ImageInfo,
    Manifest,
    ShardInfo,
    SplitInfo,
    Totals,
    read_manifest,
)
from converter.metadata import describe_dataset
from converter.mill import Receipt, read_receipt, receipt_path
from converter.options import ConvertOptions
from converter.plan import Plan, Shard
from converter.storage import create_file, write_file


def list_finished(plan: Plan) -> list[Shard]:
    """The shards of a plan that have a receipt and lie there in the size that it states."""
    return [shard for shard in plan.shards if _is_finished(plan, shard)]


def commit(plan: Plan) -> Manifest:
    """Completes a data set whose shards are all written.

    Raises:
        DatasetError: a shard or its receipt is missing, or images are unaccounted for.
        OutputError: not one image could be converted, or the data set was completed meanwhile.
    """
    layout = Layout(plan.out)
    if layout.manifest.exists():
        raise OutputError(f"{layout.manifest} exists already: the data set is finished")
    receipts = [_read_checked(plan, shard) for shard in plan.shards]
    written = sum(receipt.records for receipt in receipts)
    if not written:
        code, count = Counter(_list_codes(receipts)).most_common(1)[0]
        raise OutputError(
            f"none of the {plan.records} images could be converted, {count} of them because of "
            f"{code}: no data set is written"
        )
    shards = tuple(_describe_shard(receipt) for receipt in receipts)
    image = _describe_image(receipts, plan.options)
    files = {}
    for name, data in describe_dataset(image, plan.classes, shards).items():
        sha256 = write_file(layout.out / name, data, layout.scratch)
        files[name] = FileInfo(bytes=len(data), sha256=sha256)
    files[REJECTS] = _write_rejects(layout, receipts)
    manifest = Manifest(
        generator=plan.generator,
        options=plan.options.to_json(),
        plan=plan.digest,
        classes=plan.classes,
        image=image,
        splits=_describe_splits(receipts, len(plan.classes)),
        shards=shards,
        files=files,
        totals=Totals(
            scanned=plan.scanned,
            written=written,
            rejected=dict(sorted(Counter(_list_codes(receipts)).items())),
            skipped=plan.skipped,
        ),
    )
    write_file(layout.manifest, manifest.to_bytes(), layout.scratch, exclusive=True)
    # The data set is finished: what cannot be removed now, the next run removes.
    shutil.rmtree(layout.work, ignore_errors=True)
    return manifest


def remove_leftovers(out: Path) -> None:
    """Removes the work folder of a finished data set: what a kill right after the commit leaves."""
    layout = Layout(out)
    if layout.manifest.exists() and layout.work.exists():
        read_manifest(out)
        shutil.rmtree(layout.work)


def _is_finished(plan: Plan, shard: Shard) -> bool:
    try:
        _read_checked(plan, shard)
    except DatasetError:
        return False
    return True


def _read_checked(plan: Plan, shard: Shard) -> Receipt:
    path = receipt_path(Layout(plan.out), shard)
    if not path.exists():
        raise DatasetError(f"{shard.name} has no receipt: it was not finished")
    receipt = read_receipt(path)
    if receipt.images != shard.records:
        raise DatasetError(
            f"{shard.name}: {receipt.images} images are accounted for, planned were {shard.records}"
        )
    sizes = {shard.name: receipt.bytes, name_index(shard.name): receipt.index_bytes}
    for name, size in sizes.items():
        file = plan.out / name
        if not file.exists() or file.stat().st_size != size:
            raise DatasetError(f"{name} is not there in the size that its receipt states")
    return receipt


def _list_codes(receipts: Iterable[Receipt]) -> Iterator[str]:
    return (reject["code"] for receipt in receipts for reject in receipt.rejects)


def _describe_shard(receipt: Receipt) -> ShardInfo:
    return ShardInfo(
        name=receipt.name,
        split=receipt.split,
        records=receipt.records,
        bytes=receipt.bytes,
        sha256=receipt.sha256,
        index_bytes=receipt.index_bytes,
        index_sha256=receipt.index_sha256,
        max_record_bytes=receipt.max_record_bytes,
    )


def _describe_image(receipts: Sequence[Receipt], options: ConvertOptions) -> ImageInfo:
    formats: Counter[str] = Counter()
    for receipt in receipts:
        formats.update(receipt.formats)
    height, width = options.image_size if options.fixed_size else (None, None)
    return ImageInfo(
        height=height,
        width=width,
        max_height=max(receipt.max_image_size[0] for receipt in receipts),
        max_width=max(receipt.max_image_size[1] for receipt in receipts),
        channels=3,
        formats=dict(sorted(formats.items())),
    )


def _describe_splits(receipts: Iterable[Receipt], classes: int) -> dict[str, SplitInfo]:
    members: dict[str, list[Receipt]] = {}
    for receipt in receipts:
        members.setdefault(receipt.split, []).append(receipt)
    return {split: _describe_split(group, classes) for split, group in members.items()}


def _describe_split(receipts: Sequence[Receipt], classes: int) -> SplitInfo:
    labels = [0] * classes
    for receipt in receipts:
        for label, count in receipt.labels:
            labels[label] += count
    return SplitInfo(
        records=sum(receipt.records for receipt in receipts),
        bytes=sum(receipt.bytes for receipt in receipts),
        shards=len(receipts),
        labels=tuple(labels),
    )


def _write_rejects(layout: Layout, receipts: Iterable[Receipt]) -> FileInfo:
    with create_file(layout.out / REJECTS, layout.scratch) as file:
        for receipt in receipts:
            for reject in receipt.rejects:
                file.write(json.dumps(reject).encode("ascii") + b"\n")
        with open(layout.skipped, "rb") as skipped:
            for line in skipped:
                file.write(line)
    return FileInfo(bytes=file.size, sha256=file.sha256)
