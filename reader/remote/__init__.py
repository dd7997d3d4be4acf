"""Shards in an object store: fetched into a bounded cache, or read by ranges.

shard_cache    objects of a store on this machine's disk: bounded, checked, shared
remote_shards  shards read through that cache, or by ranges of records
"""
