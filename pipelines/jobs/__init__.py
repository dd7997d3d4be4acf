"""Each command as a function.

request    settings of a conversion, and checks that need no lock
preflight  checks of folders, sizes, disk space and environment
dry_run    scan -> sample -> shards, whatever the output
preview    `plan`: what a conversion would do, compared with its output
convert    scan -> plan -> run -> commit, for one size or several; overwrite and update, too
verify     a finished data set against its manifest, also as a Beam job
repair     damaged files, made again
"""
