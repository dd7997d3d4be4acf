"""Reads the shards of a data set: the only folder that knows TensorFlow.

The folders follow the data from a seed to a tensor. Each imports only from those above it:

    sampling    which record comes when: pure functions of seed, epoch and step
    records     records by number: located by index, read in blocks, checked
    examples    the contents of a record: images, labels, names, columns
    remote      shards in an object store: a bounded cache, ranges, prefetching
    plan        resolves `ReadOptions` against a manifest -> `ReadPlan`, sized by `max_ram`
    batches     the engine: blocks of records -> images decoded into lent batches, in threads
    tfdata      `tf.data.Dataset`, Keras `PyDataset`, and training that resumes
    inference   one image more, beside a model: the array that the data set gives of it
    bench       how fast all this is here, and what limits it: `shardmill bench`

Beside them, `arrays` and `packages` are for all: types, and what to install. On top of them:

    shardset    a data set and its manifest: `open_shards`, `load_dataset`
    source      random access by number or name; TFRecords of other programs

TensorFlow is imported only when you ask for a `tf.data.Dataset`.

Synopsis:

    from reader import load_dataset

    train = load_dataset("photos-256", "train", batch_size=64, seed=7)
    model.fit(train, validation_data=load_dataset("photos-256", "validation", batch_size=64))
"""

from typing import TYPE_CHECKING, Any

from reader.inference.preprocessing import Preprocessing, load_preprocessing
from reader.plan.read_options import ReadOptions
from reader.records.damage import typed_errors
from reader.shardset import ShardSet, load_dataset, mix_datasets, open_shards
from reader.source import Record, Source, TFRecordSet, open_tfrecords

if TYPE_CHECKING:
    from reader.tfdata.input_stats import InputStats
    from reader.tfdata.resume import ResumeTraining

__all__ = [
    "InputStats",
    "Preprocessing",
    "ReadOptions",
    "Record",
    "ResumeTraining",
    "ShardSet",
    "Source",
    "TFRecordSet",
    "load_dataset",
    "load_preprocessing",
    "mix_datasets",
    "open_shards",
    "open_tfrecords",
    "typed_errors",
]


def __getattr__(name: str) -> Any:
    if name == "InputStats":
        from reader.tfdata.input_stats import InputStats  # noqa: PLC0415 (Keras)

        return InputStats
    if name == "ResumeTraining":
        from reader.tfdata.resume import ResumeTraining  # noqa: PLC0415 (Keras)

        return ResumeTraining
    raise AttributeError(f"module 'reader' has no attribute {name!r}")
