r"""The combinator: perturb the parameters, evaluate the gradient again, combine the two."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from pugd_optax._as_gate import as_gate
from pugd_optax._by_name import by_name
from pugd_optax._checks import check_extra_args, check_number, check_trees
from pugd_optax._cond import cond
from pugd_optax._gradient_source import gradient_function
from pugd_optax._norms import AxisName, Norms, cast_like, is_zero, times, widen
from pugd_optax._typing import Combine, GradFn, ValueFn
from pugd_optax._watch import entered
from pugd_optax.ascents import Ascent, ObservingAscent, offset, with_extra_args
from pugd_optax.combines import StatefulCombine, replace
from pugd_optax.schedules import Controller, Radius
from pugd_optax.timing import Gate, When


class Report(NamedTuple):
    r"""Measurements of the last active step, with `report=True`: float32, 0 before the first one.

    Attributes:
      grad_norm: $\|g\|$.
      perturbed_grad_norm: $\|g^*\|$.
      cosine: $\cos(g, g^*)$.
      distance: $\|w^* - w\|$, the norm of the perturbation after rounding to the dtype of the parameters.
    """

    grad_norm: jax.Array
    perturbed_grad_norm: jax.Array
    cosine: jax.Array
    distance: jax.Array


class ReevaluateState(NamedTuple):
    """State of `reevaluate`; read it with `optax.tree.get(state, "radius")`.

    Attributes:
      step: int32, counts every call, active or not.
      ascent: state of the ascent.
      combine: state of the combine, `()` for one without.
      gate: state of the gate.
      active: whether the last call was active.
      radius: $r_t$ of the last call, float32; 0 if it was not active. A report tells what rounding leaves of it.
      report: a `Report`, or `()` without `report=True`.
      controller: state of the radius's controller, `()` for a number or a schedule.
    """

    step: jax.Array
    ascent: Any
    combine: Any
    gate: Any
    active: jax.Array
    radius: jax.Array
    report: Any
    controller: Any


def reevaluate(
    ascent: Ascent,
    combine: Combine | StatefulCombine = replace,
    *,
    radius: Radius = 1.0,
    when: When = None,
    idle: Callable[..., optax.Updates] | None = None,
    report: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Perturb the parameters, evaluate the gradient again and combine the two gradients.

    $$\epsilon = r_t \cdot \mathrm{ascent}(g, w), \qquad g^* = \nabla L(w + \epsilon), \qquad
      u = \mathrm{combine}(g, g^*)$$

    on active steps and $u = \mathrm{idle}(g)$ on the others. The result is a gradient: same sign, tree, shapes and
    dtypes as the input. Clipping, weight decay and the optimizer come after it.

    Args:
      ascent: $(g, w) \to \epsilon$, an `optax.GradientTransformation` read as $+\epsilon$ (see `pugd_optax.ascents`).
        Its state changes on active steps only; an `ObservingAscent` is shown $g^*$ then, and the output on idle steps.
      combine: $(g, g^*) \to u$, which may name `step`, `params`, `eps`, `norms` and `followed` as further
        parameters; or a `StatefulCombine`, whose state changes on active steps (see `pugd_optax.combines`).
      radius: $r_t \ge 0$, a number, a schedule of the step count, or a `pugd_optax.schedules.Controller`, which adapts
        to active steps. Values of a schedule below 0 count as 0; at 0 the second gradient is evaluated at $w$ itself.
      when: the gate (see `pugd_optax.timing`): `step -> bool`, a `Gate`, or a bool. Default: every step.
      idle: $g \to u$ on inactive steps, which may name `step`, `params`, `norms` (of $g$) and `state` (of the combine)
        as further parameters. Default: $g$ itself, unchanged.
      report: measure $\|g\|$, $\|g^*\|$, $\cos(g, g^*)$ and $\|w^* - w\|$ on active steps and store them in the state.
        This keeps $g$ in memory and reads both gradients and the parameters once more; without it, nothing is measured
        that the step does not need.

    Returns:
      An `optax.GradientTransformationExtraArgs` with

          update(grads, state, params, *, grad_fn=None, value_fn=None, ascent_grad_fn=None, active=None,
                 norm_axis_name=None, **extra_args)

      `grad_fn(params) -> grads` must use the same batch and random key as `grads`. `value_fn(params) -> loss`, the
      convention of Optax's line searches, can be given instead and receives the extra arguments it names.
      `ascent_grad_fn` is the gradient that the ascent follows if it should follow another loss than the one that is
      minimised; it costs one more evaluation. `active` overrides the gate: a Python bool is decided while tracing, so
      the other branch is not even compiled; a traced bool is decided by `lax.cond`. `norm_axis_name` names the mesh
      axes over which parameters are split inside `shard_map`; with `check_vma=False` every parameter counts as split
      over all of them. Unknown extra arguments are passed to ascent and gate.

    Raises:
      ValueError, TypeError: if an argument is out of its range; in `update`, if params or the gradient function is
        missing, the trees do not match, leaves are hidden by `optax.masked`, or an extra argument is mistyped.

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
      Numbers that are not finite are passed through: entries of $\epsilon$ that are not finite count as 0, so a
      gradient with a NaN perturbs nothing if the NaN is in the norm, and the combine computes $u$ as usual. Put
      `optax.apply_if_finite` after this, not around it, because it checks incoming gradients only.

      In bfloat16 and float16 a perturbation is rounded with the parameters, and much of it is lost: `report=True` shows
      the distance that is left.

      Under `vmap` over the state, `lax.cond` becomes a select: both branches run, and a gate saves nothing.

      `optax.MultiSteps(chain(reevaluate(...), base))` perturbs with the last micro-batch only. Write
      `chain(reevaluate(...), optax.MultiSteps(base, k))` for a perturbation of each micro-batch, or accumulate inside
      `grad_fn` for one of the full batch.
    """
    parts = _parts(ascent, combine, radius, when, idle, report)

    def update(
        updates,
        state: Any,
        params=None,
        *,
        grad_fn: GradFn | None = None,
        value_fn: ValueFn | None = None,
        ascent_grad_fn: GradFn | None = None,
        active: bool | jax.Array | None = None,
        norm_axis_name: AxisName = None,
        **extra_args: Any,
    ):
        check_trees(updates, params)
        check_extra_args(extra_args)
        grads, params = jax.tree.map(jnp.asarray, (updates, params))
        if (seen := entered.get()) is not None:
            seen.append(grads)
        gradient = gradient_function(grad_fn, value_fn, extra_args, like=grads)
        follow = ascent_grad_fn and gradient_function(ascent_grad_fn, None, {}, like=grads, name="ascent_grad_fn")
        extra_args |= {"step": state.step, "norm_axis_name": norm_axis_name}
        decision, gate_state = parts.gate.update(state.gate, grads, **extra_args)
        active = decision if active is None else active
        call = _Call(grads, params, state, gradient, follow, parts.at(state), gate_state, extra_args)
        return _stepped(parts, call, active)

    return optax.GradientTransformationExtraArgs(functools.partial(_start, parts), update)


