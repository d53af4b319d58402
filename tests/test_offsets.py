"""The two-offset edit against float64 NumPy: special cases, bounds, other losses, and all three forms."""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, PartitionSpec as P

from pugd_optax import losses
from pugd_optax.logits import Offsets, additive, largest_pull, linear_surrogate, offsets, perturb
from pugd_optax.methods.lpl import class_ascent

CLASSES = 4
random = np.random.default_rng(5)
U: Any = 2 * random.normal(size=(9, CLASSES))
Y = np.array([0, 1, 1, 0, 2, 1, 0, 0, 1])  # class 3 is absent
E = np.eye(CLASSES)
COUNTS = np.array([5000, 645, 83, 50])
A: Any = random.normal(size=(CLASSES, CLASSES))
B: Any = -random.uniform(0, 3, (CLASSES, CLASSES)) * (1 - E)
ONE_HOT = np.where(E == 1, 0.0, -np.inf)


def softmax(u):
    p = np.exp(u - u.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def by_hand(u, y, a, b):
    """softmax(u + a_y) - softmax(u + b_y), row by row."""
    return np.stack([softmax(row + a[c]) - softmax(row + b[c]) for row, c in zip(u, y, strict=True)])


def cross_entropy(u, y=Y):
    return optax.softmax_cross_entropy_with_integer_labels(u, jnp.asarray(y)).mean()


def gradient(strength: Offsets, loss=cross_entropy, u=U, y=Y, **settings):
    return jax.jit(jax.grad(lambda u: loss(perturb(u, y, strength, **settings))))(jnp.asarray(u))


@pytest.mark.parametrize("a", [None, A], ids=["a=0", "a"])
@pytest.mark.parametrize("b", [None, B, ONE_HOT], ids=["b=None", "b", "b=-inf"])
def test_follows_the_formula_around_cross_entropy(x64, a, b):
    expected = by_hand(U, Y, np.zeros((CLASSES, CLASSES)) if a is None else a, ONE_HOT if b is None else b) / len(Y)
    np.testing.assert_allclose(gradient(offsets(a, b)), expected, rtol=0, atol=1e-14)


def test_cross_entropy_is_a_member(x64):
    plain = jax.jit(jax.grad(cross_entropy))(jnp.asarray(U))
    np.testing.assert_allclose(by_hand(U, Y, 0 * A, ONE_HOT) / len(Y), plain, rtol=0, atol=1e-14)
    np.testing.assert_array_equal(gradient(offsets()), plain)
    np.testing.assert_allclose(gradient(offsets(b=-600.0 * (1 - E))), plain, rtol=0, atol=1e-14)


@pytest.mark.parametrize("tau", [0.5, 1.0])
def test_logit_adjustment_is_a_member(x64, tau):
    shared = tau * np.log(COUNTS / COUNTS.sum())
    expected = jax.jit(jax.grad(lambda u: losses.logit_adjustment(u, Y, COUNTS, tau).mean()))(jnp.asarray(U))
    for a in (shared, np.tile(shared, (CLASSES, 1))):
        np.testing.assert_allclose(gradient(offsets(a)), expected, rtol=0, atol=1e-14)


def test_ldam_is_a_member(x64):
    margins = 0.5 * (COUNTS.min() / COUNTS) ** 0.25
    scaled = lambda u: losses.ldam(u / 30, Y, COUNTS).mean()  # of the logits of the softmax, 30 times its own
    expected = jax.jit(jax.grad(scaled))(jnp.asarray(U))
    np.testing.assert_allclose(gradient(offsets(np.diag(-30 * margins))), expected, rtol=0, atol=1e-14)


def test_lpl_is_a_member(x64):
    delta = jax.jit(lambda u, t: class_ascent(u, Y, t, 0.1))(jnp.asarray(U), np.array([0.5, -0.5, 0.3, 0.0]))
    delta = np.asarray(delta, np.float64)
    expected = jax.jit(jax.grad(lambda u: cross_entropy(u + delta[Y])))(jnp.asarray(U))
    np.testing.assert_allclose(gradient(offsets(delta)), expected, rtol=0, atol=1e-14)


def test_no_offset_to_the_target_is_no_gradient(x64):
    np.testing.assert_allclose(gradient(offsets(b=np.zeros((CLASSES, CLASSES)))), 0, atol=1e-15)


@pytest.mark.parametrize("bound", [0.5, 2.0, 3.0, 50.0])
def test_bounds_hold_and_are_met(x64, bound):
    """Half the L1 norm of an example's gradient is at most tanh(osc / 4), which the worst case attains."""
    b = -bound * (1 - E)
    u = 6 * random.normal(size=(500, CLASSES))
    u[0] = [-bound / 2, 0, -50, -50]  # the worst: the offset moves the odds from one side of even to the other
    y = np.zeros(500, int)
    pull = 0.5 * np.abs(500 * gradient(offsets(b=b), functools.partial(cross_entropy, y=y), u, y)).sum(-1)
    limit = np.tanh(bound / 4)
    np.testing.assert_allclose(largest_pull(offsets(b=b), CLASSES), limit, rtol=1e-6)
    assert pull.max() <= limit + 1e-12
    np.testing.assert_allclose(pull[0], limit, rtol=1e-6)


def test_largest_pull_takes_both_offsets():
    pull = np.stack(
        [
            0.5 * np.abs(by_hand(6 * random.normal(size=(4000, CLASSES)), [c] * 4000, A, B)).sum(-1)
            for c in range(CLASSES)
        ]
    )
    limit = np.asarray(largest_pull(offsets(A, B), CLASSES))
    np.testing.assert_allclose(limit, np.tanh(np.ptp(A - B, axis=1) / 4), rtol=1e-5)
    assert (pull.max(1) <= limit + 1e-6).all()
    assert (pull.max(1) > 0.5 * limit).all()
    np.testing.assert_array_equal(largest_pull(offsets(A), CLASSES), 1)


def test_a_bounded_target_pulls_no_harder_than_the_label(x64):
    """The target probability of the true class lies between its prediction and 1, so the pull is weaker than before."""
    bounded, plain = (np.asarray(gradient(strength))[np.arange(9), Y] for strength in (offsets(b=B), offsets()))
    assert (plain < bounded).all()
    assert (bounded < 0).all()


PARTNERS = {
    "sum": (lambda u: cross_entropy(u) * 9, lambda p: np.ones(9)),
    "a thousand times": (lambda u: 1000 * cross_entropy(u), lambda p: np.full(9, 1000 / 9)),
    "class weights": (
        lambda u: losses.weighted_mean(
            optax.softmax_cross_entropy_with_integer_labels(u, jnp.asarray(Y)), jnp.asarray(1.0 + Y)
        ),
        lambda p: (1.0 + Y) / (1.0 + Y).sum(),
    ),
    "gce": (lambda u: losses.gce(u, Y).mean(), lambda p: p[np.arange(9), Y] ** 0.7 / 9),
    "sce": (lambda u: losses.sce(u, Y).mean(), lambda p: (0.1 - np.log(1e-4) * p[np.arange(9), Y]) / 9),
}


@pytest.mark.parametrize("name", PARTNERS)
def test_around_losses_of_the_true_class_the_weight_of_an_example_is_kept(x64, name):
    """A loss of p_y alone has the gradient r_i (p - e); with offsets it is r_i times the difference of softmaxes."""
    loss, weight = PARTNERS[name]
    expected = weight(softmax(U))[:, None] * by_hand(U, Y, A, B)
    np.testing.assert_allclose(gradient(offsets(A, B), loss), expected, rtol=1e-9, atol=1e-13)
    reverse = jax.jit(jax.grad(linear_surrogate(loss, Y, offsets(A, B))))(jnp.asarray(U))
    forward = jax.jit(jax.jacfwd(linear_surrogate(loss, Y, offsets(A, B))))(jnp.asarray(U))
    np.testing.assert_allclose(reverse, expected, rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(forward, expected, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("name", ["logit adjustment", "ldam", "focal"])
def test_around_other_losses_the_weight_is_that_of_the_wrong_classes(x64, name):
    loss = {
        "logit adjustment": lambda u: losses.logit_adjustment(u, Y, COUNTS).mean(),
        "ldam": lambda u: losses.ldam(u, Y, COUNTS, scale=2.0).mean(),
        "focal": lambda u: optax.sigmoid_focal_loss(u, jax.nn.one_hot(Y, CLASSES)).sum(-1).mean(),
    }[name]
    g, p = np.asarray(jax.jit(jax.grad(loss))(jnp.asarray(U))), softmax(U)
    slope = p * (1 - E[Y])
    weight = (g * slope).sum(-1) / (slope**2).sum(-1)
    delta = by_hand(U, Y, 0 * A, B) - (p - E[Y])
    np.testing.assert_allclose(gradient(offsets(b=B), loss), g + weight[:, None] * delta, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_forward_values_stay(dtype):
    u, strength = jnp.asarray(U, dtype), offsets(jnp.asarray(A, jnp.float32), jnp.asarray(B, jnp.float32))
    np.testing.assert_array_equal(perturb(u, Y, strength), u)
    loss = lambda u: cross_entropy(u.astype(jnp.float32))
    assert linear_surrogate(loss, Y, strength)(u) == loss(u)
    g = jax.jit(jax.grad(lambda u: loss(perturb(u, Y, strength))))(u)
    assert g.dtype == dtype
    expected = by_hand(np.asarray(u, np.float64), Y, A, B) / 9
    np.testing.assert_allclose(np.asarray(g, np.float64), expected, atol={2: 2e-3, 4: 1e-6}[g.dtype.itemsize])


def test_soft_labels_mix_the_perturbations_of_their_classes(x64):
    """The edit is linear in the label, as cross-entropy is, so mixup and label smoothing work."""
    soft = random.dirichlet(np.ones(CLASSES), size=9)
    loss = lambda u: optax.softmax_cross_entropy(u, jnp.asarray(soft)).mean()
    expected = sum(soft[:, [c]] * by_hand(U, np.full(9, c), A, B) for c in range(CLASSES)) / 9
    np.testing.assert_allclose(gradient(offsets(A, B), loss, y=soft), expected, rtol=0, atol=1e-7)  # shares are float32
    one_hot = E[Y].astype(np.float32)
    op_by_op = lambda y: jax.grad(lambda u: cross_entropy(perturb(u, y, offsets(A, B))))(jnp.asarray(U))
    np.testing.assert_array_equal(op_by_op(one_hot), op_by_op(Y))


@pytest.mark.parametrize("strength", [offsets(A.astype(np.float32), B.astype(np.float32)), np.full(4, 0.5, np.float32)])
def test_padding_of_sequences_is_left_as_it_is(strength):
    u, g = random.normal(size=(2, 2, 3, CLASSES)).astype(np.float32)
    y, where = np.array([[0, 1, -1], [2, -7, 99]]), np.array([[True, True, False], [True, False, False]])
    edited = np.asarray(jax.jit(jax.grad(lambda u: jnp.vdot(g, perturb(u, y, strength, where=where))))(u))
    np.testing.assert_array_equal(edited[~where], g[~where])
    alone = jax.jit(jax.grad(lambda u: jnp.vdot(g[where], perturb(u, y[where], strength))))(u[where])
    np.testing.assert_allclose(edited[where], alone, rtol=1e-6)
    assert np.abs(edited[where] - g[where]).max() > 1e-2
    traced = jax.jit(lambda u, y, w: jax.grad(lambda u: jnp.vdot(g, perturb(u, y, strength, where=w)))(u))(u, y, where)
    np.testing.assert_allclose(traced, edited, rtol=1e-6)
    surrogate = linear_surrogate(lambda u: jnp.vdot(g, u), y, strength, where=where)
    np.testing.assert_allclose(jax.jit(jax.grad(surrogate))(u), edited, rtol=1e-5)


def test_a_label_out_of_range_under_jit_leaves_its_row_alone():
    g = jnp.asarray(random.normal(size=(3, CLASSES)), jnp.float32)
    u, strength = jnp.asarray(U[:3], jnp.float32), offsets(b=jnp.asarray(B, jnp.float32))
    edited = jax.jit(jax.grad(lambda u, y: jnp.vdot(g, perturb(u, y, strength))))(u, jnp.array([0, 4, -1]))
    np.testing.assert_array_equal(edited[1:], g[1:])


@pytest.mark.parametrize("strength", [offsets(b=B), offsets(A, ONE_HOT), offsets(np.log(COUNTS / COUNTS.sum()), B)])
def test_hopeless_and_fitted_examples_are_finite(strength):
    strength = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), strength)
    u = jnp.array([[200.0, 0.0, 0.0, -200.0], [-90.0, 90.0, 0.0, 0.0], [30.0, 0.0, 0.0, 0.0], [1e-30, 0.0, 0.0, 0.0]])
    for y in (np.full(4, c) for c in range(CLASSES)):
        g = gradient(strength, functools.partial(cross_entropy, y=y), u, y)
        assert np.isfinite(np.asarray(g)).all()
        assert np.abs(g).max() <= 0.25 + 1e-6


def test_no_gradient_flows_into_the_offsets():
    u, b = U.astype(np.float32), B.astype(np.float32)
    loss = lambda b: jax.grad(linear_surrogate(cross_entropy, Y, Offsets(None, b)))(u)[0, 0]
    np.testing.assert_array_equal(jax.jit(jax.grad(loss))(b), 0)
    loss = lambda b: cross_entropy(perturb(u, Y, Offsets(None, b)))
    np.testing.assert_array_equal(jax.jit(jax.grad(loss))(b), 0)


@pytest.mark.parametrize("averaged", [True, False])
@pytest.mark.parametrize(
    ("strength", "edit"),
    [(offsets(A, B), None), (np.array([0.5, -0.5, 0.9, 0.0]), None), (np.array([0.5, -0.5, 0.9, 0.0]), additive)],
    ids=["offsets", "by class", "additive"],
)
def test_the_surrogate_over_devices_is_that_of_the_whole_batch(averaged, strength, edit):
    """The surrogate is correct for a loss averaged over the mesh and for local means averaged afterwards."""
    strength = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), strength)
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    x, w = (jnp.asarray(random.normal(size=s), jnp.float32) for s in ((8, 5), (5, CLASSES)))
    y = jnp.array([0, 0, 0, 1, 2, 2, 1, 0])
    mean = lambda u, y: optax.softmax_cross_entropy_with_integer_labels(u, y).mean()

    def local(w, x, y):
        loss = (lambda u: jax.lax.pmean(mean(u, y), "data")) if averaged else (lambda u: mean(u, y))
        surrogate = linear_surrogate(loss, y, strength, edit, axis_name="data")
        w = w if averaged else jax.lax.pcast(w, "data", to="varying")
        value, g = jax.value_and_grad(lambda w: surrogate(x @ w))(w)
        return (value, g) if averaged else jax.lax.pmean((value, g), "data")

    split = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=(P(), P("data"), P("data")), out_specs=P()))(w, x, y)
    surrogate = linear_surrogate(lambda u: mean(u, y), y, strength, edit)
    whole = jax.jit(jax.value_and_grad(lambda w: surrogate(x @ w)))(w)
    chex.assert_trees_all_close(split, whole, rtol=1e-4, atol=1e-6)


