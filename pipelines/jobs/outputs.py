"""Where a data set may be written, and where its sizes lie; nothing here takes a lock."""

import errno
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from converter.errors import DatasetError, OutputError, ShardmillWarning, UsageError
from converter.format.manifest import read_manifest
from converter.names import fit_message
from converter.options import ConvertOptions
from converter.sizes import format_bytes
from converter.sources.patterns import is_pattern, overlaps
from converter.storage.files import (
    MANIFEST,
    WORK_FOLDER,
    Layout,
    find_sizes,
    is_shard_file,
    name_size,
)
from converter.storage.location import Location

# They show the state of the kernel. Their permissions let root write, but they take no new folder.
_KERNEL_MOUNTS: Final = (Path("/proc"), Path("/sys"))


class SpaceWarning(ShardmillWarning):
    """The disk looks too small for a conversion."""


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
    refuse_file(out)
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


def refuse_file(out: Location) -> None:
    """Raises a UsageError for what is there and is no folder."""
    # The second question is for devices, sockets and pipes.
    if out.is_file() or (not out.is_remote and out.exists() and not out.is_dir()):
        raise UsageError(f"output {out} is a file: choose a folder")


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
        raise UsageError(f"image size {double[0]} is given twice: leave one out")
    if sizes[0].resize == "none":
        raise UsageError(
            "resize none leaves images as large as they are: leave out the image sizes"
        )
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


def check_room(out: Location, needed: float) -> None:
    """Warns if the disk of an output looks too small for that many more bytes."""
    # No error, because `needed` is an estimate.
    if needed > (room := out.measure_room()):
        message = (
            f"about {format_bytes(needed)} more will be written to {out}, where "
            f"{format_bytes(int(room))} are free: make room; on a full disk the conversion ends, "
            "finished shards are kept, and the same command resumes it"
        )
        warnings.warn(fit_message(message), SpaceWarning, stacklevel=2)
