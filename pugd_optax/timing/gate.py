"""The type of a gate with memory."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax


class Gate(NamedTuple):
    """A gate with memory, which is updated on every step, active or not.

    Attributes:
      init: `params -> state`.
      update: `(state, grads, *, step, **extra_args) -> (active, state)`.
      observe: `state -> state` after an active step, which may name `g`, `g_star`, `eps`, `norms`, `value`, `step` and
        `params` as further parameters. Default: nothing is observed.
    """

    init: Callable[[optax.Params], Any]
    update: Callable[..., tuple[Any, Any]]
    observe: Callable[..., Any] | None = None


When = Callable[..., Any] | Gate | bool | jax.Array | None
"""What `when=` accepts: `step -> bool`, a `Gate`, a bool, or None for every step."""
