"""Flooding: losses that keep the training loss above a level, `loss -> loss`."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from pugd_optax._checks import check_number
from pugd_optax._class_checks import check_positive
from pugd_optax._norms import widen


def flood(loss_fn: Callable[..., Any], level: float, *, has_aux: bool = False) -> Callable[..., Any]:
    r"""Flooding: keep the mean loss of a batch near a level, by gradient ascent whenever it is below.

    $$|L - b| + b, \qquad \text{gradient } \mathrm{sign}(L - b)\, g$$

    An ascent step followed by a descent step of size $h$ ends at $w - h^2\, (\nabla L(w + h g) - g) / h$: together they
    are one step of gradient regularisation by finite differences.

    Args:
      loss_fn: returns the mean loss of a batch, a scalar; or `(loss, aux)` with `has_aux`.
      level: $b \ge 0$, in units of the loss.
      has_aux: whether `loss_fn` returns auxiliary output.

    Returns:
      A function with the same arguments and results.

    Raises:
      ValueError, TypeError: if `level` is out of its range; when called, if the loss is not a scalar.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> loss = flood(lambda w: w**2, level=1.0)
      >>> float(loss(0.5)), float(jax.grad(loss)(0.5)), float(jax.grad(loss)(2.0))
      (1.75, -1.0, 4.0)

    References:
      Ishida, Yamane, Sakai, Niu and Sugiyama, Do We Need Zero Training Loss After Achieving Zero Training Error?,
      ICML 2020, https://arxiv.org/abs/2002.08709
    """
    check_number("level", level, low=0)

    def transform(loss: jax.Array) -> jax.Array:
        if jnp.ndim(loss):
            raise ValueError(
                f"flood: loss_fn returned the shape {jnp.shape(loss)}, expected the mean loss of a batch, a scalar. "
                "Fix: loss.mean(), or pugd_optax.iflood for losses of single examples."
            )
        return _fold(loss, level)

    return _compose(transform, loss_fn, has_aux)


def iflood(loss_fn: Callable[..., Any], level: float, *, has_aux: bool = False) -> Callable[..., Any]:
    r"""Flooding of every example separately.

    $$\mathrm{mean}_i\, |\ell_i - b| + b, \qquad \text{gradient } \mathrm{mean}_i\, \mathrm{sign}(\ell_i - b)\, g_i$$

    Args:
      loss_fn: returns the losses of the examples, an array; or `(losses, aux)` with `has_aux`.
      level: $b \ge 0$, in units of the loss.
      has_aux: whether `loss_fn` returns auxiliary output.

    Returns:
      A function of the same arguments that returns a scalar, or `(scalar, aux)`.

    Raises:
      ValueError, TypeError: if `level` is out of its range; when called, if the losses are already reduced.

    Example:
      >>> import jax.numpy as jnp
      >>> float(iflood(lambda w: w**2, level=1.0)(jnp.array([0.0, 2.0])))
      3.0

    References:
      Xie, Wang, Li, Zhang, Zhou and Ding, iFlood: A Stable and Effective Regularizer, ICLR 2022,
      https://openreview.net/forum?id=MsHnJPaBUZE
    """
    check_number("level", level, low=0)
    transform = lambda losses: jnp.mean(_fold(losses, level))
    return _compose(_of_examples("iflood", transform), loss_fn, has_aux)


def soft_ad(
    loss_fn: Callable[..., Any], level: float, sigma: float = 1.0, *, has_aux: bool = False
) -> Callable[..., Any]:
    r"""Soft ascent-descent: descend on examples above a level, ascend on those below, less the closer they are to it.

    $$\theta + \sigma\, \mathrm{mean}_i\, \rho\Big(\frac{\ell_i - \theta}{\sigma}\Big), \quad
      \rho(x) = \sqrt{1 + x^2} - 1, \qquad
      \text{gradient } \mathrm{mean}_i\, \phi\Big(\frac{\ell_i - \theta}{\sigma}\Big)\, g_i, \quad
      \phi(x) = \frac{x}{\sqrt{1 + x^2}}$$

    Args:
      loss_fn: returns the losses of the examples, an array; or `(losses, aux)` with `has_aux`.
      level: $\theta$, in units of the loss.
      sigma: $\sigma > 0$, the width of the transition; in the limit 0 this is `iflood`. The paper's objective is this
        one times $\sigma$, up to a constant; at $\sigma = 1$, its default, they are the same.
      has_aux: whether `loss_fn` returns auxiliary output.

    Returns:
      A function of the same arguments that returns a scalar, or `(scalar, aux)`.

    Raises:
      ValueError, TypeError: if an argument is out of its range; when called, if the losses are already reduced.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> jax.grad(soft_ad(lambda w: 3 * w, level=0.0))(jnp.array([0.0, 1e9]))
      Array([0. , 1.5], dtype=float32)

    References:
      Holland and Nakatani, Soft Ascent-Descent as a Stable and Flexible Alternative to Flooding, NeurIPS 2024,
      https://arxiv.org/abs/2310.10006
    """
    check_number("level", level)
    check_positive("sigma", sigma)

    def transform(losses: jax.Array) -> jax.Array:
        losses = jnp.asarray(losses)
        away = widen(losses) - level
        # sqrt(1 + x^2) - 1, without loss of precision near 0, and as |x| - 1 where the square would overflow.
        far = jnp.abs(away) > 1e8 * sigma
        x = jnp.where(far, 0, away) / sigma
        rise = jnp.where(far, jnp.abs(away) - sigma, sigma * (x * x / (1 + jnp.sqrt(1 + x * x))))
        return (level + jnp.mean(rise)).astype(losses.dtype)

    return _compose(_of_examples("soft_ad", transform), loss_fn, has_aux)


def _fold(loss: jax.Array, level: float) -> jax.Array:
    """`|loss - level| + level` with derivative 0 at the level itself, where that of `jnp.abs` is 1."""
    return (loss - level) * jnp.sign(loss - level) + level


def _compose(transform: Callable[[jax.Array], jax.Array], loss_fn: Callable[..., Any], has_aux: bool):
    @functools.wraps(loss_fn)
    def transformed(*args: Any, **kwargs: Any):
        if not has_aux:
            return transform(loss_fn(*args, **kwargs))
        loss, aux = loss_fn(*args, **kwargs)
        return transform(loss), aux

    return transformed


def _of_examples(name: str, transform: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    def checked(losses: jax.Array) -> jax.Array:
        if not jnp.ndim(losses):
            raise ValueError(
                f"{name}: loss_fn returned a scalar, expected one loss for each example. "
                "Fix: leave out the mean, or pugd_optax.flood for the mean of a batch."
            )
        return transform(losses)

    return checked
