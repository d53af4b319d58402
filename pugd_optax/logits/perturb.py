r"""Applying an edit of the logit gradient: between a model and any loss, or inside the loss."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pugd_optax._class_checks import membership
from pugd_optax._norms import axes_of, widen
from pugd_optax.logits.edits import Edit, multiplicative
from pugd_optax.logits.offsets import Offsets, perturb_by_offsets

LogitLoss = Callable[[jax.Array], jax.Array]
"""`logits -> scalar loss`, bound to the labels of one batch."""

Strength = jax.Array | Offsets
"""One signed bound per class, for an edit; or two offsets per class."""


def perturb(
    logits: jax.Array,
    labels: Any,
    strength: Strength,
    edit: Edit | None = None,
    *,
    where: Any = None,
    axis_name: str | None = None,
) -> jax.Array:
    r"""The logits, with a backward pass that edits the gradient by class. Use it in front of any loss.

    Args:
      logits: $u$, (..., classes).
      labels: (...) integer class indices, or (..., classes) soft labels in [0, 1].
      strength: $t$, (classes,), see `pugd_optax.classes.strength`; or `offsets(a, b)`. No gradient flows into it.
      edit: `multiplicative` (the default) or `additive`; not given with offsets, which are an edit themselves.
      where: (...) bool, False for rows that are not changed, such as padding; their labels do not matter.
      axis_name: a mesh axis over which the batch is split, for `additive`.

    Returns:
      `logits`, unchanged.

    Raises:
      ValueError, TypeError: if labels or `where` do not fit the logits or labels are out of range. Under jit labels
        cannot be checked: with a label out of range, the gradient of its row is not changed.

    Example:
      The caller keeps state, loss and optimizer. `strength` is the same for every gradient of a step, so this works
      with methods that evaluate a second gradient.

      >>> import jax, jax.numpy as jnp, optax, pugd_optax
      >>> from pugd_optax import classes, logits
      >>> x, y = jnp.array([[1.0, 0.0], [0.5, 1.0], [2.0, 1.0]]), jnp.array([0, 1, 0])
      >>> tx = optax.chain(pugd_optax.sam(0.05), optax.sgd(0.5))
      >>> @jax.jit
      ... def step(w, opt_state, state):
      ...     state = classes.observe(state, x @ w, y)
      ...     t = classes.strength(state, classes.balanced(), eps=0.1, d_eps=0.5)
      ...     def loss_fn(w):
      ...         u = logits.perturb(x @ w, y, t)
      ...         return optax.softmax_cross_entropy_with_integer_labels(u, y).mean()
      ...     loss, grads = jax.value_and_grad(loss_fn)(w)
      ...     updates, opt_state = tx.update(grads, opt_state, w, grad_fn=jax.grad(loss_fn))
      ...     return optax.apply_updates(w, updates), opt_state, state, loss
      >>> w = jnp.zeros((2, 2))
      >>> opt_state, state = tx.init(w), classes.init(2)
      >>> for _ in range(10):
      ...     w, opt_state, state, loss = step(w, opt_state, state)
      >>> print(f"{loss:.3f}")
      0.312

    Notes:
      Works on the whole batch, so do not use it inside a `vmap` over examples. `jax.custom_vjp` does not support
      forward mode (`jvp`, forward-over-reverse Hessian-vector products); use `linear_surrogate` for that.
    """
    members = membership(labels, logits, where)
    return _identity(edit_of(strength, edit, axis_name), logits, members, strength)


def linear_surrogate(
    logit_loss: LogitLoss,
    labels: Any,
    strength: Strength,
    edit: Edit | None = None,
    *,
    where: Any = None,
    axis_name: str | None = None,
) -> LogitLoss:
    r"""A loss with the same value whose first derivative is edited by class, in forward and in reverse mode.

    $$\tilde\ell(u) = \ell(u) + \langle \delta, u \rangle - \mathrm{stop}\langle \delta, u \rangle, \qquad
      \delta = \mathrm{stop}(\tilde g - g), \qquad g = \nabla_u \ell(u)$$

    Args:
      logit_loss: $\ell$, `logits -> scalar`, bound to the labels of the batch.
      labels: (...) integer class indices, or (..., classes) soft labels in [0, 1].
      strength: $t$, (classes,), or `offsets(a, b)`; held fixed.
      edit: `multiplicative` (the default) or `additive`; not given with offsets.
      where: (...) bool, False for rows that are not changed, such as padding.
      axis_name: a mesh axis over which the batch is split, for `additive`.

    Returns:
      $\tilde\ell$, `logits -> scalar`.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> y, t = jnp.array([0, 1]), jnp.array([0.5, -0.5])
      >>> loss = lambda u: optax.softmax_cross_entropy_with_integer_labels(u, y).sum()
      >>> jax.jacfwd(linear_surrogate(loss, y, t))(jnp.zeros((2, 2))).tolist()
      [[-0.75, 0.75], [0.25, -0.25]]

    Notes:
      Second derivatives are those of the plain loss, because $\delta$ is a constant. It costs one more gradient with
      respect to the logits, which is almost nothing for a loss on logits.

      Inside `shard_map` the loss may be that of one device or an average over the mesh.
    """
    edited = edit_of(strength, edit, axis_name)

    def surrogate(logits: jax.Array) -> jax.Array:
        fixed = jax.lax.stop_gradient(logits)
        g = jax.grad(logit_loss)(fixed)
        edited_g = edited(g, fixed, membership(labels, logits, where), strength)
        delta = jax.lax.stop_gradient(widen(edited_g) - widen(g))
        value = logit_loss(logits)
        u = widen(logits)
        # Without the logits of masked classes: -inf minus -inf is not 0.
        linear = _sum_like(value, jnp.sum(delta * jnp.where(jnp.isfinite(u), u, 0)))
        return value + (linear - jax.lax.stop_gradient(linear)).astype(value.dtype)

    return surrogate


def edit_of(strength: Strength, edit: Edit | None, axis_name: str | None = None) -> Callable[..., jax.Array]:
    """`(cotangent, logits, members, strength) -> cotangent`, for both kinds of strength."""
    if not isinstance(strength, Offsets):
        return functools.partial(_by_class, multiplicative if edit is None else edit, axis_name)
    if edit is not None:
        raise ValueError(f"edit={edit!r} with offsets, which are an edit of their own. Fix: leave edit out.")
    return perturb_by_offsets


def _by_class(edit, axis_name, cotangent, logits, members, strength):
    del logits
    if np.shape(strength) != cotangent.shape[-1:]:
        raise ValueError(
            f"strength has the shape {np.shape(strength)}: expected {cotangent.shape[-1:]}, one number for each class "
            "of the logits. Fix: pugd_optax.classes.strength(state, rule, eps, d_eps)."
        )
    return edit(cotangent, members, strength, axis_name=axis_name)


def _sum_like(value: jax.Array, local: jax.Array) -> jax.Array:
    """`local`, summed over the mesh axes over which `value` does not vary, as for a loss averaged over devices."""
    axes = axes_of(local) - axes_of(value)
    return jax.lax.psum(local, tuple(axes)) if axes else local


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _identity(edit: Callable[..., jax.Array], logits: jax.Array, members: jax.Array, strength: Strength) -> jax.Array:
    del edit, members, strength
    return logits


def _identity_fwd(edit, logits, members, strength):
    # An edit by class does not need the logits, so they are not saved.
    kept = logits if edit is perturb_by_offsets else None
    return logits, (kept, members, strength)


def _identity_bwd(edit, residuals, cotangent):
    return edit(cotangent, *residuals), None, None


_identity.defvjp(_identity_fwd, _identity_bwd)
