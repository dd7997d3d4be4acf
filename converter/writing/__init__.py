"""One planned shard becomes files: what a worker does.

records      originals -> images -> examples (estimates: how large they will be)
write         records -> a shard, its index and its receipt
series       shards one after the other, each sent while the next one is converted
passes       several shards in one reading of their archive
resolutions  several sizes of them in one reading; what waits meanwhile lies in spools
"""
