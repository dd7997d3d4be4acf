"""Decides which image goes into which shard, before any is converted.

splits  entries -> train, validation, test, their order, and the number of records of each shard
plan    shards, written to the output as data
"""
