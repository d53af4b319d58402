"""The cost of a perturbed step, compared with a lower bound and with other implementations in one interleaved run."""
