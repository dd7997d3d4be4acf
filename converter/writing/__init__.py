"""One planned shard becomes files: what a worker does.

records       originals -> images -> examples (estimates: how large they will be)
shard_writer  records -> a shard, its index and its receipt
pipelined     shards one after another, each published while the next one is converted
archive_pass  several shards in one reading of their archive
multi_size    several sizes of them in one reading
"""
