"""Edits of the logit gradient with one number per class."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from pugd_optax._class_checks import membership
from pugd_optax._norms import widen

Edit = Callable[..., jax.Array]
"""`(cotangent, labels, strength, *, axis_name=None) -> cotangent`."""


def multiplicative(
    cotangent: jax.Array, labels: Any, strength: jax.Array, *, axis_name: str | None = None
) -> jax.Array:
    r"""Scale the gradient of each example by its class.

    $$\tilde g_i = (1 + t_{y_i})\, g_i$$

    This is the gradient of a class-weighted loss. For soft labels the factor is $1 + \sum_c y_{ic} t_c$.

    Args:
      cotangent: $g$, (..., classes).
      labels: (...) integer class indices, or (..., classes) soft labels in [0, 1].
      strength: $t$, (classes,); values below -1 count as -1, because the gradient would change sign.
      axis_name: not used; no example depends on another.

    Returns:
      $\tilde g$ in the shape and dtype of `cotangent`; at strength 0 the same numbers.

    Example:
      >>> import jax.numpy as jnp
      >>> g = jnp.array([[0.5, -0.5], [-0.25, 0.25]])
      >>> multiplicative(g, jnp.array([1, 0]), jnp.array([-0.5, 1.0])).tolist()
      [[1.0, -1.0], [-0.125, 0.125]]
    """
    del axis_name
    g, t = widen(cotangent), jnp.maximum(strength, -1)
    weight = 1 + jnp.matmul(membership(labels, cotangent), t, precision="highest")
    return (g * weight[..., None].astype(g.dtype)).astype(cotangent.dtype)


def additive(cotangent: jax.Array, labels: Any, strength: jax.Array, *, axis_name: str | None = None) -> jax.Array:
    r"""Add to the gradient of each example a multiple of the mean gradient of its class.

    $$\tilde g_i = g_i + t_{y_i}\, \bar g_{y_i}, \qquad \bar g_c = \frac{\sum_i y_{ic}\, g_i}{\sum_i y_{ic}}$$

    Per class, the sum is the same as that of `multiplicative`, but well-fitted examples are changed as much as the
    others. Needs an array of classes x classes. For soft labels the change is shared between the classes.

    Args:
      cotangent: $g$, (..., classes).
      labels: (...) integer class indices, or (..., classes) soft labels in [0, 1].
      strength: $t$, (classes,); values below -1 count as -1, because the mean gradient would change sign.
      axis_name: a mesh axis over which the batch is split; the sums are then taken over all devices.

    Returns:
      $\tilde g$ in the shape and dtype of `cotangent`; at strength 0 the same numbers.

    Example:
      >>> import jax.numpy as jnp
      >>> g = jnp.array([[0.5, -0.5], [0.0, 0.0], [-0.25, 0.25]])
      >>> additive(g, jnp.array([1, 1, 0]), jnp.array([0.0, 0.5])).tolist()
      [[0.625, -0.625], [0.125, -0.125], [-0.25, 0.25]]
    """
    g = widen(cotangent)
    members = membership(labels, cotangent).astype(g.dtype)
    flat, rows = members.reshape(-1, members.shape[-1]), g.reshape(-1, g.shape[-1])
    n, total = flat.sum(0), jnp.matmul(flat.T, rows, precision="highest")
    if axis_name is not None:
        n, total = jax.lax.psum((n, total), axis_name)
    t = jnp.maximum(strength, -1).astype(g.dtype)
    shift = (t / jnp.where(n > 0, n, 1))[:, None] * total
    return (g + jnp.matmul(members, shift, precision="highest")).astype(cotangent.dtype)


def renormalize(strength: jax.Array, labels: Any, logits: jax.Array, *, axis_name: str | None = None) -> jax.Array:
    r"""Rescale the weights $1 + t_c$ so that those of a batch sum to its number of examples.

    $$1 + t'_c = (1 + t_c)\, \frac{\sum_c n_c}{\sum_c n_c (1 + t_c)}$$

    Only the relative weights of the classes then matter; otherwise a change of the total acts like another learning
    rate.

    Args:
      strength: $t$, (classes,).
      labels: those of the batch, for the $n_c$.
      logits: those of the batch, for their shape.
      axis_name: a mesh axis over which the batch is split; counts are then summed over all devices.

    Returns:
      $t'$, (classes,).

    Example:
      >>> import jax.numpy as jnp
      >>> weight = 1 + renormalize(jnp.array([0.5, -0.5]), jnp.array([0, 0, 1, 1, 1, 1]), jnp.zeros((6, 2)))
      >>> print(jnp.array_str(weight, precision=2))
      [1.8 0.6]
    """
    members = membership(labels, logits)
    n = members.sum(tuple(range(members.ndim - 1)))
    n = n if axis_name is None else jax.lax.psum(n, axis_name)
    weight = 1 + jnp.maximum(strength, -1)
    total = jnp.sum(n * weight)
    return jnp.where(total > 0, weight * (jnp.sum(n) / jnp.where(total > 0, total, 1)), 1) - 1
