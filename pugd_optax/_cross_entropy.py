"""Cross-entropy that does not take a label out of range for another class."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from pugd_optax._class_checks import check_class_axis, check_indices


def cross_entropy(logits: jax.Array, labels: Any) -> jax.Array:
    """Softmax cross-entropy of every row; NaN, and its gradient too, for a label out of range that cannot be read.

    Under jit, Optax's counts -1 from the end, so padding would be trained as the last class.
    """
    safe, factor = in_range(labels, logits)
    return optax.softmax_cross_entropy_with_integer_labels(logits, safe) * factor


def in_range(labels: Any, logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Labels that index a class, 0 where they did not; and what to multiply losses by: 1, or NaN where they did not."""
    num_classes, labels = check_class_axis(logits), check_indices(labels, logits)
    inside = (labels >= 0) & (labels < num_classes)
    # A product, not a selection: that would pass no gradient at all, and a wrong label would go unseen.
    return jnp.where(inside, labels, 0), jnp.where(inside, 1.0, jnp.nan)
