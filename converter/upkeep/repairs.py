"""Makes again what is damaged in a data set, from the originals, or not at all.

Nothing is believed on the way but the manifest: whatever is made again has to have the SHA-256 that
stands there, and only then takes the place of what was damaged. So the list of a shard's originals
may come from wherever it can be had: from the shard itself, from planning the conversion once more,
or from what no other shard holds (`converter.upkeep.deductions`).
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import itertools
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping

from converter.errors import DatasetError, ImageError
from converter.format.indexes import format_line
from converter.format.manifest import Manifest, ShardInfo
from converter.format.metadata import describe_dataset
from converter.format.tfrecords import scan_records
from converter.image_options import MAX_FILE_BYTES
from converter.images.frame_paths import find_file
from converter.images.image_notes import note_traits
from converter.inventory import Entry, Inventory, NoteTally, name_class
from converter.options import ConvertOptions
from converter.planning.plan import Draft, Plan, dump_line, list_left_out, write_plan
from converter.sources.originals import read_source
from converter.storage.atomic import write_file
from converter.storage.files import choose_threads
from converter.storage.hashing import hash_bytes, hash_file
from converter.storage.layout import Layout, name_index
from converter.storage.location import Location
from converter.upkeep.deductions import read_all_sources
from converter.upkeep.provenance import Source, describe_change, read_sources
from converter.upkeep.verification import Fault
from converter.writing.records import make_records


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Condemned:
    """What of a data set has to be made again.

    Attributes:
        shards: those that are damaged.
        indexes: shards whose index is.
        files: names of other files.
    """

    shards: tuple[ShardInfo, ...]
    indexes: tuple[ShardInfo, ...]
    files: tuple[str, ...]

    @property
    def names(self) -> frozenset[str]:
        """The names of all these files."""
        indexes = (name_index(shard.name) for shard in self.indexes)
        return frozenset((*(shard.name for shard in self.shards), *indexes, *self.files))


def list_condemned(manifest: Manifest, faults: Iterable[Fault]) -> Condemned:
    """Sorts faults by what can be done about them; strangers and wrong counts are left out."""
    names = {fault.file for fault in faults if not fault.original}
    return Condemned(
        shards=tuple(shard for shard in manifest.shards if shard.name in names),
        indexes=tuple(shard for shard in manifest.shards if name_index(shard.name) in names),
        files=tuple(name for name in manifest.files if name in names),
    )


def rebuild_index(folder: Location, shard: ShardInfo) -> bool:
    """Writes the index of a shard from the framing of its records; False if it is not that one.

    Raises:
        OutputError: it cannot be written.
    """
    lines, offset = bytearray(), 0
    try:
        with (
            folder.bring_local([shard.name]) as here,
            open(here / shard.name, "rb") as file,
        ):
            for size in scan_records(file, shard.name, shard.bytes, payloads=False):
                lines += format_line(offset, size)
                offset += size
    except (OSError, DatasetError):
        return False
    return _write(folder, name_index(shard.name), bytes(lines), shard.index_sha256)


def rebuild_file(folder: Location, manifest: Manifest, name: str, data: bytes | None) -> bool:
    """Writes another file of a data set; False if nobody knows what was in it.

    Args:
        folder: the data set.
        manifest: its manifest.
        name: of the file.
        data: its content, if it does not follow from the manifest.

    Raises:
        OutputError: it cannot be written.
    """
    known = describe_dataset(
        manifest.image,
        manifest.classes,
        manifest.shards,
        manifest.columns,
        labelled=manifest.labelled,
    )
    content = known.get(name, data)
    return content is not None and _write(folder, name, content, manifest.files[name].sha256)


def recall_members(
    folder: Location, manifest: Manifest, shard: ShardInfo, images: Location
) -> list[Entry] | None:
    """The originals of a damaged shard by its own word, if they all are what they were."""
    if manifest.columns or not images.is_dir():
        return None  # a record does not say which row, or which place in an archive, it is from
    frames = str(manifest.options.get("frames"))
    limit = int(manifest.options.get("max_file_bytes", MAX_FILE_BYTES))
    try:
        sources = read_sources(folder, shard, labelled=manifest.labelled)
        files = {find_file(source.path, frames): source for source in sources}
        with concurrent.futures.ThreadPoolExecutor(choose_threads(images)) as pool:
            recalled = pool.map(lambda path: _recall(path, files[path], images, limit), files)
            entries = [entry for entry in recalled if entry is not None]
    except (DatasetError, OSError, ValueError):
        return None
    return entries if len(entries) == len(files) else None


def list_members(draft: Draft, manifest: Manifest) -> dict[str, list[Entry]]:
    """The images of each shard as a conversion plans them, rejected ones included."""
    members = {}
    for split, counts in draft.shard_records.items():
        entries = iter(draft.splits[split])
        for shard, count in zip(manifest.list_shards(split), counts, strict=True):
            members[shard.name] = list(itertools.islice(entries, count))
    return members


def describe_rejects(
    folder: Location, manifest: Manifest, draft: Draft, images: Location, options: ConvertOptions
) -> bytes:
    """What `rejects.jsonl` has to say, if the plan of the conversion is known.

    Raises:
        DatasetError: a shard is damaged, so that nobody can tell what is in it.
    """
    members = list_members(draft, manifest)
    lines: list[str] = []
    for shard, sources in read_all_sources(folder, manifest, manifest.shards):
        written = Counter(find_file(source.path, options.frames) for source in sources)
        for entry in members[shard.name]:
            # Of several frames, some may be written and others not.
            if not written[entry.path] or options.frames == "all":
                lines += _list_reasons(entry, draft.inventory, images, options)
    lines += [json.dumps(line, separators=(",", ":")) for line in list_left_out(draft)]
    return "".join(f"{line}\n" for line in lines).encode("ascii")


def describe_notes(
    folder: Location, manifest: Manifest, draft: Draft, images: Location, options: ConvertOptions
) -> bytes:
    """What `notes.jsonl` has to say, if the plan of the conversion is known.

    Raises:
        DatasetError: a shard is damaged, so that nobody can tell what is in it.
    """
    tally = NoteTally()
    for _, sources in read_all_sources(folder, manifest, manifest.shards):
        paths = [source.path for source in sources]
        for path, frames in itertools.groupby(paths, lambda path: find_file(path, options.frames)):
            with contextlib.suppress(ImageError):
                data = read_source(path, images, options.max_file_bytes)
                note_traits(frames, data, options, tally)
    notes = (*draft.inventory.notes, *tally.list_notes())
    return b"".join(dump_line(note._asdict()) for note in notes)


def write_repair(
    members: Mapping[str, list[Entry]], manifest: Manifest, images: Location, out: Location
) -> Plan:
    """Plans to write some shards of a data set once more, in a folder of their own.

    Raises:
        OutputError: a file cannot be written.
    """
    lists = {
        split: [members.get(shard.name, []) for shard in manifest.list_shards(split)]
        for split in manifest.splits
    }
    draft = Draft(
        inventory=Inventory(
            classes=manifest.classes,
            entries=(),
            skipped=(),
            columns=manifest.columns,
            labelled=manifest.labelled,
        ),
        splits={split: list(itertools.chain(*parts)) for split, parts in lists.items()},
        shard_records={split: [len(part) for part in parts] for split, parts in lists.items()},
    )
    options = ConvertOptions.from_json(manifest.options)
    plan = write_plan(draft, options, images=images, out=out)
    return dataclasses.replace(
        plan, shards=tuple(shard for shard in plan.shards if shard.name in members)
    )


def take_shard(
    shard: ShardInfo, made: Location, folder: Location, condemned: Collection[str]
) -> list[str]:
    """Puts what is condemned of a shard in its place, if what was made is what it has to be.

    Args:
        shard: as the manifest states it.
        made: where it was made again.
        folder: the data set.
        condemned: names of the files that are to be replaced.

    Returns:
        the names of those that were.
    """
    index = name_index(shard.name)
    if hash_file(made / shard.name) != shard.sha256:
        return []
    if hash_file(made / index) != shard.index_sha256:
        return []
    names = [name for name in (shard.name, index) if name in condemned]
    made.move_files(names, folder)
    return names


def _recall(path: str, source: Source, images: Location, max_bytes: int) -> Entry | None:
    if describe_change(path, source.sha256, images, max_bytes):
        return None
    return Entry(path, source.label, images.child(path).measure() or 0)


def _list_reasons(
    entry: Entry, inventory: Inventory, images: Location, options: ConvertOptions
) -> Iterator[str]:
    records = make_records(
        entry, name_class(inventory, entry), images, [options], inventory.columns
    )
    for found, (outcome,) in records:
        if isinstance(outcome, ImageError):
            yield json.dumps({"path": found.path, "code": outcome.code, "detail": outcome.detail})


def _write(folder: Location, name: str, data: bytes, sha256: str) -> bool:
    if hash_bytes(data) != sha256:
        return False
    write_file(folder / name, data, Layout(folder).scratch)
    return True
