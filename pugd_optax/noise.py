r"""Gaussian noise in the shape of the parameters, the same again for the same key and step."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pugd_optax._norms import widen


def gaussian(key: jax.Array | int = 0) -> optax.GradientTransformationExtraArgs:
    r"""Standard normal noise on every parameter, $\epsilon \sim \mathcal{N}(0, I)$; the gradient is not read.

    Args:
      key: a PRNG key or an integer seed. The noise of step t is drawn from `fold_in(key, t)`, so nothing but the step
        count is carried on, and a resumed run draws the same noise. Two noise methods in one chain need two keys: those
        of one key draw the same numbers.

    Returns:
      A stateless ascent.

    Raises:
      TypeError: if `key` is neither a key nor a whole number.

    Example:
      >>> import jax.numpy as jnp
      >>> tx, g = gaussian(key=0), {"w": jnp.zeros(10_000)}
      >>> eps, _ = tx.update(g, tx.init(g), g, step=3)
      >>> print(f"{eps['w'].std():.1f}")
      1.0
    """
    key = as_key(key)

    def update(updates, state, params=None, *, step: Any = 0, **extra_args: Any):
        del params, extra_args
        return draw(key, step, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def draw(key: jax.Array, step: jax.typing.ArrayLike, like: optax.Updates) -> optax.Updates:
    """The standard normal noise of one step, in the shapes and dtypes of `like`."""
    return optax.tree.random_like(jax.random.fold_in(key, step), like)


def shift(
    sigma: optax.ScalarOrSchedule, key: jax.Array, step: jax.typing.ArrayLike, like: optax.Updates
) -> optax.Updates:
    r"""The noise of one step, $\sigma_t \xi_t$."""
    scale = jnp.asarray(sigma(step) if callable(sigma) else sigma)
    return jax.tree.map(lambda x: (scale.astype(widen(x).real.dtype) * widen(x)).astype(x.dtype), draw(key, step, like))


def as_key(key: jax.Array | int) -> jax.Array:
    """A typed PRNG key from one, from its raw words, or from a whole number, traced or not.

    Example:
      >>> as_key(7).shape
      ()
    """
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and not key.shape:
        return key
    if isinstance(key, jax.Array) and key.dtype == jnp.uint32 and key.ndim == 1:
        return jax.random.wrap_key_data(key)
    whole = isinstance(key, int | np.integer) or (isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jnp.integer))
    if isinstance(key, bool) or not whole or np.ndim(key):
        raise TypeError(f"key={key!r}: expected one PRNG key or a whole number. Fix: key=jax.random.key(0).")
    return jax.random.key(key)
