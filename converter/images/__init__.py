"""The bytes of an image file become the bytes that are stored.

openers       a file -> an open image: by content, within limits
pixels        upright, on a background, 8 bits, sRGB
geometry      which part of an image lands where, with its boxes, and scaling
opened_images what a header tells, and pixels, decoded once for all sizes
conversion    all of it, frame by frame, and the encoding; or the file itself if it needs no change
masks         images of class numbers, which move with their image
isolation     the same in a child process
"""
