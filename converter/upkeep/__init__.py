"""Checks, repairs and updates a finished data set.

verification  against its manifest
shard_reports what is wrong with single shards, and with their sum
contents      what its records say: which originals they were made from
updates       images that changed -> the few shards to write again (comparisons: which they are)
repairs       damaged files -> the originals to make them from again
"""
