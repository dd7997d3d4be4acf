"""What is asked of a conversion, checked; and what came of it, if all of it is there already."""

from __future__ import annotations

import contextlib
import dataclasses

from converter.commits.replacements import check_replaceable, find_manifest, restore_folder
from converter.costs import Cost
from converter.entries import Note
from converter.errors import UsageError
from converter.format.manifest import Manifest, read_manifest
from converter.options import ConvertOptions
from converter.planning.plan import Draft, digest_plan, name_changes
from converter.sources.inputs import locate_root
from converter.sources.pairing import locate_masks
from converter.storage.layout import Layout, Location
from converter.upkeep.updates import Update
from pipelines import runners
from pipelines.preflight import check_folders
from pipelines.proposals import propose
from pipelines.workers import LocalWorkers


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """What came of a conversion.

    Attributes:
        manifest: of the data set, as it lies there now.
        milled: how many shards were milled.
        kept: how many were found finished, by an earlier run or because an update left them alone.
        unchanged: whether the data set was finished before, as it was asked for.
        update: what was different, if an update was asked for.
        notes: what is odd about the images, and yet converted.
        cost: what milling them cost.
    """

    manifest: Manifest
    milled: int
    kept: int
    unchanged: bool = False
    update: Update | None = None
    notes: tuple[Note, ...] = ()
    cost: Cost = dataclasses.field(default_factory=Cost)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What is asked of a conversion; see `convert`."""

    images: Location
    out: Location
    options: ConvertOptions
    beam: runners.RunnerOptions
    workers: int
    progress: bool

    @property
    def root(self) -> Location:
        """What the paths of the images are relative to."""
        return locate_root(self.images, self.options)

    def start_workers(self) -> contextlib.AbstractContextManager[LocalWorkers | None]:
        """Starts the processes that it takes; errors are those of `runners.start_workers`."""
        masks = locate_masks(self.root, self.options)
        return runners.start_workers(self.beam, self.workers, self.root, masks, self.out)


def prepare(
    images: Location,
    out: Location,
    options: ConvertOptions | None,
    beam: runners.RunnerOptions,
    *,
    workers: int,
    progress: bool,
    overwrite: bool,
    update: bool,
    break_lock: bool,
) -> Request:
    """Checks what is asked for, in as far as no image has to be looked at and no lock to be held.

    Raises:
        UsageError: it makes no sense.
        LockedError: somebody else is putting a data set in its place.
    """
    restore_folder(out, break_lock=break_lock)
    check_folders(images, out)
    request = Request(
        images=images,
        out=out,
        options=_choose_options(out, options, overwrite=overwrite, update=update),
        beam=beam,
        workers=workers,
        progress=progress,
    )
    _check_places(request)
    if (overwrite or update) and Layout(out).manifest.is_file():
        check_replaceable(out)
    return request


def is_at_rest(out: Location) -> bool:
    """Whether there is a finished data set, of which nobody has left anything to be done."""
    return Layout(out).manifest.is_file() and not Layout(out).work.exists()


def _check_places(request: Request) -> None:
    """Refuses masks that are not there, and what workers do not see.

    Raises:
        UsageError: says which.
    """
    masks = locate_masks(request.root, request.options)
    if request.options.mask_dir is not None:
        check_folders(masks, request.out)
    runners.check_paths(request.beam, request.root, masks, request.out)


def _choose_options(
    out: Location, options: ConvertOptions | None, *, overwrite: bool, update: bool
) -> ConvertOptions:
    if not update:
        return options or ConvertOptions()
    if overwrite:
        raise UsageError("overwrite and update exclude each other: leave one of them out")
    manifest = find_manifest(out)
    if manifest is None:
        raise UsageError(
            f"output {out} holds no finished data set that could be updated: leave out --update"
        )
    options = options or ConvertOptions.from_json(manifest.options)
    if changed := name_changes(manifest.options, manifest.generator, options):
        raise UsageError(
            f"output {out} cannot be updated with other options or versions than it was converted "
            f"with ({'; '.join(changed)}): give the same ones, or replace it with --overwrite"
        )
    return options


def confirm(request: Request, draft: Draft | None = None) -> Conversion:
    """Makes sure that the finished data set is the one that is asked for.

    Args:
        request: what is asked for.
        draft: what a conversion would be now, where that is known.

    Raises:
        UsageError: it is another one; says in what.
    """
    manifest = read_manifest(request.out)
    changed = name_changes(manifest.options, manifest.generator, request.options)
    if not changed and not manifest.updated:
        draft = draft or propose(request.images, request.options, always_sample=False).draft
        if digest_plan(draft, request.options) == manifest.plan:
            return Conversion(
                manifest=manifest, milled=0, kept=len(manifest.shards), unchanged=True
            )
        changed = ("files were added, changed or removed",)
    raise UsageError(
        f"output {request.out} holds a finished data set "
        f"({'; '.join(changed) or 'which was updated since it was converted'}): take changed files "
        "in with --update, replace it with --overwrite, or choose another folder"
    )
