"""Turns IMAGES, whatever it is, into entries; nothing is silently ignored.

inputs      what IMAGES is, and where images and masks lie
scan        the whole inventory of it, with masks, from one of:
  folders   files in a folder, or below a prefix of a store
  archives  members of tars and zips
  tables    rows, whose images path_lookup finds
labelling   classes and splits from paths
duplicates  images with the same content
originals   read again, to be written
"""
