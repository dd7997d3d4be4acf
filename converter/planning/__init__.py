"""Decides which image goes into which shard, before any is converted.

splits  entries -> train, validation, test, their order, and the number of records of each shard
shares  whether splits hold what they should, of all images and of each class
strata  the same share of every class
plan    shards, written to the output as data

The same plan as a job, of which each step leaves files for the next (planning_steps):

key_ranges     IMAGES -> ranges of paths, by a look at the top
planning_job   what all steps share, and part_files, how they write what they find
listing_parts  a range -> images with their classes, and those that are left out
hash_parts     images -> sets with the same content, by buckets of hashes
ranked_parts   images -> splits and lines of the plan, by buckets of ranks
staged_drafts  all of that -> the plan, in the launcher
"""
