"""Losses whose per-example gradient norms cannot be computed, and what to do instead."""

# Wrong calls are the subject here.
# pyright: reportArgumentType=false, reportCallIssue=false

import jax
import jax.numpy as jnp

from tests.messages.given import LABELS, ONE, SIGNS, X, ghost
from tests.raises import Case

GHOST = [
    Case(
        lambda: ghost(lambda w: (lambda losses: losses / losses.mean())(jnp.sum((X @ w) ** 2, axis=1)), jnp.eye(3)),
        "losses_fn",
        "couples the examples",
        "Fix: use LayerNorm",
    ),
    Case(
        lambda: ghost(lambda w: jnp.sum(jax.lax.pad(X, w, [(0, 0, 0), (1, 0, 0)]), axis=1), 1.0),
        "params['w']",
        "primitive pad",
        SIGNS,
    ),
    Case(
        lambda: ghost(lambda w: (lambda h: jnp.sum(h, axis=0) + jnp.sum(h, axis=1))(jnp.full((4, 4), w)), 1.0),
        "params['w']",
        "that all examples share",
        SIGNS,
    ),
    Case(
        lambda: ghost(lambda w: jax.lax.map(lambda row: jnp.sum(row**2), X @ w), jnp.eye(3)),
        "params['w']",
        "the batch axis",
        SIGNS,
    ),
    Case(
        lambda: ghost(lambda w: jnp.sum(jax.lax.conv(ONE, w, (1,), "VALID"), axis=(0, 2)), jnp.ones((4, 1, 2))),
        "params['w']",
        "is lost behind the primitive conv_general_dilated",
        SIGNS,
    ),
    Case(
        lambda: ghost(lambda w: w[LABELS, LABELS] ** 2, jnp.eye(3)),
        "params['w']",
        "a gather that is not a lookup of rows",
        SIGNS,
    ),
    Case(lambda: ghost(lambda z: jnp.sum(z**2, axis=1), jnp.ones((4, 3))), "params['w']", "an entry for every", SIGNS),
]
