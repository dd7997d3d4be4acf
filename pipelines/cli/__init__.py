"""The command line: what it takes, what it does, what it prints.

commands   one function for each command
arguments  flags and their help -> options
reports    results -> lines of text
documents  results -> JSON
terminal   the streams that a command writes to
"""
