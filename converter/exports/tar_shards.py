"""Tars as WebDataset reads them: the files of an image have one key in front of their suffixes.

    cats/one.jpg         the image as it is stored, or a PNG of raw pixels
    cats/one.cls         the number of its class
    cats/one.json        the path of the original, the name of the class, the split, all columns
    cats/one.txt         the caption
    cats/one.mask.png    the mask

To WebDataset, a key ends at the first dot behind the last slash, so names have `_` for dots. Images
stand in the order of their records. The same images give the same bytes: the tar holds no times,
users or permissions of its own.
"""

import io
import tarfile
from collections.abc import Iterable, Iterator
from typing import Any, cast

from converter.exports.export_job import ExportJob, SplitFiles
from converter.exports.exported_columns import read_values
from converter.exports.image_folders import MASK_SUFFIX, dump_row, find_name
from converter.exports.items import Item, deal_out, map_ahead
from converter.exports.safe_names import Namer
from converter.exports.targets import Sink, Target
from converter.format.schema import CAPTION
from converter.image_options import FORMATS
from converter.names import to_bytes


def write_tars(job: ExportJob, target: Target, split: str, items: Iterable[Item]) -> SplitFiles:
    """Writes the images of a split to tars, in memory that does not grow with them."""
    namer, classes, ends = Namer(), job.class_folders, job.cut(split)
    images = size = 0
    named = ((item, _name_key(item, classes, namer)) for item in items)
    encoded = map_ahead(lambda pair: pair[0].encode(), named, target.threads)
    numbered = ((item.number, (item, key, data)) for (item, key), data in encoded)
    for number, group in enumerate(deal_out(numbered, ends)):
        name = f"{job.split_folders[split]}-{number:06d}.tar"
        with (target.stage / name).create(target.scratch) as file:
            sink: Any = Sink(file)
            with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT) as tar:
                for item, key, data in group:
                    images += 1
                    for suffix, content in _list_files(job, item, data):
                        _add_file(tar, key + suffix, content)
                    cast("Any", tar).members = []  # which would grow with the tar
        size += file.size
    return SplitFiles(images, len(ends), size)


def _name_key(item: Item, classes: list[str], namer: Namer) -> str:
    stem, _ = find_name(item, classes)
    folders, slash, name = stem.rpartition("/")
    return namer.take(f"{folders}{slash}{name.replace('.', '_')}", [""], item.number)


def _list_files(job: ExportJob, item: Item, data: bytes) -> Iterator[tuple[str, bytes]]:
    manifest, names = job.manifest, job.names
    yield FORMATS[item.form].suffixes[0], data
    if item.label is not None:
        yield ".cls", b"%d" % item.source.label
    values = read_values(manifest.columns, item.features, manifest.classes)
    yield ".json", dump_row(names.make_row(item.source.path, item.label, item.split, values))
    if CAPTION in values:
        yield ".txt", to_bytes(values[CAPTION])
    if item.mask is not None:
        yield MASK_SUFFIX, item.mask


def _add_file(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    header = tarfile.TarInfo(name)  # of mode 644, user and group 0, at the time 0
    header.size = len(content)
    tar.addfile(header, io.BytesIO(content))
