"""Resolves options against a manifest: everything that is decided before the first read."""
