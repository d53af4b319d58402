r"""The combinator: perturb the parameters, evaluate the gradient again, combine the two."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pugd_optax import timing
from pugd_optax._checks import check_number, check_trees
from pugd_optax._cond import cond
from pugd_optax._gradient_source import gradient_function
from pugd_optax._norms import cast_like, cosine, norm, select, widen
from pugd_optax._typing import Combine, GradFn, ValueFn
from pugd_optax.ascents import offset
from pugd_optax.combines import replace
from pugd_optax.timing import Gate, When


class ReevaluateState(NamedTuple):
    """State of `reevaluate`.

    Carried on: `step` counts every call, active or not (int32); `ascent` and `gate` are the states of the parts.
    Only reported: whether the last call was `active` and at what `radius` (0 when it was not); and from the last
    **active** call `grad_norm` $|g|$, `perturbed_grad_norm` $|g^*|$ and `cosine` $\\cos(g, g^*)$ (float32, 0 before the
    first one). Read them with `optax.tree.get(state, "cosine")`.
    """

    step: jax.Array
    ascent: optax.OptState
    gate: Any
    active: jax.Array
    radius: jax.Array
    grad_norm: jax.Array
    perturbed_grad_norm: jax.Array
    cosine: jax.Array


def reevaluate(
    ascent: optax.GradientTransformation,
    combine: Combine = replace,
    *,
    radius: optax.ScalarOrSchedule = 1.0,
    when: When = None,
    idle: Callable[[optax.Updates], optax.Updates] | None = None,
    observe: bool = True,
) -> optax.GradientTransformationExtraArgs:
    r"""Perturb the parameters, evaluate the gradient again and combine the two gradients.

    $$\epsilon = r_t \cdot \mathrm{ascent}(g, w), \qquad g^* = \nabla L(w + \epsilon), \qquad
      u = \mathrm{combine}(g, g^*)$$

    on active steps and $u = \mathrm{idle}(g)$ on the others. The result is a gradient: same sign, tree, shapes and
    dtypes as the input. Clip, decay and step after it.

    Args:
      ascent: $(g, w) \to \epsilon$, an `optax.GradientTransformation` read as $+\epsilon$ (see `pugd_optax.ascents`).
        Its state moves on active steps only.
      combine: $(g, g^*) \to u$ (see `pugd_optax.combines`); a `step` parameter, if it has one, gets the step count.
      radius: $r_t \ge 0$, a number or a schedule of the step count; a schedule is clamped at 0. At 0 the
        gradient is evaluated again at $w$ itself.
      when: the gate (see `pugd_optax.timing`): `step -> bool`, a `Gate`, or a bool. Default: every step.
      idle: $g \to u$ on steps that are not active. Default: $g$ itself, bit for bit.
      observe: report $|g|$ and the cosine. False for an ascent and a combine that never read $g$: under jit the
        gradient at $w$ is then dead code, and an always-active step costs one gradient evaluation.

    Returns:
      An `optax.GradientTransformationExtraArgs` with

          update(grads, state, params, *, grad_fn=None, value_fn=None, active=None, report=True, **extra_args)

      `grad_fn(params) -> grads` is bound to the batch and random key that gave `grads`; `value_fn(params) -> loss`, the
      convention of Optax's line searches, may stand for it and gets the extra arguments it names. `active` overrides
      the gate: a Python bool is decided while tracing, so the other branch is not even compiled; a traced bool goes
      through `lax.cond`. `report=False` leaves the norms and the cosine in the state as they were: two passes over the
      gradients less, and the memory of $g$, for a method that has no use of its own for them, as SAM. Unknown extra
      arguments are passed to ascent and gate and otherwise ignored.

    Raises:
      ValueError, TypeError: if an argument is out of its range; in `update`, if params or the gradient function is
        missing, the trees do not match, or leaves are hidden by `optax.masked`.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from pugd_optax import mix, normalize, reevaluate
      >>> loss = lambda w: jnp.sum(w**4)
      >>> tx = optax.chain(reevaluate(normalize(), mix(0.2, 0.8), radius=0.1), optax.sgd(0.1))
      >>> w = jnp.array([1.0, -0.5])
      >>> state = tx.init(w)
      >>> for _ in range(3):
      ...     updates, state = tx.update(jax.grad(loss)(w), state, w, grad_fn=jax.grad(loss))
      ...     w = optax.apply_updates(w, updates)
      >>> print(f"{loss(w):.4f}")
      0.0375

    Notes:
      Non-finite gradients create no new NaN: where $|g|$ is not finite $\epsilon$ is 0, and where $|g|$ or $|g^*|$ is
      not finite $u = g^*$. Put `optax.apply_if_finite` after this, not around it: it looks at incoming gradients only.

      Under `vmap` over the state, `lax.cond` becomes a select: both branches run, and a gate saves nothing.

      `optax.MultiSteps(chain(reevaluate(...), base))` perturbs with the last micro-batch only. Write
      `chain(reevaluate(...), optax.MultiSteps(base, k))` for a perturbation of each micro-batch, or accumulate inside
      `grad_fn` for one of the full batch.
    """
    _check_parts(ascent, combine, radius, idle)
    ascent = optax.with_extra_args_support(ascent)
    gate = _as_gate(when)

    def evaluate_again(
        grads, state: ReevaluateState, params, gradient: GradFn, at: jax.Array, report: bool, extra_args
    ):
        direction, ascent_state = ascent.update(grads, state.ascent, params, **{**extra_args, "grad_fn": gradient})
        g_norm = norm(grads) if observe else state.grad_norm
        g_star = gradient(offset(params, _scaled_if(jnp.isfinite(g_norm), at, direction)))
        star_norm = norm(g_star)
        finite = jnp.isfinite(g_norm) & jnp.isfinite(star_norm)
        u = select(finite, cast_like(_call(combine, grads, g_star, state.step), grads), g_star)
        if not report:
            return u, ascent_state, _last_report(state)
        aligned = cosine(grads, g_star, g_norm, star_norm) if observe else state.cosine
        return u, ascent_state, tuple(x.astype(jnp.float32) for x in (g_norm, star_norm, aligned))

    def rest(grads, state: ReevaluateState):
        u = grads if idle is None else cast_like(idle(grads), grads)
        return u, state.ascent, _last_report(state)

    def update(
        updates,
        state: Any,
        params=None,
        *,
        grad_fn: GradFn | None = None,
        value_fn: ValueFn | None = None,
        active: bool | jax.Array | None = None,
        report: bool = True,
        **extra_args: Any,
    ):
        check_trees(updates, params)
        grads, params = jax.tree.map(jnp.asarray, (updates, params))
        gradient = gradient_function(grad_fn, value_fn, extra_args, like=grads)
        extra_args["step"] = state.step
        decision, gate_state = gate.update(state.gate, grads, **extra_args)
        active = decision if active is None else active
        at = jnp.maximum(jnp.asarray(radius(state.step) if callable(radius) else radius), 0)
        again = functools.partial(evaluate_again, grads, state, params, gradient, at, report, extra_args)
        u, ascent_state, seen = cond(active, again, functools.partial(rest, grads, state))
        step = jnp.asarray(optax.safe_increment(state.step))
        active = jnp.asarray(active, bool)
        used = jnp.where(active, at.astype(jnp.float32), 0)
        return u, ReevaluateState(step, ascent_state, gate_state, active, used, *seen)

    return optax.GradientTransformationExtraArgs(functools.partial(_init, ascent, gate), update)


def _init(ascent: optax.GradientTransformation, gate: Gate, params: optax.Params) -> ReevaluateState:
    # Every field an array of its own: a shared one could not be donated.
    return ReevaluateState(
        step=jnp.zeros((), jnp.int32),
        ascent=ascent.init(params),
        gate=gate.init(params),
        active=jnp.zeros((), bool),
        radius=jnp.zeros((), jnp.float32),
        grad_norm=jnp.zeros((), jnp.float32),
        perturbed_grad_norm=jnp.zeros((), jnp.float32),
        cosine=jnp.zeros((), jnp.float32),
    )


def _last_report(state: ReevaluateState) -> tuple[jax.Array, ...]:
    return state.grad_norm, state.perturbed_grad_norm, state.cosine


def _check_parts(ascent: Any, combine: Any, radius: Any, idle: Any) -> None:
    check_number("radius", radius, low=0, schedule=True)
    if not isinstance(ascent, optax.GradientTransformation):
        raise TypeError(f"ascent={ascent!r}: expected an optax.GradientTransformation. Fix: pugd_optax.normalize().")
    if idle is not None and not callable(idle):
        raise TypeError(f"idle={idle!r}: expected a function g -> u, or None for g itself.")
    if not callable(combine):
        raise TypeError(f"combine={combine!r}: expected a function (g, g_star) -> u. Fix: pugd_optax.mix(0.5, 0.5).")


def _as_gate(when: Any) -> Gate:
    if isinstance(when, Gate):
        return when
    when = True if when is None else when
    if when is getattr(timing, getattr(when, "__name__", ""), None):
        raise TypeError(_NOT_CALLED.format(name=when.__name__))
    constant = isinstance(when, bool | np.bool_ | jax.Array)
    if not (constant or callable(when)):
        raise TypeError(_NO_GATE.format(when=when))

    def decide(state, grads, *, step, **extra_args):
        decision = when if constant else when(step)
        if callable(decision) or isinstance(decision, Gate):
            raise TypeError(_NO_GATE.format(when=when))
        return decision, state

    return Gate(lambda params: (), decide)


_NOT_CALLED = (
    "when=pugd_optax.timing.{name}: expected a gate, and not the function that makes one. "
    "Fix: call it, when=pugd_optax.timing.{name}(...)."
)
_NO_GATE = "when={when!r}: expected a gate, a function step -> bool. Fix: when=pugd_optax.timing.after(1000)."


def _call(combine: Combine, g: optax.Updates, g_star: optax.Updates, step: jax.Array) -> optax.Updates:
    if "step" in inspect.signature(combine).parameters:
        return combine(g, g_star, step=step)
    return combine(g, g_star)


def _scaled_if(keep: jax.Array, factor: jax.Array, tree: optax.Updates) -> optax.Updates:
    """`factor * tree`, and 0 where not `keep`; in float32 or better."""
    return jax.tree.map(lambda x: jnp.where(keep, factor.astype(widen(x).real.dtype) * widen(x), 0), tree)
