"""The bytes of an image file become the bytes that are stored.

openers     formats that may be opened, by content, within limits -> images
frames      those of animations and files of several pages (frame_paths: their names)
pixels      upright, on a background, 8 bits, sRGB
scaling     by geometry -> the size asked for (boxes, masks: along with it)
conversion  all of it, and the encoding; or copies of what is as it should be
isolation   the same in a child process (decoder_main)
traits      what is odd about an image that is converted all the same
"""
