"""Describes a data set in one line, for a shell or a notebook."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from converter.names import show_name
from converter.sizes import format_count

if TYPE_CHECKING:
    from converter.format.manifest import ImageInfo, Manifest, SplitInfo

_MAX_WORD: Final = 24
_MAX_LISTED: Final = 4


def describe_manifest(manifest: Manifest) -> str:
    """The splits, classes, columns and images of a data set, shortened where they are many."""
    parts = [_describe_splits(manifest.splits)]
    if manifest.classes or manifest.labelled:
        parts.append(format_count(len(manifest.classes), "class"))
    if manifest.columns:
        parts.append(format_count(len(manifest.columns), "column"))
    return "; ".join(filter(None, [*parts, _describe_image(manifest.image)]))


def _describe_splits(splits: Mapping[str, SplitInfo]) -> str:
    counts = (
        # Only the first count is followed by its noun.
        f"{split.records:,}" if number else format_count(split.records, "record")
        for number, split in enumerate(splits.values())
    )
    names = (show_name(name, _MAX_WORD) for name in splits)
    return _list_some(map(" ".join, zip(names, counts, strict=True)), len(splits))


def _describe_image(image: ImageInfo) -> str:
    formats = _list_some((show_name(name, _MAX_WORD) for name in image.formats), len(image.formats))
    if image.height is not None and image.width is not None:
        return f"{image.height}x{image.width} {formats}".strip()
    if image.max_height and image.max_width:
        return f"up to {image.max_height}x{image.max_width} {formats}".strip()
    return formats


def _list_some(words: Iterable[str], count: int) -> str:
    some = ", ".join(itertools.islice(words, _MAX_LISTED))
    return some if count <= _MAX_LISTED else f"{some} and {count - _MAX_LISTED:,} more"
