"""Turns finished shards into a data set, in one step at the end.

commit        receipts -> metadata, rejects, and the manifest last
replacements  a complete data set -> the place of another, also after killed runs
run_log       what is noted of each run beside the data set, and no part of it
"""
