"""What enters a re-evaluation, for `pugd_optax.check` to see."""

from contextvars import ContextVar

import optax

entered: ContextVar[list[optax.Updates] | None] = ContextVar("entered", default=None)
"""The gradients that entered a re-evaluation since a list was set here; None where nobody asks."""
