"""What decides the values of an epoch, in a form that can be saved and compared on resuming."""

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
    """Describes, in JSON's types, everything that decides which values come when.

    Memory, `on_damage` and `label_mode` are left out: they may change in the middle of an epoch.
    """
    order, labels, options = plan.order, plan.choice.record_labels, plan.options
    description = {
        **describe_order(plan.files, options, plan.buffers, plan.steps),
        "class_names": _digest(json.dumps(plan.choice.class_names).encode()),
        "labels": None if labels is None else _digest(labels.tobytes()),
        "image_size": [plan.images.height, plan.images.width],
        "mixture": None,
    }
    if isinstance(order, MixedOrder):
        ends = [*order.begins[1:], plan.choice.selection.total]
        description["mixture"] = [list(part) for part in zip(ends, order.shares, strict=True)]
    if isinstance(order, ShardwiseOrder):
        description["shards"] = order.shards
    if options.order == "path":
        description["by"] = "path"
    description |= {name: getattr(options, name) for name in CHOICES}
    if options.random_crop is not None:
        description["random_crop"] = list(options.random_crop)
    return description


def describe_order(
    files: RecordFiles, options: ReadOptions, buffers: Buffers, steps: Steps
) -> dict[str, Any]:
    """Describes everything that decides which records come when; options are resolved."""
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
    """Names the first entry that differs."""
    names = (name for name in {**wanted, **found} if found.get(name) != wanted.get(name))
    return next(names, None)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
