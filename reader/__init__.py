"""Reads the shards of a data set: the only folder that knows TensorFlow.

    shardset   a folder and its manifest -> `ShardSet`; nothing else is read
    options    what the reading is asked for
    memory     a number of bytes -> sizes of the buffers
    dataset    shards -> `tf.data.Dataset`, top to bottom (`parsing` decodes one record)
    source     shards -> any record by its number, without TensorFlow

TensorFlow is imported when a `tf.data.Dataset` is asked for, and only then.

Synopsis:

    from reader import load_dataset

    train = load_dataset("photos-256", "train", batch_size=64, seed=7)
    model.fit(train, validation_data=load_dataset("photos-256", "validation", batch_size=64))
"""

from reader.options import ReadOptions
from reader.shardset import ShardSet, load_dataset, open_shards
from reader.source import Record, Source

__all__ = ["ReadOptions", "Record", "ShardSet", "Source", "load_dataset", "open_shards"]
