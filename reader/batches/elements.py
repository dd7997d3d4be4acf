"""Turns a batch into what you asked for: images, labels in some form, names, columns."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from converter.format.schema import Column
from reader.arrays import Array, Numbers
from reader.batches.batch_reader import Batch
from reader.plan.read_plan import ReadPlan

BLANKS: Final = {bytes: b"", int: 0, float: 0.0}  # of a column where there is no record
_TYPES: Final = {bytes: np.object_, int: np.int64, float: np.float32}
BOX: Final = 4  # top, left, bottom, right


@dataclasses.dataclass(frozen=True, slots=True)
class Ragged:
    """Any number of values for each record."""

    values: Array  # (all values,), or (all boxes, 4)
    splits: Numbers  # (n + 1,): those of record i lie from splits[i] to splits[i + 1]


def format_batch(plan: ReadPlan, batch: Batch) -> Any:
    """Formats a batch as the tuple that `order_parts` describes."""
    return order_parts(
        plan,
        images=batch.images,
        masks=batch.masks,
        label=_format_label(plan, batch),
        weights=batch.valid.astype(np.float32),
        names=batch.names,
        columns={
            name: gather_column(plan, batch, column) for name, column in plan.given.columns.items()
        },
    )


def order_parts(
    plan: ReadPlan,
    *,
    images: Any,
    masks: Any,
    label: Any,
    weights: Any,
    names: Any,
    columns: dict[str, Any],
) -> Any:
    """Orders arrays or tensors as a tuple; the images alone if nothing else is asked for.

    Labels, masks or a pair (masks, labels) follow the images; then, with `pad`, weights float32
    (n,); the paths of the originals, bytes (n,); and a dict of columns.
    """
    element: list[Any] = [images]
    if plan.given.masks:
        element.append((masks, label) if plan.given.with_labels else masks)
    elif label is not None:
        element.append(label)
    if plan.options.remainder == "pad":
        element.append(weights)
    if plan.options.with_filename:
        element.append(names)
    if columns:
        element.append(columns)
    return tuple(element) if len(element) > 1 else images


def gather_column(plan: ReadPlan, batch: Batch, column: Column) -> Array | Ragged:
    """Collects the values of a column of a batch; see `stack_column`."""
    place = plan.given.needed.index(column)
    return stack_column(column, [value[place] if value else () for value in batch.values])


def stack_column(column: Column, values: Sequence[Sequence[Any]]) -> Array | Ragged:
    """Makes one array of the values of records, (n,) or ragged: bytes, int64 or float32."""
    dtype = _TYPES[column.type]
    if column.is_scalar:
        nothing = BLANKS[column.type]
        return np.array([value[0] if value else nothing for value in values], dtype)
    flat = np.array([item for value in values for item in value], dtype)
    splits = np.cumsum([0, *map(len, values)], dtype=np.int64)
    if column.kind == "boxes":
        return Ragged(flat.reshape(-1, BOX), splits // BOX)
    return Ragged(flat, splits)


def split_ragged(ragged: Ragged) -> list[Array]:
    """Lists the values of each record."""
    return np.split(ragged.values, ragged.splits[1:-1])[: len(ragged.splits) - 1]


def _format_label(plan: ReadPlan, batch: Batch) -> Array | None:
    label = plan.given.label
    if label is not None:
        column = gather_column(plan, batch, label)
        if isinstance(column, Ragged):
            return mark_classes(column, plan.given.classes)
        targets: Array = column.astype(np.float32)
        return targets
    if plan.options.label_mode is None or not plan.has_classes:
        return None
    return format_labels(batch.labels, plan.options.label_mode, len(plan.choice.class_names))


def format_labels(labels: npt.NDArray[np.int32], label_mode: str, classes: int) -> Array:
    """Turns int32 (n,) into float32 (n, classes) for `categorical`, or (n, 1) for `binary`."""
    if label_mode == "categorical":
        one_hot: Array = (labels[:, None] == np.arange(classes)).astype(np.float32)
        return one_hot
    if label_mode == "binary":
        return labels[:, None].astype(np.float32)
    return labels


def mark_classes(numbers: Ragged, classes: int) -> Array:
    """Returns float32 (n, classes), with 1 for each class that a record has."""
    marks = np.zeros((len(numbers.splits) - 1, classes), np.float32)
    marks[np.repeat(np.arange(len(marks)), np.diff(numbers.splits)), numbers.values] = 1
    return marks
