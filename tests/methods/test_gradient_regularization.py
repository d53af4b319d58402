"""Gradient regularization against its four formulas and the penalised objective, and on diagonal linear networks."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pugd_optax import gnp, gradient_regularization
from tests.problems import assert_follows, batch, loss, start

GAMMA, H = 0.25, 0.125
LR = 0.05


def curvature(grad, w, v):
    """The Hessian-vector product H v by complex-step differentiation, exact up to rounding."""
    return grad(w + 1e-30j * v).imag / 1e-30


FORMULAS = {
    "forward": lambda t, w, grad: grad(w) + GAMMA / H * (grad(w + H * grad(w)) - grad(w)),
    "backward": lambda t, w, grad: grad(w) + GAMMA / H * (grad(w) - grad(w - H * grad(w))),
    "central": lambda t, w, grad: grad(w) + GAMMA / (2 * H) * (grad(w + H * grad(w)) - grad(w - H * grad(w))),
    "exact": lambda t, w, grad: grad(w) + GAMMA * curvature(grad, w, grad(w)),
}


@pytest.mark.parametrize("scheme", FORMULAS)
def test_follows_the_formula(scheme):
    assert_follows(gradient_regularization(GAMMA, H, scheme), FORMULAS[scheme], lr=LR)


@pytest.mark.parametrize("scheme", FORMULAS)
def test_schedules(scheme):
    """The strength and the step of the finite difference may both be schedules."""

    def rule(t, w, grad):
        gamma, h, g = GAMMA * t / 4, 0.25 / 2**t, grad(w)
        quotient = {
            "forward": lambda: (grad(w + h * g) - g) / h,
            "backward": lambda: (g - grad(w - h * g)) / h,
            "central": lambda: (grad(w + h * g) - grad(w - h * g)) / (2 * h),
            "exact": lambda: curvature(grad, w, g),
        }
        return g + gamma * quotient[scheme]()

    strength = optax.linear_schedule(0.0, GAMMA, 4)
    assert_follows(gradient_regularization(strength, lambda t: 0.25 / 2**t, scheme), rule, steps=4, lr=LR)


def test_a_step_of_zero_leaves_the_penalty_out():
    tx = gradient_regularization(GAMMA, lambda t: jnp.where(t < 2, 0.0, H))
    assert_follows(tx, lambda t, w, grad: grad(w) if t < 2 else FORMULAS["forward"](t, w, grad), lr=LR)


def test_strength_equal_to_step_is_sam_with_an_unnormalised_ascent(x64):
    """The output equals the gradient at w + 0.3 g bit for bit."""
    params, grad_fn = start(), jax.grad(loss)
    g = grad_fn(params, batch(0))
    tx = gradient_regularization(0.3, 0.3)
    u, _ = tx.update(g, tx.init(params), params, grad_fn=lambda p: grad_fn(p, batch(0)))
    at = jax.tree.map(lambda w, x: w + 0.3 * x, params, g)
    chex.assert_trees_all_equal(u, grad_fn(at, batch(0)))


def error(scheme, h):
    """The distance of a scheme from the exact gradient of the penalised objective."""
    return float(_error(scheme)(start(), h))


@functools.cache
def _error(scheme):
    grad_fn = lambda p: jax.grad(loss)(p, batch(0))
    objective = lambda p: loss(p, batch(0)) + 0.5 * GAMMA * optax.tree.norm(grad_fn(p), squared=True)

    @jax.jit
    def distance(params, h):
        u = output(gradient_regularization(GAMMA, h, scheme), grad_fn)(params)
        return optax.tree.norm(optax.tree.sub(u, jax.grad(objective)(params)))

    return distance


def output(tx, grad_fn):
    """The update of the method, as a compiled function of the parameters."""
    return jax.jit(lambda p: tx.update(grad_fn(p), tx.init(p), p, grad_fn=grad_fn)[0])


@pytest.mark.parametrize(("scheme", "order"), [("forward", 1), ("backward", 1), ("central", 2)])
def test_order_of_convergence(x64, scheme, order):
    coarse, fine = error(scheme, 2.0**-8), error(scheme, 2.0**-10)
    assert np.log2(coarse / fine) / 2 == pytest.approx(order, abs=0.05)


def test_exact_is_the_gradient_of_the_penalised_objective(x64):
    assert error("exact", 1.0) < 1e-12


@pytest.mark.parametrize("scheme", FORMULAS)
def test_mask_penalises_the_gradient_of_the_selected_parameters(x64, scheme):
    """The penalty is |g_w|^2; its gradient with respect to the unselected `b` is not zero."""
    grad_fn = lambda p: jax.grad(loss)(p, batch(0))
    objective = lambda p: loss(p, batch(0)) + 0.5 * GAMMA * jnp.sum(grad_fn(p)["w"] ** 2)
    tx = gradient_regularization(GAMMA, 2.0**-12, scheme, mask={"b": False, "w": True})
    u, expected = output(tx, grad_fn)(start()), jax.jit(jax.grad(objective))(start())
    chex.assert_trees_all_close(u, expected, rtol=1e-2, atol=1e-4)
    assert np.linalg.norm(u["b"] - jax.jit(grad_fn)(start())["b"]) > 1e-3


def test_gnp_penalises_the_norm_itself(x64):
    strength, radius = 0.25, 2.0**-16
    grad_fn = lambda p: jax.grad(loss)(p, batch(0))
    objective = lambda p: loss(p, batch(0)) + strength * optax.tree.norm(grad_fn(p))
    tx = gnp(radius=radius, alpha=strength / radius)
    u, expected = output(tx, grad_fn)(start()), jax.jit(jax.grad(objective))(start())
    chex.assert_trees_all_close(u, expected, rtol=1e-3)


@pytest.mark.parametrize("scheme", FORMULAS)
def test_idle_steps_pass_the_gradient(scheme):
    tx = gradient_regularization(GAMMA, H, scheme, when=lambda t: t % 2 == 0)
    assert_follows(tx, lambda t, w, grad: FORMULAS[scheme](t, w, grad) if t % 2 == 0 else grad(w), lr=LR)


def test_value_fn_stands_for_grad_fn(x64):
    params = start()
    value_fn = lambda p: loss(p, batch(0))
    g = jax.grad(value_fn)(params)
    for scheme in FORMULAS:
        tx = gradient_regularization(GAMMA, H, scheme)
        u, _ = tx.update(g, tx.init(params), params, value_fn=value_fn)
        v, _ = tx.update(g, tx.init(params), params, grad_fn=jax.grad(value_fn))
        chex.assert_trees_all_equal(u, v)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"strength": -0.1}, "strength=-0.1"),
        ({"step": -1.0}, "step=-1.0"),
        ({"step": 0.0}, "step=0"),
        ({"strength": float("nan")}, "strength=nan"),
        ({"scheme": "sideways"}, "scheme='sideways': expected one of forward, backward, central, exact"),
    ],
)
def test_refuses_bad_arguments(given, message):
    with pytest.raises(ValueError, match=message):
        gradient_regularization(**given)


@pytest.mark.parametrize("scheme", FORMULAS)
def test_refuses_a_missing_gradient_function(scheme):
    tx = gradient_regularization(scheme=scheme)
    with pytest.raises(ValueError, match="needs grad_fn="):
        tx.update(start(), tx.init(start()), start())


@pytest.mark.parametrize("scheme", FORMULAS)
def test_refuses_a_gradient_function_with_auxiliary_output(scheme):
    tx = gradient_regularization(scheme=scheme)
    params = start()
    with pytest.raises(ValueError, match="return gradients alone"):
        tx.update(params, tx.init(params), params, grad_fn=lambda p: (p, jax.tree.map(jnp.sum, p)))


DATA_SETS, EXAMPLES, INPUTS, STEPS = 3, 50, 100, 20_000


def distance_from_truth(tx, data):
    """Error of a diagonal linear network, f(x) = <u^2 - v^2, x>, after training on sparse regression."""
    x, y, beta, lr = data
    predict = lambda p: p["u"] ** 2 - p["v"] ** 2
    grad_fn = jax.grad(lambda p: 0.25 * jnp.mean((x @ predict(p) - y) ** 2))

    def step(carry, _):
        params, state = carry
        u, state = tx.update(grad_fn(params), state, params, grad_fn=grad_fn)
        return (jax.tree.map(lambda w, g: w - lr * g, params, u), state), None

    params = {"u": jnp.full(INPUTS, 0.1), "v": jnp.full(INPUTS, 0.1)}
    (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), length=STEPS)
    return jnp.sum((predict(params) - beta) ** 2)


@pytest.mark.slow
def test_large_forward_steps_favour_sparse_solutions(x64):
    """Sparsity increases as in the paper: backward, plain, exact, forward with a small and with a large step."""
    random = np.random.default_rng(0)
    x = random.normal(5.0, 1.0, (DATA_SETS, EXAMPLES, INPUTS))
    beta = np.zeros(INPUTS)
    beta[:5] = 1.0
    top = 4 * 0.1**2 * np.linalg.norm(x, 2, axis=(1, 2)) ** 2 / EXAMPLES

    def errors_of(make):
        one = lambda x, y, top: distance_from_truth(make(1 / top), (x, y, beta, 0.1 / top))
        return np.asarray(jax.jit(jax.vmap(one))(x, x @ beta, top))

    errors = [
        errors_of(make)
        for make in (
            lambda unit: gradient_regularization(0.3 * unit, 1.0 * unit, "backward"),
            lambda unit: optax.with_extra_args_support(optax.identity()),
            lambda unit: gradient_regularization(0.3 * unit, scheme="exact"),
            lambda unit: gradient_regularization(0.3 * unit, 0.3 * unit),
            lambda unit: gradient_regularization(0.3 * unit, 3.0 * unit),
        )
    ]
    assert all((worse > better).all() for worse, better in itertools.pairwise(errors))
    assert errors[-1].mean() < 0.6 * errors[1].mean()
