"""Where files lie, on disks and in object stores: whole under their final name, or not there.

location            what a file or folder can do, as a protocol that all of `converter` works with
locate              from what a person gives to a `Location`: chosen here, and asked nowhere else
disk, objects       the two kinds of it (disk_locks, object_locks: one writer at a time)
layout              which file of a data set lies where
atomic, hashing     how files become whole
files, locks        what is done with several locations
object_requests     what is asked about objects, by `requests` that are made as often as it takes,
                    of `stores`: s3 and gcs (listings, object_files, object_replacement)
"""
