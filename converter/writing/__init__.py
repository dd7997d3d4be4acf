"""One planned shard becomes files: what a worker does.

image_notes   what is odd about an image, as only reading it shows
records       originals -> images -> examples
estimates     how large records will be, and how large originals are, from a sample
shard_writer  records -> a shard, its index and its receipt
shard_groups  several shards: in series where a store is far, together from one archive
multi_size    several sizes of them in one reading
"""
