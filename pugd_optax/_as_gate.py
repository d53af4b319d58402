"""Turns whatever may be passed as `when` into a gate."""

from typing import Any

import jax
import numpy as np

from pugd_optax import timing
from pugd_optax.timing import Gate


def as_gate(when: Any) -> Gate:
    """The gate itself, or a gate made from a function `step -> bool`, a bool, or None, which means always active."""
    if isinstance(when, Gate):
        return when
    when = True if when is None else when
    if when is getattr(timing, getattr(when, "__name__", ""), None):
        raise TypeError(_NOT_CALLED.format(name=when.__name__))
    constant = isinstance(when, bool | np.bool_ | jax.Array)
    if not (constant or callable(when)):
        raise TypeError(_NO_GATE.format(when=when))

    def decide(state, grads, *, step, **extra_args):
        decision = when if constant else when(step)
        if callable(decision) or isinstance(decision, Gate):
            raise TypeError(_NO_GATE.format(when=when))
        return decision, state

    return Gate(lambda params: (), decide)


_NOT_CALLED = (
    "when=pugd_optax.timing.{name}: expected a gate, and not the function that makes one. "
    "Fix: call it, when=pugd_optax.timing.{name}(...)."
)
_NO_GATE = "when={when!r}: expected a gate, a function step -> bool. Fix: when=pugd_optax.timing.after(1000)."
