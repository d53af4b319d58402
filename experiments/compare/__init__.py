"""A comparison of all methods with the same number of gradient evaluations, on a few small tasks."""
