"""The command line: what it takes, what it does, what it prints.

commands            runs one of the commands; its errors become one line and an exit code
interrupts          ends a command after Ctrl-C, SIGTERM or a closed terminal
job_commands        commands that run a job: convert, verify, export, …
look_commands       commands that start no job: inspect, report, view, completion
benching            measures reading, and says what limits it: bench
declarations        the commands with their examples, and their arguments
parsers             declarations and the fields of options -> a parser, and the pages of help
completion          scripts for bash, zsh and fish
help_pages          prints those pages
arguments           reads a command line
given_options       what it gives -> the options of a conversion
inspection          finds a record, and counts classes in records
reports             results -> lines of text
inspection_reports  what is found in a data set -> tables
json_reports        results -> JSON
omissions           of both, what was left out and which classes were renamed
text_layout         lines and tables that fit a terminal
terminal            prints lines, JSON, warnings and logs to streams that last
"""
