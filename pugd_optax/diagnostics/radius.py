r"""Choosing a radius: how a perturbation changes the direction and norm of the gradient, and the loss."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pugd_optax._checks import check_number
from pugd_optax._norms import norm, widen
from pugd_optax.combines import cosine
from pugd_optax.diagnostics._counting import tied

RADII = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class RadiusCurve(NamedTuple):
    r"""The result of `radius_curve`, means over the batches; `print` shows it as a table.

    Attributes:
      radii: the radii, increasing; shape `(n,)`, as for the following arrays.
      cosine: $\cos(g, g^*)$.
      rise: $(L(w + \epsilon) - L(w)) / |L(w)|$, 0 where $L(w)$ is 0.
      grad_norm: $\|g^*\|$, the gradient norm at $w + \epsilon$.
      suggested: the radius at which the cosine reaches the target; None if that is outside of these radii.
    """

    radii: np.ndarray
    cosine: np.ndarray
    rise: np.ndarray
    grad_norm: np.ndarray
    suggested: float | None

    def __str__(self) -> str:
        """A table of the curve with the suggestion below it."""
        rows = [f"{'radius':>8}  {'cos(g, g*)':>10}  {'rise':>9}  {'|g*|':>9}"]
        for radius, *values in zip(*self[:4], strict=True):
            rows.append("{:8.4g}  {:10.4f}  {:9.3g}  {:9.4g}".format(radius, *values))
        rows.append("suggested: " + ("none of these" if self.suggested is None else f"{self.suggested:.3g}"))
        return "\n".join(rows)


def radius_curve(
    method: Callable[[Any], optax.GradientTransformation],
    loss_fn: Callable[..., jax.Array],
    params: optax.Params,
    batches: Iterable[Any],
    *,
    radii: Sequence[float] | np.ndarray = RADII,
    target: float = 0.8,
    **extra_args: Any,
) -> RadiusCurve:
    r"""How a perturbation changes gradient and loss at every radius, and the radius that gives a chosen cosine.

    If the radius is too small, $g^*$ equals $g$ and the second gradient is wasted; if it is too large, $g^*$ has
    nothing to do with the loss at $w$. The best radius differs by a factor of up to a hundred between methods and
    models, the cosine at the best radius much less. Measure after some training, because at the start most losses are
    flat.

    Args:
      method: `radius -> transformation`: `pugd_optax.sam`, `pugd_optax.pugd`, or
        `lambda radius: pugd_optax.gsam(radius, alpha=0.2)`. A method with memory shows its first step.
      loss_fn: `loss_fn(params, batch) -> loss`, a scalar.
      params: $w$.
      batches: a few batches of the size used in training, all of the same shape (each shape is compiled).
      radii: the radii, above 0.
      target: the cosine in (0, 1) of the suggested radius, where the curve first falls below it, interpolated linearly
        in the logarithm of the radius. A lower target means a larger perturbation.
      extra_args: further arguments of `update`.

    Returns:
      A `RadiusCurve`, float64. Each point costs two gradients per batch. The gradient evaluation farthest from $w$ is
      measured: the last step if the ascent has several, and the mean of both sides if two are equally far.

    Raises:
      ValueError, TypeError: if an argument is out of its range, there is no batch, or the method evaluates no gradient
        away from $w$.

    Example:
      >>> import jax.numpy as jnp, pugd_optax
      >>> loss_fn = lambda w, x: 0.5 * jnp.sum((x * w) ** 2)
      >>> w, batches = jnp.array([1.0, 0.01]), [jnp.array([1.0, 10.0]), jnp.array([1.0, 9.0])]
      >>> print(radius_curve(pugd_optax.sam, loss_fn, w, batches, radii=(0.003, 0.01, 0.03, 0.1)))
        radius  cos(g, g*)       rise       |g*|
         0.003      0.9960     0.0084      1.481
          0.01      0.9701     0.0309      1.821
          0.03      0.8900      0.117      2.919
           0.1      0.7763       0.68      7.074
      suggested: 0.0778
    """
    if not callable(method):
        name = type(method).__name__
        raise TypeError(f"method is a {name}: expected a function, radius -> transformation. Fix: pugd_optax.sam.")
    radii, batches = _checked(radii, target), list(batches)
    if not batches:
        raise ValueError("batches is empty: the curve needs at least one. Fix: batches=[batch].")
    seen: list[np.ndarray] = []
    measure = jax.jit(_measurement(method, loss_fn, seen.append, extra_args))
    points = np.array([[_farthest(measure, seen, params, batch, r) for batch in batches] for r in radii])
    turned, rise, length = points.mean(axis=1).T
    return RadiusCurve(radii, turned, rise, length, _crossing(np.log(radii), turned, target))


def _measurement(
    method: Callable[[Any], optax.GradientTransformation],
    loss_fn: Callable[..., jax.Array],
    record: Callable[[np.ndarray], None],
    extra_args: dict[str, Any],
) -> Callable[..., optax.Updates]:
    """`(params, batch, radius) -> u`; every gradient evaluation inside records the four numbers of `_seen`."""

    def callback(numbers: Any) -> np.ndarray:
        record(np.asarray(numbers, np.float64))
        return np.zeros((), np.float32)

    def measure(params: optax.Params, batch: Any, radius: jax.Array) -> optax.Updates:
        evaluate = lambda p: jax.value_and_grad(loss_fn)(p, batch)
        loss, g = evaluate(params)

        def recorded(p: optax.Params) -> optax.Updates:
            star_loss, g_star = evaluate(p)
            return jax.tree.map(jnp.conj, tied(g_star, callback, _seen(params, p, loss, star_loss, g, g_star)))

        grad_fn = jax.custom_jvp(recorded)
        plain = lambda p: jax.tree.map(jnp.conj, evaluate(p)[1])
        grad_fn.defjvp(lambda p, v: jax.jvp(plain, p, v))
        tx = optax.with_extra_args_support(method(radius))
        given = {"grad_fn": grad_fn, "active": True} | extra_args
        return tx.update(jax.tree.map(jnp.conj, g), tx.init(params), params, **given)[0]

    return measure


def _seen(params, p, loss, star_loss, g, g_star) -> jax.Array:
    """Distance from w, cosine, relative increase of the loss and gradient norm of one evaluation."""
    distance = norm(jax.tree.map(lambda a, b: widen(a) - widen(b), p, params))
    rise = jnp.where(loss == 0, 0, (star_loss - loss) / jnp.abs(jnp.where(loss == 0, 1, loss)))
    return jnp.stack([x.astype(jnp.float32) for x in (distance, cosine(g, g_star), rise, norm(g_star))])


def _farthest(measure: Callable[..., Any], seen: list[np.ndarray], params: optax.Params, batch: Any, radius: float):
    """Cosine, rise and norm where the gradient was evaluated farthest from w; the mean of two sides."""
    seen.clear()
    jax.block_until_ready(measure(params, batch, jnp.float32(radius)))
    jax.effects_barrier()
    farthest = max((x[0] for x in seen), default=0.0)
    if not farthest:
        raise ValueError(
            f"method: at radius={radius:g} it evaluates no gradient away from params. Fix: a method that perturbs "
            "parameters, such as pugd_optax.sam, at params whose gradient is not 0."
        )
    return np.mean([x[1:] for x in seen if x[0] > 0.999 * farthest], axis=0)


def _crossing(position: np.ndarray, values: np.ndarray, target: float) -> float | None:
    """The radius at which values first fall below the target, by linear interpolation in its logarithm."""
    below = np.flatnonzero(values < target)
    if not below.size or not below[0]:
        return None
    i = below[0]
    share = (values[i - 1] - target) / (values[i - 1] - values[i])
    return float(np.exp(position[i - 1] + share * (position[i] - position[i - 1])))


def _checked(radii: Sequence[float] | np.ndarray, target: float) -> np.ndarray:
    check_number("target", target, low=0, below=1)
    values = np.asarray(radii, np.float64)
    if values.ndim != 1 or not values.size or not (np.isfinite(values) & (values > 0)).all():
        raise ValueError(f"radii={radii}: expected finite numbers > 0. Fix: radii=(0.05, 0.2, 1.0).")
    return np.unique(values)
