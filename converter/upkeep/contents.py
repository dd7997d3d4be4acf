"""Checks one record against the manifest: its features, its label, its image and its mask."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

from converter.errors import ImageError
from converter.format import examples
from converter.format.manifest import ImageInfo, Manifest
from converter.format.schema import MASK, check_values
from converter.images.conversion import StoredImage, check_image
from converter.inventory import NO_LABEL
from converter.names import from_bytes, to_bytes
from converter.upkeep.provenance import Source

_BYTES: Final = (
    examples.COLORSPACE, examples.ENCODED, examples.FILENAME, examples.FORMAT, examples.SHA256,
    examples.SOURCE_ID, examples.TEXT,
)  # fmt: skip
_NUMBERS: Final = (examples.CHANNELS, examples.HEIGHT, examples.LABEL, examples.WIDTH)


def check_content(payload: bytes, manifest: Manifest, *, decode: bool) -> Source:
    """Checks the payload of a record; without `decode`, only the header of its image.

    Raises:
        ValueError: says what does not match.
    """
    features = examples.decode_example(payload)
    found = _read_singles(features, labelled=manifest.labelled)
    check_values(manifest.columns, features, len(manifest.classes))
    label = _check_label(found, manifest.classes) if manifest.labelled else NO_LABEL
    image = StoredImage(
        data=found[examples.ENCODED],
        format=found[examples.FORMAT].decode("ascii", "replace"),
        height=found[examples.HEIGHT],
        width=found[examples.WIDTH],
        channels=found[examples.CHANNELS],
    )
    _check_size(image, manifest.image)
    _check_decodes("image", image, decode=decode)
    if any(column.name == MASK for column in manifest.columns):
        _check_mask(features, image, decode=decode)
    return Source(
        path=from_bytes(found[examples.SOURCE_ID]),
        sha256=found[examples.SHA256].decode("ascii", "replace"),
        label=label,
        format=image.format,
        height=image.height,
        width=image.width,
    )


def _read_singles(features: Mapping[str, Sequence[Any]], *, labelled: bool) -> Mapping[str, Any]:
    """The first value of each feature; the fixed ones must have exactly one, of their type."""
    unexpected = () if labelled else (examples.LABEL, examples.TEXT)
    for names, kind in ((_BYTES, bytes), (_NUMBERS, int)):
        for name in names:
            if name not in unexpected:
                examples.read_value(features, name, kind)
    return {name: values[0] for name, values in features.items() if values}


def _check_label(found: Mapping[str, Any], classes: Sequence[str]) -> int:
    label: int = found[examples.LABEL]
    if not 0 <= label < len(classes):
        raise ValueError(f"label {label} is out of range: there are {len(classes)} classes")
    if found[examples.TEXT] != to_bytes(classes[label]):
        raise ValueError(f"label {label} does not go with class {found[examples.TEXT][:100]!r}")
    return label


def _check_size(image: StoredImage, expected: ImageInfo) -> None:
    size = (image.height, image.width, image.channels)
    height, width = expected.height or expected.max_height, expected.width or expected.max_width
    limits, fixed = (height, width, expected.channels), (expected.height, expected.width, True)
    for found, limit, exact in zip(size, limits, fixed, strict=True):
        if found < 1 or found > limit or (exact and found != limit):
            raise ValueError(
                f"image of {'x'.join(map(str, size))}, where the manifest states "
                f"{'' if all(fixed) else 'up to '}{'x'.join(map(str, limits))}"
            )


def _check_mask(features: Mapping[str, Sequence[Any]], image: StoredImage, *, decode: bool) -> None:
    if features.get(examples.MASK_FORMAT) != [b"png"] or len(features[MASK]) != 1:
        raise ValueError(f"{examples.MASK_FORMAT} is not png")
    examples.read_value(features, examples.MASK_SHA256, bytes)
    mask = dataclasses.replace(image, data=features[MASK][0], format="png", channels=1)
    _check_decodes("mask", mask, decode=decode)


def _check_decodes(what: str, image: StoredImage, *, decode: bool) -> None:
    try:
        check_image(image, decode=decode)
    except ImageError as error:
        raise ValueError(f"{what} does not decode: {error.detail}") from error
