"""What decides an epoch, in a form that can be kept: a reading is only continued as the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from reader.plan.memory import Buffers
from reader.plan.read_options import ReadOptions
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
    order, mixture = plan.order, None
    shards = {"shards": order.shards} if isinstance(order, ShardwiseOrder) else {}
    if isinstance(order, MixedOrder):
        ends = [*order.begins[1:], plan.choice.selection.total]
        mixture = [list(part) for part in zip(ends, order.shares, strict=True)]
    labels = plan.choice.record_labels
    choices = {name: getattr(plan.options, name) for name in CHOICES}
    by_path = {"by": "path"} if plan.options.order == "path" else {}
    return {
        **describe_order(plan.files, plan.options, plan.buffers, plan.steps),
        "class_names": _digest(json.dumps(plan.choice.class_names).encode()),
        "labels": None if labels is None else _digest(labels.tobytes()),
        "image_size": [plan.images.height, plan.images.width],
        "mixture": mixture,
        **shards,
        **by_path,
        **choices | {"random_crop": choices["random_crop"] and list(choices["random_crop"])},
    }


def describe_order(
    files: RecordFiles, options: ReadOptions, buffers: Buffers, steps: Steps
) -> dict[str, Any]:
    """All that decides which records come when.

    Args:
        files: that hold the records.
        options: what is asked for, settled.
        buffers: what was made of the memory.
        steps: of an epoch.
    """
    return {
        "data": _digest("\n".join(file.digest for file in files.files).encode()),
        "seed": options.seed,
        "order": options.shuffle or "sequential",
        "window": buffers.window,
        "records": steps.records,
        "batch_size": options.batch_size,
        "remainder": steps.remainder,
        "shard_index": steps.shard_index,
        "shard_count": steps.shard_count,
    }


def find_difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """The name of what differs in two descriptions."""
    names = (name for name in {**wanted, **found} if found.get(name) != wanted.get(name))
    return next(names, None)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
