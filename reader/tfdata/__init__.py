"""The wrappers for TensorFlow and Keras, and the only modules that import them."""
