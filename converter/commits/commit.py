"""Turns finished shards into a data set: reads receipts, and writes the manifest last."""

import contextlib
import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from converter import progress
from converter.errors import DatasetError, OutputError, StoreError
from converter.format.manifest import FileInfo, ImageInfo, Manifest, ShardInfo, SplitInfo, Totals
from converter.format.metadata import describe_dataset
from converter.format.typed_json import check_count, find_reader, load_json
from converter.inventory import Note, NoteTally
from converter.options import ConvertOptions
from converter.planning.plan import Plan, Shard, dump_line
from converter.storage.files import NOTES, REJECTS, Layout, hash_file, name_index, write_file
from converter.storage.location import Location, map_in_threads
from converter.writing.shard_writer import Receipt, parse_receipt, read_receipt, receipt_path

_MAX_NOTES_BYTES: Final = 1 << 24  # ten names of each kind of note take a tenth of it


def list_finished(plan: Plan, *, on_shard: Callable[[Shard], object] | None = None) -> list[Shard]:
    """Lists the shards that exist as their receipts state; calls `on_shard` with each, in order."""
    layout = Layout(plan.out)
    sizes, receipts = plan.out.list_sizes(), layout.receipts.list_sizes()

    def is_finished(shard: Shard) -> bool:
        if shard.name in plan.carried:  # the update has compared it
            return True
        path = receipt_path(layout, shard)
        if path.name not in receipts:
            return False
        with contextlib.suppress(DatasetError, OSError):
            receipt = read_receipt(path)
            _check_receipt(receipt, shard, sizes)
            return (
                hash_file(plan.out / shard.name) == receipt.sha256
                and hash_file(plan.out / name_index(shard.name)) == receipt.index_sha256
            )
        return False

    checked = map_in_threads(is_finished, plan.shards, plan.out, on_item=on_shard)
    return [shard for shard, good in checked if good]


def commit(plan: Plan, *, keep_work: bool = False) -> Manifest:
    """Completes a planned data set whose shards are all written, and returns its manifest.

    Raises DatasetError if a shard or its receipt is missing, or images are unaccounted for, and
    OutputError if no image could be converted, or the data set was completed meanwhile.
    """
    layout = Layout(plan.out)
    if layout.manifest.is_file():
        raise OutputError(f"{layout.manifest} exists already: the data set is finished")
    progress.begin("commit", len(plan.shards), "shards")
    receipts = _read_receipts(plan)
    totals = _count_images(plan, receipts)
    shards = tuple(_describe_shard(receipt) for receipt in receipts)
    image = _describe_image(receipts, plan.options)
    metadata = describe_dataset(image, plan.classes, shards, plan.columns, labelled=plan.labelled)
    files = {name: _write_info(layout, name, data) for name, data in metadata.items()}
    files[REJECTS] = _write_rejects(plan.out, receipts)
    files[NOTES] = _write_info(layout, NOTES, _describe_notes(layout, receipts))
    manifest = Manifest(
        generator=plan.generator,
        options=plan.options.to_json(),
        plan=plan.digest,
        classes=plan.classes,
        image=image,
        splits=_describe_splits(receipts, len(plan.classes) if plan.labelled else 0),
        shards=shards,
        files=files,
        totals=totals,
        updated=plan.base.updated if plan.base else 0,
        columns=plan.columns,
        labelled=plan.labelled,
    )
    # Exclusive, because a lock can be broken: of two runs one completes the data set.
    write_file(layout.manifest, manifest.to_bytes(), layout.scratch, exclusive=True)
    # The data set is finished; the next run removes what cannot be removed now.
    with contextlib.suppress(OSError, StoreError):
        plan.out.parent.sync()
        if not keep_work:
            remove_work(plan.out)
    return manifest


def _count_images(plan: Plan, receipts: Sequence[Receipt]) -> Totals:
    written = sum(receipt.records for receipt in receipts)
    codes = Counter(reject["code"] for receipt in receipts for reject in receipt.rejects)
    if not written:
        code, count = codes.most_common(1)[0]
        raise OutputError(
            f"none of the {plan.records} images could be converted, {count} of them because of "
            f"{code}: no data set is written"
        )
    return Totals(
        scanned=plan.scanned,
        written=written,
        rejected=dict(sorted((codes + Counter(plan.rejected)).items())),
        skipped=plan.skipped,
        frames=plan.frames + sum(receipt.frames for receipt in receipts),
    )


def read_notes(out: Location) -> tuple[Note, ...]:
    """Reads the notes on a finished data set's images; raises DatasetError if they are damaged."""
    path = out / NOTES
    try:
        if (size := path.measure()) is None:  # of a pipe, too, which would be waited for
            raise DatasetError(f"{path} is missing, or no file")
        if size > _MAX_NOTES_BYTES:
            raise DatasetError(f"{path} has {size:,} bytes, at most {_MAX_NOTES_BYTES:,}")
        return tuple(map(_parse_note, path.read_range(0, max(1, size)).splitlines()))
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise DatasetError(f"{path}: cannot be read: {error}") from error


