"""Measures how fast a data set is read on this machine, and what limits it: `shardmill bench`.

meter         images, time, CPU and memory of a stretch of reading
bare_reads    the disk or store alone, with nothing decoded
contenders    the ways to read, each in a process of its own
rounds        runs them in turn, and takes medians
limits        what limits reading here, in words, and what to do about it
"""
