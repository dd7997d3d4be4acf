"""Each command as a function.

request        what a conversion is asked for, and whether it is there already
preflight      checks of the machine, the folders and the room, before anything is written
dry_run        scan -> plan, without writing anything
convert        scan -> plan -> run -> commit; overwrite and update, too
convert_sizes  the same for several sizes in one pass
verify         a finished data set against its manifest, also as a Beam job
repair         what a check condemns, written again
clean          what killed runs leave behind, removed
"""
