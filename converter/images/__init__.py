"""The bytes of an image file become the bytes that are stored.

openers       a file -> an open image: by content, within limits
pixels        upright, on a background, 8 bits, sRGB
geometry      which part of an image lands where, with its boxes, and scaling
corrections   of files whose samples Pillow takes for something else, and notes about doubtful ones
truncation    of JPEGs that end early: how many rows are real
record_images the images of our own records, which need not be decoded again
opened_images what a header tells, and pixels, decoded once for all sizes
conversion    all of it, frame by frame, and the encoding; or the file itself if it needs no change
masks         images of class numbers, which move with their image
isolation     the same in a child process
"""
