"""Which record comes when: pure functions of seed, epoch and step."""
