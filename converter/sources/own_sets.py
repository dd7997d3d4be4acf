"""A finished data set of our own as a source: another size, encoding or sharding of its images.

A record tells all that is known of its image, so columns are called like its features. What it says
of the first original stays: its path and its SHA-256.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from converter.errors import DatasetError, ImageError, UsageError
from converter.format import examples, schema
from converter.format.features import Features
from converter.format.manifest import Manifest, ShardInfo, read_manifest
from converter.format.schema import Column
from converter.images.record_images import OF_MASK, choose_trust, measure_wrapped
from converter.inventory import NO_LABEL, SPLITS, Entry, Skipped
from converter.names import from_bytes
from converter.options import ConvertOptions
from converter.sources.example_files import Found, read_bounds, scan_file
from converter.sources.folders import leave_other
from converter.sources.inputs import leave_given
from converter.sources.row_labels import find_class
from converter.sources.row_sources import IMAGE, RowSource, normalize_path
from converter.sources.rows import Row
from converter.sources.spool import Spool
from converter.storage.files import (
    COMPANIONS,
    MANIFEST,
    WORK_FOLDER,
    Layout,
    find_sizes,
    is_shard_file,
    name_index,
)
from converter.storage.location import Location

_LABEL: Final = examples.TEXT
_HELD: Final = (examples.ENCODED, schema.MASK)
_SHAPE: Final = (examples.HEIGHT, examples.WIDTH, examples.CHANNELS)
_WAY_OUT: Final = "shardmill repair rebuilds it from the originals, or convert those"

# Features with a meaning of their own, which no option keeps as they are.
_FIXED: Final = {*schema.FILLED_BY, *schema.FROM_FILES}


def recognize(images: Location, names: Sequence[str], _options: ConvertOptions) -> bool:
    """Whether a folder holds a data set of ours: finished or not, damaged, or in several sizes."""
    if MANIFEST in names and any(map(is_shard_file, names)):
        return True
    if WORK_FOLDER in names and MANIFEST not in names:
        return Layout(images).plan.is_file()
    return bool(names) and len(find_sizes(images, names)) == len(names)


def imply_options(images: Location, options: ConvertOptions) -> Mapping[str, Any]:
    """The options that carry over all that the records hold, as far as no others are given."""
    manifest = _read_manifest(images)
    if options.frames == "all":
        raise UsageError(f"frames all: each image in the data set {images} has one: leave it out")
    names = {column.name for column in manifest.columns}
    implied: dict[str, Any] = {
        option: name for name, option in schema.FILLED_BY.items() if name in names
    }
    if manifest.labelled:
        implied["label_column"] = _LABEL
    if schema.BOXES in names:
        implied["box_format"] = "yxyx"
    if schema.ORIGINAL_ROWS in names:
        implied["truncated"] = "fill"
    others = [column.name for column in manifest.columns if column.name not in _FIXED]
    implied["keep_columns"] = tuple(name for name in others if not schema.is_of_boxes(name))
    implied["box_columns"] = tuple(filter(schema.is_of_boxes, others))
    if options.split_folders != "no" and any(options.held_out.values()):
        # By the same hashes, a part of `train` would be what other splits have taken from it.
        seed = manifest.options.get("seed")
        implied["seed"] = seed + 1 if isinstance(seed, int) else 1
    if options.names_labels:
        implied = _drop(implied, "label_column", "labels_column")
    if options.masked:
        implied = _drop(implied, "mask_column", "mask_dir")
    if options.encoding == "keep" and manifest.image.is_raw:
        return {**leave_given(implied, options), "encoding": "raw"}  # a worker gets a TIFF
    return leave_given(implied, options)


def _drop(implied: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in implied.items() if name not in names}


def open_rows(images: Location, options: ConvertOptions) -> RowSource:
    """Opens a data set; each record becomes a row.

    Raises a UsageError if it is not finished or one of several sizes, and a DatasetError if its
    manifest, an index or a shard is damaged or missing. A damaged record is a reject.
    """
    manifest = _read_manifest(images)
    other = sorted({*manifest.splits} - {*SPLITS})
    if other and options.split_folders != "no":
        raise UsageError(
            f"{images} has a split {other[0]!r}, and not one of {', '.join(SPLITS)}: draw new ones "
            "with --split-folders no"
        )
    counts = ", ".join(f"{name} {split.records:,}" for name, split in manifest.splits.items())
    reader = _RecordReader(images=images, manifest=manifest, trust=choose_trust(manifest.options))
    return RowSource(
        images=images,
        root=images,
        options=options,
        read_rows=Spool(reader.read_rows(options.path_column)),
        classes=manifest.classes if options.label_column in (None, _LABEL) else (),
        kinds={column.name: column.kind for column in manifest.columns},
        skipped=tuple(_list_strangers(images, manifest)),
        recognized=f"{len(manifest.shards):,} shards, {counts}",
    )


def _read_manifest(images: Location) -> Manifest:
    path = Layout(images).manifest
    if path.is_file():
        return _read_version(images, path.read_version())
    if Layout(images).plan.is_file():
        raise UsageError(
            f"{images} holds an unfinished conversion: finish it by the command that began it, and "
            "then convert from it"
        )
    if sizes := find_sizes(images, images.list_names()):
        several = ", ".join(str(images / name) for name in sizes[:4])
        raise UsageError(f"{images} holds data sets of several sizes: give one of {several}")
    return read_manifest(images)  # which says what is wrong


@functools.lru_cache(maxsize=1)  # a command asks four times, and 100,000 shards take 2 s
def _read_version(images: Location, _version: tuple[int, str]) -> Manifest:
    return read_manifest(images)


def _list_strangers(images: Location, manifest: Manifest) -> Iterator[Skipped]:
    files = {MANIFEST, *COMPANIONS, *manifest.files}
    for shard in manifest.shards:
        files |= shard.file_sizes.keys()
    for name in images.list_names():
        if name not in files:
            yield leave_other(name, "no part of the data set")


def _read_bounds(images: Location, shard: ShardInfo, sizes: Mapping[str, int]) -> list[int]:
    """The bounds of a shard's records; a DatasetError if one of its files is not as stated."""
    index = name_index(shard.name)
    for name, size in shard.file_sizes.items():
        if (found := sizes.get(name)) != size:
            reason = "is gone" if found is None else f"has {found:,} bytes, stated are {size:,}"
            raise DatasetError(f"{images / name} {reason}: {_WAY_OUT}")
    bounds = read_bounds(images / shard.name, images / index)
    if bounds is None or len(bounds) != shard.records + 1:
        raise DatasetError(f"{images / index} is damaged: {_WAY_OUT}")
    return bounds


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _RecordReader:
    """Makes rows of the records of a data set."""

    images: Location
    manifest: Manifest
    trust: str  # the `Entry.part` of its images

    def read_rows(self, path_column: str) -> Iterator[tuple[str, Row]]:
        columns = [each for each in self.manifest.columns if each.name not in schema.FROM_FILES]
        sizes = self.images.list_sizes()  # not two requests to a store for each shard
        for shard in self.manifest.shards:
            bounds = _read_bounds(self.images, shard, sizes)
            for found in scan_file(self.images / shard.name, _HELD, bounds):
                place = f"{shard.name} record {found.number}"
                try:
                    yield place, self._read_row(found, shard, columns)
                except (ImageError, ValueError) as error:
                    is_known = isinstance(error, ImageError)
                    damage = error if is_known else ImageError("decode_error", str(error))
                    yield place, {path_column: place, IMAGE: damage}

    def _read_row(self, found: Found, shard: ShardInfo, columns: Sequence[Column]) -> Row:
        if isinstance(found.features, ImageError):
            raise found.features
        # A column may be missing in a damaged record, or too large to be read.
        names = {*found.features.message, *(column.name for column in columns)}
        values = {name: found.features.read(name) for name in names}
        classes = self.manifest.classes
        schema.check_values(columns, values, len(classes))
        row: Row = {IMAGE: self._describe_image(found, found.features, values, shard)}
        for column in columns:
            cell = column.read(values[column.name])
            row[column.name] = [classes[n] for n in cell] if column.kind == "labels" else cell
        if schema.BOXES in row:
            _drop_flat_boxes(row)
        if row[IMAGE].mask is not None:
            row[schema.MASK] = row[IMAGE].mask.path
        if self.manifest.labelled:
            row[_LABEL] = find_class(examples.read_value(values, examples.LABEL, int), classes)
        return row

    def _describe_image(
        self, found: Found, features: Features, values: examples.Features, shard: ShardInfo
    ) -> Entry:
        """The entry of a record's image, with its mask if there is one."""
        path = normalize_path(from_bytes(examples.read_value(values, examples.SOURCE_ID, bytes)))
        _, size = features.locate(examples.ENCODED)
        if examples.read_value(values, examples.FORMAT, bytes) == b"raw":
            shape = [examples.read_value(values, name, int) for name in _SHAPE]
            if min(shape) < 1 or math.prod(shape) != size:
                raise ValueError(f"{size:,} raw bytes are not {'x'.join(map(str, shape))} pixels")
            size = measure_wrapped(*shape)
        image = Entry(path, NO_LABEL, size, place=found.place, file=shard.name, span=found.span)
        mask = None
        if schema.find_column(self.manifest.columns, schema.MASK):
            _, mask_bytes = features.locate(schema.MASK)
            mask = image._replace(size_bytes=mask_bytes, part=OF_MASK)
        split = shard.split if shard.split in SPLITS else ""
        return image._replace(split=split, part=self.trust, mask=mask)


def _drop_flat_boxes(row: Row) -> None:
    """Leaves out boxes, with all of theirs, that have no area in the 32 bits of their numbers."""
    wide = [top < bottom and left < right for top, left, bottom, right in row[schema.BOXES]]
    row[schema.BOXES] = [[*box] for box in itertools.compress(row[schema.BOXES], wide)]
    for name in filter(schema.is_of_boxes, row):
        row[name] = [*itertools.compress(row[name], wide)]
