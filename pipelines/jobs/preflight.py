"""What has to be true before a conversion may touch anything."""

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
from converter.storage.locate import lies_in
from converter.storage.location import Location

IMPORT_NAMES: Final = ("converter", "pipelines", "reader")
DISTRIBUTION: Final = "shardmill"

_SIZE: Final = re.compile(r"\d+x\d+")


class SpaceWarning(UserWarning):
    """The disk is likely to be full before a conversion ends."""


def check_folders(images: Location, out: Location) -> None:
    """Refuses an output that would swallow its own input or something that is not ours.

    Raises:
        UsageError: says which, and what to do instead.
    """
    source, target = images.resolve(), out.resolve()
    if lies_in(target, source):
        raise UsageError(
            f"output {out} lies inside the images {images}: the next run would take it for "
            "images, choose a folder elsewhere"
        )
    if lies_in(source, target):
        raise UsageError(
            f"the images {images} lie inside the output {out}: choose a new folder for the output"
        )
    if out.is_file() or (not out.is_remote and out.exists() and not out.is_dir()):
        raise UsageError(f"output {out} is a file: choose a folder")
    found = out.list_names()
    if found and not _is_ours(out, found):
        if _SIZE.fullmatch(found[0]) and Layout(out / found[0]).manifest.is_file():
            raise UsageError(
                f"output {out} holds data sets of several sizes, such as {found[0]}: give each as "
                "an image size, or choose another folder"
            )
        raise UsageError(
            f"output {out} is not empty and not ours (it holds {found[0]!r}): "
            "choose a new or an empty folder"
        )


def _is_ours(out: Location, found: Sequence[str]) -> bool:
    """Whether a folder holds a data set, finished or not: others call a file `manifest.json`, too.

    Args:
        out: the folder.
        found: what lies in it.
    """
    if WORK_FOLDER in found:
        return True
    if MANIFEST not in found:
        return False
    if any(map(is_shard_file, found)):  # also if the manifest is damaged
        return True
    try:
        read_manifest(out)
    except DatasetError:
        return False
    return True


def check_sizes(out: Location, sizes: Sequence[ConvertOptions]) -> None:
    """Refuses sizes that make no sense together.

    Args:
        out: the folder that is to hold a data set of each size.
        sizes: the options of each.

    Raises:
        UsageError: says which.
    """
    if not sizes:
        raise UsageError("there is no image size to convert to: give one at least")
    names = [name_size(*options.image_size) for options in sizes]
    if len(set(names)) < len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"image size {double} stands twice")
    if sizes[0].resize == "none":
        raise UsageError("resize none ignores the image size: leave all of them out")
    first, *others = (options.to_json() | options.policies_to_json() for options in sizes)
    for name, other in zip(names[1:], others, strict=True):
        for option in first.keys() - {"image_size"}:
            if other[option] != first[option]:
                raise UsageError(
                    f"sizes that are converted together differ in nothing else, and {option} is "
                    f"{first[option]} for {names[0]}, {other[option]} for {name}: convert them "
                    "one by one"
                )
    if Layout(out).manifest.is_file() or Layout(out).plan.is_file():
        raise UsageError(
            f"output {out} holds a data set itself, and several sizes need a folder that holds one "
            "for each: choose another folder"
        )


def check_room(out: Location, needed: float) -> None:
    """Warns if an output is likely not to fit; no error, because what is needed is an estimate.

    Args:
        out: the output.
        needed: how many bytes more it takes.
    """
    if needed > (room := out.measure_room()):
        warnings.warn(
            f"about {format_bytes(needed)} more are to be written to {out}, where "
            f"{format_bytes(int(room))} are free: make room; on a full disk the conversion ends, "
            "finished shards are kept, and the same command goes on",
            SpaceWarning,
            stacklevel=2,
        )


def check_import_names() -> None:
    """Refuses an environment where another distribution has files under our import names.

    pip installs both without a word, and whichever came last has overwritten the other; the
    package `reader`, a feed reader, is one such.

    Raises:
        UsageError: names the other distribution.
    """
    for distribution in importlib.metadata.distributions():
        name = _find_import_name(distribution)
        if name and (other := distribution.metadata["Name"]) != DISTRIBUTION:
            raise UsageError(
                f"the package {name!r} also belongs to the distribution {other!r}: "
                f"install shardmill in an environment of its own"
            )


def _find_import_name(distribution: importlib.metadata.Distribution) -> str | None:
    """Which of our import names a distribution has files under.

    `packages_distributions` parses all metadata and makes a path of each file: 0.3 s of CPU where
    TensorFlow is installed, and this 0.07.
    """
    files = "\n" + (distribution.read_text("RECORD") or "")
    packages = (distribution.read_text("top_level.txt") or "").split()
    return next((x for x in IMPORT_NAMES if f"\n{x}/" in files or x in packages), None)
