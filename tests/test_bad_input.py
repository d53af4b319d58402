"""Bad input gives one error that names the argument, its value and the fix."""

# Wrong types are the subject here.
# pyright: reportArgumentType=false, reportCallIssue=false

import inspect
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pugd_optax
from pugd_optax import (
    classes,
    diagnostics,
    flood,
    iflood,
    losses,
    methods,
    mix,
    normalize,
    projected_ascent,
    reevaluate,
    scale_by_abs_params,
    schedules,
    soft_ad,
    timing,
    unit_sum,
)
from tests.contract.given import arguments, build, gated_method

W = {"a": jnp.array([3.0, -4.0]), "b": jnp.array(0.5)}
NAN, INF = float("nan"), float("inf")


def step(tx, grads=None, params=None, **extra):
    return tx.update(W if grads is None else grads, tx.init(W), W if params is None else params, **extra)


def as_is(params):
    return params


@pytest.mark.parametrize("name", [n for n in methods.__all__ if "radius" in arguments(n)])
@pytest.mark.parametrize("radius", [-0.1, NAN, INF, np.float32(-1), np.array([0.1, 0.2])])
def test_radius_that_is_no_length(name, radius):
    with pytest.raises(ValueError, match=r"radius=.*expected one finite number >= 0"):
        build(name, radius=radius)


@pytest.mark.parametrize("name", [n for n in methods.__all__ if "radius" in arguments(n)])
@pytest.mark.parametrize("radius", ["0.1", True, [0.1], {}])
def test_radius_that_is_no_number(name, radius):
    with pytest.raises(TypeError, match=r"radius=.*expected a number or a schedule"):
        build(name, radius=radius)


NUMBERS = [
    (name, argument, optax.Schedule in kinds)
    for name in methods.__all__
    for argument, parameter in inspect.signature(getattr(methods, name)).parameters.items()
    if float in (kinds := get_args(parameter.annotation) or (parameter.annotation,))
]


@pytest.mark.parametrize(("name", "argument", "schedule"), NUMBERS)
def test_schedules_are_offered_where_they_are_taken(name, argument, schedule):
    """The message offers a schedule if and only if the argument may be one."""
    offer = r" or a schedule \(step -> number\)" if schedule else ""
    with pytest.raises(TypeError, match=rf"^{argument}=\[\]: expected a number{offer}\.$"):
        build(name, **{argument: []})
    if schedule:
        build(name, **{argument: lambda step: 0.5})


@pytest.mark.parametrize(
    "make",
    [
        lambda value: flood(jnp.sum, value),
        lambda value: iflood(jnp.sum, value),
        lambda value: soft_ad(jnp.sum, value),
        lambda value: soft_ad(jnp.sum, 0.1, sigma=value),
        lambda value: classes.balanced(dead_zone=value),
        lambda value: classes.long_tail(head=value),
        lambda value: losses.gce(jnp.zeros((1, 2)), jnp.array([0]), q=value),
        lambda value: losses.ldam(jnp.zeros((1, 2)), jnp.array([0]), [1, 2], scale=value),
        lambda value: losses.class_balanced_weights([1, 2], beta=value),
        lambda value: diagnostics.sharpness(jnp.sum, jnp.ones(2), radius=value),
        lambda value: schedules.half_cosine(value, 0.0, 10),
    ],
)
def test_schedules_are_not_offered_elsewhere(make):
    with pytest.raises(TypeError, match=r"expected a number\.$"):
        make(optax.constant_schedule(0.1))


