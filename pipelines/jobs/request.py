"""A conversion as requested: settings and checks that need no lock, no worker and no write."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Final

from converter.commits.replacements import find_manifest, is_staged
from converter.costs import Cost
from converter.errors import DatasetError, UsageError
from converter.format.manifest import Manifest, read_manifest
from converter.inventory import Inventory, Note
from converter.option_fields import check_choice
from converter.options import ConvertOptions
from converter.planning.plan import Draft, digest_plan, name_changes, read_plan
from converter.planning.strict_checks import check_scan
from converter.sources.inputs import locate_masks, locate_root
from converter.storage.layout import Layout
from converter.storage.location import Location
from converter.upkeep.class_changes import ClassChanges
from converter.upkeep.updates import Update, check_kind
from pipelines.jobs.preflight import check_folders

MODES: Final = ("new", "overwrite", "update")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RunSettings:
    """How a job runs. None of it changes a byte of what is written.

    Attributes:
        beam_args: Beam's own options, as on a command line: `("--direct_num_workers=4",)`.
        workers: processes of a local run; 0 for one per core. Each takes about 150 MB and the
            pixels of one image.
        progress: draw a bar on standard error.
        mode: `new` writes a data set, resumes an interrupted conversion, and does nothing if it is
            finished. `overwrite` replaces a finished data set once the new one is complete, and
            gives up an unfinished conversion of something else. `update` takes added, changed and
            removed images into a finished data set; shards without changes stay.
        break_lock: treat a lock held by another machine as stale.

    Raises:
        UsageError: the mode is unknown.
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
    """The outcome of a conversion.

    Attributes:
        manifest: of the data set as it is now.
        written: number of shards written.
        kept: number of shards finished by an earlier run, or left alone by an update.
        unchanged: whether the data set was already finished as requested.
        update: the difference, if an update was requested.
        classes: what the update means for the classes.
        notes: what is odd about the images, though they were converted.
        cost: of the shards written.
    """

    manifest: Manifest
    written: int
    kept: int
    unchanged: bool = False
    update: Update | None = None
    classes: ClassChanges = dataclasses.field(default_factory=ClassChanges)
    notes: tuple[Note, ...] = ()
    cost: Cost = dataclasses.field(default_factory=Cost)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One data set that is requested; see `pipelines.convert`."""

    images: Location
    out: Location
    options: ConvertOptions
    run: RunSettings

    @property
    def root(self) -> Location:
        """What the paths of the images are relative to."""
        return locate_root(self.images, self.options)

    @property
    def places(self) -> tuple[Location, Location, Location]:
        """Everything that workers read and write: images, masks and output."""
        return self.root, locate_masks(self.root, self.options), self.out

    @property
    def current(self) -> Location:
        """Where the data set is: not in `out` if a kill caught it on the way there."""
        if not Layout(self.out).manifest.is_file():
            beside = self.out.find_replacement()
            if beside and Layout(beside).manifest.is_file():
                return beside
        return self.out

    @property
    def target(self) -> Location:
        """Where the data set is made: beside the one that it replaces, if there is one."""
        return Layout(self.out).stage if self.is_finished else self.out

    @property
    def is_finished(self) -> bool:
        """Whether there is a finished data set, whatever its options."""
        return Layout(self.out).manifest.is_file() or self.current != self.out

    @property
    def is_at_rest(self) -> bool:
        """Whether the data set is finished and no run has left work to end."""
        return self.is_finished and not Layout(self.out).work.exists()


def prepare(
    images: Location, out: Location, options: ConvertOptions | None, run: RunSettings
) -> Request:
    """Checks everything that needs neither a look at the images nor a lock.

    Raises:
        UsageError: the request makes no sense.
    """
    check_folders(images, out)
    if run.mode == "update":
        options = _choose_options(out, options)
    request = Request(images=images, out=out, options=options or ConvertOptions(), run=run)
    _, masks, _ = request.places
    if request.options.mask_dir is not None:
        check_folders(masks, out)
    if run.mode != "new" and request.is_finished:
        request.current.check_replaceable()
    return request


def _choose_options(out: Location, options: ConvertOptions | None) -> ConvertOptions:
    """Returns the options of the data set to update; any that are given have to be the same."""
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
    """Checks that a finished data set has the requested options, without looking at any image.

    Raises:
        UsageError: it has others, or was updated.
    """
    manifest = read_manifest(request.current)
    changed = name_changes(manifest.options, manifest.generator, request.options)
    if changed or manifest.updated:
        raise _refuse(request.out, changed or ("which was updated since it was converted",))
    return manifest


def check_images(request: Request, manifest: Manifest, draft: Draft) -> Conversion:
    """Checks that a finished data set is of the requested images.

    Args:
        request: what is requested.
        manifest: of the data set.
        draft: of a conversion now.

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


def check_update(request: Request, inventory: Inventory) -> None:
    """Checks that images can be taken into the finished data set.

    Raises:
        UsageError: says why not.
    """
    check_scan(inventory, request.options)
    check_kind(read_manifest(request.current), inventory)
    stage = Layout(request.out).stage
    if not is_staged(stage):
        return
    with contextlib.suppress(DatasetError):  # nothing is lost if it is damaged
        if read_plan(stage).base is None:
            raise UsageError(
                f"{request.out} is about to be replaced: go on with --overwrite and the options of "
                "that, or give it up with shardmill clean --unfinished, and then update"
            )
