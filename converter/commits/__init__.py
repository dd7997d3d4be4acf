"""Finished shards become a data set, last of all and at once.

commit        receipts -> metadata, rejects, and manifest last
replacements  a complete data set -> the place of another
leftovers     what killed runs leave behind
"""
