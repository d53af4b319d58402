"""Names for the package's few kinds of functions."""

from collections.abc import Callable
from typing import Any

import jax
import optax

GradFn = Callable[[optax.Params], optax.Updates]
"""`w -> gradient at w`, bound by the caller to one batch and one random key."""

ValueFn = Callable[..., jax.Array]
"""`w -> loss at w`, the convention of Optax's line searches."""

LossesFn = Callable[[optax.Params], jax.Array]
"""`w -> losses [batch]`, bound by the caller to one batch and one random key."""

Combine = Callable[..., optax.Updates]
"""`(g, g_star) -> u`; it may name further arguments, see `pugd_optax.combines`."""

Mask = Any
"""A tree of Python bools with the structure of the parameters, or a function `params -> such a tree`."""
