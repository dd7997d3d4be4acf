"""Turns a manifest and options into a `ReadPlan`: all that is decided before the first read."""
