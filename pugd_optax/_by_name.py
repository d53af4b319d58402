"""Optional parameters: a function receives only those of the available arguments that it names."""

import inspect
from collections.abc import Callable
from typing import Any


def by_name(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, ignoring the keyword arguments that are not among its parameters.

    Example:
      >>> by_name(lambda g, step: g + step)(1, step=2, norms=3)
      3
    """
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return function
    names = {p.name for p in parameters}
    return lambda *args, **offered: function(*args, **{k: v for k, v in offered.items() if k in names})
