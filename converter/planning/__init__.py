"""Decides which image goes into which shard, before any is converted.

splits  entries -> train, validation, test, their order, and the number of records of each shard
shares  whether splits hold what they should, of all images and of each class
plan    shards, written to the output as data
"""
