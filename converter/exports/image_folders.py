"""Images in folders: SPLIT/CLASS/name, as stored, and a table where folders cannot say everything.

A table is a file of JSON lines: one for all splits, which Shardmill reads, and one in the folder of
each split, which `datasets` does. Masks lie beside their images.
"""

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from converter.exports.export_job import ExportJob, SplitFiles
from converter.exports.exported_columns import read_values
from converter.exports.items import Item, map_ahead
from converter.exports.safe_names import TABLE, Namer, clean_folders, split_path, split_suffix
from converter.exports.targets import Target
from converter.format.schema import MASK
from converter.storage.files import HashedFile
from converter.storage.location import Location

MASK_SUFFIX: Final = ".mask.png"


def name_item(item: Item, classes: Sequence[str], namer: Namer) -> tuple[str, str]:
    """The path of an image below the folder of its split: its stem, which no other has; its suffix.

    `classes` are the folders of the classes, in label order.
    """
    stem, suffix = find_name(item, classes)
    endings = [suffix] if item.mask is None else [suffix, MASK_SUFFIX]
    return namer.take(stem, endings, item.number), suffix


def find_name(item: Item, classes: Sequence[str]) -> tuple[str, str]:
    """The stem, which others may have, and the suffix of an image."""
    folders, name = split_path(item.source.path, item.split, item.label)
    stem, suffix = split_suffix(name, item.form)
    top = "" if item.label is None else f"{classes[item.source.label]}/"
    return f"{top}{clean_folders(folders)}{stem}", suffix


@contextlib.contextmanager
def open_table(job: ExportJob, folder: Location, scratch: Location) -> Iterator[HashedFile | None]:
    """Opens a table, if there has to be one, which appears when the block ends."""
    if not job.needs_table:
        yield None
        return
    folder.make_folder()
    with (folder / TABLE).create(scratch) as file:
        yield file


def write_folders(
    job: ExportJob,
    target: Target,
    split: str,
    items: Iterable[Item],
    table: HashedFile | None,
) -> SplitFiles:
    """Writes the images of a split, and their rows to `table` and to one of their own."""
    namer, top, manifest, names = Namer(), job.split_folders[split], job.manifest, job.names
    folder, classes = target.stage / top, job.class_folders
    images = files = size = 0

    def write(named: tuple[Item, str, str]) -> int:
        item, stem, suffix = named
        data, mask = item.encode(), item.mask
        folder.child(stem + suffix).write_new(data)
        if mask is not None:
            folder.child(stem + MASK_SUFFIX).write_new(mask)
        return len(data) + len(mask or b"")

    all_named = ((item, *name_item(item, classes, namer)) for item in items)
    with (
        open_table(job, folder, target.scratch) as own,
        # Closed before what was written is removed, if a row cannot be written.
        contextlib.closing(map_ahead(write, all_named, target.threads)) as all_written,
    ):
        tables = [(file, start) for file, start in ((table, f"{top}/"), (own, "")) if file]
        for (item, stem, suffix), written in all_written:
            images, files, size = images + 1, files + 1 + (item.mask is not None), size + written
            values = read_values(manifest.columns, item.features, manifest.classes)
            for file, start in tables:
                if item.mask is not None:
                    values[MASK] = f"{start}{stem}{MASK_SUFFIX}"
                row = names.make_row(f"{start}{stem}{suffix}", item.label, item.split, values)
                file.write(dump_row(row))
        if own is not None:
            files, size = files + 1, size + own.size
    return SplitFiles(images, files, size)


def dump_row(row: Mapping[str, Any]) -> bytes:
    """A line of JSON."""
    # ASCII, so that bytes that are not UTF-8 survive as lone surrogates.
    return json.dumps(row, allow_nan=False).encode("ascii") + b"\n"
