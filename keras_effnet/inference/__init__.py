"""A Keras model and its answers: classify, evaluate, explain, fuse."""
