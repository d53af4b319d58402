r"""Ascents: `(g, w) -> eps`, how the gradient and the parameters become a perturbation.

An ascent is an `optax.GradientTransformation` whose output is read as $+\epsilon$: no learning rate, no sign flip. It
is given the step count as the extra argument `step` and the gradient function as `grad_fn`. Ascents chain with
`optax.chain`: SAM is `normalize()`, PUGD is `T` then `normalize()`, ASAM is `T`, `normalize()` and `T` again, where `T`
is `scale_by_abs_params()`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from pugd_optax._checks import NO_PARAMS, check_count, check_number
from pugd_optax._masks import resolve_mask, zero_unless
from pugd_optax._norms import divide, norm, safe_ratio, unit, widen
from pugd_optax._typing import GradFn, Mask


def normalize(
    of: optax.GradientTransformation | None = None, *, per_tensor: bool = False
) -> optax.GradientTransformationExtraArgs:
    r"""Divide by the L2 norm: $g / \|g\|$, unit length in all.

    Differs from `optax.contrib.normalize` in three ways: zero stays zero, the norm is taken in float32 whatever the
    dtype, and entries of 1e-30 or 1e30 are handled. Alone in front of an optimizer it is normalised gradient descent.

    Args:
      of: an ascent whose output is normalised in place of the gradient. `normalize(T)` is
        `optax.chain(T, normalize())`, but the output of `T` is never stored, which reads memory less.
      per_tensor: give every tensor unit length instead of the tree as a whole.

    Returns:
      A transformation with the state of `of`. A zero or non-finite tree (tensor) comes back as it is.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = normalize()
      >>> g = {"w": jnp.array([3.0, 4.0])}
      >>> tx.update(g, tx.init(g))[0]["w"]
      Array([0.6, 0.8], dtype=float32)
    """
    inner = optax.with_extra_args_support(optax.identity() if of is None else of)

    def update(updates, state, params=None, **extra_args):
        def direction(g, w):
            return inner.update(g, state, w, **extra_args)[0]

        long, state_ = inner.update(updates, state, params, **extra_args)
        if per_tensor:
            return jax.tree.map(unit, long), state_
        return divide(long, norm(updates, params, of=direction)), state_

    return optax.GradientTransformationExtraArgs(inner.init, update)


def scale_by_abs_params(eta: optax.ScalarOrSchedule = 0.0, *, mask: Mask | None = None) -> optax.GradientTransformation:
    r"""Multiply by the size of the parameters, $(|w| + \eta) \odot g$.

    This makes an ascent invariant to rescaling a layer: a parameter moves in proportion to its size, and one that is
    exactly 0 does not move at $\eta = 0$.

    Args:
      eta: $\eta \ge 0$, the size given to a parameter that is 0; a number or a schedule.
      mask: the parameters to scale; the others pass as they are. Default: all.

    Returns:
      A stateless transformation that needs `params`. Products are left in float32 or better: in half precision they
      would overflow or vanish.

    Raises:
      ValueError: if `eta` is negative or not finite.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = scale_by_abs_params()
      >>> w, g = {"w": jnp.array([-2.0, 0.0])}, {"w": jnp.array([1.0, 1.0])}
      >>> tx.update(g, tx.init(w), w)[0]["w"]
      Array([2., 0.], dtype=float32)
    """
    check_number("eta", eta, low=0, schedule=True)

    def update(updates, state, params=None, *, step: jax.typing.ArrayLike = 0, **extra_args):
        del extra_args
        if params is None:
            raise ValueError(NO_PARAMS)
        floor = eta(step) if callable(eta) else eta

        def scale(g: jax.Array, w: jax.Array) -> jax.Array:
            size = jnp.abs(widen(w))
            return widen(g) * (size + jnp.asarray(floor, size.dtype)).astype(widen(g).real.dtype)

        selected = resolve_mask(mask, params)
        return jax.tree.map(lambda on, g, w: scale(g, w) if on else g, selected, updates, params), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def restrict(ascent: optax.GradientTransformation, mask: Mask | None) -> optax.GradientTransformation:
    r"""Perturb only the parameters that `mask` selects.

    The gradient of the others is hidden from the ascent, so its norms are those **of the selected parameters alone**,
    and their part of $\epsilon$ is exactly 0.

    Args:
      ascent: the ascent to restrict.
      mask: a tree of Python bools with the structure of the parameters (True: perturb), or a function of the
        parameters that returns one. None returns `ascent` unchanged.

    Returns:
      An ascent.

    Example:
      >>> import jax.numpy as jnp
      >>> w = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}
      >>> tx = restrict(normalize(), {"a": True, "b": False})
      >>> {k: v.tolist() for k, v in tx.update(w, tx.init(w), w)[0].items()}
      {'a': [1.0], 'b': [0.0]}
    """
    if mask is None:
        return ascent
    ascent = optax.with_extra_args_support(ascent)

    def update(updates, state, params=None, *, grad_fn: GradFn | None = None, **extra_args):
        selected = resolve_mask(mask, updates if params is None else params)
        if grad_fn is not None:
            extra_args["grad_fn"] = lambda p: zero_unless(selected, grad_fn(p))
        eps, state = ascent.update(zero_unless(selected, updates), state, params, **extra_args)
        return zero_unless(selected, eps), state

    return optax.GradientTransformationExtraArgs(ascent.init, update)


def projected_ascent(
    epsilon: optax.ScalarOrSchedule = 0.5, step_size: optax.ScalarOrSchedule = 1.0, steps: int = 1
) -> optax.GradientTransformationExtraArgs:
    r"""Gradient ascent from 0, projected on a ball **of each tensor** after every step, as AMP does.

    $$\epsilon \leftarrow \Pi\big(\epsilon + \zeta\, \nabla L(w + \epsilon)\big), \qquad
      \Pi(x) = x \min(1, r / \|x\|)$$

    The first step uses the gradient it is given, each further one costs a gradient evaluation.

    Args:
      epsilon: $r \ge 0$, the radius of each tensor's ball; a number or a schedule.
      step_size: $\zeta > 0$; a number or a schedule.
      steps: number of ascent steps, at least 1.

    Returns:
      An ascent; with `steps > 1` it needs `params` and `grad_fn`, which `pugd_optax.reevaluate` passes on.

    Raises:
      ValueError, TypeError: if an argument is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = projected_ascent(epsilon=0.5)
      >>> g = {"a": jnp.array([3.0, 4.0]), "b": jnp.array([0.1])}
      >>> {k: v.tolist() for k, v in tx.update(g, tx.init(g), g, step=0)[0].items()}
      {'a': [0.30000001192092896, 0.4000000059604645], 'b': [0.10000000149011612]}
    """
    check_number("epsilon", epsilon, low=0, schedule=True)
    check_number("step_size", step_size, low=0, schedule=True)
    check_count("steps", steps, low=1, static=True)

    def update(updates, state, params=None, *, step: Any = 0, grad_fn: Any = None, **extra_args):
        del extra_args
        bound = epsilon(step) if callable(epsilon) else epsilon
        size = step_size(step) if callable(step_size) else step_size

        def ascend(eps: optax.Updates, g: optax.Updates) -> optax.Updates:
            return jax.tree.map(lambda e, x: _project(widen(e) + size * widen(x), bound).astype(e.dtype), eps, g)

        eps = ascend(jax.tree.map(jnp.zeros_like, updates), updates)
        for _ in range(steps - 1):
            eps = ascend(eps, grad_fn(offset(params, eps)))
        return eps, state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def offset(params: optax.Params | None, eps: optax.Updates) -> optax.Params:
    r"""$w + \epsilon$, added in float32 or better and stored in the dtype of `w`.

    A perturbation below half a unit in the last place of `w` is lost: a bfloat16 weight near 100 absorbs 0.02. Keep
    float32 master parameters where perturbations are small.

    Example:
      >>> import jax.numpy as jnp
      >>> offset({"w": jnp.array([1.0])}, {"w": jnp.array([0.5])})
      {'w': Array([1.5], dtype=float32)}
    """
    return jax.tree.map(lambda w, e: (widen(w) + e.astype(widen(w).dtype)).astype(w.dtype), params, eps)


def _project(x: jax.Array, radius: jax.typing.ArrayLike) -> jax.Array:
    """`x` scaled down to a norm of at most `radius`."""
    length, bound = norm(x), jnp.maximum(jnp.asarray(radius), 0)
    shrink = jnp.where(length > bound, safe_ratio(bound.astype(length.dtype), length), 1)
    return x * shrink.astype(x.real.dtype)
