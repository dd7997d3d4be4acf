"""What a record holds: images, labels, names and columns, found in many records at once."""
