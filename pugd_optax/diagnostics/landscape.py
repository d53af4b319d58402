r"""The loss along lines and over planes of parameter space."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from pugd_optax._checks import check_same
from pugd_optax._norms import widen
from pugd_optax.ascents import offset
from pugd_optax.noise import as_key, draw


def loss_line(
    loss_fn: Callable[[optax.Params], jax.Array],
    params: optax.Params,
    direction: optax.Updates,
    at: jax.typing.ArrayLike,
) -> jax.Array:
    r"""The loss along a line, $L(w + t\,d)$.

    Args:
      loss_fn: `params -> loss`, a scalar.
      params: $w$.
      direction: $d$, a tree like the parameters: a gradient, the difference to other parameters, or a random direction
        from `filter_normalized_direction`.
      at: the values of $t$, shape `(n,)`.

    Returns:
      The losses, shape `(n,)`, evaluated one after the other.

    Raises:
      ValueError: if `direction` does not match the parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> loss_line(lambda w: jnp.sum(w**2), jnp.array([1.0]), jnp.array([2.0]), jnp.array([-0.5, 0.0, 0.5]))
      Array([0., 1., 4.], dtype=float32)
    """
    check_same("direction", direction, "params", params, _DIRECTION_FIX)
    return jax.lax.map(lambda t: loss_fn(offset(params, _times(t, direction))), jnp.asarray(at))


def loss_surface(
    loss_fn: Callable[[optax.Params], jax.Array],
    params: optax.Params,
    directions: tuple[optax.Updates, optax.Updates],
    x: jax.typing.ArrayLike,
    y: jax.typing.ArrayLike,
) -> jax.Array:
    r"""The loss over a plane, $L(w + x\,d_1 + y\,d_2)$.

    Args:
      loss_fn: `params -> loss`, a scalar.
      params: $w$.
      directions: $d_1$ and $d_2$, trees like the parameters.
      x: the values of $x$, shape `(n,)`.
      y: the values of $y$, shape `(m,)`.

    Returns:
      The losses, shape `(m, n)`, ready for `matplotlib.pyplot.contour(x, y, losses)`.

    Raises:
      ValueError: if a direction does not match the parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> d1, d2 = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
      >>> loss = lambda w: jnp.sum(jnp.array([1.0, 10.0]) * w**2)
      >>> loss_surface(loss, jnp.zeros(2), (d1, d2), x=jnp.array([0.0, 1.0, 2.0]), y=jnp.array([0.0, 1.0]))
      Array([[ 0.,  1.,  4.],
             [10., 11., 14.]], dtype=float32)
    """
    for i, direction in enumerate(directions):
        check_same(f"directions[{i}]", direction, "params", params, _DIRECTION_FIX)
    row = lambda t: loss_line(loss_fn, offset(params, _times(t, directions[0])), directions[1], y)
    return jax.lax.map(row, jnp.asarray(x)).T


def filter_normalized_direction(params: optax.Params, key: jax.Array | int = 0, *, axis: int = -1) -> optax.Updates:
    r"""A random direction whose filters have the same norms as those of the parameters.

    $$d_f \leftarrow \frac{\|w_f\|}{\|d_f\|}\, d_f, \qquad d \sim \mathcal{N}(0, I)$$

    for every filter $f$ of every tensor with two or more axes. Tensors with fewer axes, such as biases and
    normalization layers, get 0. Without this, networks that differ only in the scale of their layers look flatter or
    sharper.

    Args:
      params: the parameters.
      key: a PRNG key or an integer seed; two keys give two nearly orthogonal directions.
      axis: the axis that indexes the filters: the last one in Flax and Haiku.

    Returns:
      A tree like the parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> d = filter_normalized_direction({"kernel": 2 * jnp.ones((4, 3)), "bias": jnp.ones(3)})
      >>> jnp.linalg.norm(d["kernel"], axis=0).round(4).tolist(), d["bias"].tolist()
      ([4.0, 4.0, 4.0], [0.0, 0.0, 0.0])

    References:
      Li, Xu, Taylor, Studer and Goldstein, Visualizing the Loss Landscape of Neural Nets, NeurIPS 2018,
      https://arxiv.org/abs/1712.09913
    """

    def fit(d: jax.Array, w: jax.Array) -> jax.Array:
        if w.ndim < 2:
            return jnp.zeros_like(w)
        others = tuple(i for i in range(w.ndim) if i != axis % w.ndim)
        lengths = lambda x: jnp.sqrt(jnp.sum(jnp.abs(widen(x)) ** 2, axis=others, keepdims=True))
        return (widen(d) * (lengths(w) / lengths(d))).astype(w.dtype)

    return jax.tree.map(fit, draw(as_key(key), 0, params), params)


_DIRECTION_FIX = "pass a tree like the parameters, such as filter_normalized_direction(params)"


def _times(t: jax.Array, direction: optax.Updates) -> optax.Updates:
    return jax.tree.map(lambda d: t.astype(widen(d).real.dtype) * widen(d), direction)
