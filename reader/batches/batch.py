"""A batch: its arrays, the memory that they are lent from, and the form in which you get them."""

from __future__ import annotations

import collections
import dataclasses
import math
import weakref
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from converter.errors import DatasetError
from converter.format.schema import Column
from reader.arrays import Array, Flags, Numbers, allocate
from reader.plan.read_plan import ReadPlan

BLANKS: Final = {bytes: b"", int: 0, float: 0.0}  # of a column where there is no record
BOX: Final = 4  # top, left, bottom, right
_TYPES: Final = {bytes: np.object_, int: np.int64, float: np.float32}


class _Loan:
    # Alive as long as any view of a lent array. NumPy makes a view of a view refer to the first
    # array, so the arrays themselves cannot tell; but at the end of each such chain is an object
    # that is not an array.

    def __init__(self, buffer: Array) -> None:
        self.__array_interface__ = buffer.__array_interface__


class BufferPool:
    """Lends arrays of one shape and dtype; keeps up to `keep` of those that came back."""

    # A batch of 64 images is 12 MB. TensorFlow takes that from the C library for every batch and
    # returns it: page faults took a sixth of the reading time, and fragments up to 200 MB. Instead
    # it takes over an array of ours without a copy, if its memory is aligned to 64 bytes, as pages
    # are: py_func.cc copies anything else (`EIGEN_MAX_ALIGN_BYTES`).

    def __init__(self, shape: tuple[int, ...], dtype: str, keep: int) -> None:
        self._shape = shape
        self._dtype = np.dtype(dtype)
        self._free: collections.deque[Array] = collections.deque(maxlen=keep)

    def take(self) -> Array:
        """Lends an array of any content, until its last view is gone."""
        try:
            buffer = self._free.pop()
        except IndexError:
            size = math.prod(self._shape) * self._dtype.itemsize
            buffer = allocate(size).view(self._dtype).reshape(self._shape)
        loan = _Loan(buffer)
        weakref.finalize(loan, self._free.append, buffer).atexit = False
        return np.asarray(loan)


@dataclasses.dataclass(kw_only=True, slots=True)
class Batch:
    """The records of some steps; where `valid` is False, nothing else means anything."""

    images: Array  # (n, height, width, channels) or (n, channels, height, width)
    valid: Flags  # (n,)
    labels: npt.NDArray[np.int32]  # (n,)
    names: npt.NDArray[np.object_]  # (n,): paths of the originals, bytes; empty if not asked for
    masks: Array | None  # uint8, as `images` with one channel; None if not asked for
    values: npt.NDArray[np.object_]  # (n,): `Values` of each record; None if not asked for
    flips: Flags  # (n,): which images are mirrored

    @classmethod
    def blank(cls, images: Array, masks: Array | None) -> Batch:
        """Makes a batch of these images, none of them valid yet."""
        count = len(images)
        return cls(
            images=images,
            valid=np.zeros(count, np.bool_),
            labels=np.zeros(count, np.int32),
            names=np.full(count, b"", np.object_),
            masks=masks,
            values=np.full(count, None, np.object_),
            flips=np.zeros(count, np.bool_),
        )

    def finish(self, plan: ReadPlan) -> Batch:
        """Blanks or drops what is not valid; raises a `DatasetError` if nothing is left."""
        if plan.options.remainder == "pad":
            return self.pad()
        if plan.options.batch_size is not None and len(self.valid) and not self.valid.any():
            raise DatasetError("not one record of a batch is whole: run shardmill verify")
        return self._compact()

    def pad(self) -> Batch:
        blank = ~self.valid
        if blank.any():
            self.images[blank], self.labels[blank] = 0, 0
            self.names[blank], self.values[blank] = b"", None
            if self.masks is not None:
                self.masks[blank] = 0
        return self

    def _compact(self) -> Batch:
        rows = np.flatnonzero(self.valid)
        count = len(rows)
        if count == len(self.valid):
            return self
        for field in dataclasses.fields(self):
            if (column := getattr(self, field.name)) is not None:
                # In the same memory: another batch would not count in `max_ram`.
                if count and rows[-1] >= count:
                    column[:count] = column[rows]
                setattr(self, field.name, column[:count])
        return self


@dataclasses.dataclass(frozen=True, slots=True)
class Ragged:
    """Any number of values for each record."""

    values: Array  # (all values,), or (all boxes, 4)
    splits: Numbers  # (n + 1,): those of record i lie from splits[i] to splits[i + 1]

    def list_rows(self) -> list[Array]:
        # Of no records, `np.split` makes one part.
        return np.split(self.values, self.splits[1:-1])[: len(self.splits) - 1]


def format_batch(plan: ReadPlan, batch: Batch) -> Any:
    """Formats a batch as the tuple that `order_parts` describes."""
    options, columns = plan.options, plan.given.columns
    return order_parts(
        plan,
        batch.images,
        batch.masks,
        _format_label(plan, batch),
        batch.valid.astype(np.float32) if options.remainder == "pad" else None,
        batch.names if options.with_filename else None,
        {name: gather_column(plan, batch, column) for name, column in columns.items()} or None,
    )


def order_parts(plan: ReadPlan, images: Any, masks: Any, label: Any, *rest: Any) -> Any:
    """Orders arrays or tensors as a tuple; the images alone if nothing else is asked for.

    Labels, masks or a pair (masks, labels) follow the images. Of the rest, weights float32 (n,),
    paths of the originals, bytes (n,), and a dict of columns, what is None is left out.
    """
    target = label
    if plan.given.masks:
        target = (masks, label) if plan.given.with_labels else masks
    element = [part for part in (images, target, *rest) if part is not None]
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


def _format_label(plan: ReadPlan, batch: Batch) -> Array | None:
    if (label := plan.given.label) is not None:
        column = gather_column(plan, batch, label)
        if isinstance(column, Ragged):
            return mark_classes(column, plan.given.classes)
        return np.asarray(column, np.float32)
    if plan.options.label_mode is None or not plan.has_classes:
        return None
    return format_labels(batch.labels, plan.options.label_mode, len(plan.choice.class_names))


def format_labels(labels: npt.NDArray[np.int32], label_mode: str, classes: int) -> Array:
    """Turns int32 (n,) into float32 (n, classes) for `categorical`, or (n, 1) for `binary`."""
    if label_mode == "categorical":
        return np.asarray(labels[:, None] == np.arange(classes), np.float32)
    if label_mode == "binary":
        return labels[:, None].astype(np.float32)
    return labels


def mark_classes(numbers: Ragged, classes: int) -> Array:
    """Returns float32 (n, classes), with 1 for each class that a record has."""
    marks = np.zeros((len(numbers.splits) - 1, classes), np.float32)
    marks[np.repeat(np.arange(len(marks)), np.diff(numbers.splits)), numbers.values] = 1
    return marks
