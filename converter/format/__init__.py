"""What lies in a data set, byte by byte: the only part of `converter` that `reader` knows.

examples   `tf.train.Example`, and the features of an image (schema: and columns of a table)
tfrecords  how an example becomes a record in a shard
indexes    where each record of a shard lies (indexing: of TFRecords that anything wrote)
manifest   what the data set holds, and that it is complete (descriptions: in one line)
metadata   what TensorFlow Datasets wants beside it
"""
