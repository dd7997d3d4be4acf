"""Plans what TensorFlow reads alone: refuses options, and divides shards among hosts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from converter.errors import UsageError
from converter.format.manifest import Manifest, ShardInfo
from converter.storage.location import Location
from reader.plan.element_spec import choose_given
from reader.plan.image_plan import ImagePlan
from reader.plan.memory import divide_serializable
from reader.plan.read_options import ReadOptions
from reader.plan.read_plan import ReadPlan, list_files, plan_steps, settle
from reader.plan.record_choice import Choice, map_classes
from reader.plan.sizing import check_images, measure_demand
from reader.records.indexed_file import RecordFile
from reader.records.record_files import RecordFiles
from reader.sampling.orders import SequentialOrder
from reader.sampling.selection import select_all

_USUAL: Final = "leave serializable out"
_CHECKPOINT: Final = "keep an iterator with tf.train.Checkpoint instead"
_SPLIT: Final = f"convert with --validation-split, or {_USUAL}"
_STORE: Final = "it is for object stores, leave it out"

LIMITS: Final[dict[str, tuple[tuple[object, ...], str]]] = {
    "labels": ((None,), f"convert with those labels, or {_USUAL}"),
    "validation_split": ((None,), _SPLIT),
    "subset": ((None,), _SPLIT),
    "order": (("stored",), f"leave it out, or {_USUAL}"),
    "shuffle": ((None, True, False, "buffer"), f"take True, which is 'buffer', or {_USUAL}"),
    "remainder": (("keep", "drop"), f"take 'keep' or 'drop', or {_USUAL}"),
    "initial_epoch": ((0,), _CHECKPOINT),
    "initial_step": ((0,), _CHECKPOINT),
    "on_damage": (("raise",), f"repair the data set with shardmill convert --update, or {_USUAL}"),
    "max_damaged": ((ReadOptions().max_damaged,), "nothing is skipped, leave it out"),
    "cache": ((False,), f"convert with --encoding raw, or {_USUAL}"),
    "cache_dir": ((None,), _STORE),
    "cache_bytes": ((None,), _STORE),
}
"""Of the options that are limited: the values that they may have, and the way out for others."""


def plan_serializable(
    folder: Location, manifest: Manifest, split: str, options: ReadOptions
) -> ReadPlan:
    """Decides how a split is read with TensorFlow's own operations alone.

    The plan is of this host as if it were alone: of its shards, empty ones too, in the order in
    which they were written, and with as many records as every other host reads.

    Raises:
        DatasetError: there is no such split.
        UsageError: the options do not fit the data set, or this way of reading.
    """
    if folder.is_remote:
        raise UsageError(
            f"{folder} is an address, and serializable=True reads files: copy the data set to a "
            f"disk, or {_USUAL}"
        )
    _check_options(options)
    # As if the shards lay far away, where True means a window.
    settled = settle(options, split, remote=True)
    given = choose_given(manifest, options)
    shards, records = share_shards(manifest.list_shards(split), options)
    labels = _choose_labels(manifest, options)
    if labels is not None:
        counts = manifest.splits[split].labels
        records -= int(np.array(counts)[labels < 0].sum())
    choice = Choice(
        class_names=list(options.class_names or manifest.classes),
        stored_classes=len(manifest.classes),
        selection=select_all(records),
        labels=labels,
        given=given,
    )
    options = dataclasses.replace(settled, shard_index=0, shard_count=1)
    files = RecordFiles(list_files(folder, manifest, split))
    images = ImagePlan(stored=manifest.image, options=options)
    check_images(images, choice)
    demand = measure_demand(files, images, choice, whole=False)
    if given.needed:  # parsed once they are in a batch, so that it holds its records meanwhile
        held = demand.image_bytes + demand.record_bytes
        demand = dataclasses.replace(demand, image_bytes=held)
    return ReadPlan(
        images=images,
        choice=choice,
        files=RecordFiles([RecordFile.of_shard(folder, shard) for shard in shards]),
        order=SequentialOrder(),
        steps=plan_steps(records, options),
        buffers=divide_serializable(options.max_ram_bytes, demand),
    )


def share_shards(shards: Sequence[ShardInfo], options: ReadOptions) -> tuple[list[ShardInfo], int]:
    """Gives every host whole shards, of about as many records in all.

    Returns:
        the shards of this host, and how many records the host with the fewest has.

    Raises:
        UsageError: there are too few shards.
    """
    hosts, there = options.shard_count, sum(shard.records > 0 for shard in shards)
    if hosts > max(there, 1):
        raise UsageError(
            f"shard_count {hosts} is more than the {there} shards of this split, which hosts take "
            f"as a whole: convert with --num-shards {hosts} or more, or {_USUAL}"
        )
    loads, owners = [0] * hosts, {}
    for shard in sorted(shards, key=lambda shard: -shard.records):
        owners[shard.name] = loads.index(min(loads))
        loads[owners[shard.name]] += shard.records
    return [shard for shard in shards if owners[shard.name] == options.shard_index], min(loads)


def _check_options(options: ReadOptions) -> None:
    for name, (allowed, way_out) in LIMITS.items():
        value = getattr(options, name)
        if value not in allowed:
            raise UsageError(f"{name} {value!r:.60} is not for serializable=True: {way_out}")


def _choose_labels(manifest: Manifest, options: ReadOptions) -> npt.NDArray[np.int32] | None:
    if options.class_names is None:
        return None
    labels = map_classes(manifest.classes, options.class_names)
    if options.shard_count > 1 and labels.min() < 0:
        raise UsageError(
            "class_names leaves records out, and the manifest does not say how many of each shard, "
            f"which hosts have to know: take shard_count 1, or {_USUAL}"
        )
    return labels
