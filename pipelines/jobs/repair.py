"""Repairs a data set: what a check condemns is made again from the originals."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from converter.commits.replacements import (
    find_manifest,
    remove_repair,
    restore_folder,
    settle_folder,
)
from converter.errors import DatasetError, UsageError
from converter.format.manifest import Manifest, ShardInfo, read_manifest
from converter.inventory import Entry
from converter.options import ConvertOptions
from converter.planning.plan import Draft, digest_plan
from converter.sources.inputs import locate_root
from converter.sources.mask_pairing import locate_masks
from converter.sources.scan import scan_images
from converter.storage.layout import MANIFEST, NOTES, REJECTS, Layout, name_index
from converter.storage.locate import locate, locate_output
from converter.storage.location import AnyPath, Location
from converter.upkeep import repairs
from converter.upkeep.deductions import deduce_members
from converter.upkeep.updates import keep_labels
from converter.upkeep.verification import Fault
from pipelines.beam import runners
from pipelines.beam.run_shards import write_remaining
from pipelines.jobs.dry_run import propose
from pipelines.jobs.preflight import check_folders
from pipelines.jobs.request import RunSettings
from pipelines.jobs.verify import verify


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Site:
    """Where and how is repaired; see `repair`."""

    folder: Location
    images: Location
    manifest: Manifest
    run: RunSettings

    @property
    def root(self) -> Location:
        """What the paths of the originals are relative to."""
        return locate_root(self.images, self.options)

    @property
    def options(self) -> ConvertOptions:
        return ConvertOptions.from_json(self.manifest.options)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Repair:
    """What came of a repair.

    Attributes:
        repaired: names of the files that were made again.
        unknown: names of shards of which nothing tells what they were made from.
        left: what is still wrong.
    """

    repaired: tuple[str, ...]
    unknown: tuple[str, ...]
    left: tuple[Fault, ...]


def repair(
    out: AnyPath,
    images: AnyPath,
    beam_args: Sequence[str] = (),
    **settings: Any,
) -> Repair:
    """Checks a data set, and makes again what is damaged or missing, byte for byte as it was.

    What is made again takes its place only if it has the SHA-256 that the manifest states: the
    originals have to be what they were, and the versions of shardmill and Pillow, too.

    Args:
        out: the data set's folder, here or in an object store.
        images: the folder of the originals, likewise.
        beam_args: Beam's own options.
        **settings: `workers`, `progress` and `break_lock` of `RunSettings`.

    Raises:
        UsageError: an argument makes no sense.
        LockedError: somebody else is writing to `out`.
        DatasetError: the manifest itself is missing, damaged or of a newer format.
        ShardmillError: the pipeline failed, or a file cannot be written.
    """
    run = RunSettings(beam_args=tuple(beam_args), **settings)
    folder, originals = locate_output(out), locate(images)
    restore_folder(folder, break_lock=run.break_lock)
    manifest = _read_manifest(folder)
    check_folders(originals, folder)
    if beam_args:
        _check_places(beam_args, folder, originals, manifest)
    with folder.lock(break_lock=run.break_lock):
        settle_folder(folder)
        manifest = _read_manifest(folder)
        faults = verify(folder, progress=run.progress)
        site = _Site(folder=folder, images=originals, manifest=manifest, run=run)
        repaired, unknown = _repair(site, repairs.list_condemned(manifest, faults))
        left = [fault for fault in faults if fault.file not in repaired]
        if repaired and MANIFEST in {fault.file for fault in left}:
            left = verify(folder, progress=run.progress)  # counts were of what was damaged
    return Repair(repaired=repaired, unknown=unknown, left=tuple(left))


def _check_places(
    beam_args: Sequence[str], folder: Location, originals: Location, manifest: Manifest
) -> None:
    """Refuses what workers do not see."""
    options = ConvertOptions.from_json(manifest.options)
    root = locate_root(originals, options)
    masks = locate_masks(root, options)
    runners.check_paths(runners.parse_options(beam_args), root, masks, folder)


def _read_manifest(folder: Location) -> Manifest:
    try:
        return find_manifest(folder) or read_manifest(folder)
    except DatasetError as error:
        raise DatasetError(
            f"{error}; without it nothing says what has to be in the data set: convert it again, "
            "with --overwrite if it lies in the way"
        ) from error


def _repair(site: _Site, condemned: repairs.Condemned) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Makes files again; the names of those that came out right, and of shards nobody knows."""
    repaired = [
        name_index(shard.name)
        for shard in condemned.indexes
        if repairs.rebuild_index(site.folder, shard)
    ]
    draft = (
        _plan_again(site) if condemned.shards or {REJECTS, NOTES} & set(condemned.files) else None
    )
    members, likely = _find_members(site, condemned.shards, draft)
    if members:
        repaired += _write(site, members, condemned.names)
    for name in condemned.files:
        content = _describe_file(site, draft, name)
        if repairs.rebuild_file(site.folder, site.manifest, name, content):
            repaired.append(name)
    known = {*repaired, *members.keys() - likely}
    unknown = (shard.name for shard in condemned.shards if shard.name not in known)
    return tuple(dict.fromkeys(repaired)), tuple(unknown)


def _plan_again(site: _Site) -> Draft | None:
    """The plan of the conversion, if planning it now gives the same."""
    if site.manifest.updated:
        return None
    try:
        draft = propose(site.images, site.options, always_sample=False).draft
    except UsageError:  # of the images that are left, nobody would make such a data set
        return None
    return draft if digest_plan(draft, site.options) == site.manifest.plan else None


def _find_members(
    site: _Site, shards: Sequence[ShardInfo], draft: Draft | None
) -> tuple[dict[str, list[Entry]], frozenset[str]]:
    """The originals of each shard of which they can be found out; of which they are only likely."""
    if draft is not None:
        planned = repairs.list_members(draft, site.manifest)
        return {shard.name: planned[shard.name] for shard in shards}, frozenset()
    recalled = {
        shard.name: repairs.recall_members(site.folder, site.manifest, shard, site.root)
        for shard in shards
    }
    found = {name: entries for name, entries in recalled.items() if entries is not None}
    likely: dict[str, list[Entry]] = {}
    lost = [shard for shard in shards if shard.name not in found]
    if lost:
        inventory = keep_labels(scan_images(site.images, site.options), site.manifest.classes)
        with contextlib.suppress(DatasetError):
            likely = deduce_members(site.folder, site.manifest, lost, inventory, site.root)
    return found | likely, frozenset(likely)


def _write(
    site: _Site, members: Mapping[str, list[Entry]], condemned: Collection[str]
) -> Iterator[str]:
    made = Layout(site.folder).repair
    remove_repair(site.folder)
    plan = repairs.write_repair(members, site.manifest, site.root, made)
    beam = runners.parse_options(site.run.beam_args)
    with runners.start_workers(beam, site.run.workers, site.images, site.folder) as pool:
        write_remaining([plan], beam, pool, progress=site.run.progress)
    for shard in site.manifest.shards:
        if shard.name in members:
            yield from repairs.take_shard(shard, made, site.folder, condemned)
    remove_repair(site.folder)


def _describe_file(site: _Site, draft: Draft | None, name: str) -> bytes | None:
    if draft is None or name not in (REJECTS, NOTES):
        return None
    describe = repairs.describe_notes if name == NOTES else repairs.describe_rejects
    with contextlib.suppress(DatasetError):
        return describe(site.folder, site.manifest, draft, site.root, site.options)
    return None
