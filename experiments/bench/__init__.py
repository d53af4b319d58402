"""What a perturbed step costs, against a lower bound and against other implementations, in one interleaved run."""
