"""What is given of records besides their images: labels of any kind, and columns of a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

from converter.errors import UsageError
from converter.format import schema
from converter.format.manifest import Manifest
from converter.format.schema import Column, find_column
from reader.plan.read_options import ReadOptions

ALIASES: Final = {
    "labels": schema.LABELS,
    "target": schema.TARGET,
    "caption": schema.CAPTION,
    "boxes": schema.BOXES,
    "box_labels": schema.BOX_LABELS,
}
"""Short names of the columns with a meaning; a column of one's own of that name goes first."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """What of a data set's columns is asked for.

    Attributes:
        labelled: whether records hold one label each.
        label: the column that is given as label, if records hold none.
        columns: those that are given as such, by the name that they were asked for by.
        masks: whether masks are given.
        with_labels: whether labels are given beside them.
        mask_padding: the number in masks where an image is padded.
    """

    labelled: bool = True
    label: Column | None = None
    columns: Mapping[str, Column] = dataclasses.field(default_factory=dict)
    masks: bool = False
    with_labels: bool = False
    mask_padding: int = 0

    @property
    def needed(self) -> tuple[Column, ...]:
        """The columns that have to be read."""
        label = () if self.label is None else (self.label,)
        return tuple(dict.fromkeys((*label, *self.columns.values())))


MOVES: Final = (
    "random_crop", "random_flip", "crop_to_aspect_ratio", "pad_to_aspect_ratio",
)  # fmt: skip
"""Options that change what lies where in an image; stretching does not, in fractions of it."""

MAX_NUMBER: Final = 255
"""In a mask."""


def choose_given(manifest: Manifest, options: ReadOptions) -> Given:
    """Decides what is given as label, and finds the columns that are asked for.

    Raises:
        UsageError: there is no such column, or no such label.
    """
    columns = {name: _find(manifest, name) for name in options.columns}
    _check_moves(columns, options)
    masks = _choose_masks(manifest, options)
    padding = manifest.options.get("mask_padding", 0)
    label = None
    if not manifest.labelled and options.labels is None:
        label = find_column(manifest.columns, schema.LABELS)
        label = label or find_column(manifest.columns, schema.TARGET)
        _check_mode(label, options)
    return Given(
        labelled=manifest.labelled,
        label=None if options.label_mode is None else label,
        columns=columns,
        masks=masks,
        with_labels=options.masks == "with_labels",
        mask_padding=padding if type(padding) is int and 0 <= padding <= MAX_NUMBER else 0,
    )


def _choose_masks(manifest: Manifest, options: ReadOptions) -> bool:
    there = find_column(manifest.columns, schema.MASK) is not None
    if options.masks is None:
        return there and options.label_mode == "int" and options.labels is None
    if options.masks and not there:
        raise UsageError("masks are asked for, and this data set was converted without any")
    return bool(options.masks)


def _check_moves(columns: Mapping[str, Column], options: ReadOptions) -> None:
    """Refuses to give boxes that would not lie where the image shows what is in them."""
    moves = [name for name in MOVES if getattr(options, name)]
    boxes = [name for name, column in columns.items() if column.kind == "boxes"]
    if moves and boxes:
        raise UsageError(
            f"column {boxes[0]!r} holds boxes, which {moves[0]} would not move: leave one of the "
            "two out"
        )


def _find(manifest: Manifest, name: str) -> Column:
    column = find_column(manifest.columns, name)
    column = column or find_column(manifest.columns, ALIASES.get(name, name))
    if column is None:
        there = ", ".join(column.name for column in manifest.columns)
        raise UsageError(f"column {name!r} is none of the data set: there are {there or 'none'}")
    return column


def _check_mode(label: Column | None, options: ReadOptions) -> None:
    what = "no labels" if label is None else f"{label.name} for labels"
    modes = ("int", "categorical", None) if label and label.kind == "labels" else ("int", None)
    if options.label_mode not in modes:
        raise UsageError(
            f"label_mode {options.label_mode!r} needs one class for each image, this data set has "
            f"{what}: leave label_mode out"
        )
    if options.class_names is not None:
        raise UsageError(f"class_names chooses records by their label, this data set has {what}")
