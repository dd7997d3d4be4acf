"""One planned shard becomes files: what a worker does.

records       originals -> images -> examples, and how large they will be
shard_writer  records -> a shard, its index and its receipt
shard_groups  several shards: in series where a store is far, together from one archive
multi_size    several sizes of them in one reading
"""
