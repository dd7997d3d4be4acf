"""Reads the shards of a data set: the only folder that knows TensorFlow.

The folders are the rooms that data goes through, from a seed to a tensor. Each imports only from
those above it:

    sampling    which record comes when: pure functions of seed, epoch and step
    records     records by number: located by index, read in blocks, checked
    examples    what a record holds: images, labels, names, columns
    remote      shards in an object store: a bounded cache, ranges, what comes next
    plan        your options meet the manifest -> one `ReadPlan`, its buffers sized by `max_ram`
    batches     the engine: blocks of records -> images decoded into lent batches, in threads
    tfdata      the same as a `tf.data.Dataset` or a Keras `PyDataset`, and training that resumes

and on top of them

    shardset    a folder and its manifest: `open_shards`, `load_dataset`
    source      any record by number or name
    tfrecords   files that something else wrote

TensorFlow is imported when you ask for a `tf.data.Dataset`, and only then.

Synopsis:

    from reader import load_dataset

    train = load_dataset("photos-256", "train", batch_size=64, seed=7)
    model.fit(train, validation_data=load_dataset("photos-256", "validation", batch_size=64))
"""

from typing import TYPE_CHECKING, Any

from reader.plan.read_options import ReadOptions
from reader.records.damage import typed_errors
from reader.shardset import ShardSet, load_dataset, mix_datasets, open_shards
from reader.source import Record, Source
from reader.tfrecord_set import TFRecordSet, open_tfrecords

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
