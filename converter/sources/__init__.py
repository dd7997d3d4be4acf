"""Turns IMAGES, whatever it is, into entries; nothing is silently ignored.

inputs       what IMAGES is, and where images and masks lie
scan         the whole inventory of it, from one of:
  folders    files in a folder, or below a prefix of a store
  archives   members of tars and zips
  tables     rows of cells, which path_lookup finds the images of
labelling    classes and splits from paths
mask_pairing the mask of each image
duplicates   images with the same content
originals    read them again, to write them
"""