def _parse_note(line: bytes) -> Note:
    content = load_json(line)
    code, names = find_reader(str)(content["code"]), find_reader(tuple[str, ...])(content["names"])
    return Note(code, names, check_count(content["total"]))


def remove_work(out: Location) -> None:
    """Removes the work folder, except for a lock in it; raises OSError if it cannot."""
    layout = Layout(out)
    # The plan goes last: while it exists, the rest is known to belong to a conversion.
    layout.work.remove_tree(keep=(layout.plan.name, layout.lock.name))
    layout.plan.unlink(missing_ok=True)
    layout.work.remove_empty()


def _read_receipts(plan: Plan) -> list[Receipt]:
    layout = Layout(plan.out)
    sizes, known = plan.out.list_sizes(), layout.receipts.list_sizes()
    names = [receipt_path(layout, shard).name for shard in plan.shards]
    for shard, name in zip(plan.shards, names, strict=True):
        if name not in known:
            raise DatasetError(
                f"{shard.name} has no receipt: it was not finished; run the same command again"
            )
    receipts = []
    contents = layout.receipts.read_files(names)
    for shard, name, data in zip(plan.shards, names, contents, strict=True):
        receipt = parse_receipt(data, layout.receipts / name)
        receipts.append(receipt)
        progress.advance()
        # Carried-over shards may have stayed where they were.
        stays = shard.name in plan.carried
        _check_receipt(receipt, shard, receipt.file_sizes if stays else sizes)
    return receipts


def _check_receipt(receipt: Receipt, shard: Shard, sizes: Mapping[str, int]) -> None:
    if receipt.name != shard.name:
        raise DatasetError(f"{shard.name} has the receipt of {receipt.name}")
    # Missing images show as a negative number of frames.
    images = receipt.images + min(receipt.frames, 0)
    if images != shard.records:
        raise DatasetError(
            f"{shard.name}: {images} images are accounted for, planned were {shard.records}"
        )
    for name, size in receipt.file_sizes.items():
        if sizes.get(name) != size:
            raise DatasetError(
                f"{name} is missing, or has another size than its receipt states ({size:,} bytes): "
                "run the same command again"
            )


def _describe_shard(receipt: Receipt) -> ShardInfo:
    # A receipt is a `ShardInfo` and more, which would get into the manifest.
    names = [field.name for field in dataclasses.fields(ShardInfo)]
    return ShardInfo(**{name: getattr(receipt, name) for name in names})


def _describe_image(receipts: Sequence[Receipt], options: ConvertOptions) -> ImageInfo:
    formats: Counter[str] = Counter()
    for receipt in receipts:
        formats.update(receipt.formats)
    written = [receipt for receipt in receipts if receipt.records]
    smallest = map(min, zip(*(receipt.min_image_size for receipt in written), strict=True))
    largest = (*map(max, zip(*(receipt.max_image_size for receipt in written), strict=True)),)
    # Images that were not resized may be alike, too: then they can be read in batches as they are.
    height, width = largest if (*smallest,) == largest else (None, None)
    return ImageInfo(
        height=height,
        width=width,
        max_height=largest[0],
        max_width=largest[1],
        channels=options.channels,
        formats=dict(sorted(formats.items())),
    )


def _describe_splits(receipts: Iterable[Receipt], classes: int) -> dict[str, SplitInfo]:
    groups: dict[str, list[Receipt]] = {}
    for receipt in receipts:
        groups.setdefault(receipt.split, []).append(receipt)
    return {split: _describe_split(group, classes) for split, group in groups.items()}


def _describe_split(receipts: Sequence[Receipt], classes: int) -> SplitInfo:
    labels = [0] * classes
    for receipt in receipts:
        for label, count in receipt.labels if classes else ():
            labels[label] += count
    return SplitInfo(
        records=sum(receipt.records for receipt in receipts),
        bytes=sum(receipt.bytes for receipt in receipts),
        shards=len(receipts),
        labels=tuple(labels),
    )


def _describe_notes(layout: Layout[Location], receipts: Iterable[Receipt]) -> bytes:
    tally = NoteTally()
    for receipt in receipts:
        for note in receipt.notes:
            tally.add(note["code"], *note["names"], total=note["total"])
    lines = b"".join(dump_line(note._asdict()) for note in tally.list_notes())
    return layout.notes.read_bytes() + lines


def _write_info(layout: Layout[Location], name: str, data: bytes) -> FileInfo:
    return FileInfo(bytes=len(data), sha256=write_file(layout.out / name, data, layout.scratch))


def _write_rejects(out: Location, receipts: Iterable[Receipt]) -> FileInfo:
    layout = Layout(out)
    with (out / REJECTS).create(layout.scratch) as file:
        for receipt in receipts:
            for reject in receipt.rejects:
                file.write(json.dumps(reject).encode("ascii") + b"\n")
        for piece in layout.left_out.read_pieces():
            file.write(piece)
    return FileInfo(bytes=file.size, sha256=file.sha256)
