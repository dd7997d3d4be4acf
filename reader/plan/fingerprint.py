"""What decides an epoch, in a form that can be kept: a reading is only continued as the same."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from reader.plan.memory import Buffers
from reader.plan.options import ReadOptions
from reader.plan.read_plan import ReadPlan
from reader.records.record_files import RecordFiles
from reader.sampling.orders import MixedOrder, ShardwiseOrder
from reader.sampling.steps import Steps

CHOICES: Final = (
    "subset", "validation_split", "color_mode", "dtype", "interpolation", "crop_to_aspect_ratio",
    "pad_to_aspect_ratio", "random_crop", "random_flip",
)  # fmt: skip
"""Options that decide which records come, or with which pixels."""


def describe_plan(plan: ReadPlan) -> dict[str, Any]:
    """All that decides which values come when, as JSON has it.

    Memory, the policy for damage, and the form in which labels are given are left out: they may
    change in the middle of an epoch.
    """
    reader, order, mixture = plan.reader, plan.reader.order, None
    shards = {"shards": order.shards} if isinstance(order, ShardwiseOrder) else {}
    if isinstance(order, MixedOrder):
        ends = [*order.begins[1:], reader.selection.total]
        mixture = [list(part) for part in zip(ends, order.shares, strict=True)]
    labels = reader.record_labels
    choices = {name: getattr(plan.options, name) for name in CHOICES}
    return {
        **describe_order(reader.files, plan.order, plan.options, plan.buffers, reader.steps),
        "class_names": _digest(json.dumps(plan.class_names).encode()),
        "labels": None if labels is None else _digest(labels.tobytes()),
        "image_size": [plan.height, plan.width],
        "mixture": mixture,
        **shards,
        **choices | {"random_crop": choices["random_crop"] and list(choices["random_crop"])},
    }


def describe_order(
    files: RecordFiles, order: str, options: ReadOptions, buffers: Buffers, steps: Steps
) -> dict[str, Any]:
    """All that decides which records come when.

    Args:
        files: that hold the records.
        order: `sequential`, `exact` or `buffer`.
        options: what is asked for; its seed is the one in use.
        buffers: what was made of the memory.
        steps: of an epoch.
    """
    return {
        "data": _digest("\n".join(file.digest for file in files.files).encode()),
        "seed": options.seed,
        "order": order,
        "window": buffers.window,
        "records": steps.records,
        "batch_size": options.batch_size,
        "remainder": steps.remainder,
        "shard_index": steps.shard_index,
        "shard_count": steps.shard_count,
    }


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
