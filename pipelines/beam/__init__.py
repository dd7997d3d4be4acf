"""Apache Beam, and the only modules that know it.

transforms   the pipelines: `MillShards` and the like, of shards or groups of them
runners      which Beam runner, with which options
clusters     runners on other machines: what workers see and get, and what Dataflow is told
workers      local worker processes, started early and watched (`worker_main` is one of them)
report_watch what workers say of the shards that they checked
planned_parts  planning as a pipeline: its steps, one after another
remaining    runs the unfinished shards of plans, and counts their images
"""
