"""`shardmill view`: a local page to walk through records; the only folder that knows Flask."""