WRONG: Any = np.ones((CLASSES, CLASSES), int)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: offsets(np.zeros((3, 4))), ValueError, r"a has the shape \(3, 4\): expected \(classes,\) or"),
        (lambda: offsets(b=np.zeros(4)), ValueError, r"b has the shape \(4,\): expected \(classes, classes\)"),
        (lambda: offsets(WRONG), TypeError, "a has the dtype int.*Fix: a.astype"),
        (lambda: offsets(np.array([0.0, 0.0, -np.inf, 0.0])), ValueError, "a holds an inf or a NaN"),
        (lambda: offsets(b=A), ValueError, "expected entries <= 0 and a diagonal of 0"),
        (lambda: offsets(b=B - 1), ValueError, "b holds -1.* on the diagonal"),
        (
            lambda: perturb(jnp.zeros((2, 4)), np.array([0, 1]), offsets(b=B), additive),
            ValueError,
            "Fix: leave edit out",
        ),
        (lambda: gradient(offsets(b=np.zeros((3, 3)))), ValueError, r"b of \(3, 3\).*4 classes"),
        (lambda: gradient(offsets(np.zeros(3))), ValueError, r"a of \(3,\).*4 classes"),
        (
            lambda: perturb(U, Y, offsets(), where=np.ones(8, bool)),
            ValueError,
            r"where has the shape \(8,\): expected \(9,\)",
        ),
        (lambda: perturb(U, Y, offsets(), where=np.ones(9)), TypeError, "where has the dtype float.*Fix: where != 0"),
        (lambda: perturb(U, Y[:3], offsets(), where=np.ones(9, bool)), ValueError, r"labels have the shape \(3,\)"),
        (lambda: perturb(U, Y + 9, offsets(), where=Y == 0), ValueError, r"labels lie in \[0, 9\]"),
    ],
)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
