"""Checks of folders, sizes, disk space and environment before a conversion touches anything."""

from __future__ import annotations

import importlib.metadata
import re
import warnings
from collections.abc import Sequence
from typing import Final

from converter.errors import DatasetError, UsageError
from converter.format.manifest import read_manifest
from converter.options import ConvertOptions
from converter.sizes import format_bytes
from converter.storage.layout import MANIFEST, WORK_FOLDER, Layout, is_shard_file, name_size
from converter.storage.location import Location

IMPORT_NAMES: Final = ("converter", "pipelines", "reader")
DISTRIBUTION: Final = "shardmill"

_SIZE: Final = re.compile(r"\d+x\d+")


class SpaceWarning(UserWarning):
    """The disk looks too small for a conversion."""


def check_folders(images: Location, out: Location) -> None:
    """Checks that an output holds neither its own input nor anything but a data set.

    Raises:
        UsageError: it does, or it lies in the images or is a file.
    """
    source, target = images.resolve(), out.resolve()
    if source.contains(target):
        raise UsageError(
            f"output {out} lies inside the images {images}: the next run would take it for "
            "images, choose a folder elsewhere"
        )
    if target.contains(source):
        raise UsageError(
            f"the images {images} lie inside the output {out}: choose a new folder for the output"
        )
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


def _is_ours(out: Location, found: Sequence[str]) -> bool:
    """Whether a folder with these names in it holds a data set, finished or not."""
    if WORK_FOLDER in found:
        return True
    if MANIFEST not in found:
        return False
    if any(map(is_shard_file, found)):  # also if the manifest is damaged
        return True
    # Other programs name a file manifest.json, too.
    try:
        read_manifest(out)
    except DatasetError:
        return False
    return True


def find_sizes(out: Location) -> list[str]:
    """Returns the names of the folders in `out` that hold a data set of one size, in order."""
    names = (name for name in out.list_names() if _SIZE.fullmatch(name))
    return [name for name in names if Layout(out / name).manifest.is_file()]


def locate_sizes(out: Location, sizes: Sequence[ConvertOptions]) -> dict[str, Location]:
    """Returns the folder of each size in `out`, by its name, such as `224x320`.

    Raises:
        UsageError: the sizes make no sense together.
    """
    if not sizes:
        raise UsageError("there is no image size to convert to: give at least one")
    names = [name_size(*options.image_size) for options in sizes]
    if len(set(names)) < len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"image size {double} is given twice")
    if sizes[0].resize == "none":
        raise UsageError("resize none ignores the image size: leave all of them out")
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
    return {name: out / name for name in names}


def check_room(out: Location, needed: float) -> None:
    """Warns if the disk of an output looks too small for that many more bytes.

    It is no error, because `needed` is an estimate.
    """
    if needed > (room := out.measure_room()):
        warnings.warn(
            f"about {format_bytes(needed)} more will be written to {out}, where "
            f"{format_bytes(int(room))} are free: make room; on a full disk the conversion ends, "
            "finished shards are kept, and the same command resumes it",
            SpaceWarning,
            stacklevel=2,
        )


def check_import_names() -> None:
    """Checks that no other distribution has files under our import names.

    Raises:
        UsageError: one has.
    """
    # pip installs both without a word, and the later one overwrites the other: the package
    # `reader`, a feed reader, for example.
    for distribution in importlib.metadata.distributions():
        name = _find_import_name(distribution)
        if name and (other := distribution.metadata["Name"]) != DISTRIBUTION:
            raise UsageError(
                f"the package {name!r} also belongs to the distribution {other!r}: "
                "install shardmill in an environment of its own"
            )


def _find_import_name(distribution: importlib.metadata.Distribution) -> str | None:
    """Returns the import name of ours that a distribution has files under, if any."""
    # `packages_distributions` parses all metadata and makes a path of each file: 0.3 s of CPU where
    # TensorFlow is installed. This takes 0.07 s.
    files = "\n" + (distribution.read_text("RECORD") or "")
    packages = (distribution.read_text("top_level.txt") or "").split()
    return next((x for x in IMPORT_NAMES if f"\n{x}/" in files or x in packages), None)
