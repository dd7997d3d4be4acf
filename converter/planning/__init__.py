"""Decides which image goes into which shard, before any is converted.

splits        entries -> train, validation, test, and their order
strict_checks what ends a conversion before it begins
sharding      the number of shards, and of the records of each
plan          shards, written to the output as data
"""
