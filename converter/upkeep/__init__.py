"""A finished data set is checked, mended and brought up to date.

verification  against its manifest (contents: record by record)
provenance    its records -> the originals that they were made from
updates       comparisons: originals that are different -> the few shards to be written again
repairs       damaged shards -> the originals to make them from again (deductions: of lost ones)
"""