class _Parts(NamedTuple):
    """The arguments of `reevaluate` in a common form: functions that receive the arguments they name, and a state."""

    ascent: Any
    observe: Callable[[Any, optax.Updates], Any]
    combine: StatefulCombine
    idle: Callable[..., optax.Updates]
    gate: Gate
    watch: Callable[..., Any]
    radius: Radius
    tune: Callable[..., Any]
    report: bool

    def at(self, state: ReevaluateState) -> jax.Array:
        """The radius of this step."""
        radius = self.radius
        now = state.controller.value if isinstance(radius, Controller) else _scheduled(radius, state.step)
        return jnp.maximum(jnp.asarray(now), 0)


def _scheduled(radius: Any, step: jax.Array) -> Any:
    return radius(step) if callable(radius) else radius


def _parts(ascent: Any, combine: Any, radius: Any, when: Any, idle: Any, report: bool) -> _Parts:
    _check_parts(ascent, combine, radius, idle)
    memory = combine if isinstance(combine, StatefulCombine) else _without_memory(combine)
    return _Parts(
        ascent=with_extra_args(ascent),
        observe=ascent.observe if isinstance(ascent, ObservingAscent) else lambda state, g_star: state,
        combine=StatefulCombine(memory.init, by_name(memory.apply)),
        idle=by_name(idle or (lambda g: g)),
        gate=(gate := as_gate(when)),
        watch=by_name(gate.observe or (lambda state: ())),
        radius=radius,
        tune=by_name(radius.update) if isinstance(radius, Controller) else lambda state, **given: state,
        report=report,
    )


class _Call(NamedTuple):
    """One call of `update`."""

    grads: optax.Updates
    params: optax.Params
    state: ReevaluateState
    gradient: GradFn
    follow: GradFn | None
    at: jax.Array
    gate: Any
    extra_args: dict[str, Any]


