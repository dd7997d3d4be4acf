"""Reads the shards of a data set: the only folder that knows TensorFlow.

    shardset    a folder and its manifest -> `ShardSet`; files are only measured (`arrivals`: in a
                store, where it may be replaced just now)
    plans       what is asked for (`options`) meets what there is -> everything decided beforehand:
                selections    which records an epoch is made of, by `choices` of labels and shares
                orders        in which order they come: pure functions of seed, epoch and position
                steps         which positions are a batch, on which host
                memory        a number of bytes -> sizes of the buffers
                `arrangements`    by which kind of files that is done best
    records     numbers -> `blocks` of payloads in `files`, located by index and checked (`runs`:
                in long reads; `remote`: through a `shard_cache` of `cached_files`, which the
                `outlook` fills ahead of need, or by `ranges`)
    batches     a step's payloads -> columns: `fields` by their `spans`, sizes by `headers`, what is
                wrong by `damage`; `pixels` of raw images go straight to their place
    dataset     columns -> `decoding` -> batches in lent `buffers` -> `tf.data.Dataset` (`pipeline`)
                (`values` of a table: `details`; `heap`: memory of images that is used again)

and beside that way

    source      any record by number or name (`columns`, `names`), without TensorFlow
    sequence    any batch by number, for Keras        cache      decoded images kept
    resuming    training goes on after a kill, from `checkpoints`, as far as `fingerprints` agree
    mixing      several data sets as one
    tfrecords   files that something else wrote (`tfrecord_dataset`)

TensorFlow is imported when a `tf.data.Dataset` is asked for, and only then.

Synopsis:

    from reader import load_dataset

    train = load_dataset("photos-256", "train", batch_size=64, seed=7)
    model.fit(train, validation_data=load_dataset("photos-256", "validation", batch_size=64))
"""

from typing import TYPE_CHECKING, Any

from reader.plan.options import ReadOptions
from reader.records.damage import typed_errors
from reader.shardset import ShardSet, load_dataset, mix_datasets, open_shards
from reader.source import Record, Source
from reader.tfrecords import TFRecordSet, open_tfrecords

if TYPE_CHECKING:
    from reader.tfdata.resume import ResumeTraining

__all__ = [
    "ReadOptions",
    "Record",
    "ResumeTraining",
    "ShardSet",
    "Source",
    "TFRecordSet",
    "load_dataset",
    "mix_datasets",
    "open_shards",
    "open_tfrecords",
    "typed_errors",
]


def __getattr__(name: str) -> Any:
    if name == "ResumeTraining":
        from reader.tfdata.resume import ResumeTraining  # noqa: PLC0415 (Keras)

        return ResumeTraining
    raise AttributeError(f"module 'reader' has no attribute {name!r}")
