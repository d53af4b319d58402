"""LPL against NumPy loops over classes and steps, and its effect on the loss of each class."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, PartitionSpec as P

import pugd_optax
from pugd_optax import classes
from pugd_optax.methods.lpl import class_ascent

CLASSES, INPUTS, BATCHES = 4, 3, 4
random = np.random.default_rng(11)
X = random.normal(size=(BATCHES, 8, INPUTS))
Y = random.integers(0, CLASSES, (BATCHES, 8))
Y[1] = 2  # a batch of one class
Y[2] = Y[2] % 3  # a batch without class 3
W = random.normal(size=(INPUTS, CLASSES))


def softmax(u):
    p = np.exp(u - u.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def cross_entropy(u, y):
    return -np.log(softmax(u)[np.arange(len(y)), y])


def ascend(u, y, sign, steps, alpha):
    """One perturbation per class; each step adds the class mean of softmax minus one-hot, without normalisation."""
    delta = np.zeros((CLASSES, CLASSES))
    for c in set(y):
        for _ in range(steps[c]):
            mean = (softmax(u[y == c] + delta[c]) - np.eye(CLASSES)[c]).mean(0)
            delta[c] += sign[c] * alpha * mean
    return delta


class Reference:
    """LPL for softmax regression in float64."""

    def __init__(self, eps, d_eps, alpha, decay=1 - 1 / CLASSES):
        self.eps, self.d_eps, self.alpha, self.decay, self.q = eps, d_eps, alpha, decay, {}

    def step(self, w, x, y):
        """The gradient function of this step, with a fixed perturbation."""
        p = softmax(x @ w)[np.arange(len(y)), y]
        for c in set(y):
            mean = p[y == c].mean()
            self.q[c] = self.decay * self.q[c] + (1 - self.decay) * mean if c in self.q else mean
        gaps = {c: np.mean(list(self.q.values())) - q for c, q in self.q.items()}
        sign, steps = np.zeros(CLASSES), np.zeros(CLASSES, int)
        for c, gap in gaps.items():
            sign[c] = np.sign(gap)
            farthest = max(sign[c] * other for other in gaps.values())
            steps[c] = int((self.eps + self.d_eps * abs(gap) / (farthest or 1)) / self.alpha + 1e-3)
        delta = ascend(x @ w, y, sign, steps, self.alpha)
        return lambda w: x.T @ (softmax(x @ w + delta[y]) - np.eye(CLASSES)[y]) / len(y)


def run(tx: Any, **extra: Any) -> tuple[np.ndarray, Any]:
    """The outputs of `tx` along w <- w - u / 2 in float64, and the last state. The incoming gradient is a dummy."""

    @jax.jit
    def step(w, state, x, y):
        u, state = tx.update(jnp.full_like(w, 1e3), state, w, logits_fn=lambda w: x @ w, labels=y, **extra)
        return w - 0.5 * u, state, u

    w, outputs = jnp.asarray(W), []
    state = tx.init(w)
    for x, y in zip(X, Y, strict=True):
        w, state, u = step(w, state, x, y)
        outputs.append(u)
    return np.stack(outputs), state


def reference_run(reference, combine=lambda w, gradient: gradient(w)):
    w, outputs = W.copy(), []
    for x, y in zip(X, Y, strict=True):
        outputs.append(combine(w, reference.step(w, x, y)))
        w = w - 0.5 * outputs[-1]
    return np.stack(outputs)


# Bounds away from a whole number of steps, where float32 confidences could round the other way.
@pytest.mark.parametrize(("eps", "d_eps", "alpha"), [(0.405, 0.0, 0.01), (0.5, 2.0, 0.137), (1.6, 0.0, 0.15)])
def test_follows_the_formula(x64, eps, d_eps, alpha):
    outputs, state = run(pugd_optax.lpl(CLASSES, eps, d_eps, alpha))
    np.testing.assert_allclose(outputs, reference_run(Reference(eps, d_eps, alpha)), rtol=1e-5, atol=1e-6)
    assert int(state.classes.step) == BATCHES


def test_the_inner_method_sees_the_same_frozen_perturbation(x64):
    def sam_by_hand(w, gradient):
        g = gradient(w)
        return gradient(w + 0.3 * g / np.linalg.norm(g))

    outputs, _ = run(pugd_optax.lpl(CLASSES, 1.05, 0.0, 0.1, inner=pugd_optax.sam(0.3)))
    np.testing.assert_allclose(outputs, reference_run(Reference(1.05, 0.0, 0.1), sam_by_hand), rtol=1e-5, atol=1e-6)


def test_zero_bounds_are_the_plain_gradient():
    x, y, w = jnp.asarray(X[0], jnp.float32), Y[0], jnp.asarray(W, jnp.float32)
    tx: Any = pugd_optax.lpl(CLASSES, eps=0.0, d_eps=0.0)
    loss_fn = lambda w: optax.softmax_cross_entropy_with_integer_labels(x @ w, y).mean()
    u, _ = jax.jit(lambda w: tx.update(w, tx.init(w), w, logits_fn=lambda w: x @ w, labels=y))(w)
    np.testing.assert_array_equal(u, jax.jit(jax.grad(loss_fn))(w))


U = random.normal(size=(8, CLASSES))


@pytest.mark.parametrize(
    ("bound", "alpha", "steps"), [(0.4, 0.01, 40), (0.45, 0.15, 3), (0.35, 0.1, 3), (0.09, 0.1, 0)]
)
def test_the_number_of_steps_is_the_whole_part_of_bound_over_step_size(bound, alpha, steps):
    """The number of steps is floor(bound / step size); 0.45 / 0.15 counts as 3, although float32 rounds it below 3."""
    y = np.array([0, 1, 2, 3, 0, 1, 2, 3])
    sign = np.array([1, -1, 1, -1])
    delta = class_ascent(jnp.asarray(U, jnp.float32), y, jnp.asarray(sign * bound, jnp.float32), alpha)
    np.testing.assert_allclose(delta, ascend(U, y, sign, [steps] * CLASSES, alpha), rtol=1e-4, atol=1e-6)
    assert np.linalg.norm(delta, axis=1).max() <= np.sqrt(2) * bound


def test_classes_differ_in_steps_and_absent_ones_stay_at_zero():
    y = np.array([0, 1, 2, 2, 0, 1, 2, 0])
    strength = np.array([0.25, -0.75, 0.0, 0.9])
    delta = class_ascent(jnp.asarray(U, jnp.float32), y, jnp.asarray(strength, jnp.float32), 0.1)
    expected = ascend(U, y, np.sign(strength), [2, 7, 0, 9], 0.1)
    np.testing.assert_allclose(delta, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(delta[2:], 0)


def test_amplified_classes_lose_more_and_dampened_ones_less():
    y = Y[0] % 3
    strength = jnp.array([0.5, -0.5, 0.5, 0.0])
    delta = np.asarray(class_ascent(jnp.asarray(U, jnp.float32), y, strength, 0.01), np.float64)
    change = cross_entropy(U + delta[y], y) - cross_entropy(U, y)
    for c, sign in enumerate([1, -1, 1]):
        assert sign * change[y == c].mean() > 0.01


def test_gradient_norm_follows_the_loss_as_lpg_does_directly():
    """LPL's ascent increases the norm of the logit gradient and its descent decreases it, as LPG does directly."""
    y = np.zeros(8, int)
    g = lambda delta: np.linalg.norm((softmax(U + delta[y]) - np.eye(CLASSES)[y]).mean(0))
    up, down = (
        np.asarray(class_ascent(jnp.asarray(U, jnp.float32), y, jnp.full(CLASSES, t), 0.01)) for t in (0.3, -0.3)
    )
    assert g(down) < g(np.zeros((CLASSES, CLASSES))) < g(up)