def _start(parts: _Parts, params: optax.Params) -> ReevaluateState:
    # Every field is a separate array: a shared one could not be donated.
    return ReevaluateState(
        step=jnp.zeros((), jnp.int32),
        ascent=parts.ascent.init(params),
        combine=parts.combine.init(params),
        gate=parts.gate.init(params),
        active=jnp.zeros((), bool),
        radius=jnp.zeros((), jnp.float32),
        report=Report(*(jnp.zeros((), jnp.float32) for _ in Report._fields)) if parts.report else (),
        controller=parts.radius.init(params) if isinstance(parts.radius, Controller) else (),
    )


def _stepped(parts: _Parts, call: _Call, active: Any) -> tuple[optax.Updates, ReevaluateState]:
    """Output and next state, by one of the two kinds of step."""
    perturbed, left = functools.partial(_perturb, parts, call), functools.partial(_leave, parts, call)
    u, ascent_state, combine_state, seen, tuned, watched = cond(active, perturbed, left)
    return u, ReevaluateState(
        step=jnp.asarray(optax.safe_increment(call.state.step)),
        ascent=ascent_state,
        combine=combine_state,
        gate=watched if parts.gate.observe else call.gate,
        active=(on := jnp.asarray(active, bool)),
        radius=jnp.where(on, call.at.astype(jnp.float32), 0),
        report=seen,
        controller=tuned,
    )


def _perturb(parts: _Parts, call: _Call):
    """An active step: output, states of ascent and combine, report, states of controller and gate."""
    state, params, extra = call.state, call.params, call.extra_args
    g = call.grads if call.follow is None else call.follow(params)
    told = extra | {"grad_fn": call.follow or call.gradient, "radius": call.at}
    direction, ascent_state = parts.ascent.update(g, state.ascent, params, **told)
    eps = jax.tree.map(functools.partial(times, call.at), direction)
    w_star = params if is_zero(parts.radius) else offset(params, eps)
    g_star = call.gradient(w_star)
    norms = Norms(call.grads, g_star, extra["norm_axis_name"])
    given = {"step": state.step, "params": params, "eps": eps, "norms": norms, "followed": g}
    u, combine_state = parts.combine.apply(call.grads, g_star, state=state.combine, **given)
    seen = _measured(norms, params, w_star) if parts.report else ()
    offered = given | {"g": call.grads, "g_star": g_star, "value": extra.get("value")}
    tuned, watched = parts.tune(state.controller, **offered), parts.watch(call.gate, **offered)
    return cast_like(u, call.grads), parts.observe(ascent_state, g_star), combine_state, seen, tuned, watched


def _leave(parts: _Parts, call: _Call):
    """An inactive step, with results of the same form."""
    state = call.state
    norms = Norms(call.grads, call.grads, call.extra_args["norm_axis_name"])
    given = {"step": state.step, "params": call.params, "norms": norms, "state": state.combine}
    u = cast_like(parts.idle(call.grads, **given), call.grads)
    watched = call.gate if parts.gate.observe else ()
    return u, parts.observe(state.ascent, u), state.combine, state.report, state.controller, watched


def _measured(norms: Norms, params: optax.Params, w_star: optax.Params) -> Report:
    distance = norms.of(jax.tree.map(lambda w, v: widen(v) - widen(w), params, w_star))
    return Report(*(x.astype(jnp.float32) for x in (norms.g, norms.g_star, norms.cosine, distance)))


def _without_memory(combine: Combine) -> StatefulCombine:
    join = by_name(combine)
    return StatefulCombine(lambda params: (), lambda g, g_star, **given: (join(g, g_star, **given), ()))


def _check_parts(ascent: Any, combine: Any, radius: Any, idle: Any) -> None:
    if not isinstance(radius, Controller):
        check_number("radius", radius, low=0, schedule=True)
    if not isinstance(ascent, optax.GradientTransformation | ObservingAscent):
        raise TypeError(f"ascent={ascent!r}: expected an optax.GradientTransformation. Fix: pugd_optax.normalize().")
    if idle is not None and not callable(idle):
        raise TypeError(f"idle={idle!r}: expected a function g -> u, or None for g itself.")
    if not (callable(combine) or isinstance(combine, StatefulCombine)):
        raise TypeError(f"combine={combine!r}: expected a function (g, g_star) -> u. Fix: pugd_optax.mix(0.5, 0.5).")