@gated_method
@pytest.mark.parametrize("when", [3, "after", 0.5, [True]])
def test_gate_that_is_not_callable(name, when):
    with pytest.raises(TypeError, match=r"when=.*expected a gate.*Fix: when=pugd_optax\.timing"):
        build(name, when=when)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: schedules.quarter_wave("tan", 1.0, 0.1, 10), ValueError, "kind='tan'.*cos, sin, icos, isin"),
        (lambda: schedules.quarter_wave("icos", 1.0, 0.0, 10), ValueError, "min=0.*1/min.*Fix"),
        (lambda: schedules.quarter_wave("cos", 0.1, 1.0, 10), ValueError, r"min=1\.0.*in \[0, 0\.1\]"),
        (lambda: schedules.quarter_wave("cos", NAN, 0.1, 10), ValueError, "max=nan"),
        (lambda: schedules.quarter_wave("cos", 1.0, 0.1, 0), ValueError, "steps=0.*>= 1"),
        (lambda: schedules.quarter_wave("cos", 1.0, 0.1, 10.0), TypeError, r"steps=10\.0.*whole number"),
        (lambda: schedules.half_cosine(1.0, -0.1, 10), ValueError, "min=-0.1"),
        (lambda: schedules.half_cosine(1.0, 0.1, 10, cycles=0), ValueError, "cycles=0"),
        (lambda: timing.after(-1), ValueError, "step=-1"),
        (lambda: timing.after(2.5), TypeError, r"step=2\.5"),
        (lambda: timing.between(5, 3), ValueError, "stop=3.*>= 5"),
        (lambda: timing.between(4, 4), ValueError, "stop=4: the gate can never be active.*Fix: stop=5"),
        (lambda: timing.every(0), ValueError, "k=0.*>= 1"),
        (lambda: timing.every(2, offset=-1), ValueError, "offset=-1"),
        (lambda: timing.bernoulli(1.5), ValueError, r"p=1\.5.*in \[0, 1\]"),
        (lambda: timing.bernoulli(NAN), ValueError, "p=nan"),
        (lambda: timing.low_variance(1), ValueError, "warmup=1.*>= 2"),
        (lambda: timing.low_variance(10, ratio=-1.0), ValueError, "ratio="),
        (lambda: timing.low_variance(10, window=1), ValueError, "window=1"),
        (lambda: timing.large_gradient(decay=1.0), ValueError, r"decay=1\.0.*in \[0, 1\)"),
        (lambda: timing.large_gradient(NAN), ValueError, "threshold=nan"),
        (lambda: timing.generalization_gap(0), ValueError, "warmup=0"),
        (lambda: timing.generalization_gap(factor=NAN), ValueError, "factor=nan"),
        (lambda: timing.generalization_gap(every=0), ValueError, "every=0"),
        (lambda: mix(NAN, 1.0), ValueError, "a=nan"),
        (lambda: mix(1.0, "b"), TypeError, "b='b'"),
        (lambda: unit_sum(-1.0), ValueError, r"scale=-1\.0.*>= 0"),
        (lambda: unit_sum("ratio"), ValueError, "scale='ratio'.*cosine.*norm_ratio"),
        (lambda: scale_by_abs_params(-1.0), ValueError, r"eta=-1\.0"),
        (lambda: projected_ascent(-1.0), ValueError, r"epsilon=-1\.0"),
        (lambda: projected_ascent(steps=0), ValueError, "steps=0"),
        (lambda: projected_ascent(steps=1.5), TypeError, r"steps=1\.5"),
        (lambda: methods.pugd(idle="zero"), ValueError, "idle='zero'.*'unit', 'raw' or 'reuse'"),
        (lambda: methods.pugd(scale=NAN), ValueError, "scale=nan"),
        (lambda: methods.rts_pugd(0), ValueError, "total_steps=0"),
        (lambda: methods.rts_pugd(10.0), TypeError, r"total_steps=10\.0"),
        (lambda: methods.rst(2.0), ValueError, r"^probability=2\.0.*in \[0, 1\] or a schedule"),
        (lambda: methods.lpg("x"), TypeError, r"num_classes='x': expected a whole number\.$"),
        (lambda: methods.pegr(0.1, group_size="x"), TypeError, r"group_size='x': expected a whole number\.$"),
        (lambda: methods.asam(eta=-0.1), ValueError, r"eta=-0\.1"),
        (lambda: methods.amp(-0.5), ValueError, r"epsilon=-0\.5"),
        (lambda: methods.gnp(alpha=INF), ValueError, "alpha=inf"),
        (lambda: methods.gsam(alpha=NAN), ValueError, "alpha=nan"),
        (lambda: methods.wsam(gamma=1.0), ValueError, r"gamma=1\.0.*in \[0, 1\)"),
        (lambda: methods.wsam(gamma=np.float32(1.0)), ValueError, r"gamma=1\.0"),
        (lambda: methods.looksam(every=0), ValueError, "every=0"),
        (lambda: methods.looksam(alpha=-1.0), ValueError, "alpha=-1"),
        (lambda: methods.friendly_sam(decay=1.5), ValueError, r"decay=1\.5"),
        (lambda: methods.friendly_sam(sigma=NAN), ValueError, "sigma=nan"),
        (lambda: methods.friendly_sam(decay=lambda step: 0.9), TypeError, "decay=.*expected a number"),
        (lambda: methods.momentum_sam(decay=1.0), ValueError, r"decay=1\.0.*in \[0, 1\)"),
        (lambda: reevaluate(normalize), TypeError, r"ascent=.*Fix: pugd_optax\.normalize\(\)"),
        (lambda: reevaluate(normalize(), "replace"), TypeError, "combine='replace'.*Fix"),
        (lambda: reevaluate(normalize(), idle="unit"), TypeError, "idle='unit'"),
    ],
)
def test_constant_out_of_range(make, error, text):
    with pytest.raises(error, match=text) as caught:
        make()
    assert type(caught.value) is error
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("name", ["pugd", "sam", "amp", "looksam", "momentum_sam", "friendly_sam"])
@pytest.mark.parametrize(
    "grad_fn",
    [
        lambda p: (jnp.float32(1.0), p),  # value_and_grad
        lambda p: (p, {"aux": 1.0}),  # has_aux
        lambda p: {"a": p["a"]},
        lambda p: jax.tree.leaves(p),
        lambda p: None,
    ],
)
def test_grad_fn_that_returns_another_structure(name, grad_fn):
    with pytest.raises(
        ValueError, match=r"the result of grad_fn has another structure.*Fix: return gradients alone.*\[0\]"
    ):
        step(build(name, **{"steps": 2} if name == "amp" else {}), grad_fn=grad_fn)


