"""Shards in an object store: fetched into a bounded cache, or read by ranges."""
