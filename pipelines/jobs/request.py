"""A conversion as requested, and the checks of it that open no image and take no lock."""

import contextlib
import dataclasses
import functools
import importlib.metadata
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from converter.commits.replacements import find_dataset, find_manifest, is_staged
from converter.errors import DatasetError, ShardmillWarning, UsageError
from converter.format.manifest import Manifest, read_manifest
from converter.inventory import Inventory
from converter.option_fields import check_choice
from converter.options import ConvertOptions
from converter.planning.plan import Draft, digest_plan, name_changes, read_plan
from converter.sources.inputs import locate_masks, locate_root
from converter.sources.joined import Images, join_images, locate_images
from converter.storage.files import Layout
from converter.storage.location import Location
from converter.upkeep.updates import check_kind
from converter.writing.records import check_scan
from pipelines.jobs.outputs import (
    check_folders,
    check_place,
    check_writable,
    refuse_inside_dataset,
)

SETTINGS: Final = ("workers", "progress", "mode", "break_lock", "plan_on")
MODES: Final = ("new", "overwrite", "update")
PLANNERS: Final = ("launcher", "runner")
IMPORT_NAMES: Final = ("converter", "pipelines", "reader")
DISTRIBUTION: Final = "shardmill"


class ReportWarning(ShardmillWarning):
    """A data set is complete, but its report could not be written."""


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
        plan_on: `launcher` lists the images and looks for duplicates in this process; `runner` does
            so on Beam's workers, in bounded memory here. None chooses the runner for 100,000 images
            or more in an object store.

    Raises:
        UsageError: the mode or the planner is unknown.
    """

    beam_args: tuple[str, ...] = ()
    workers: int = 0
    progress: bool = False
    mode: str = "new"
    break_lock: bool = False
    plan_on: str | None = None

    def __post_init__(self) -> None:
        check_choice("mode", self.mode, MODES)
        if self.plan_on is not None:
            check_choice("plan on", self.plan_on, PLANNERS)


def make_settings(known: Sequence[str], beam_args: Sequence[str] = (), **more: Any) -> RunSettings:
    """Makes them from the arguments of a public function, which takes those in `known`."""
    if isinstance(beam_args, str):
        raise UsageError(f"beam_args {beam_args!r} is one text: give a list of options")
    for name in more:
        if name not in known:
            raise UsageError(f"argument {name!r} is unknown: there are {', '.join(known)}")
    return RunSettings(beam_args=tuple(beam_args), **more)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One data set as requested; see `pipelines.convert`."""

    images: Location
    out: Location
    options: ConvertOptions
    run: RunSettings

    @property
    def root(self) -> Location:
        """What the paths of the images are relative to."""
        return locate_root(self.images, self.options)

    @property
    def masks(self) -> Location:
        return locate_masks(self.root, self.options)

    @property
    def places(self) -> tuple[Location, Location, Location]:
        """Everything that workers read and write."""
        return self.root, self.masks, self.out

    @property
    def current(self) -> Location:
        """The data set's folder: not `out` if a kill interrupted the move there."""
        return find_dataset(self.out) or self.out

    @property
    def target(self) -> Location:
        """Where the data set is written: beside the one that it replaces, if there is one."""
        return Layout(self.out).stage if self.is_finished else self.out

    @property
    def is_finished(self) -> bool:
        """Whether there is a finished data set, whatever its options."""
        return find_dataset(self.out) is not None

    @property
    def is_ending(self) -> bool:
        """Whether a killed run left a swap or a commit that the next one completes first."""
        if self.out.is_remote and self.out.find_replacement():
            return True
        return Layout(self.out).manifest.is_file() and Layout(self.out).plan.is_file()

    @property
    def needs_lock(self) -> bool:
        """False only for a finished data set in which no killed run left work to complete."""
        if self.run.mode != "new" or not self.is_finished:
            return True
        # So a finished one on a read-only disk can still be confirmed.
        return Layout(self.out).work.exists()

    def has_plan(self, draft: Draft) -> bool:
        """Whether the unfinished conversion of a draft is where this one is to be written."""
        if not Layout(self.target).plan.is_file():
            return False
        with contextlib.suppress(DatasetError):
            return read_plan(self.target).digest == digest_plan(draft, self.options)
        return False

    def check_options(self) -> Manifest:
        """Refuses a finished data set of other options; returns its manifest."""
        manifest = read_manifest(self.current)
        changed = name_changes(manifest.options, manifest.generator, self.options)
        if changed or manifest.updated:
            raise self.refuse_finished(changed or ("which was updated since it was converted",))
        return manifest

    def refuse_finished(self, changed: Sequence[str]) -> UsageError:
        """The error about a finished data set that differs from what is requested."""
        return UsageError(
            f"output {self.out} holds a finished data set ({'; '.join(changed)}): take changed "
            "files in with --update, replace it with --overwrite, or choose another folder"
        )

    def check_update(self, inventory: Inventory) -> None:
        """Refuses images that an update cannot take in."""
        check_scan(inventory, self.options)
        check_kind(read_manifest(self.current), inventory)
        stage = Layout(self.out).stage
        if not is_staged(stage):
            return
        with contextlib.suppress(DatasetError):  # nothing is lost if it is damaged
            if read_plan(stage).base is None:
                raise UsageError(
                    f"{self.out} is about to be replaced: resume that with --overwrite and the "
                    "same options, or give it up with shardmill clean --unfinished, and then update"
                )