def test_soft_labels_share_the_perturbation():
    y = np.array([0, 1, 2, 3, 0, 1, 2, 3])
    one_hot = np.eye(CLASSES, dtype=np.float32)
    t = jnp.array([0.5, -0.5, 0.5, -0.5])
    u = jnp.asarray(U, jnp.float32)
    np.testing.assert_allclose(class_ascent(u, one_hot[y], t, 0.1), class_ascent(u, y, t, 0.1), rtol=1e-6)
    tx: Any = pugd_optax.lpl(CLASSES)
    mixed = 0.7 * one_hot[Y[0]] + 0.3 * one_hot[np.roll(Y[0], 1)]
    x, w = jnp.asarray(X[0], jnp.float32), jnp.asarray(W, jnp.float32)
    u, _ = tx.update(w, tx.init(w), w, logits_fn=lambda w: x @ w, labels=mixed)
    assert np.isfinite(np.asarray(u)).all()


def test_any_loss_is_given_the_perturbed_logits():
    """A linear loss has the same gradient wherever it is evaluated; a quadratic one shows the shift."""
    tx: Any = pugd_optax.lpl(CLASSES, eps=1.0, d_eps=0.0, step_size=0.1)
    x, y, w = jnp.asarray(X[0], jnp.float32), Y[0], jnp.asarray(W, jnp.float32)
    update = lambda loss: tx.update(w, tx.init(w), w, logits_fn=lambda w: x @ w, labels=y, logit_loss=loss)
    u, state = update(lambda u: jnp.sum(u**2) / 2)
    strength = optax.tree.get(state, "strength")
    delta = ascend(X[0] @ W, y, np.sign(strength), np.full(CLASSES, 10), 0.1)
    np.testing.assert_allclose(u, X[0].T @ (X[0] @ W + delta[y]), rtol=1e-4)
    np.testing.assert_allclose(update(jnp.sum)[0], np.outer(X[0].sum(0), np.ones(CLASSES)), rtol=1e-4)


