"""The command line: what it takes, what it does, what it prints.

commands      one function for each command
arguments     flags and their help -> options
reports       results -> lines of text
json_reports  results -> JSON
omissions     of both, what was left out and which classes were renamed
terminal      prints lines, JSON, warnings and logs to streams that last
"""
