"""Plans `serializable`: refuses what TensorFlow cannot do alone, and divides shards among hosts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

import numpy as np

from converter.errors import UsageError
from converter.format.manifest import Manifest, ShardInfo
from converter.storage.location import Location
from reader.plan.image_plan import ImagePlan
from reader.plan.memory import divide_serializable
from reader.plan.read_options import ReadOptions
from reader.plan.read_plan import ReadPlan, list_files, plan_steps, resolve_options
from reader.plan.record_choice import Choice, choose_given, map_classes
from reader.plan.sizing import check_images, measure_demand
from reader.records.indexed_file import RecordFile
from reader.records.record_files import RecordFiles
from reader.sampling.orders import SequentialOrder, select_all

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
"""The values allowed for options that are limited, and the way out for others."""


def plan_serializable(
    folder: Location, manifest: Manifest, split: str, options: ReadOptions
) -> ReadPlan:
    """Decides how a split is read with TensorFlow's own operations alone.

    The plan is for this host as if it were the only one: for its shards, including empty ones, in
    the order in which they were written, and with as many records as every other host reads.

    Raises:
        DatasetError: there is no such split.
        UsageError: the options do not fit the data set, or this way of reading.
    """
    if folder.is_remote:
        raise UsageError(
            f"{folder} is an address, and serializable=True reads files: copy the data set to a "
            f"disk, or {_USUAL}"
        )
    for name, (allowed, way_out) in LIMITS.items():
        value = getattr(options, name)
        if value not in allowed:
            raise UsageError(f"{name} {value!r:.60} is not for serializable=True: {way_out}")
    # `remote`, because True means a window here as well.
    resolved = resolve_options(options, split, remote=True)
    shards, records = _share_shards(manifest.list_shards(split), options)
    choice = _choose_records(manifest, split, records, options)
    options = dataclasses.replace(resolved, shard_index=0, shard_count=1)
    files = RecordFiles(list_files(folder, manifest, split))
    images = ImagePlan(stored=manifest.image, options=options)
    check_images(images, choice)
    demand = measure_demand(files, images, choice, whole_batches=False)
    if (
        choice.given.needed
    ):  # columns are parsed after batching, so a batch holds its records until then
        held = demand.image_bytes + demand.record_bytes
        demand = dataclasses.replace(demand, image_bytes=held)
    return ReadPlan(
        images=images,
        choice=choice,
        files=RecordFiles([RecordFile.of_shard(folder, shard) for shard in shards]),
        order=SequentialOrder(),
        steps=plan_steps(choice.selection.count, options),
        buffers=divide_serializable(options.max_ram_bytes, demand),
    )


def _choose_records(manifest: Manifest, split: str, records: int, options: ReadOptions) -> Choice:
    given, labels = choose_given(manifest, options), None
    if options.class_names is not None:
        labels = map_classes(manifest.classes, options.class_names)
        if options.shard_count > 1 and labels.min() < 0:
            raise UsageError(
                "class_names leaves records out, and the manifest does not say how many of each "
                f"shard, which hosts have to know: take shard_count 1, or {_USUAL}"
            )
        records -= int(np.array(manifest.splits[split].labels)[labels < 0].sum())
    return Choice(
        class_names=list(options.class_names or manifest.classes),
        stored_classes=len(manifest.classes),
        selection=select_all(records),
        labels=labels,
        given=given,
    )


def _share_shards(shards: Sequence[ShardInfo], options: ReadOptions) -> tuple[list[ShardInfo], int]:
    """Gives every host whole shards with about as many records.

    Returns:
        this host's shards; the number of records of the host with the fewest.
    """
    hosts, filled = options.shard_count, sum(shard.records > 0 for shard in shards)
    if hosts > max(filled, 1):
        raise UsageError(
            f"shard_count {hosts} is more than the {filled} shards of this split, which hosts take "
            f"as a whole: convert with --num-shards {hosts} or more, or {_USUAL}"
        )
    loads, owners = [0] * hosts, {}
    for shard in sorted(shards, key=lambda shard: -shard.records):
        owners[shard.name] = loads.index(min(loads))
        loads[owners[shard.name]] += shard.records
    return [shard for shard in shards if owners[shard.name] == options.shard_index], min(loads)
