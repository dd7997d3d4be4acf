"""Where files lie, here and in object stores: whole under their final name, or not there at all.

layout   which file lies where
files    on disk and in stores: read, listed, renamed (object_files: read by ranges)
writing  of files: how they become whole
locks    one writer at a time (object_locks: in a store; owners: who that is)
objects  of a store, as paths: read, written, listed (listings), by requests that are
         made as often as it takes, of stores: s3 and gcs
"""
