"""A conversion as requested, and the checks of it that open no image and take no lock."""

import contextlib
import dataclasses
import errno
import importlib.metadata
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from converter.commits.replacements import find_dataset, find_manifest, is_staged
from converter.errors import DatasetError, OutputError, UsageError
from converter.format.manifest import Manifest, read_manifest
from converter.inventory import Inventory
from converter.option_fields import check_choice
from converter.options import ConvertOptions
from converter.planning.plan import Draft, digest_plan, name_changes, read_plan
from converter.sources.inputs import is_pattern, locate_masks, locate_root, overlaps
from converter.sources.joined import Images, join_images, locate_images
from converter.storage.files import (
    MANIFEST,
    WORK_FOLDER,
    Layout,
    find_sizes,
    is_shard_file,
    name_size,
)
from converter.storage.location import Location
from converter.upkeep.updates import check_kind
from converter.writing.records import check_scan

SETTINGS: Final = ("workers", "progress", "mode", "break_lock")
MODES: Final = ("new", "overwrite", "update")
IMPORT_NAMES: Final = ("converter", "pipelines", "reader")
DISTRIBUTION: Final = "shardmill"

# They show the state of the kernel. Their permissions let root write, but they take no new folder.
_KERNEL_MOUNTS: Final = (Path("/proc"), Path("/sys"))


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
    check_import_names()
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


def check_folders(images: Location, out: Location) -> None:
    """Checks that an output is free or holds a data set, and does not overlap its images."""
    source, target = images.resolve(), out.resolve()  # one may be a link to the other
    if is_pattern(images) and overlaps(source, target):
        raise UsageError(
            f"the images {images} may stand for the output {out}, or for files in it: choose a "
            "folder elsewhere"
        )
    if source.contains(target):
        raise UsageError(
            f"output {out} lies inside the images {images}: the next run would take it for "
            "images, choose a folder elsewhere"
        )
    if target.contains(source):
        raise UsageError(
            f"the images {images} lie inside the output {out}: choose a new folder for the output"
        )
    # The second question is for devices, sockets and pipes.
    if out.is_file() or (not out.is_remote and out.exists() and not out.is_dir()):
        raise UsageError(f"output {out} is a file: choose a folder")
    found = out.list_names()
    if found and not _is_ours(out, found):
        if sizes := find_sizes(out):
            raise UsageError(
                f"output {out} holds data sets of several sizes, such as {sizes[0]}: give each as "
                "an image size, or choose another folder"
            )
        raise UsageError(
            f"output {out} is not empty and not ours (it holds {found[0]!r}): "
            "choose a new or an empty folder"
        )


def check_place(out: Location) -> None:
    """Refuses a folder that cannot be made, as far as that shows without a try."""
    if out.is_remote:
        return
    folder = _find_existing(out)
    if not folder.is_dir():
        raise OutputError(f"{folder} is in the way: it has to be a folder")
    # `retired` is the longest name beside it that a conversion may need.
    excess = len(os.fsencode(Layout(out).retired.name)) - os.pathconf(folder, "PC_NAME_MAX")
    if excess > 0:
        raise UsageError(
            f"the name of output {out} is too long by {excess} bytes, because a folder for its "
            "replacement is named after it: choose a shorter one"
        )
    for mount in _KERNEL_MOUNTS:
        if mount.is_mount() and folder.stat().st_dev == mount.stat().st_dev:
            raise UsageError(f"output {out} cannot be made in {mount}: choose another folder")


def check_writable(out: Location) -> None:
    """Refuses a folder that this process may not make or write."""
    if out.is_remote:
        return
    folder = _find_existing(out)
    # The effective user is who writes, but not every system can be asked about it.
    effective = os.access in os.supports_effective_ids
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=effective):
        read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
        reason = os.strerror(errno.EROFS if read_only else errno.EACCES)
        raise OutputError(f"{out} cannot be written: {reason}")


def _find_existing(out: Location) -> Path:
    """What is there of the way to a folder on a disk: itself, or what it will be made in."""
    place = Path(str(out))
    return next(path for path in (place, *place.parents) if os.path.lexists(path))


def refuse_inside_dataset(out: Location) -> None:
    """Raises a UsageError for a folder that lies in a data set."""
    # What is in a data set's folder and not of it counts as damage.
    place = out
    while not out.is_remote and place != place.parent:
        place = place.parent
        if Layout(place).manifest.is_file() and _is_ours(place, place.list_names()):
            raise UsageError(
                f"output {out} lies inside the data set {place}: choose another folder"
            )


def _is_ours(out: Location, found: Sequence[str]) -> bool:
    if WORK_FOLDER in found:
        return True
    if MANIFEST not in found:
        return False
    if any(map(is_shard_file, found)):  # also if the manifest is damaged
        return True
    try:  # other programs name a file manifest.json, too
        read_manifest(out)
    except DatasetError:
        return False
    return True


def locate_sizes(out: Location, sizes: Sequence[ConvertOptions]) -> dict[Location, ConvertOptions]:
    """Gives each size its folder in `out`, such as `224x320`; refuses what differs otherwise."""
    if not sizes:
        raise UsageError("there is no image size to convert to: give at least one")
    names = [name_size(*options.image_size) for options in sizes]
    if double := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"image size {double[0]} is given twice")
    if sizes[0].resize == "none":
        raise UsageError("resize none ignores the image size: leave all of them out")
    # They share one scan and one reading, so all but the size must be the same.
    first, *others = (options.to_json() | options.policies_to_json() for options in sizes)
    for name, other in zip(names[1:], others, strict=True):
        for option in first.keys() - {"image_size"}:
            if other[option] != first[option]:
                raise UsageError(
                    "sizes that are converted together must not differ in other options, and "
                    f"{option} is {first[option]} for {names[0]}, {other[option]} for {name}: "
                    "convert them one by one"
                )
    if Layout(out).manifest.is_file() or Layout(out).plan.is_file():
        raise UsageError(
            f"output {out} holds a data set itself, and several sizes need a folder that holds one "
            "for each: choose another folder"
        )
    return {out / name: options for name, options in zip(names, sizes, strict=True)}


def check_import_names() -> None:
    """Refuses an environment where another distribution has files under our import names."""
    # pip installs both without a warning, and the later one overwrites the other: the package
    # `reader`, a feed reader, for example.
    for distribution in importlib.metadata.distributions():
        # `packages_distributions` parses all metadata and makes a path of each file: 0.3 s of CPU
        # where TensorFlow is installed. This takes 0.07 s.
        files = "\n" + (distribution.read_text("RECORD") or "")
        packages = (distribution.read_text("top_level.txt") or "").split()
        name = next((x for x in IMPORT_NAMES if f"\n{x}/" in files or x in packages), None)
        if name and (other := distribution.metadata["Name"]) != DISTRIBUTION:
            raise UsageError(
                f"the package {name!r} also belongs to the distribution {other!r}: "
                "install shardmill in an environment of its own"
            )
