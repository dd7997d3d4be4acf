"""Records by their number: located by index, read, and checked before anything looks into them."""