@pytest.mark.parametrize("over_axis", [True, False])
def test_devices(over_axis):
    """With `axis_name`, each device has the perturbation of the whole batch; without it, that of its own rows."""
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    u, y = jnp.asarray(U, jnp.float32), np.array([0, 0, 0, 1, 2, 2, 1, 0])
    t = jnp.array([0.5, -0.5, 0.5, 0.0])
    local = lambda u, y: class_ascent(u, y, t, 0.1, axis_name="data" if over_axis else None)[None]
    sharded = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=P("data"), out_specs=P("data")))(u, y)
    for i, delta in enumerate(sharded):
        rows = slice(None) if over_axis else slice(2 * i, 2 * i + 2)
        np.testing.assert_allclose(delta, class_ascent(u[rows], y[rows], t, 0.1), rtol=1e-5, atol=1e-6)


def test_rule_and_warm_up():
    tx: Any = pugd_optax.lpl(
        CLASSES, eps=1.5, d_eps=0.3, rule=classes.long_tail([8, 4, 2, 1], head=0.25), warmup_steps=1
    )
    x, y, w = jnp.asarray(X[0], jnp.float32), np.array([0, 1, 2, 3, 0, 1, 2, 3]), jnp.asarray(W, jnp.float32)
    state = tx.init(w)
    for expected in ([0, 0, 0, 0], [-1.8, 1.575, 1.65, 1.8]):
        _, state = tx.update(w, state, w, logits_fn=lambda w: x @ w, labels=y)
        np.testing.assert_allclose(optax.tree.get(state, "strength"), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_classes": 1}, "num_classes=1"),
        ({"eps": -0.1}, "eps=-0.1"),
        ({"d_eps": -0.1}, "d_eps=-0.1"),
        ({"step_size": 0.0}, "step_size=0.0: expected a number above 0"),
        ({"decay": -1.0}, "decay=-1.0"),
        ({"warmup_steps": -1}, "warmup_steps=-1"),
    ],
)
def test_bad_arguments_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        pugd_optax.lpl(**({"num_classes": 3} | settings))


def test_missing_labels_are_refused():
    tx, w = pugd_optax.lpl(CLASSES), jnp.asarray(W, jnp.float32)
    with pytest.raises(ValueError, match=r"labels is None.*logits_fn=lambda p"):
        tx.update(w, tx.init(w), w, logits_fn=lambda w: jnp.asarray(X[0], jnp.float32) @ w)
