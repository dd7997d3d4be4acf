"""`shardmill view`: a local page to walk through records; the only folder that knows Flask.

summaries   names and labels of records, read without their images
listings    those of a whole split, collected in the background, to filter and to search
albums      a data set as it is shown: its splits, its faults, pictures of its records
guards      who may ask: the token, the cookie, the names of this machine, no write
markup      values as a page can hold them
screens     what the pages show
web         the addresses that are answered
server      the process: its port, its browser, its end
"""
