"""A data set as it is shown: its splits, what is wrong with its files, and pictures of its records.

Opening it reads the manifest and the sizes of its files, and no record. What is damaged is shown as
such, so nothing here ends because of one file.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from converter.errors import DatasetError, ImageError, RecordError, ShardmillError, StoreError
from converter.format.examples import decode_example
from converter.format.manifest import Manifest, read_manifest, read_manifest_version
from converter.format.schema import BOXES, CAPTION, LABELS
from converter.names import fold_name
from converter.storage.files import INDEX_SUFFIX, Layout
from converter.storage.locate import locate
from converter.storage.location import AnyPath, Location
from pipelines.pages.thumbnails import THUMBNAIL_PIXELS, Drawing, Picture, draw_mask, draw_record
from pipelines.view.listings import Listing, Traffic
from pipelines.view.summaries import Shape, Summary, read_summaries
from reader import Record, Source
from reader.plan.planning import list_files
from reader.plan.read_options import ReadOptions
from reader.records.record_files import RecordFiles
from reader.remote.remote_shards import RangeFiles

WHOLE_PIXELS: Final = 4_096
"""The longer side of a picture "at full size": no screen shows more."""

LOSSLESS_PIXELS: Final = 1 << 21  # larger pictures are sent as JPEG
KEPT_THUMBNAILS: Final = 1_024  # of about 10 kB each
DRAWN_AT_ONCE: Final = min(4, os.cpu_count() or 1)  # an image may take 4 bytes a pixel


class Album:
    """One split: its records by number. Shared by threads."""

    def __init__(self, folder: Location, manifest: Manifest, split: str, traffic: Traffic) -> None:
        files = list_files(folder, manifest, split, ReadOptions())
        self.split, self.classes = split, manifest.classes
        self.files = RangeFiles(files) if folder.is_remote else RecordFiles(files)
        self.shape = Shape.of_columns(manifest.columns, labelled=manifest.labelled)
        self.listing = Listing(self.files, self.shape, traffic)
        self.is_remote = folder.is_remote
        self.bytes = manifest.splits[split].bytes
        self.counts = manifest.splits[split].labels
        self._source = Source(self.files, None, manifest.columns, manifest.labelled)
        self._pens = threading.BoundedSemaphore(DRAWN_AT_ONCE)
        self.draw_thumbnail = functools.lru_cache(maxsize=KEPT_THUMBNAILS)(self._draw_thumbnail)

    def __len__(self) -> int:
        return len(self.files)

    def summarize(self, numbers: Sequence[int]) -> list[Summary]:
        """What a page of thumbnails says of some records."""
        return read_summaries(self.files, np.array(numbers, np.int64), self.shape)

    def read(self, number: int) -> Record:
        """Reads one record; raises as `Source` does."""
        return self._source[number]

    def read_features(self, number: int) -> Mapping[str, Sequence[Any]]:
        """All features of one record as they are stored; raises as `Source` does."""
        ((_, place, payload),) = self.files.read_many(np.array([number], np.int64))
        if isinstance(payload, RecordError):
            raise payload
        try:
            return decode_example(bytes(payload))
        except ValueError as error:
            raise place.describe(str(error)) from error

    def find_place(self, number: int) -> str:
        """The shard of a record and where it begins there, as far as its index can be read."""
        ends = np.cumsum([file.records for file in self.files.files])
        name = self.files.files[int(np.searchsorted(ends, number, side="right"))].path.name
        try:
            (group,) = self.files.locate(np.array([number], np.int64))
        except DatasetError:
            return name
        return f"{name}, record {int(group.records[0]):,}, byte {int(group.begins[0]):,}"

    def draw(self, number: int) -> Picture:
        """The image of a record at full size, without what is drawn over it."""
        record = self.read(number)
        large = record.height * record.width > LOSSLESS_PIXELS
        how = Drawing(
            side_pixels=WHOLE_PIXELS, file_format="jpeg" if large else "png", boxes=False,
            mask=False,
        )  # fmt: skip
        with self._pens:
            return draw_record(record, self.classes, how)

    def draw_mask(self, number: int) -> Picture:
        """The mask of a record, to be laid over its image."""
        record = self.read(number)
        with self._pens:
            return draw_mask(record, self.classes, WHOLE_PIXELS)

    def _draw_thumbnail(self, number: int) -> Picture:
        record = self.read(number)
        with self._pens:
            how = Drawing(side_pixels=2 * THUMBNAIL_PIXELS, file_format="webp", names=False)
            return draw_record(record, self.classes, how)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class DataSet:
    """A data set that is shown.

    Attributes:
        name: of its folder.
        folder: where it lies.
        manifest: what it holds.
        albums: its splits, by name.
        traffic: the pages being answered.
        faults: a line for each file that is missing or has another size than when it was written.
        version: of its manifest when it was opened.
    """

    name: str
    folder: Location
    manifest: Manifest
    albums: dict[str, Album]
    traffic: Traffic
    faults: tuple[str, ...] = ()
    version: tuple[int, str] | None = None

    @property
    def has_changed(self) -> bool:
        """Whether it was updated, replaced or removed since it was opened."""
        try:
            return read_manifest_version(self.folder) != self.version
        except (OSError, StoreError):  # of a store that does not answer, nothing is known
            return False

    @property
    def kind(self) -> str:
        """What it is for, in words."""
        names = [column.name for column in self.manifest.columns]
        kinds = {BOXES: "detection", CAPTION: "captions", LABELS: "several classes an image"}
        found = [word for name, word in kinds.items() if name in names]
        found += ["segmentation"] if self.has_masks else []
        return ", ".join(found) or ("classification" if self.manifest.labelled else "no labels")

    @property
    def has_masks(self) -> bool:
        return next(iter(self.albums.values())).shape.masked

    def find_class(self, text: str) -> int | None:
        """The number of the class that is meant: by its whole name, else by an only part of it."""
        classes, wanted = self.manifest.classes, fold_name(text.strip())
        if text in classes:
            return classes.index(text)
        folded = [*map(fold_name, classes)]
        whole = [label for label, name in enumerate(folded) if name == wanted]
        part = [label for label, name in enumerate(folded) if wanted in name]
        only = whole if len(whole) == 1 else part
        return only[0] if len(only) == 1 and wanted else None


def open_data_set(out: AnyPath) -> DataSet:
    """Opens a finished data set, also one of which files are missing or damaged.

    Raises:
        DatasetError: there is no finished data set, or its manifest is damaged or newer.
        StoreError: a store does not answer, or refuses.
        UsageError: the address makes no sense, or a package for it is missing.
    """
    folder = locate(out)
    try:
        version = read_manifest_version(folder)
        manifest = read_manifest(folder)
    except DatasetError as error:
        raise _explain(folder, error) from error
    if not manifest.splits:
        raise DatasetError(f"{folder} holds no records: there is nothing to view")
    traffic = Traffic()
    albums = {split: Album(folder, manifest, split, traffic) for split in manifest.splits}
    return DataSet(
        name=folder.resolve().name or str(folder),
        folder=folder,
        manifest=manifest,
        albums=albums,
        traffic=traffic,
        faults=tuple(_list_faults(folder, manifest)),
        version=version,
    )


def describe_fault(error: Exception) -> str:
    """What is wrong, in one line; an error that is not ours is raised again."""
    if isinstance(error, ImageError):
        return f"the image cannot be decoded: {error.detail}"
    if isinstance(error, ShardmillError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.filename or 'system'}: {error.strerror}"
    raise error


def _explain(folder: Location, error: DatasetError) -> DatasetError:
    """The same error, or one that says more of a folder without a manifest."""
    layout = Layout(folder)
    try:
        if layout.manifest.exists():
            return error
        if layout.plan.is_file():
            return DatasetError(
                f"{folder} is an unfinished conversion: run the same convert command again, "
                "which ends it"
            )
        if any(name.endswith(INDEX_SUFFIX) for name in folder.list_names()):
            return DatasetError(
                f"{folder} holds TFRecords that something else wrote, which have no classes or "
                "images that view knows: convert them, or read them with reader.open_tfrecords"
            )
    except (OSError, StoreError):
        pass
    return error


def _list_faults(folder: Location, manifest: Manifest) -> list[str]:
    sizes, faults = folder.list_sizes(), []
    for shard in manifest.shards:
        for name, expected in shard.file_sizes.items():
            if name not in sizes:
                faults.append(f"{name} is missing")
            elif sizes[name] != expected:
                faults.append(f"{name} has {sizes[name]:,} bytes, expected {expected:,}")
    return faults
