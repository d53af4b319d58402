"""The edits against NumPy, and the three ways to apply them against each other."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, PartitionSpec as P

from pugd_optax import losses
from pugd_optax.logits import additive, linear_surrogate, multiplicative, perturb, renormalize

CLASSES = 4
random = np.random.default_rng(0)
U: Any = random.normal(size=(9, CLASSES)).astype(np.float32)
Y = np.array([0, 1, 1, 0, 2, 1, 0, 0, 1])  # class 3 is absent, class 2 has one example
T: Any = np.array([0.3, -0.5, 0.9, -0.9], np.float32)

edits = pytest.mark.parametrize("edit", [multiplicative, additive])


def softmax(u):
    p = np.exp(u - u.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def cross_entropy(u):
    return optax.softmax_cross_entropy_with_integer_labels(u, jnp.asarray(Y)).mean()


def edited(edit, g, y, t):
    """The edited gradient, compiled; labels and strength stay concrete."""
    return np.asarray(jax.jit(lambda g: edit(g, y, t))(g))


def by_hand(name, g, y, t):
    """The edits by their formulas, one example at a time, in float64."""
    g, out = g.astype(np.float64), []
    for g_i, c in zip(g, y, strict=True):
        push = g_i if name == "multiplicative" else g[y == c].mean(0)
        out.append(g_i + max(t[c], -1.0) * push)
    return np.stack(out)


@edits
@pytest.mark.parametrize("t", [T, np.zeros(4, np.float32), np.full(4, -3.0, np.float32)])
def test_edits_follow_the_formula(edit, t):
    g = random.normal(size=U.shape).astype(np.float32)
    np.testing.assert_allclose(edited(edit, g, Y, t), by_hand(edit.__name__, g, Y, t), rtol=1e-5, atol=1e-6)


def best_push(gbar, bound, sign, steps=200):
    """Projected ascent (descent) on |gbar + d| over |d| <= bound, without use of the closed form."""
    d = np.zeros_like(gbar)
    for _ in range(steps):
        direction = (gbar + d) / max(np.linalg.norm(gbar + d), 1e-12)
        d = d + sign * bound / 50 * direction
        d = d * min(1.0, bound / np.linalg.norm(d))
    return d


@pytest.mark.parametrize("t", [0.4, 1.0, -0.4, -0.9])
def test_additive_is_the_extreme_norm_of_the_class_gradient(t):
    g = (softmax(U.astype(np.float64)) - np.eye(CLASSES)[Y])[Y == 1]
    gbar = g.mean(0)
    d = best_push(gbar, abs(t) * np.linalg.norm(gbar), np.sign(t))
    with jax.enable_x64(True):
        mean = edited(additive, g, np.ones(len(g), int), np.full(CLASSES, t)).mean(0)
    np.testing.assert_allclose(mean, gbar + d, rtol=0, atol=1e-6)
    length = np.linalg.norm(mean)
    np.testing.assert_allclose(length, (1 + t) * np.linalg.norm(gbar), rtol=1e-6)


@edits
@pytest.mark.parametrize("t", [-1.0, -1.5, -10.0])
def test_dampening_past_zero_does_not_turn_the_class_gradient_round(edit, t):
    g = softmax(U) - np.eye(CLASSES, dtype=np.float32)[Y]
    dampened = edited(edit, g, Y, np.full(CLASSES, t, np.float32))
    for c in set(Y):
        np.testing.assert_allclose(dampened[c == Y].mean(0), 0, atol=1e-6)


@edits
def test_class_sums_of_the_two_edits_agree(edit):
    g = random.normal(size=U.shape)
    expected = [(1 + T[c]) * g[c == Y].sum(0) for c in range(3)]
    found = edited(edit, jnp.asarray(g), Y, T)
    np.testing.assert_allclose([found[c == Y].sum(0) for c in range(3)], expected, rtol=1e-5, atol=1e-6)


@edits
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_forward_is_the_identity_and_strength_zero_the_plain_gradient(edit, dtype):
    u = jnp.asarray(U, dtype)
    np.testing.assert_array_equal(perturb(u, Y, T, edit), u)
    loss = lambda u: cross_entropy(u.astype(jnp.float32))
    assert loss(perturb(u, Y, T, edit)) == loss(u)
    assert linear_surrogate(loss, Y, T, edit)(u) == loss(u)
    plain = jax.grad(loss)(u)
    zero = jnp.zeros(CLASSES)
    for edited in (
        jax.grad(lambda u: loss(perturb(u, Y, zero, edit)))(u),
        jax.grad(linear_surrogate(loss, Y, zero, edit))(u),
    ):
        assert edited.dtype == dtype
        np.testing.assert_array_equal(edited, plain)


LOSSES = {
    "cross-entropy": lambda u: optax.softmax_cross_entropy_with_integer_labels(u, jnp.asarray(Y)),
    "focal": lambda u: optax.sigmoid_focal_loss(u, jax.nn.one_hot(Y, CLASSES)).sum(-1),
    "ldam": lambda u: losses.ldam(u, Y, [50, 20, 10, 5]),
    "gce": lambda u: losses.gce(u, Y),
    "squared": lambda u: jnp.sum(u**2, -1),
}


@edits
@pytest.mark.parametrize("name", LOSSES)
def test_all_routes_agree_around_any_loss(edit, name):
    """The edited backward pass, the linear surrogate (both modes), the explicit pullback and a weighted loss agree."""
    x, w = (random.normal(size=s).astype(np.float32) for s in ((9, 5), (5, CLASSES)))
    model = lambda w: jnp.tanh(x @ w)
    loss = lambda u: LOSSES[name](u).mean()
    surrogate = linear_surrogate(loss, Y, T, edit)

    @jax.jit
    def routes(w):
        identity = jax.grad(lambda w: loss(perturb(model(w), Y, T, edit)))(w)
        b_reverse = jax.grad(lambda w: surrogate(model(w)))(w)
        b_forward = jax.jacfwd(lambda w: surrogate(model(w)))(w)
        weighted = jax.grad(lambda w: (LOSSES[name](model(w)) * (1 + T)[Y]).mean())(w)
        return [identity, b_reverse, b_forward] + [weighted] * (edit is multiplicative)

    u = np.tanh(x @ w)
    c = x.T @ (by_hand(edit.__name__, np.asarray(jax.jit(jax.grad(loss))(u)), Y, T) * (1 - u**2))
    scale = np.abs(c).max()
    for route in routes(w):
        np.testing.assert_allclose(route / scale, c / scale, rtol=0, atol=3e-6)


@edits
@pytest.mark.parametrize("reduce", [jnp.sum, lambda x: 1000 * jnp.mean(x), lambda x: 2.0**-20 * jnp.sum(x)])
def test_scale_and_reduction_of_the_loss_do_not_matter(edit, reduce):
    """The edited gradient of k times a loss is k times that of the loss."""
    per_example = lambda u: optax.softmax_cross_entropy_with_integer_labels(u, jnp.asarray(Y))
    slope = lambda reduce: jax.jit(jax.grad(lambda u: reduce(per_example(perturb(u, Y, T, edit)))))(U)
    k = float(reduce(np.ones(len(Y))) / len(Y))
    np.testing.assert_allclose(slope(reduce), k * slope(jnp.sum), rtol=2e-6, atol=1e-6 * k)


@edits
def test_rows_of_a_cross_entropy_gradient_keep_their_zero_sum(edit):
    g = np.asarray(jax.jit(jax.grad(lambda u: cross_entropy(perturb(u, Y, T, edit))))(U))
    np.testing.assert_allclose(g.sum(-1), 0, atol=1e-7)


@edits
def test_single_class_batch_and_absent_classes(edit):
    y = np.zeros(9, np.int32)
    loss = lambda u: optax.softmax_cross_entropy_with_integer_labels(perturb(u, y, T, edit), y).mean()
    g = jax.jit(jax.grad(loss))(U)
    expected = by_hand(edit.__name__, (softmax(U) - np.eye(CLASSES)[y]) / 9, y, T)
    np.testing.assert_allclose(g, expected, rtol=1e-5, atol=1e-7)


@edits
def test_one_hot_soft_labels_are_the_indices_and_mixup_interpolates(edit):
    g = random.normal(size=U.shape).astype(np.float32)
    one_hot = np.eye(CLASSES, dtype=np.float32)
    np.testing.assert_array_equal(edit(jnp.asarray(g), one_hot[Y], T), edit(jnp.asarray(g), Y, T))
    other, share = np.roll(Y, 1), 0.3
    mixed = (1 - share) * one_hot[Y] + share * one_hot[other]
    if edit is multiplicative:
        expected = (1 - share) * edited(edit, g, Y, T) + share * edited(edit, g, other, T)
    else:
        n = mixed.sum(0)
        gbar = mixed.T.astype(np.float64) @ g / np.where(n > 0, n, 1)[:, None]
        expected = g + mixed @ (T[:, None] * gbar)
    np.testing.assert_allclose(edited(edit, g, mixed, T), expected, rtol=1e-5, atol=1e-6)


@edits
def test_more_than_one_axis_of_examples(edit):
    g = random.normal(size=(2, 3, CLASSES)).astype(np.float32)
    y = np.array([[0, 1, 2], [1, 1, 0]])
    flat = edited(edit, g.reshape(6, CLASSES), y.reshape(6), T)
    np.testing.assert_allclose(edited(edit, g, y, T).reshape(6, CLASSES), flat, rtol=1e-6)


@edits
def test_a_label_out_of_range_under_jit_leaves_its_row_alone(edit):
    g = random.normal(size=(3, CLASSES)).astype(np.float32)
    found = np.asarray(jax.jit(edit)(g, np.array([0, 4, -1]), T))
    np.testing.assert_array_equal(found[1:], g[1:])
    np.testing.assert_allclose(found[0], (1 + T[0]) * g[0], rtol=1e-6)


def test_renormalised_weights_sum_to_the_number_of_examples():
    renormalized = jax.jit(lambda t: renormalize(t, Y, U))
    weight = 1 + np.asarray(renormalized(T), np.float64)
    np.testing.assert_allclose(weight[Y].sum(), len(Y), rtol=1e-6)
    np.testing.assert_allclose(weight / weight[0], (1 + T) / (1 + T[0]), rtol=1e-6)
    np.testing.assert_array_equal(renormalized(np.zeros(4, np.float32)), 0)
    np.testing.assert_array_equal(renormalized(np.full(4, -1.0, np.float32)), 0)
    below, at = (np.array([t, 0.5, 0.2, 0.0], np.float32) for t in (-3, -1))
    np.testing.assert_array_equal(renormalized(below), renormalized(at))


@edits
def test_sums_over_devices_are_those_of_the_whole_batch(edit):
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    g, y = jnp.asarray(random.normal(size=(8, CLASSES)), jnp.float32), np.array([0, 0, 0, 1, 2, 2, 1, 0])

    def local(g, y):
        t = renormalize(jnp.asarray(T), y, g, axis_name="data")
        return edit(g, y, t, axis_name="data"), t

    step = jax.shard_map(local, mesh=mesh, in_specs=(P("data"), P("data")), out_specs=(P("data"), P()))
    sharded, t = jax.jit(step)(g, y)
    np.testing.assert_allclose(t, jax.jit(lambda t: renormalize(t, y, g))(T), rtol=1e-6)
    np.testing.assert_allclose(sharded, edited(edit, g, y, np.asarray(t)), rtol=1e-5, atol=1e-6)


def test_no_gradient_flows_into_the_strength():
    u = jnp.asarray(U)
    for loss in (
        lambda t: cross_entropy(perturb(u, Y, t)),
        lambda t: jax.grad(linear_surrogate(cross_entropy, Y, t))(u)[0, 0],
    ):
        np.testing.assert_array_equal(jax.jit(jax.grad(loss))(T), 0)


def test_forward_mode_wants_the_surrogate():
    u = jnp.asarray(U)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda u: cross_entropy(perturb(u, Y, T)), (u,), (u,))
    value, slope = jax.jit(lambda u: jax.jvp(linear_surrogate(cross_entropy, Y, T), (u,), (u,)))(u)
    plain, g = jax.jit(lambda u: (cross_entropy(u), jax.grad(lambda u: cross_entropy(perturb(u, Y, T)))(u)))(u)
    np.testing.assert_allclose(slope, np.vdot(np.asarray(g), U), rtol=1e-5)
    np.testing.assert_allclose(value, plain, rtol=1e-6)


@edits
@pytest.mark.parametrize("shape", [(3,), (1,), (), (4, 4)])
def test_strength_that_does_not_fit_is_refused(edit, shape):
    message = rf"strength has the shape {re.escape(str(shape))}: expected \(4,\).*Fix: "
    for apply in (
        lambda: jax.grad(lambda u: cross_entropy(perturb(u, Y, jnp.zeros(shape), edit)))(U),
        lambda: linear_surrogate(cross_entropy, Y, jnp.zeros(shape), edit)(U),
    ):
        with pytest.raises(ValueError, match=message):
            apply()


def test_the_value_of_the_surrogate_is_that_of_the_loss_also_for_masked_classes():
    u, labels = jnp.array([[1.0, 0.5, -jnp.inf, 0.0], [0.0, -jnp.inf, -jnp.inf, 2.0]]), jnp.array([0, 3])
    loss = lambda u: -jnp.take_along_axis(jax.nn.log_softmax(u), labels[:, None], axis=1).mean()
    value, g = jax.value_and_grad(linear_surrogate(loss, labels, T))(u)
    np.testing.assert_array_equal(value, loss(u))
    np.testing.assert_allclose(g, jax.grad(lambda u: loss(perturb(u, labels, T)))(u), atol=1e-6)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (np.array([0, 1, 4]), ValueError, r"labels lie in \[0, 4\]: expected \[0, 3\]"),
        (np.array([0, -1, 2]), ValueError, r"labels lie in \[-1, 2\]"),
        (np.eye(4, dtype=np.int32)[:3], ValueError, r"Fix: labels\.argmax\(-1\), or labels\.astype\(jnp\.float32\)"),
        (np.array([0.0, 1.0, 2.0], np.float32), ValueError, r"soft labels of the shape \(3, 4\), or integer"),
        (np.array([0, 1]), ValueError, r"labels have the shape \(2,\): expected \(3,\)"),
        (np.array([True, False, True]), TypeError, "labels have the dtype bool"),
        (np.full((3, 4), 1.5, np.float32), ValueError, r"lie in .*expected soft labels"),
        (np.full((3, 4), np.nan, np.float32), ValueError, r"lie in .*expected soft labels"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, error, message):
    with pytest.raises(error, match=message):
        perturb(jnp.zeros((3, 4)), labels, T)
