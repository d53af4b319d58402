r"""Timing: when to evaluate the second gradient.

A gate is a function `step -> bool`, or a `Gate` of several functions if it needs memory. `reevaluate` and every method
built on it take a gate as `when=`. Gates without memory are pure functions of the step count, so a trainer can evaluate
them beforehand, `jax.vmap(gate)(jnp.arange(steps))`, and pass `active=` as a Python bool.
"""

from pugd_optax.timing.feedback import turning as turning
from pugd_optax.timing.gate import Gate as Gate, When as When
from pugd_optax.timing.plans import (
    after as after,
    bernoulli as bernoulli,
    between as between,
    every as every,
    tail as tail,
)
from pugd_optax.timing.triggers import (
    generalization_gap as generalization_gap,
    large_gradient as large_gradient,
    low_variance as low_variance,
)

__all__ = [
    "Gate",
    "When",
    "after",
    "bernoulli",
    "between",
    "every",
    "generalization_gap",
    "large_gradient",
    "low_variance",
    "tail",
    "turning",
]
