"""Apache Beam, and the only modules that know it.

transforms   the pipelines: `MillShards` and the like, of shards or groups of them
runners      which Beam runner, with which options
clusters     runners on other machines: what they see, and what Dataflow is told
wheel        shardmill itself as a wheel, for their workers
workers      local worker processes, started early and watched (`worker_main` is one of them)
run_shards   runs what is left of a plan, and follows it
progress     a bar over images, fed by the receipts of finished shards
"""
