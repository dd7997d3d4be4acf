"""What `shardmill inspect` looks up: a record by number, place or name, and classes in lists."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from converter import progress
from converter.errors import DatasetError, RecordError, UsageError
from converter.format.examples import decode_example, find_source
from converter.format.indexes import parse_index
from converter.format.manifest import Manifest, ShardInfo
from converter.format.schema import BOX_LABELS, LABELS
from converter.format.tfrecords import HEADER_BYTES, read_records, unframe_record
from converter.names import show_name
from converter.sizes import format_count
from converter.storage.files import name_index
from converter.storage.location import Location, map_in_threads

# Of records that are read to count what the manifest does not: a second from a disk, a few requests
# to a store.
_MAX_BYTES: Final = 1 << 28
_MAX_STORE_BYTES: Final = 1 << 24
_MAX_SHARDS: Final = 64  # of a store that are looked into
_MAX_SIMILAR: Final = 3  # names that are suggested


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class FoundRecord:
    """A record, and where it lies.

    Attributes:
        split: its split.
        number: in that split.
        shard: the name of its file.
        row: its number there.
        features: its values by name; empty if it is damaged.
        error: what is wrong with it, or None.
    """

    split: str
    number: int
    shard: str
    row: int
    features: Mapping[str, Sequence[Any]] = dataclasses.field(default_factory=dict)
    error: DatasetError | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ClassCounts:
    """How often each class occurs, by split, each a list in label order.

    Attributes:
        images: the images with that label or with a box of it.
        boxes: its boxes; empty without boxes.
        looked: how many records these were counted in, by split; those of all if `whole`.
        whole: whether all records were counted.
        errors: what is wrong with shards that could not be read to the end.
    """

    images: dict[str, list[int]]
    boxes: dict[str, list[int]]
    looked: dict[str, int]
    whole: bool = True
    errors: tuple[DatasetError, ...] = ()


def read_record(folder: Location, manifest: Manifest, split: str, number: int) -> FoundRecord:
    """Reads a record of a split; negative numbers count from its end.

    Raises a UsageError if there is no such number, a DatasetError if there is no such split.
    """
    shards, records = manifest.list_shards(split), manifest.splits[split].records
    if not -records <= number < records:
        if not records:
            raise UsageError(f"split {split} has no records: there is none to show")
        raise UsageError(
            f"record {number} is out of range: split {split} has "
            f"{format_count(records, 'record')}, 0 to {records - 1} or -{records} to -1"
        )
    row = number % records
    number = row
    for shard in shards:
        if row < shard.records:
            break
        row -= shard.records
    found = FoundRecord(split=split, number=number, shard=shard.name, row=row)
    try:
        return dataclasses.replace(found, features=_read_features(folder, shard, row))
    except DatasetError as error:
        return dataclasses.replace(found, error=error)


def read_place(folder: Location, manifest: Manifest, name: str, row: int) -> FoundRecord:
    """Reads a record of a shard by its number there; negative numbers count from its end.

    Raises a UsageError if there is no such shard, or no such number in it.
    """
    shard = next((each for each in manifest.shards if each.name == name), None)
    if shard is None:
        first = f": they are called as {manifest.shards[0].name}" if manifest.shards else ""
        raise UsageError(f"there is no shard {name!r} in the data set{first}")
    if not -shard.records <= row < shard.records:
        raise UsageError(
            f"record {row} is out of range: {name} has {format_count(shard.records, 'record')}, "
            f"0 to {shard.records - 1}"
        )
    names = [each.name for each in manifest.list_shards(shard.split)]
    before = manifest.list_shards(shard.split)[: names.index(name)]
    number = sum(each.records for each in before) + row % shard.records
    return read_record(folder, manifest, shard.split, number)


def _read_features(folder: Location, shard: ShardInfo, row: int) -> Mapping[str, Sequence[Any]]:
    _check_files(folder, shard)
    offset, end = 0, 0
    if row:
        index = name_index(shard.name)
        lines = (folder / index).read_range(0, shard.index_bytes or 1)
        bounds = parse_index(lines, index=index, shard_bytes=shard.bytes)
        if len(bounds) != shard.records + 1:
            raise DatasetError(f"{index} does not have {format_count(shard.records, 'line')}")
        offset, end = int(bounds[row]), int(bounds[row + 1])
    size = min(end - offset or shard.max_record_bytes, shard.max_record_bytes)
    data = (folder / shard.name).read_range(offset, size)
    if not end:  # without an index, the first record says how long it is
        size = min(len(data), int.from_bytes(data[:8], "little") + 16)
        data = data[:size]
    try:
        payload = unframe_record(data, shard=shard.name, offset=offset, number=row)
    except RecordError as error:
        source = find_source(memoryview(data)[HEADER_BYTES:])
        raise RecordError(shard.name, offset, error.detail, row, source) from error
    return _decode(payload, shard.name, offset, row)


def _decode(payload: bytes, shard: str, offset: int, row: int) -> Mapping[str, Sequence[Any]]:
    try:
        return decode_example(payload)
    except ValueError as error:
        raise RecordError(shard, offset, str(error), row) from error


def _check_files(folder: Location, shard: ShardInfo) -> None:
    for name, size in shard.file_sizes.items():
        place = folder / name
        if place.is_remote:
            continue
        if not place.is_file():  # a pipe would be waited for
            raise DatasetError(f"{place} is missing or is no file: shardmill repair rebuilds it")
        if (found := place.measure()) != size:
            raise DatasetError(
                f"{place} has {found:,} bytes, not {size:,}: shardmill repair rebuilds it"
            )


def find_record(folder: Location, manifest: Manifest, split: str | None, name: str) -> FoundRecord:
    """Reads the record that is made from an original, by its path.

    `name` is the path as records have it, or one that ends in it, such as `photos/cat/1.jpg`. Reads
    what stands around the images, until it is found. Raises a UsageError if it is not there, and a
    DatasetError if a file in which it may be cannot be read.
    """
    from converter.upkeep import contents  # noqa: PLC0415 (Pillow, for this alone)

    shards = manifest.list_shards(split) if split else manifest.shards
    ending: tuple[str, int] | None = None
    similar: list[str] = []
    counts = dict.fromkeys(manifest.splits, 0)
    progress.begin("search", sum(shard.records for shard in shards), "records")
    for shard, sources in contents.read_all_sources(folder, manifest, shards):
        for row, source in enumerate(sources):
            place = shard.split, counts[shard.split] + row
            if source.path == name:
                return read_record(folder, manifest, *place)
            if ending is None and name.endswith(f"/{source.path}"):
                ending = place
            if len(similar) < _MAX_SIMILAR and _is_similar(source.path, name):
                similar.append(repr(show_name(source.path)))
        counts[shard.split] += len(sources)
        progress.advance(len(sources))
    if ending is not None:
        return read_record(folder, manifest, *ending)
    where = f"split {split}" if split else "the data set"
    hint = f": did you mean {' or '.join(similar)}?" if similar else ""
    raise UsageError(f"no record of {where} is from {name!r}{hint}")


def _is_similar(path: str, name: str) -> bool:
    return (
        name.casefold() in path.casefold()
        or path.rsplit("/", maxsplit=1)[-1] == name.rsplit("/", maxsplit=1)[-1]
    )


def count_classes(folder: Location, manifest: Manifest) -> ClassCounts:
    """Counts the classes of a data set: from its manifest, or in its records, up to a limit.

    The limit is 256 MB of records on a disk and 16 MB in a store: the first ones of each shard, or
    of some.
    """
    splits = {name: [*info.labels] for name, info in manifest.splits.items()}
    records = {name: info.records for name, info in manifest.splits.items()}
    listed = {column.name for column in manifest.columns} & {LABELS, BOX_LABELS}
    if not listed:
        return ClassCounts(images=splits if manifest.labelled else {}, boxes={}, looked=records)
    return _count_listed(folder, manifest, listed)


def _count_listed(folder: Location, manifest: Manifest, listed: set[str]) -> ClassCounts:
    chosen = [*_choose_records(folder, manifest)]
    shares = {shard.name: count for shard, count in chosen}
    images = {name: Counter[int]() for name in manifest.splits}
    boxes = {name: Counter[int]() for name in manifest.splits}
    looked, errors = Counter[str](), []

    def count(shard: ShardInfo) -> tuple[Counter[int], Counter[int], int, DatasetError | None]:
        found, boxed, number = Counter[int](), Counter[int](), 0
        try:
            for features in _read_first(folder, shard, shares[shard.name]):
                labels = features.get(BOX_LABELS, ())
                found.update({*labels, *features.get(LABELS, ())})
                boxed.update(labels)
                number += 1
        except DatasetError as error:
            return found, boxed, number, error
        return found, boxed, number, None

    for shard, (found, around, number, error) in map_in_threads(
        count, [shard for shard, _ in chosen], folder
    ):
        images[shard.split] += found
        boxes[shard.split] += around
        looked[shard.split] += number
        errors += [error] if error else []
    by_label = {name: _list_counts(counts, manifest) for name, counts in images.items()}
    stated = {name: [*info.labels] for name, info in manifest.splits.items()}
    boxed = {name: _list_counts(counts, manifest) for name, counts in boxes.items()}
    return ClassCounts(
        images=stated if manifest.labelled else by_label,
        boxes=boxed if BOX_LABELS in listed else {},
        looked={name: looked[name] for name in manifest.splits},
        whole=looked.total() == manifest.totals.written,
        errors=tuple(errors),
    )


def _list_counts(counts: Mapping[int, int], manifest: Manifest) -> list[int]:
    return [counts.get(label, 0) for label in range(len(manifest.classes))]


def _choose_records(folder: Location, manifest: Manifest) -> Iterator[tuple[ShardInfo, int]]:
    """The shards that are looked into, each with how many of its records."""
    shards = [shard for shard in manifest.shards if shard.records]
    limit = _MAX_STORE_BYTES if folder.is_remote else _MAX_BYTES
    step = -(-len(shards) // _MAX_SHARDS) if folder.is_remote else 1
    share = min(1.0, limit / max(1, manifest.total_bytes / step))
    for shard in shards[::step]:
        yield shard, max(1, int(shard.records * share))


def _read_first(
    folder: Location, shard: ShardInfo, count: int
) -> Iterator[Mapping[str, Sequence[Any]]]:
    _check_files(folder, shard)
    with (folder / shard.name).open_read() as file:
        for row, (offset, payload) in enumerate(
            itertools.islice(read_records(file, shard.name, shard.bytes), count)
        ):
            yield _decode(payload, shard.name, offset, row)
