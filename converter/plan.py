"""Decides, before any image is converted, which image goes into which shard at which place.

    {"digest": …, "images": …, "options": …, "classes": …, "shards": […], …}      plan.json
    ["cats/1.jpg", 0, "cats", 10423]                                              entries.jsonl
    {"path": …, "code": …, "detail": …}                                           skipped.jsonl

The entries lie in the order of the shards, so a shard's share is one range of bytes, and all that
has to travel to a worker is that range. A hash of seed and path decides an image's split and its
place in the order: neither depends on the other images, on the runner or on the number of workers.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import PIL

import converter
from converter.errors import DatasetError, UsageError
from converter.layout import Layout, name_shard
from converter.names import to_bytes
from converter.options import MAX_SHARDS, ConvertOptions
from converter.scan import Entry, Scan
from converter.storage import create_file, read_range, write_file

SPLITS: Final = ("train", "validation", "test")

MIN_SHARDS: Final = 16
"""A split has at least so many shards, for all cores to convert and for interleaved reading …"""

MIN_SHARD_RECORDS: Final = 32
"""… while a shard keeps at least so many records."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """One shard that is to be written: an element of the pipeline, a few dozen bytes.

    Attributes:
        split: the split it belongs to.
        index: its number within the split, from 0.
        count: how many shards the split has.
        records: how many images it is planned to hold.
        offset: where its entries begin in `entries.jsonl`, in bytes.
        size: how many bytes they take there.
        source_bytes: the size of its images as they are now.
    """

    split: str
    index: int
    count: int
    records: int
    offset: int
    size: int
    source_bytes: int

    @property
    def name(self) -> str:
        """The shard's file name."""
        return name_shard(self.split, self.index, self.count)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A conversion that is ready to run.

    Attributes:
        images: absolute path of the folder that the entries are relative to.
        out: absolute path of the data set.
        options: what was asked for.
        classes: names in label order.
        shards: of all splits, in order.
        skipped: number of files that are not looked at, by code.
        generator: the versions that the output's bytes depend on, of shardmill and of Pillow.
        digest: SHA-256 over everything that decides the shards' bytes: not over `images`, `out`
            and `skipped`.
    """

    images: Path
    out: Path
    options: ConvertOptions
    classes: tuple[str, ...]
    shards: tuple[Shard, ...]
    skipped: dict[str, int]
    generator: str
    digest: str

    @property
    def records(self) -> int:
        """How many images are to be converted."""
        return sum(shard.records for shard in self.shards)

    @property
    def scanned(self) -> int:
        """How many files were seen."""
        return self.records + sum(self.skipped.values())


def name_generator() -> str:
    """The versions that the bytes of a data set depend on."""
    return f"shardmill {converter.__version__}, Pillow {PIL.__version__}"


def assign_splits(entries: Iterable[Entry], options: ConvertOptions) -> dict[str, list[Entry]]:
    """Deals the entries out to splits and puts each split into its seeded order.

    Returns:
        the entries of each split that was asked for, in the order of `SPLITS`.

    Raises:
        UsageError: a split that was asked for gets no image.
    """
    fractions = {"validation": options.validation_split, "test": options.test_split}
    ranked: dict[str, list[tuple[int, Entry]]] = {
        split: [] for split in SPLITS if split == "train" or fractions[split]
    }
    limits = fractions["validation"], fractions["validation"] + fractions["test"]
    key = options.seed.to_bytes(8, "little")
    for entry in entries:
        digest = hashlib.blake2b(to_bytes(entry.path), digest_size=16, key=key).digest()
        draw = int.from_bytes(digest[:8], "little") / 2**64
        split = "validation" if draw < limits[0] else "test" if draw < limits[1] else "train"
        ranked[split].append((int.from_bytes(digest[8:], "little"), entry))
    for split, members in ranked.items():
        if not members:
            way_out = "smaller fractions" if split == "train" else "a larger fraction"
            raise UsageError(
                f"split {split!r} gets none of the images: ask for {way_out} or another seed"
            )
        members.sort()
    return {split: [entry for _, entry in members] for split, members in ranked.items()}


def count_shards(records: int, split_bytes: float, shard_bytes: int) -> int:
    """How many shards a split of `split_bytes` gets; independent of the number of cores."""
    floor = min(MIN_SHARDS, records // MIN_SHARD_RECORDS)
    return max(1, floor, min(records, MAX_SHARDS, round(split_bytes / shard_bytes)))


def cut_evenly(total: int, parts: int) -> list[int]:
    """Cuts `total` into `parts` numbers that differ by one at most, the larger ones first.

    >>> cut_evenly(10, 4)
    [3, 3, 2, 2]
    """
    small, extra = divmod(total, parts)
    return [small + 1] * extra + [small] * (parts - extra)


def plan_shards(
    splits: dict[str, list[Entry]], options: ConvertOptions, record_bytes: float
) -> dict[str, list[int]]:
    """How many records each shard of each split holds.

    Args:
        splits: what `assign_splits` returns.
        options: `num_shards` or `shard_bytes` decide.
        record_bytes: mean size of a record; without effect where `num_shards` is given.

    Raises:
        UsageError: `num_shards` is more than there are images.
    """
    largest = max(map(len, splits.values()))
    counts = {}
    for split, entries in splits.items():
        if options.num_shards is None:
            count = count_shards(len(entries), len(entries) * record_bytes, options.shard_bytes)
        elif options.num_shards > largest:
            raise UsageError(
                f"num shards {options.num_shards} is more than the {largest} images of the "
                "largest split: ask for fewer"
            )
        else:
            count = max(1, round(options.num_shards * len(entries) / largest))
        counts[split] = cut_evenly(len(entries), count)
    return counts


def write_plan(
    scan: Scan,
    splits: dict[str, list[Entry]],
    shard_records: dict[str, list[int]],
    options: ConvertOptions,
    *,
    images: Path,
    out: Path,
) -> Plan:
    """Writes a plan into the output's work folder; the same plan may lie there already.

    Raises:
        UsageError: the output holds an unfinished conversion that follows another plan.
        OutputError: a file cannot be written.
        OSError: the output's folders cannot be made.
    """
    layout = Layout(out)
    layout.make_work_folders()
    with (
        create_file(layout.entries, layout.scratch) as file,
        create_file(layout.skipped, layout.scratch) as skipped,
    ):
        shards = tuple(_write_entries(file.write, splits, shard_records, scan.classes))
        for skip in scan.skipped:
            skipped.write(_dump(skip._asdict()))
        content = {
            "generator": name_generator(),
            "options": options.to_json(),
            "classes": list(scan.classes),
            "shards": [dataclasses.asdict(shard) for shard in shards],
            "entries_sha256": file.sha256,
        }
        digest = hashlib.sha256(_dump(content)).hexdigest()
        _refuse_other_plan(out, digest, options)
    located = {
        "digest": digest,
        "images": str(images),
        "skipped": dict(sorted(Counter(skip.code for skip in scan.skipped).items())),
        **content,
    }
    write_file(layout.plan, _dump(located), layout.scratch)
    return read_plan(out)


def read_plan(out: Path) -> Plan:
    """Reads the plan that `write_plan` left in an output.

    Raises:
        DatasetError: there is none, or it is damaged.
    """
    path = Layout(out).plan
    try:
        content = json.loads(path.read_bytes())
        return Plan(
            images=Path(content["images"]),
            out=out,
            options=ConvertOptions.from_json(content["options"]),
            classes=tuple(content["classes"]),
            shards=tuple(Shard(**shard) for shard in content["shards"]),
            skipped=content["skipped"],
            generator=content["generator"],
            digest=content["digest"],
        )
    except (OSError, ValueError, TypeError, KeyError, UsageError) as error:
        raise DatasetError(f"{path}: cannot be read as a plan: {error}") from error


def read_entries(out: Path, shard: Shard) -> list[tuple[Entry, str]]:
    """The entries of one shard with their class names, in record order.

    Raises:
        DatasetError: there are fewer or more than were planned.
    """
    path = Layout(out).entries
    lines = read_range(path, shard.offset, shard.size).splitlines()
    if len(lines) != shard.records:
        raise DatasetError(
            f"{path}: {len(lines)} entries for {shard.name}, expected {shard.records}"
        )
    return [(Entry(name, label, size), text) for name, label, text, size in map(json.loads, lines)]


def _refuse_other_plan(out: Path, digest: str, options: ConvertOptions) -> None:
    if not Layout(out).plan.exists():
        return
    old = read_plan(out)
    if old.digest == digest:
        return
    before = {**old.options.to_json(), "generator": old.generator}
    now = {**options.to_json(), "generator": name_generator()}
    changed = [
        f"{name} was {before[name]}, is {now[name]}" for name in now if before[name] != now[name]
    ]
    raise UsageError(
        f"{out} holds an unfinished conversion of other {'options' if changed else 'images'} "
        f"({'; '.join(changed) or 'files were added, changed or removed'}): "
        "go on with the same ones, or choose another folder"
    )


def _write_entries(
    write: Callable[[bytes], None],
    splits: dict[str, list[Entry]],
    shard_records: dict[str, list[int]],
    classes: Sequence[str],
) -> Iterator[Shard]:
    offset = 0
    for split, entries in splits.items():
        counts = shard_records[split]
        remaining = iter(entries)
        for index, records in enumerate(counts):
            members = [next(remaining) for _ in range(records)]
            lines = b"".join(
                _dump([entry.path, entry.label, classes[entry.label], entry.size_bytes])
                for entry in members
            )
            write(lines)
            yield Shard(
                split=split,
                index=index,
                count=len(counts),
                records=records,
                offset=offset,
                size=len(lines),
                source_bytes=sum(entry.size_bytes for entry in members),
            )
            offset += len(lines)


def _dump(value: object) -> bytes:
    """One line of JSON in ASCII: names that are not UTF-8 survive as lone surrogates."""
    return json.dumps(value, separators=(",", ":")).encode("ascii") + b"\n"
