"""A choice that is made now where it can be."""

from collections.abc import Callable
from typing import Any

import jax
from jax.core import Tracer


def cond(choose: Any, yes: Callable[..., Any], no: Callable[..., Any], *operands: Any) -> Any:
    """`jax.lax.cond` where the choice is traced; else the chosen branch alone.

    Outside jit `lax.cond` would compile both branches at every call, as it knows branches by the function object, and
    these are closures made anew.

    Example:
      >>> cond(True, lambda x: x + 1, lambda x: x - 1, 1)
      2
    """
    if isinstance(choose, Tracer):
        return jax.lax.cond(choose, yes, no, *operands)
    return (yes if choose else no)(*operands)
