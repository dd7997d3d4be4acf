"""The command line: what it takes, what it does, what it prints.

commands   one function for each command
arguments  flags and their help -> options
reports    results -> lines of text, or JSON
terminal   prints lines, JSON, warnings and logs to streams that last
"""
