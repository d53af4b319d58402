"""The gradients that enter a re-evaluation, recorded for `pugd_optax.check`."""

from contextvars import ContextVar

import optax

entered: ContextVar[list[optax.Updates] | None] = ContextVar("entered", default=None)
"""The gradients that entered a re-evaluation since a list was set here; None if nothing is recorded."""
