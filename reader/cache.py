"""All images of a split, decoded once and kept in memory."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from converter.sizes import format_bytes
from reader.batches import BatchReader, Examples
from reader.buffers import Array
from reader.damage import typed_errors
from reader.orders import SequentialOrder
from reader.plans import ReadPlan
from reader.positions import Position
from reader.steps import Steps
from reader.values import NO_VALUES

_log = logging.getLogger("shardmill.reader")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageCache:
    """Decoded images, in the order of the selected records.

    Attributes:
        reader: says which of them are a step.
        images: (records, height, width, channels).
        labels: int32 (records,).
        valid: bool (records,); False for damaged records that were skipped.
        names: bytes (records,).
    """

    reader: BatchReader
    images: Array
    labels: npt.NDArray[np.int32]
    valid: npt.NDArray[np.bool_]
    names: npt.NDArray[np.object_]

    def read_images(self, epoch: int, step: int, rows: Array) -> Examples:
        """Copies the images of a step, as `BatchReader.read_images` reads them."""
        slots, numbers = self.reader.find_ordered(epoch, [step])
        examples = self.reader.make_examples(len(rows))
        rows[slots] = self.images[numbers]
        examples.labels[slots] = self.labels[numbers]
        examples.valid[slots] = self.valid[numbers]
        examples.names[slots] = self.names[numbers]
        return examples


def fill_cache(plan: ReadPlan, make_dataset: Callable[[ReadPlan], Any]) -> ImageCache:
    """Reads and decodes all records of a plan, whatever the host; logs what they take.

    Args:
        plan: of a reader that caches.
        make_dataset: gives (images, labels, mask, names) of a plan's batches.
    """
    records = plan.reader.selection.count
    steps = Steps(records=records, batch_size=plan.reader.steps.batch_size, remainder="pad")
    options = dataclasses.replace(
        plan.options,
        cache=False,
        dtype=plan.decoded_dtype,
        data_format="channels_last",
        label_mode="int",
        remainder="pad",
        with_filename=True,
    )
    whole = dataclasses.replace(
        plan,
        options=options,
        order="sequential",
        reader=dataclasses.replace(plan.reader, order=SequentialOrder(), steps=steps),
        position=Position(),
        given=NO_VALUES,
    )
    with typed_errors():
        images, labels, valid, names = _gather(make_dataset(whole), records)
    _log.info("cached %s images, %s", f"{records:,}", format_bytes(images.nbytes))
    return ImageCache(reader=plan.reader, images=images, labels=labels, valid=valid, names=names)


def _gather(
    batches: Any, records: int
) -> tuple[Array, npt.NDArray[np.int32], npt.NDArray[np.bool_], npt.NDArray[np.object_]]:
    kept: list[Array] = [
        np.empty((records, *spec.shape[1:]), spec.dtype.as_numpy_dtype)
        for spec in batches.element_spec
    ]
    for number, batch in enumerate(batches):
        for array, column in zip(kept, batch, strict=True):
            place = array[number * len(column) : (number + 1) * len(column)]
            place[:] = column[: len(place)]
    images, labels, mask, names = kept
    return images, labels, mask > 0, names
