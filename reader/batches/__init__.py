"""The engine: records become arrays, decoded straight into their place, without TensorFlow.

batch             a batch: its arrays, and the memory that they are lent from
threads           threads that fill batches: several ahead, and several for one
decoders          images straight to their place in a batch
batch_reader      reads, checks and decodes the records of a step
iterator          epoch after epoch as NumPy arrays: `ShardSet.batches`
pixel_statistics  means and deviations: `ShardSet.statistics`
input_clock       how long a training waits for its batches
"""
