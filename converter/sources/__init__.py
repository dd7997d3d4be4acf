"""IMAGES, whatever it is, becomes entries; nothing is silently ignored.

scan        the whole of it (inputs: which of the following IMAGES is)
folders     and prefixes of stores
archives    of members in tars and zips (streams: compressed as a whole)
tables      rows of cells, and locators of what they name
labelling   classes and splits off the paths
pairing     masks join their images
duplicates  have the same content
originals   read again when they are written
"""
