"""Decides, before any image is converted, which image goes into which shard at which place.

    {"digest": …, "images": …, "options": …, "classes": …, "shards": […], …}      plan.json
    ["cats/1.jpg", 0, "cats", 10423]                                              entries.jsonl
    {"path": …, "code": …, "detail": …}                                           left_out.jsonl
    {"code": …, "names": […], "total": …}                                         notes.jsonl

The entries lie in the order of the shards, which `converter.planning.splits` decides. So those of a
shard are one range of bytes, and only that range has to travel to a worker.
"""

import dataclasses
import functools
import io
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from converter import progress
from converter.errors import DatasetError, UsageError
from converter.format.schema import Column
from converter.images.conversion import name_generator
from converter.inventory import NO_LABEL, NO_MASK, Entry, Inventory, Skipped
from converter.names import find_file, fit_message
from converter.options import ConvertOptions
from converter.sources.containers import are_read_in_order
from converter.storage.files import HashedFile, Layout, hash_bytes, name_shard, write_file
from converter.storage.locate import locate
from converter.storage.location import Location

_PLAIN: Final = NO_MASK[4:]  # what an entry has from its group on, if that is nothing
_CHUNK: Final = 1_000  # entries that are written at once

# What an entry's line leaves out at its end: its place and values, six fields of its mask, and its
# file, part and span.
_LEFT_OUT: Final = (0, "", "", 0, 0, "", "", 0, "", "", 0)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """A planned shard: an element of the pipeline, a few dozen bytes."""

    split: str
    index: int  # from 0 within the split
    count: int  # shards of the split
    records: int
    offset: int  # of its first entry in `entries.jsonl`, in bytes
    size: int  # of its entries, in bytes
    source_bytes: int  # of its originals

    @property
    def name(self) -> str:
        return name_shard(self.split, self.index, self.count)


class Base(NamedTuple):
    """The data set that an update starts from."""

    digest: str  # the SHA-256 of its manifest
    updated: int  # the number of updates, this one included


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """A plan that is not written yet."""

    inventory: Inventory
    splits: Mapping[str, Sequence[Entry]]  # in record order
    shard_records: dict[str, list[int]]  # of each shard, by split
    rejected: tuple[dict[str, str], ...] = ()  # what an update does not try again, as it is stored
    base: Base | None = None  # of an update

    @property
    def images(self) -> int:
        return sum(map(len, self.splits.values()))

    def write_entries(self, file: HashedFile) -> Iterator[Shard]:
        """Writes all entries, and gives the shards that they lie in."""
        dump = functools.partial(dump_entry, texts=dump_texts(self.inventory.classes))
        remaining = {split: iter(entries) for split, entries in self.splits.items()}
        for split, index, records in self.iterate_shards():
            offset, source_bytes = file.size, 0
            for members in _cut(itertools.islice(remaining[split], records)):
                file.write(b"".join(dump(entry) for entry in members))
                source_bytes += sum(entry.size_bytes for entry in members)
                progress.advance(len(members))
            yield self.make_shard(split, index, offset, file.size - offset, source_bytes)

    def iterate_shards(self) -> Iterator[tuple[str, int, int]]:
        """The split, the number and the records of each shard."""
        for split, counts in self.shard_records.items():
            yield from ((split, index, records) for index, records in enumerate(counts))

    def make_shard(
        self, split: str, index: int, offset: int, size: int, source_bytes: int
    ) -> Shard:
        counts = self.shard_records[split]
        return Shard(
            split=split,
            index=index,
            count=len(counts),
            records=counts[index],
            offset=offset,
            size=size,
            source_bytes=source_bytes,
        )

    def is_read_in_order(self, images: Location) -> bool:
        """Whether originals can only be read one after another."""
        return any(are_read_in_order(entries, images) for entries in self.splits.values())

    def dump_left_out(self) -> Iterator[bytes]:
        """What will not be converted, as lines of `rejects.jsonl`."""
        return map(dump_line, list_left_out(self))

    def count_skipped(self) -> Mapping[str, int]:
        """The files that are not opened, by code."""
        return Counter(line.code for line in self.inventory.skipped)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A conversion that is ready to run."""

    images: Location  # the folder that the entries are relative to, or the archive; absolute
    out: Location  # absolute, too
    options: ConvertOptions
    classes: tuple[str, ...]  # in label order
    shards: tuple[Shard, ...]  # of all splits, in order
    rejected: dict[str, int]  # images that are not tried, by code
    skipped: dict[str, int]  # files that are not opened, by code
    frames: int  # rejected frames beyond the first of their file
    columns: tuple[Column, ...]
    labelled: bool
    generator: str
    base: Base | None
    digest: str  # of what decides the bytes: not the places, nor `rejected`, `skipped`, `frames`
    in_order: bool = False  # originals can only be read one after another, by file and place
    carried: frozenset[str] = frozenset()  # shards that an update keeps; not written to the file

    @property
    def records(self) -> int:
        return sum(shard.records for shard in self.shards)

    @property
    def scanned(self) -> int:
        left_out = sum(self.rejected.values()) + sum(self.skipped.values())
        return self.records + left_out - self.frames


def write_plan(draft: Draft, options: ConvertOptions, *, images: Location, out: Location) -> Plan:
    """Writes a plan into the output's work folder; raises UsageError if another one is there."""
    images, out = locate(images), locate(out)
    layout = Layout(out)
    layout.make_work_folders()
    resumed = layout.plan.is_file()
    if not resumed:
        # Receipts without a plan vouch for unknown shards.
        layout.receipts.remove_files(layout.receipts.list_names())
    with (
        layout.entries.create(layout.scratch) as entries,
        layout.left_out.create(layout.scratch) as left_out,
        layout.notes.create(layout.scratch) as notes,
    ):
        content = _describe(draft, options, entries)
        for line in draft.dump_left_out():
            left_out.write(line)
        for note in draft.inventory.notes:
            notes.write(dump_line(note._asdict()))
        digest = hash_bytes(dump_line(content))
        if resumed:
            # Inside the block: then none of the three files replaces that of the other plan.
            refuse_other_plan(out, digest, options)
    in_order = draft.is_read_in_order(images)
    located = {"digest": digest, "images": str(images), "in_order": in_order}
    located |= _count_left_out(draft, options)
    data = dump_line({**located, "policies": options.policies_to_json(), **content})
    write_file(layout.plan, data, layout.scratch)
    # Read back, because JSON makes lists of tuples: a resumed run gets the same plan.
    return _parse_plan(data, out)


