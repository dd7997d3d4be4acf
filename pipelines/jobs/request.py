"""What is asked of a conversion, checked; and whether that is there already."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Final

from converter.commits.replacements import find_manifest, restore_folder
from converter.costs import Cost
from converter.errors import UsageError
from converter.format.manifest import Manifest, read_manifest
from converter.image_options import check_choice
from converter.inventory import Note
from converter.options import ConvertOptions
from converter.planning.plan import Draft, digest_plan, name_changes
from converter.sources.inputs import locate_root
from converter.sources.mask_pairing import locate_masks
from converter.storage.layout import Layout
from converter.storage.location import Location
from converter.upkeep.updates import Update
from pipelines.beam import runners
from pipelines.beam.workers import LocalWorkers
from pipelines.jobs.preflight import check_folders

MODES: Final = ("new", "overwrite", "update")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RunSettings:
    """How a job runs. Nothing of it changes a byte of what is written.

    Attributes:
        beam_args: Beam's own options, as on a command line: `("--direct_num_workers=4",)`.
        workers: processes of a local run; 0 for one a core. Each takes about 150 MB and the
            pixels of one image.
        progress: draw a bar on standard error.
        mode: `new` writes a data set, goes on with an interrupted one, and does nothing where it
            is finished. `overwrite` replaces a finished one as soon as the new one is complete,
            and gives up an unfinished conversion of something else. `update` takes added, changed
            and removed images into a finished one; shards in which nothing is different stay.
        break_lock: take the lock of a process on another machine for stale.

    Raises:
        UsageError: there is no such mode.
    """

    beam_args: tuple[str, ...] = ()
    workers: int = 0
    progress: bool = False
    mode: str = "new"
    break_lock: bool = False

    def __post_init__(self) -> None:
        check_choice("mode", self.mode, MODES)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """What came of a conversion.

    Attributes:
        manifest: of the data set, as it lies there now.
        written: how many shards were written.
        kept: how many were found finished, by an earlier run or because an update left them alone.
        unchanged: whether the data set was finished before, as it was asked for.
        update: what was different, if an update was asked for.
        notes: what is odd about the images, and yet converted.
        cost: what writing them cost.
    """

    manifest: Manifest
    written: int
    kept: int
    unchanged: bool = False
    update: Update | None = None
    notes: tuple[Note, ...] = ()
    cost: Cost = dataclasses.field(default_factory=Cost)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One data set that is asked for, and how to run; see `pipelines.convert`."""

    images: Location
    out: Location
    options: ConvertOptions
    beam: runners.RunnerOptions
    run: RunSettings

    @property
    def root(self) -> Location:
        """What the paths of the images are relative to."""
        return locate_root(self.images, self.options)

    @property
    def target(self) -> Location:
        """Where the data set is made: beside the one that it replaces, if there is one."""
        return Layout(self.out).stage if self.is_finished else self.out

    @property
    def is_finished(self) -> bool:
        """Whether a finished data set lies there, of whatever options."""
        return Layout(self.out).manifest.is_file()

    @property
    def is_at_rest(self) -> bool:
        """Whether there is one, of which nobody has left anything to be done."""
        return self.is_finished and not Layout(self.out).work.exists()

    def start_workers(self) -> contextlib.AbstractContextManager[LocalWorkers | None]:
        """Starts the processes that it takes; errors are those of `runners.start_workers`."""
        masks = locate_masks(self.root, self.options)
        return runners.start_workers(self.beam, self.run.workers, self.root, masks, self.out)


def prepare(
    images: Location,
    out: Location,
    options: ConvertOptions | None,
    beam: runners.RunnerOptions,
    run: RunSettings,
) -> Request:
    """Checks what is asked for, in as far as no image has to be looked at and no lock to be held.

    Raises:
        UsageError: it makes no sense.
        LockedError: somebody else is putting a data set in its place.
    """
    restore_folder(out, break_lock=run.break_lock)
    check_folders(images, out)
    if run.mode == "update":
        options = _choose_options(out, options)
    options = options or ConvertOptions()
    request = Request(images=images, out=out, options=options, beam=beam, run=run)
    _check_places(request)
    if run.mode != "new" and request.is_finished:
        out.check_replaceable()
    return request


def _check_places(request: Request) -> None:
    """Refuses masks that are not there, and what workers do not see.

    Raises:
        UsageError: says which.
    """
    masks = locate_masks(request.root, request.options)
    if request.options.mask_dir is not None:
        check_folders(masks, request.out)
    runners.check_paths(request.beam, request.root, masks, request.out)


def _choose_options(out: Location, options: ConvertOptions | None) -> ConvertOptions:
    """The options of an update: those of the data set, which any that are given have to be."""
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


def check_options(request: Request) -> Manifest:
    """Makes sure that a finished data set has the options that are asked for; looks at no image.

    Raises:
        UsageError: it has others, or was updated; says which.
    """
    manifest = read_manifest(request.out)
    changed = name_changes(manifest.options, manifest.generator, request.options)
    if changed or manifest.updated:
        raise _refuse(request.out, changed or ("which was updated since it was converted",))
    return manifest


def check_images(request: Request, manifest: Manifest, draft: Draft) -> Conversion:
    """Makes sure that a finished data set is of the images that are asked for.

    Args:
        request: what is asked for.
        manifest: of what lies there.
        draft: what a conversion would be now.

    Raises:
        UsageError: it is of others.
    """
    if digest_plan(draft, request.options) != manifest.plan:
        raise _refuse(request.out, ("files were added, changed or removed",))
    return Conversion(manifest=manifest, written=0, kept=len(manifest.shards), unchanged=True)


def _refuse(out: Location, changed: tuple[str, ...]) -> UsageError:
    return UsageError(
        f"output {out} holds a finished data set ({'; '.join(changed)}): take changed files in "
        "with --update, replace it with --overwrite, or choose another folder"
    )
