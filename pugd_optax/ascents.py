r"""Ascents: `(g, w) -> eps`, how a perturbation is computed from the gradient and the parameters.

An ascent is an `optax.GradientTransformation` whose output is read as $+\epsilon$: no learning rate, no sign flip. It
receives the step count as the extra argument `step`, the radius as `radius` and the gradient function as `grad_fn`.
Ascents chain with `optax.chain`: SAM is `normalize()`, PUGD is `T` then `normalize()`, ASAM is `T`, `normalize()` and
`T` again, where `T` is `scale_by_abs_params()`. An ascent that depends on earlier perturbed gradients is an
`ObservingAscent`.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from pugd_optax._checks import NO_PARAMS, check_count, check_number
from pugd_optax._masks import resolve_mask, zero_unless
from pugd_optax._norms import (
    AxisName,
    is_zero,
    norm,
    safe_ratio,
    times,
    unit,
    widen,
)
from pugd_optax._typing import GradFn, Mask
from pugd_optax.dual_norm import dual_norm as dual_norm


class ObservingAscent(NamedTuple):
    """An ascent that is also shown the resulting gradient of each step, for example to keep a momentum of these.

    Attributes:
      init: `params -> state`.
      update: `(grads, state, params, **extra_args) -> (eps, state)`, on active steps.
      observe: `(state, g_star) -> state`, on every step: $g^*$ on active steps, the output on the others.
    """

    init: Callable[[optax.Params], Any]
    update: Callable[..., tuple[optax.Updates, Any]]
    observe: Callable[[Any, optax.Updates], Any]


Ascent = optax.GradientTransformation | ObservingAscent
"""What `pugd_optax.reevaluate` accepts as an ascent."""


def normalize(of: Ascent | None = None, *, per_tensor: bool = False) -> optax.GradientTransformationExtraArgs:
    r"""Divide by the L2 norm of the whole tree: $g / \|g\|$.

    It differs from `optax.contrib.normalize` in two ways: zero stays zero, and the norm is computed in float32 whatever
    the dtype. In front of an optimizer, without `reevaluate`, it is normalised gradient descent.

    Args:
      of: an ascent whose output is normalised in place of the gradient. `normalize(T)` is `optax.chain(T, normalize())`
        in a shorter form.
      per_tensor: give every tensor unit length instead of the tree as a whole.

    Returns:
      A transformation with the state of `of`. A norm whose square is outside the range of float32 counts as 0 (below
      about 1e-19) or as not finite (above about 1e19): the result is then 0. If the input contains a NaN, so does the
      result, and `pugd_optax.reevaluate` then applies no perturbation. Inside `shard_map`, the extra argument
      `norm_axis_name` of `update` names the mesh axes over which parameters are split.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = normalize()
      >>> g = {"w": jnp.array([3.0, 4.0])}
      >>> tx.update(g, tx.init(g))[0]["w"]
      Array([0.6, 0.8], dtype=float32)
    """
    inner = with_extra_args(optax.identity() if of is None else of)
    sized = "signs" in inspect.signature(inner.update).parameters

    def update(updates, state, params=None, *, norm_axis_name: AxisName = None, **extra_args):
        run = functools.partial(inner.update, updates, state, params, norm_axis_name=norm_axis_name, **extra_args)
        g, state = run()
        # XLA would store what both the norm and the perturbation read. Written like this it need not: three passes
        # fewer.
        sizes = run(signs=False)[0] if sized else g
        if per_tensor:
            return jax.tree.map(lambda x, size: unit(x, norm_axis_name, size), g, sizes), state
        return unit(g, norm_axis_name, sizes), state

    return inner._replace(update=update)


def scale_by_abs_params(eta: optax.ScalarOrSchedule = 0.0, *, mask: Mask | None = None) -> optax.GradientTransformation:
    r"""Multiply by the absolute values of the parameters, $(|w| + \eta) \odot g$.

    This makes an ascent invariant to rescaling a layer: each parameter moves in proportion to its absolute value, and
    at $\eta = 0$ a parameter that is exactly 0 does not move.

    Args:
      eta: $\eta \ge 0$, added to every absolute value; a number or a schedule.
      mask: the parameters to scale; the others are unchanged. Default: all.

    Returns:
      A stateless transformation that needs `params`. Its output is in float32 or better: in half precision the products
      could overflow or underflow.

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

    def update(updates, state, params=None, *, step: jax.typing.ArrayLike = 0, signs: bool = True, **extra_args):
        del extra_args
        if params is None:
            raise ValueError(NO_PARAMS)
        floor = eta(step) if callable(eta) else eta

        def scale(g: jax.Array, w: jax.Array) -> jax.Array:
            exact = signs or jnp.iscomplexobj(w) or not is_zero(floor)
            size = jnp.abs(widen(w)) if exact else widen(w)
            return widen(g) * (size + jnp.asarray(floor, size.dtype)).astype(widen(g).real.dtype)

        selected = resolve_mask(mask, params)
        return jax.tree.map(lambda on, g, w: scale(g, w) if on else g, selected, updates, params), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def restrict(ascent: Any, mask: Mask | None) -> optax.GradientTransformationExtraArgs:
    r"""Perturb only the parameters that `mask` selects.

    The gradient of the other parameters is hidden from the ascent, so its norms are those **of the selected parameters
    only**, and the other entries of $\epsilon$ are exactly 0.

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
    ascent = with_extra_args(ascent)

    def update(updates, state, params=None, *, grad_fn: GradFn | None = None, **extra_args):
        selected = resolve_mask(mask, updates if params is None else params)
        if grad_fn is not None:
            extra_args["grad_fn"] = lambda p: zero_unless(selected, grad_fn(p))
        eps, state = ascent.update(zero_unless(selected, updates), state, params, **extra_args)
        return zero_unless(selected, eps), state

    def observe(state, g_star: optax.Updates):
        return ascent.observe(state, zero_unless(resolve_mask(mask, g_star), g_star))

    return ascent._replace(update=update, **({"observe": observe} if hasattr(ascent, "observe") else {}))


def projected_ascent(
    epsilon: optax.ScalarOrSchedule = 0.5, step_size: optax.ScalarOrSchedule = 1.0, steps: int = 1
) -> optax.GradientTransformationExtraArgs:
    r"""Gradient ascent from 0, projected onto a ball **for each tensor** after every step, as AMP does.

    $$\epsilon \leftarrow \Pi\big(\epsilon + \zeta\, \nabla L(w + \epsilon)\big), \qquad
      \Pi(x) = x \min(1, r / \|x\|)$$

    The first step uses the given gradient; each further one costs a gradient evaluation.

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

    def update(
        updates,
        state,
        params=None,
        *,
        step: Any = 0,
        grad_fn: Any = None,
        norm_axis_name: AxisName = None,
        **extra_args,
    ):
        del extra_args
        bound = epsilon(step) if callable(epsilon) else epsilon
        size = step_size(step) if callable(step_size) else step_size

        def project(x: Any) -> jax.Array:
            return times(_shrink(norm(x, norm_axis_name), bound), x)

        def ascend(eps: optax.Updates, g: optax.Updates) -> optax.Updates:
            return jax.tree.map(lambda e, x: project(widen(e) + size * widen(x)).astype(e.dtype), eps, g)

        eps = jax.tree.map(lambda x: project(size * widen(x)).astype(x.dtype), updates)
        for _ in range(steps - 1):
            eps = ascend(eps, grad_fn(offset(params, eps)))
        return eps, state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def offset(params: optax.Params | None, eps: optax.Updates) -> optax.Params:
    r"""$w + \epsilon$, computed in float32 or better and stored in the dtype of `w`; entries that are not finite add 0.

    A perturbation below half a unit in the last place of `w` is lost: a bfloat16 weight near 100 absorbs 0.02. Keep
    float32 master parameters where perturbations are small.

    Example:
      >>> import jax.numpy as jnp
      >>> offset({"w": jnp.array([1.0, 1.0])}, {"w": jnp.array([0.5, jnp.nan])})
      {'w': Array([1.5, 1. ], dtype=float32)}
    """
    return jax.tree.map(_add, params, eps)


def with_extra_args(ascent: Ascent) -> Any:
    """The ascent, made to ignore extra arguments it does not know.

    Example:
      >>> tx = with_extra_args(optax.identity())
      >>> tx.update(1.0, tx.init(1.0), step=3)[0]
      1.0
    """
    return ascent if isinstance(ascent, ObservingAscent) else optax.with_extra_args_support(ascent)


def _add(w: jax.Array, e: jax.Array) -> jax.Array:
    wide = widen(w)
    e = e.astype(wide.dtype)
    return jax.lax.select_n(jnp.isfinite(e), wide, wide + e).astype(w.dtype)


def _shrink(length: jax.Array, radius: jax.typing.ArrayLike) -> jax.Array:
    """The factor that shortens a length to at most `radius`; 0 for a length that is not finite."""
    bound = jnp.maximum(jnp.asarray(radius).astype(length.dtype), 0)
    return jnp.where(length <= bound, jnp.ones_like(length), safe_ratio(bound, length))