def list_left_out(draft: Draft) -> Iterator[dict[str, str]]:
    """What will not be converted, as values of lines of `rejects.jsonl`."""
    yield from draft.rejected
    yield from map(describe_skipped, (*draft.inventory.rejected, *draft.inventory.skipped))


def describe_skipped(line: Skipped) -> dict[str, str]:
    """A file that is left out, as the value of a line of `rejects.jsonl`."""
    return {**line._asdict(), "detail": fit_message(line.detail)}


def digest_plan(draft: Draft, options: ConvertOptions) -> str:
    """The digest of the plan that a draft becomes, without writing it."""
    with open(os.devnull, "wb") as nowhere:
        return hash_bytes(dump_line(_describe(draft, options, HashedFile(nowhere))))


def read_plan(out: Location) -> Plan:
    """Reads the plan that `write_plan` wrote; raises DatasetError if it is missing or damaged."""
    out = locate(out)
    try:
        data = Layout(out).plan.read_bytes()
    except OSError as error:
        raise DatasetError(f"{Layout(out).plan}: cannot be read as a plan: {error}") from error
    return _parse_plan(data, out)


def _parse_plan(data: bytes, out: Location) -> Plan:
    try:
        content = json.loads(data)
        same = ("rejected", "skipped", "frames", "labelled", "generator", "digest", "in_order")
        return Plan(
            images=locate(content["images"]),
            out=out,
            options=ConvertOptions.from_json({**content["options"], **content["policies"]}),
            classes=tuple(content["classes"]),
            shards=tuple(Shard(**shard) for shard in content["shards"]),
            columns=tuple(Column(**column) for column in content["columns"]),
            base=Base(**content["base"]) if "base" in content else None,
            **{name: content[name] for name in same},
        )
    except (ValueError, TypeError, KeyError, RecursionError, UsageError) as error:
        raise DatasetError(
            f"{Layout(out).plan}: cannot be read as a plan: {error}; convert with --overwrite to "
            "give it up"
        ) from error


def read_entries(out: Location, shard: Shard) -> Iterator[tuple[Entry, str]]:
    """The entries of a shard and their class names, in record order; DatasetError if damaged."""
    # Only when the first is asked for: then a shard's files are being created, and what creates
    # them describes errors, such as too many open files.
    yield from parse_entries(fetch_entries(out, shard), out, shard)


def fetch_entries(out: Location, shard: Shard) -> bytes:
    """The entries of one shard as they are stored, about 60 bytes each."""
    return Layout(out).entries.read_range(shard.offset, shard.size)