@pytest.mark.parametrize("name", ["pugd", "looksam"])
def test_grad_fn_that_returns_another_shape(name):
    with pytest.raises(ValueError, match=r"the result of grad_fn\['a'\] has the shape \(3,\), grads\['a'\] has \(2,\)"):
        step(build(name), grad_fn=lambda p: p | {"a": jnp.ones(3)})


@gated_method
def test_gradients_of_other_parameters(name):
    tx, others = build(name), {"grad_fn": as_is, "losses_fn": lambda p: p["a"], "labels": jnp.zeros(2, int)}
    with pytest.raises(ValueError, match=r"grads has another structure.*params.*Fix"):
        step(tx, grads=(jnp.float32(0.0), W), **others)
    with pytest.raises(ValueError, match=r"grads\['a'\] has the shape \(1, 2\), params\['a'\] has \(2,\)"):
        step(tx, grads=W | {"a": jnp.ones((1, 2))}, **others)


@gated_method
def test_errors_come_while_tracing_too(name):
    tx = build(name)
    with pytest.raises(ValueError, match=r"needs \w+_fn="):
        jax.jit(lambda s: tx.update(W, s, W))(tx.init(W))


def test_value_and_grad_with_a_wrong_transformation_says_so():
    vg = pugd_optax.value_and_grad(
        lambda w: jnp.sum(w["a"] ** 2) + w["b"], optax.masked(methods.sam(), {"a": True, "b": False})
    )
    with pytest.raises(ValueError, match="MaskedNode"):
        vg(W, vg.init(W))


@pytest.mark.parametrize("name", sorted(set(timing.__all__) - {"Gate", "When"}))
def test_gate_that_was_not_called(name):
    with pytest.raises(TypeError, match=rf"when=pugd_optax\.timing\.{name}: expected a gate.*Fix: call it"):
        pugd_optax.sam(when=getattr(timing, name))


@pytest.mark.parametrize("gate", [timing.after(1), timing.low_variance()])
@pytest.mark.parametrize("jit", [jax.jit, lambda f: f])
def test_gate_that_returns_a_gate(gate, jit):
    tx = pugd_optax.sam(when=lambda step: gate)
    with pytest.raises(TypeError, match=r"when=.*expected a gate.*timing\.after\(1000\)"):
        jit(lambda w: step(tx, params=w, grad_fn=as_is))(W)
