"""The files of a data set, byte by byte: the only part of `converter` that `reader` builds on.

examples   `tf.train.Example`, and the features of an image (schema: and columns of a table)
tfrecords  how an example becomes a record in a shard
indexes    where the records of a shard are (indexing: those of TFRecords from any writer)
manifest   what the data set holds, and that it is complete (typed_json: how it is read)
metadata   what TensorFlow Datasets needs beside it
"""
