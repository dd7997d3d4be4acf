"""All images of a split, and their masks, decoded once and kept in memory."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from converter.sizes import format_bytes
from reader.arrays import Array
from reader.batches.batch_reader import BatchReader, Examples
from reader.plan.columns import NO_VALUES
from reader.plan.read_plan import ReadPlan
from reader.records.damage import typed_errors
from reader.sampling.orders import SequentialOrder
from reader.sampling.position import Position
from reader.sampling.steps import Steps

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
        masks: uint8 (records, height, width, 1), or None if they are not given.
    """

    reader: BatchReader
    images: Array
    labels: npt.NDArray[np.int32]
    valid: npt.NDArray[np.bool_]
    names: npt.NDArray[np.object_]
    masks: Array | None = None

    def read_images(self, epoch: int, step: int, rows: Array) -> Examples:
        """Copies the images of a step, as `BatchReader.read_images` reads them."""
        slots, numbers = self.reader.find_ordered(epoch, [step])
        examples = self.reader.make_examples(len(rows))
        rows[slots] = self.images[numbers]
        examples.labels[slots] = self.labels[numbers]
        examples.valid[slots] = self.valid[numbers]
        examples.names[slots] = self.names[numbers]
        return examples

    def read_masks(self, epoch: int, step: int, rows: Array) -> npt.NDArray[np.bool_]:
        """Copies the masks of a step.

        Args:
            epoch: which.
            step: which.
            rows: uint8 (batch, height, width, 1) or, as there is one channel, (batch, 1, height,
                width); filled where the result is True.

        Returns:
            bool (batch,).
        """
        slots, numbers = self.reader.find_ordered(epoch, [step])
        valid = np.zeros(len(rows), np.bool_)
        valid[slots] = self.valid[numbers]
        if self.masks is not None:
            rows[slots] = self.masks[numbers].reshape(-1, *rows.shape[1:])
        return valid


def fill_cache(plan: ReadPlan, make_dataset: Callable[[ReadPlan], Any]) -> ImageCache:
    """Reads and decodes all records of a plan, whatever the host; logs what they take.

    Args:
        plan: of a reader that caches.
        make_dataset: gives (images, labels, mask, names) of a plan's batches, or masks as labels.
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
        given=dataclasses.replace(
            NO_VALUES, masks=plan.given.masks, mask_padding=plan.given.mask_padding
        ),
    )
    with typed_errors():
        images, labels, mask, names = _gather(make_dataset(whole), records)
    masks = labels if plan.given.masks else None
    taken = images.nbytes + (0 if masks is None else masks.nbytes)
    _log.info("cached %s images, %s", f"{records:,}", format_bytes(taken))
    return ImageCache(
        reader=plan.reader,
        images=images,
        labels=labels if masks is None else np.zeros(records, np.int32),
        valid=mask > 0,
        names=names,
        masks=masks,
    )


def _gather(batches: Any, records: int) -> list[Array]:
    kept: list[Array] = [
        np.empty((records, *spec.shape[1:]), spec.dtype.as_numpy_dtype)
        for spec in batches.element_spec
    ]
    for number, batch in enumerate(batches):
        for array, column in zip(kept, batch, strict=True):
            place = array[number * len(column) : (number + 1) * len(column)]
            place[:] = column[: len(place)]
    return kept