def make_requests(
    images: Images, outs: Mapping[Location, ConvertOptions | None], run: RunSettings
) -> list[Request]:
    """Checks each output, with its options if given."""
    check_import_names(*sys.path)
    places = locate_images(images)
    return [_make_request(places, out, options, run) for out, options in outs.items()]


def _make_request(
    places: Sequence[Location], out: Location, options: ConvertOptions | None, run: RunSettings
) -> Request:
    for place in places:
        check_folders(place, out)
    check_place(out)
    if run.mode == "update":
        options = _choose_options(places, out, options)
    images, options = join_images(places, options or ConvertOptions())
    request = Request(images=images, out=out, options=options, run=run)
    if request.options.mask_dir is not None:
        check_folders(request.masks, out)
    if not request.is_finished:
        refuse_inside_dataset(out)
    elif run.mode != "new":
        request.current.check_replaceable()
    if request.needs_lock:
        check_writable(out)
        check_writable(request.target)
    return request


def _choose_options(
    places: Sequence[Location], out: Location, options: ConvertOptions | None
) -> ConvertOptions:
    """Those of the data set to update, which any given ones must equal."""
    manifest = find_manifest(out)
    if manifest is None:
        raise UsageError(
            f"output {out} holds no finished data set that could be updated: leave out --update"
        )
    stated = ConvertOptions.from_json(manifest.options)
    options = join_images(places, options)[1] if options else stated
    if changed := name_changes(manifest.options, manifest.generator, options):
        raise UsageError(
            f"output {out} cannot be updated with other options or versions than it was converted "
            f"with ({'; '.join(changed)}): give the same ones, or replace it with --overwrite"
        )
    return options


@functools.cache
def check_import_names(*path: str) -> None:
    """Refuses an environment where another distribution has files under our import names."""
    # pip installs both without a warning, and the later one overwrites the other: the package
    # `reader`, a feed reader, for example.
    for distribution in importlib.metadata.distributions(path=[*path]):
        # `packages_distributions` parses all metadata and makes a path of each file: 0.3 s of CPU
        # where TensorFlow is installed. This takes 0.03 to 0.07 s, once a process.
        files = "\n" + (distribution.read_text("RECORD") or "")
        packages = (distribution.read_text("top_level.txt") or "").split()
        name = next((x for x in IMPORT_NAMES if f"\n{x}/" in files or x in packages), None)
        if name and (other := distribution.metadata["Name"]) != DISTRIBUTION:
            raise UsageError(
                f"the package {name!r} also belongs to the distribution {other!r}: "
                "install shardmill in an environment of its own"
            )
