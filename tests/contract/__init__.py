"""What every method promises.

`pugd_optax.methods.__all__` names the methods, and a new one is tested without an edit.
"""
