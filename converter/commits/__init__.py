"""Turns finished shards into a data set, in one step at the end.

receipts      of single shards -> of a thousand in one file, read in the order of the plan
summary       receipts -> the counts and the shards of the manifest
commit        these -> metadata, rejects, and the manifest last
replacements  a complete data set -> the place of another, also after killed runs
run_log       what is noted of each run beside the data set, and no part of it
"""
