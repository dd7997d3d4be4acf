"""Turns IMAGES, whatever it is, into entries; nothing is silently ignored.

inputs      what IMAGES is, and where images and masks lie
scan        the whole inventory of it, with masks, from one of:
  folders   files in a folder, or below a prefix of a store; classes and splits from paths
  archives  members of tars, and of zips
  tables    rows, which name images
  webdataset  tars of samples
chosen      images that a user wants, by their classes, a condition, a share or a number
duplicates  images with the same content
originals   found for a table, and read again, to be written
"""
