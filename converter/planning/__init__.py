"""Decides which image goes into which shard, before any is converted.

splits      entries -> train, validation, test, and their order
strictness  what is not to be gone on with
sharding    how many shards, and of how many records
plan        shards, written to the output as data
"""
