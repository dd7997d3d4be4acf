"""What you ask for meets what there is: everything that is decided before the first read."""
