"""The bytes of an image file become the bytes that are stored.

openers     a file -> an open image: by content, within limits
pixels      upright, on a background, 8 bits, sRGB
geometry    which part of an image lands where, and scaling (boxes, masks: along with it)
conversion  all of it, and the encoding; or copies of files that need no change
frames      each frame of an animation, each page of a file
isolation   the same in a child process (decoder_main)
image_notes what is odd about an image that is converted all the same
"""
