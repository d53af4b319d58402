"""A conditional that is decided in Python where its predicate is known."""

from collections.abc import Callable
from typing import Any

import jax
from jax.core import Tracer


def cond(choose: Any, yes: Callable[..., Any], no: Callable[..., Any], *operands: Any) -> Any:
    """`jax.lax.cond` if the predicate is traced; otherwise only the chosen branch runs.

    Outside jit `lax.cond` would compile both branches at every call: it identifies branches by the function object, and
    these are new closures each time.

    Example:
      >>> cond(True, lambda x: x + 1, lambda x: x - 1, 1)
      2
    """
    if isinstance(choose, Tracer):
        return jax.lax.cond(choose, yes, no, *operands)
    return (yes if choose else no)(*operands)
