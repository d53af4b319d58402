"""Cross-entropy in which a label out of range never counts as another class."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from pugd_optax._class_checks import check_class_axis, check_indices


def cross_entropy(logits: jax.Array, labels: Any) -> jax.Array:
    """Softmax cross-entropy of every row. Under jit, a label out of range makes the loss and its gradient NaN.

    Optax's function counts -1 from the end under jit, so padding would be trained as the last class.
    """
    safe, factor = in_range(labels, logits)
    return optax.softmax_cross_entropy_with_integer_labels(logits, safe) * factor


def in_range(labels: Any, logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Valid labels, with 0 for those out of range, and a factor for the losses: 1, or NaN for those out of range."""
    num_classes, labels = check_class_axis(logits), check_indices(labels, logits)
    inside = (labels >= 0) & (labels < num_classes)
    # A product, not `jnp.where`, whose gradient would be 0, so that a wrong label would go unnoticed.
    return jnp.where(inside, labels, 0), jnp.where(inside, 1.0, jnp.nan)