def parse_entries(data: bytes, out: Location, shard: Shard) -> Iterator[tuple[Entry, str]]:
    """`read_entries` from what `fetch_entries` returned."""
    path = Layout(out).entries
    if (count := data.count(b"\n")) != shard.records:
        raise DatasetError(f"{path}: {count} entries for {shard.name}, expected {shard.records}")
    for name, label, text, size, *more in map(json.loads, io.BytesIO(data)):
        rest: list[Any] = [*more, *_LEFT_OUT[len(more) :]]
        place, values, *fields, file, part, span = rest
        mask = _parse_mask(fields) if fields[0] else None
        yield Entry(name, label, size, "", "", values, place, mask, file, part, span), text


def _parse_mask(fields: list[Any]) -> Entry:
    path, size, place, file, part, span = fields
    return Entry(path, NO_LABEL, size, place=place, file=file, part=part, span=span)


def name_changes(
    before: Mapping[str, Any], generator: str, options: ConvertOptions
) -> tuple[str, ...]:
    """Describes how options and versions differ from earlier ones, the options as JSON values."""
    # An earlier version did not know all options of today: those have their defaults.
    old = {**ConvertOptions().to_json(), **before, "generator": generator}
    new = {**options.to_json(), "generator": name_generator()}
    return tuple(
        f"{name} was {old.get(name)!s:.60}, is {new[name]!s:.60}"
        for name in new
        if old.get(name) != new[name]
    )


def refuse_other_plan(out: Location, digest: str, options: ConvertOptions) -> None:
    """Raises UsageError with the differences if the plan of an output has another digest."""
    old = read_plan(out)
    if old.digest == digest:
        return
    changed = name_changes(old.options.to_json(), old.generator, options)
    raise UsageError(
        f"{out} holds an unfinished conversion of other {'options' if changed else 'images'} "
        f"({'; '.join(changed) or 'files were added, changed or removed'}): go on with the same "
        "ones, give it up with --overwrite, or choose another folder"
    )


def _describe(draft: Draft, options: ConvertOptions, entries: HashedFile) -> dict[str, Any]:
    """Writes the entries, and describes everything that decides the bytes of the shards."""
    progress.begin("plan", draft.images, note="dealing images out to shards")
    shards = [dataclasses.asdict(shard) for shard in draft.write_entries(entries)]
    return {
        "generator": name_generator(),
        "options": options.to_json(),
        "classes": list(draft.inventory.classes),
        "columns": [dataclasses.asdict(column) for column in draft.inventory.columns],
        "labelled": draft.inventory.labelled,
        "shards": shards,
        "entries_sha256": entries.sha256,
        **({"base": draft.base._asdict()} if draft.base else {}),
    }


def _count_left_out(draft: Draft, options: ConvertOptions) -> dict[str, Any]:
    rejected = Counter(line["code"] for line in draft.rejected)
    rejected.update(line.code for line in draft.inventory.rejected)
    skipped = draft.count_skipped()
    files = {find_file(line["path"], options.frames) for line in draft.rejected}
    return {
        "rejected": dict(sorted(rejected.items())),
        "skipped": dict(sorted(skipped.items())),
        "frames": len(draft.rejected) - len(files),
    }


def _cut(entries: Iterator[Entry]) -> Iterator[list[Entry]]:
    while members := list(itertools.islice(entries, _CHUNK)):
        yield members


def dump_texts(classes: Sequence[str]) -> dict[int, str]:
    """The name of each class as JSON, by its label."""
    names = {NO_LABEL: "", **dict(enumerate(classes))}
    return {label: json.dumps(name) for label, name in names.items()}


def dump_entry(entry: Entry, texts: Mapping[int, str]) -> bytes:
    """The line of an entry in `entries.jsonl`, with the names of classes from `dump_texts`."""
    # By hand: a third of what JSON takes for a list, of which a plan has one for each image.
    line = f"[{json.dumps(entry.path)},{entry.label},{texts[entry.label]},{entry.size_bytes}"
    if entry[4:] == _PLAIN:
        return f"{line}]\n".encode("ascii")
    mask = entry.mask or NO_MASK
    more = [
        entry.place, entry.values, mask.path, mask.size_bytes, mask.place,
        mask.file, mask.part, mask.span, entry.file, entry.part, entry.span,
    ]  # fmt: skip
    if not entry.file:
        del more[5 if entry.mask else 2 if entry.place or entry.values else 0 :]
    return (line + "".join(f",{json.dumps(value)}" for value in more) + "]\n").encode("ascii")


def dump_line(value: object) -> bytes:
    """One line of JSON in ASCII, where lone surrogates of names that are not UTF-8 survive."""
    return json.dumps(value, separators=(",", ":")).encode("ascii") + b"\n"
