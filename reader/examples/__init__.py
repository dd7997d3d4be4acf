"""What a record holds: images, labels, names and columns, found in many records at once.

image_headers  the size that an encoded image claims, checked before it is decoded
fields         what a batch needs of its records: images, labels, columns
columns        single features of all records, without the images behind them
"""
