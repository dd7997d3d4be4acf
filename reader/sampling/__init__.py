"""Which record comes when: pure functions of seed, epoch and step.

draws   random keys, permutations and flips: the same on every machine
orders  which records an epoch has, in which order and step
"""
