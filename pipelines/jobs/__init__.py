"""Each command as a function.

bars         follows the phases of a job, and draws them: terminal, log or notebook
bar_texts    what a bar says: rates and time left
outputs      where a data set may be written
export       `export`: the images of a data set back
request      settings of a conversion, and the checks of it that need no scan and no lock
preview      `plan`: the shards that a conversion would write, and what becomes of its output
planners     where a conversion is planned: here, or by the workers
run_records  what is noted of a run: times, memory, originals
reporting    `report`: writes the page on a data set, and at the end of each conversion
convert      scan -> plan -> run -> commit, for one size or several; overwrite and update, too
upkeep       `verify` and `repair`: a finished data set against its manifest and its originals
"""
