"""The command line: what it takes, what it does, what it prints.

commands   one function for each command
arguments  flags and their help -> options
reports    results -> lines of text, or JSON
omissions  of them, what was left out and which classes were renamed
terminal   prints lines, JSON, warnings and logs to streams that last
"""
