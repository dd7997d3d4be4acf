"""One image more, for a model: converted and decoded as the data set's own were.

preprocessing     the options that decide pixels, saved beside a model: `Preprocessing`
given_images      the bytes of an image as you give it: by path, as a file, a picture or an array
placement         where the parts of an image land, and the way back
prepared_images   does the work: converts like `converter`, decodes like `reader.batches`
"""
