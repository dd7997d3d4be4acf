"""The engine: records become arrays, decoded straight into their place, without TensorFlow."""
