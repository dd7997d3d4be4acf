"""The wrappers for TensorFlow and Keras, and the only modules that import them.

decoding      an image to a tensor, with TensorFlow's own code
placing       the same for the engine, where only TensorFlow gives these numbers
dataset       a `tf.data.Dataset` of the engine's batches
serializable  one of TensorFlow's own operations alone
sequence      a `keras.utils.PyDataset`: any batch by its number
checkpoint    the state of a training on disk: complete or absent
resume        a callback that resumes a killed training: `ResumeTraining`
input_stats   a callback that says whether the model waits: `InputStats`
"""
