"""Records by their number: located by index, read, and checked before anything looks into them.

damage        ends reading at a damaged record, or skips and counts it
indexed_file  one TFRecord file and its index: measured, opened, never trusted
blocks        many records in one block of memory, checked together
record_files  records by their number, over several files
"""
