"""Resolves options against a manifest: everything that is decided before the first read.

read_options  the options of a reader: `ReadOptions`
choices       which records an epoch has, and what is given of each
memory        what a read holds; divides `max_ram` among its buffers
read_plan     the decisions, and what epochs depend on: `ReadPlan`
planning      makes them: for one data set, for several, or for TensorFlow alone
"""
