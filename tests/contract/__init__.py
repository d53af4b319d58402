"""Tests of what every method guarantees.

The methods are those in `pugd_optax.methods.__all__`, so a new one is tested without an edit here.
"""
