"""Turns finished shards into a data set: reads receipts, and writes the manifest last."""

import contextlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Final

from converter import progress
from converter.commits.receipts import Receipts, open_receipts
from converter.commits.summary import Summary
from converter.errors import DatasetError, OutputError, StoreError
from converter.format.manifest import FileInfo, Manifest
from converter.format.metadata import describe_dataset
from converter.format.typed_json import check_count, find_reader, load_json
from converter.inventory import Note, NoteTally
from converter.planning.plan import Plan, Shard, dump_line
from converter.storage.files import (
    NOTES,
    REJECTS,
    HashedFile,
    Layout,
    hash_file,
    name_index,
    write_file,
)
from converter.storage.location import Location, map_in_threads
from converter.writing.shard_writer import Receipt

_MAX_NOTES_BYTES: Final = 1 << 24  # ten names of each kind of note take a tenth of it


def list_finished(plan: Plan, *, on_shard: Callable[[Shard], object] | None = None) -> list[Shard]:
    """Lists the shards that exist as their receipts state; calls `on_shard` with each.

    Reads no shard of which its store still says what it said when the shard had been sent; those
    that it reads come last.
    """
    states, finished, doubtful = plan.out.list_states(), set(plan.carried), list[Shard]()
    with open_receipts(Layout(plan.out)) as receipts:
        for shard in plan.shards:
            if shard.name not in plan.carried:  # which the update has compared
                known = _judge(plan, shard, receipts, states)
                if known is None:
                    doubtful.append(shard)
                    continue
                if known:
                    finished.add(shard.name)
            if on_shard is not None:
                on_shard(shard)

        def is_whole(shard: Shard) -> bool:
            with contextlib.suppress(DatasetError, OSError):
                receipt = receipts[shard]
                return (
                    hash_file(plan.out / shard.name) == receipt.sha256
                    and hash_file(plan.out / name_index(shard.name)) == receipt.index_sha256
                )
            return False

        read = map_in_threads(is_whole, doubtful, plan.out, on_item=on_shard)
        finished.update(shard.name for shard, whole in read if whole)
    return [shard for shard in plan.shards if shard.name in finished]


def _judge(
    plan: Plan, shard: Shard, receipts: Receipts, states: Mapping[str, tuple[int, str]]
) -> bool | None:
    """Whether a shard is finished, by its receipt and the listing; None if it has to be read."""
    try:
        receipt = receipts[shard]
        sizes = {name: states[name][0] for name in receipt.file_sizes}
        _check_receipt(receipt, plan, shard, sizes)
    except (DatasetError, KeyError):
        return False
    sent = [receipt.tag, receipt.index_tag]
    says = [states[name][1] for name in receipt.file_sizes]
    return True if all(sent) and sent == says else None


def commit(plan: Plan, *, keep_work: bool = False) -> Manifest:
    """Completes a planned data set whose shards are all written, and returns its manifest.

    Holds one receipt and some 600 bytes a shard. Raises DatasetError if a shard or its receipt is
    missing, or images are unaccounted for, and OutputError if no image could be converted, or the
    data set was completed meanwhile.
    """
    layout = Layout(plan.out)
    if layout.manifest.is_file():
        raise OutputError(f"{layout.manifest} exists already: the data set is finished")
    progress.begin("commit", len(plan.shards), "shards")
    summary, rejects = _sum_up(plan)
    shards, image = tuple(summary.shards), summary.describe_image()
    metadata = describe_dataset(image, plan.classes, shards, plan.columns, labelled=plan.labelled)
    files = {name: _write_info(layout, name, data) for name, data in metadata.items()}
    files[REJECTS] = rejects
    files[NOTES] = _write_info(layout, NOTES, _describe_notes(layout, summary.notes))
    manifest = Manifest(
        generator=plan.generator,
        options=plan.options.to_json(),
        plan=plan.digest,
        classes=plan.classes,
        image=image,
        splits=summary.describe_splits(),
        shards=shards,
        files=files,
        totals=summary.count_images(),
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


def remove_work(out: Location, *, keep: Collection[str] = ()) -> None:
    """Removes the work folder, except for a lock and `keep` in it; raises OSError if it cannot."""
    layout = Layout(out)
    # The plan goes last: while it exists, the rest is known to belong to a conversion.
    layout.work.remove_tree(keep=(layout.plan.name, layout.lock.name, *keep))
    layout.plan.unlink(missing_ok=True)
    layout.work.remove_empty()


def _sum_up(plan: Plan) -> tuple[Summary, FileInfo]:
    """Adds up the receipts of a plan, and writes what was left out."""
    layout, summary = Layout(plan.out), Summary(plan)
    with (plan.out / REJECTS).create(layout.scratch) as file:
        for receipt in _read_receipts(plan):
            summary.add(receipt)
            _write_rejects(file, receipt)
            progress.advance()
        summary.count_images()  # raises an error if there is nothing to commit
        for piece in layout.left_out.read_pieces():
            file.write(piece)
    return summary, FileInfo(bytes=file.size, sha256=file.sha256)


def _write_rejects(file: HashedFile, receipt: Receipt) -> None:
    for reject in receipt.rejects:
        file.write(json.dumps(reject).encode("ascii") + b"\n")


def _read_receipts(plan: Plan) -> Iterator[Receipt]:
    sizes = plan.out.list_sizes()
    with open_receipts(Layout(plan.out)) as receipts:
        for shard in plan.shards:
            receipt = receipts[shard]
            # Carried-over shards may have stayed where they were.
            stays = shard.name in plan.carried
            _check_receipt(receipt, plan, shard, receipt.file_sizes if stays else sizes)
            yield receipt


def _check_receipt(receipt: Receipt, plan: Plan, shard: Shard, sizes: Mapping[str, int]) -> None:
    if receipt.name != shard.name:
        raise DatasetError(f"{shard.name} has the receipt of {receipt.name}")
    # A job whose launcher was killed goes on elsewhere, also when its plan is given up.
    if receipt.plan not in ("", plan.digest):
        raise DatasetError(
            f"{shard.name} was written by a job that follows another plan: end that job, and run "
            "the same command again"
        )
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


def _describe_notes(layout: Layout[Location], tally: NoteTally) -> bytes:
    lines = b"".join(dump_line(note._asdict()) for note in tally.list_notes())
    return layout.notes.read_bytes() + lines


def _write_info(layout: Layout[Location], name: str, data: bytes) -> FileInfo:
    return FileInfo(bytes=len(data), sha256=write_file(layout.out / name, data, layout.scratch))
