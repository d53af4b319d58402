"""Image classifiers in Flax NNX, and their passes as pure functions."""
