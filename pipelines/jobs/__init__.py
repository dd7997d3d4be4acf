"""Each command as a function.

request    settings of a conversion, and the checks of it that need no scan and no lock
dry_run    scan -> sample -> shards, whatever the output
preview    `plan`: what a conversion would do to its output
convert    scan -> plan -> run -> commit, for one size or several; overwrite and update, too
verify     a finished data set against its manifest, also as a Beam job
repair     rebuilds damaged files
"""
