"""Files on disks and in object stores: complete under their final name, or absent.

location            what a file or folder can do: the protocol that all other code works with
locate              chooses the `Location` of a path or an address
disk, objects       the two kinds of it
files               where each file of a data set lies, and how it becomes complete
locks               one writer at a time: who it is, and whether that process is gone
object_requests     requests about objects, which `requests` repeats until `stores`, s3 or gcs,
                    answer them
"""
