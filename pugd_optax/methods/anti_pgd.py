"""Anti-PGD: noise on the parameters whose increments are anticorrelated."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from pugd_optax._checks import NO_PARAMS, check_floating, check_number
from pugd_optax._norms import widen
from pugd_optax.noise import check_key, shift


class AntiPGDState(NamedTuple):
    """State of `anti_pgd`.

    Attributes:
      step: counts every call, int32.
      sigma: the scale of the noise that is currently in the parameters, float32, so that exactly this noise is
        subtracted even if the argument changes.
      residual: for each parameter with a dtype below float32, the part of its updates lost to rounding, float32; a
        single 0 for the others.
    """

    step: jax.Array
    sigma: jax.Array
    residual: optax.Updates


def anti_pgd(sigma: optax.ScalarOrSchedule = 0.01, key: jax.Array | int = 0) -> optax.GradientTransformationExtraArgs:
    r"""Anticorrelated perturbed gradient descent: every step subtracts the last noise and adds new noise.

    $$w_{t+1} = w_t + \Delta_t + (\sigma_{t+1} \xi_{t+1} - \sigma_t \xi_t), \qquad \xi_t \sim \mathcal{N}(0, I)$$

    It goes **last** in the chain, after the base optimizer: $\Delta_t$ is the finished update, and the noise is not
    scaled by the learning rate. The loss is regularised by $\frac{\sigma^2}{2} \operatorname{tr} H$. There is no second
    gradient evaluation.

    With a plain SGD step it is `pugd_optax.noise_injection` in the variable $z_t = w_t - \sigma_t \xi_t$:
    $z_{t+1} = z_t - \eta \nabla L(z_t + \sigma_t \xi_t)$, with the same key and the same noise. The two differ in
    which iterate is kept.

    Args:
      sigma: $\sigma \ge 0$, the standard deviation on each parameter; a number or a schedule. The parameters always
        contain one noise vector; a schedule that ends at 0 removes the last one.
      key: a PRNG key or an integer seed. The noise of step t is drawn from `fold_in(key, t)`, once when it is added and
        again when it is subtracted, so no copy of it is kept. Two noise methods in one chain need two keys: those of
        one key draw the same numbers.

    Returns:
      An `optax.GradientTransformationExtraArgs`. Wrap it in `optax.masked` to perturb a subset. For parameters below
      float32 it needs `params` and keeps a float32 tree of their shape; otherwise rounding would leave a part of every
      noise vector in the parameters. The other leaves of this tree are scalars, whose sharding is `P()`:
      `optax.tree.map_params(tx, lambda x, spec: spec if x.ndim else P(), state, specs)`.

    Raises:
      ValueError, TypeError: if an argument is out of its range.

    Example:
      >>> import optax, pugd_optax
      >>> sigma = optax.linear_schedule(0.1, 0.0, transition_steps=20)
      >>> tx = optax.chain(optax.sgd(0.1), pugd_optax.anti_pgd(sigma, key=0))

    References:
      Orvieto, Kersting, Proske, Bach and Lucchi, Anticorrelated Noise Injection for Improved Generalization, ICML 2022,
      https://arxiv.org/abs/2202.02831

    Notes:
      The first step subtracts $\xi_0$ although it was never added: the iterates are those of a start at $z_0 = w_0 -
      \sigma_0 \xi_0$.
    """
    check_number("sigma", sigma, low=0, schedule=True)
    check_key(key)

    def scale(step: jax.Array) -> jax.Array:
        # A copy, because an array passed as sigma must not be donated with the state.
        return jnp.array(sigma(step) if callable(sigma) else sigma, jnp.float32)

    def init(params: optax.Params) -> AntiPGDState:
        check_floating(params)
        zero = lambda w: jnp.zeros_like(w, jnp.float32) if _is_short(w) else jnp.zeros((), jnp.float32)
        return AntiPGDState(jnp.zeros((), jnp.int32), scale(jnp.zeros((), jnp.int32)), jax.tree.map(zero, params))

    def update(updates, state: Any, params=None, **extra_args: Any):
        del extra_args
        if params is None:
            _refuse_short(updates, state.residual)
        now = jnp.asarray(optax.safe_increment(state.step))
        sigma = scale(now)
        new, old = (shift(s, key, t, updates) for s, t in ((sigma, now), (state.sigma, state.step)))
        wanted = jax.tree.map(lambda u, x, y: widen(u) + (x - y), updates, new, old)
        leaves, structure = jax.tree.flatten(updates)
        others = (wanted, state.residual, updates if params is None else params)
        paid = [_pay(*of_tensor) for of_tensor in zip(leaves, *map(structure.flatten_up_to, others), strict=True)]
        u, residual = (structure.unflatten(x[i] for x in paid) for i in (0, 1))
        return u, AntiPGDState(now, sigma, residual)

    return optax.GradientTransformationExtraArgs(init, update)


def _refuse_short(updates: optax.Updates, residual: optax.Updates) -> None:
    """Refuse parameters below float32, which are not given, but of which the updates or the state tell."""
    if any(map(_is_short, jax.tree.leaves(updates))) or any(map(jnp.ndim, jax.tree.leaves(residual))):
        raise ValueError(NO_PARAMS)


def _is_short(w: jax.typing.ArrayLike) -> bool:
    return jnp.finfo(jnp.result_type(w)).bits < 32


def _pay(u: jax.Array, wanted: jax.Array, residual: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The update, and the part that `optax.apply_updates` will lose to rounding, which the next update makes up for."""
    if not _is_short(w):
        return wanted.astype(u.dtype), residual
    wide, wanted = widen(w), wanted + residual
    paid = _rounded(_rounded(wide + wanted, w.dtype) - wide, u.dtype)
    lost = wanted - (_rounded(wide + paid, w.dtype) - wide)
    return paid.astype(u.dtype), jnp.where(jnp.isfinite(lost), lost, residual)


def _rounded(x: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
    """`x` rounded to the bits of a shorter dtype; XLA may remove a cast there and back."""
    bits = jnp.finfo(dtype)
    return jax.lax.reduce_precision(x, bits.nexp, bits.nmant)
