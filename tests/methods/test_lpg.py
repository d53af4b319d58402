"""LPG against NumPy, alone and around methods that evaluate the gradient again."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pugd_optax
from pugd_optax import classes, losses
from pugd_optax.logits import additive, multiplicative, perturb

CLASSES, INPUTS, BATCHES = 3, 4, 5
random = np.random.default_rng(7)
X = random.normal(size=(BATCHES, 8, INPUTS))
Y = random.integers(0, CLASSES, (BATCHES, 8))
Y[1] = 0  # a batch of one class
Y[2] = Y[2] % 2  # a batch without class 2
W = random.normal(size=(INPUTS, CLASSES))


def softmax(u):
    p = np.exp(u - u.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


class Reference:
    """LPG for softmax regression in float64: one object per run, one call of `step` per step."""

    def __init__(self, eps=0.1, d_eps=0.25, decay=1 - 1 / CLASSES, cap=0.9, edit="multiplicative", renormalize=False):
        self.eps, self.d_eps, self.decay, self.cap = eps, d_eps, decay, cap
        self.edit, self.renormalize, self.q = edit, renormalize, {}

    def gradient_at(self, x, y, t):
        def gradient(w):
            g = softmax(x @ w) - np.eye(CLASSES)[y]
            if self.edit == "multiplicative":
                edited = (1 + t)[y][:, None] * g
            else:
                edited = g + np.stack([t[c] * g[y == c].mean(0) for c in y])
            return x.T @ edited / len(y)

        return gradient

    def step(self, w, x, y):
        """The gradient function of this step, with fixed class scales."""
        p = softmax(x @ w)[np.arange(len(y)), y]
        for c in set(y):
            mean = p[y == c].mean()
            self.q[c] = self.decay * self.q[c] + (1 - self.decay) * mean if c in self.q else mean
        tau = np.mean(list(self.q.values()))
        t = np.zeros(CLASSES)
        for c, q in self.q.items():
            t[c] = np.sign(tau - q) * min(self.eps + self.d_eps * abs(tau - q), self.cap)
        if self.renormalize:
            t = (1 + t) * len(y) / (1 + t)[y].sum() - 1
        return self.gradient_at(x, y, t)


def run(tx: Any, lr: float = 0.5, **extra: Any) -> tuple[np.ndarray, Any]:
    """The outputs of `tx` along w <- w - lr u in float64, and the last state. The incoming gradient is a dummy."""

    @jax.jit
    def step(w, state, x, y):
        u, state = tx.update(jnp.full_like(w, 1e3), state, w, logits_fn=lambda w: x @ w, labels=y, **extra)
        return w - lr * u, state, u

    w, outputs = jnp.asarray(W), []
    state = tx.init(w)
    for x, y in zip(X, Y, strict=True):
        w, state, u = step(w, state, x, y)
        outputs.append(u)
    return np.stack(outputs), state


def reference_run(reference, combine=lambda w, gradient: gradient(w), lr=0.5):
    w, outputs = W.copy(), []
    for x, y in zip(X, Y, strict=True):
        outputs.append(combine(w, reference.step(w, x, y)))
        w = w - lr * outputs[-1]
    return np.stack(outputs)


@pytest.mark.parametrize(
    "settings",
    [{}, {"eps": 0.3, "d_eps": 2.0, "decay": 0.9}, {"eps": 0.5, "d_eps": 1.0, "cap": 0.6}, {"renormalize": True}],
)
@pytest.mark.parametrize("edit", [multiplicative, additive])
def test_follows_the_formula(x64, edit, settings):
    expected = reference_run(Reference(edit=edit.__name__, **settings))
    outputs, state = run(pugd_optax.lpg(CLASSES, edit=edit, **settings))
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-7)
    assert int(state.classes.step) == BATCHES


def sam_by_hand(w, gradient, radius=0.3):
    g = gradient(w)
    return gradient(w + radius * g / np.linalg.norm(g))


def pugd_by_hand(w, gradient, radius=0.3):
    g = gradient(w)
    eps = np.abs(w) * g
    u = g + gradient(w + radius * eps / np.linalg.norm(eps))
    return u / np.linalg.norm(u)


INNER = {"sam": (pugd_optax.sam, sam_by_hand), "pugd": (pugd_optax.pugd, pugd_by_hand)}


@pytest.mark.parametrize("name", INNER)
def test_the_inner_method_sees_the_same_frozen_class_scales(x64, name):
    """Both gradients are those of LPG, from `logits_fn` and `labels` alone; the state is updated once per step."""
    method, by_hand = INNER[name]
    outputs, state = run(pugd_optax.lpg(CLASSES, eps=0.5, inner=method(0.3)))
    np.testing.assert_allclose(outputs, reference_run(Reference(eps=0.5), by_hand), rtol=1e-5, atol=1e-7)
    assert int(state.classes.step) == BATCHES
    assert int(optax.tree.get(state.inner, "step")) == BATCHES


def test_inner_ignores_the_callers_gradient_function(x64):
    tx: Any = pugd_optax.lpg(CLASSES, inner=pugd_optax.sam(0.3))
    wrong = {"grad_fn": lambda w: jnp.full_like(w, 1e3), "value_fn": lambda w: 1e3 * w.sum()}
    np.testing.assert_array_equal(run(tx, **wrong)[0], run(tx)[0])


@pytest.mark.parametrize("method", [pugd_optax.sam, pugd_optax.pugd])
def test_a_chain_with_an_edited_gradient_function_is_the_inner_form(method):
    """A chain equals the inner form if the loss of `grad_fn` applies `perturb` with this step's class scales."""
    x, y, w = jnp.asarray(X[0], jnp.float32), jnp.asarray(Y[0]), jnp.asarray(W, jnp.float32)
    extra = {"logits_fn": lambda w: x @ w, "labels": y}
    inner: Any = pugd_optax.lpg(CLASSES, eps=0.5, inner=method(0.3))
    chain: Any = optax.chain(pugd_optax.lpg(CLASSES, eps=0.5), method(0.3))
    plain = jax.grad(lambda w: optax.softmax_cross_entropy_with_integer_labels(x @ w, y).mean())

    @jax.jit
    def outputs(w):
        seen = classes.observe(classes.init(CLASSES), x @ w, y)
        t = classes.strength(seen, classes.balanced(), eps=0.5, d_eps=0.25)
        loss_fn = lambda w: optax.softmax_cross_entropy_with_integer_labels(perturb(x @ w, y, t), y).mean()
        a, _ = chain.update(w, chain.init(w), w, grad_fn=jax.grad(loss_fn), **extra)
        b, _ = inner.update(w, inner.init(w), w, **extra)
        return a, b, chain.update(w, chain.init(w), w, grad_fn=plain, **extra)[0]

    a, b, c = outputs(w)
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert np.abs(c - b).max() > 1e-3


def test_inner_gets_the_other_extra_arguments(x64):
    tx: Any = pugd_optax.lpg(CLASSES, inner=pugd_optax.sam(0.3))
    np.testing.assert_array_equal(run(tx, active=False)[0], run(pugd_optax.lpg(CLASSES))[0])
    assert not run(tx, active=False)[1].inner.active


def test_exact_gradient_regularisation_as_inner_is_forward_over_reverse(x64):
    """The pullback of LPG has no custom derivative rule, so it can be differentiated again."""
    tx: Any = pugd_optax.lpg(CLASSES, inner=pugd_optax.gradient_regularization(0.1, 1e-4, scheme="exact"))
    near = pugd_optax.lpg(CLASSES, inner=pugd_optax.gradient_regularization(0.1, 1e-4, scheme="central"))
    np.testing.assert_allclose(run(tx)[0], run(near)[0], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("edit", [multiplicative, additive])
def test_zero_bounds_are_the_plain_gradient_bit_for_bit(edit):
    tx = optax.chain(pugd_optax.lpg(CLASSES, eps=0.0, d_eps=0.0, edit=edit), optax.sgd(0.1, momentum=0.9))
    plain = optax.sgd(0.1, momentum=0.9)
    x, y = jnp.asarray(X[0], jnp.float32), Y[0]
    loss_fn = lambda w: optax.softmax_cross_entropy_with_integer_labels(x @ w, y).mean()

    @jax.jit
    def both(w, state, plain_state):
        g = jax.grad(loss_fn)(w)
        a, state = tx.update(g, state, w, logits_fn=lambda w: x @ w, labels=y)
        b, plain_state = plain.update(g, plain_state, w)
        return a, b, state, plain_state

    w = jnp.asarray(W, jnp.float32)
    state, plain_state = tx.init(w), plain.init(w)
    for _ in range(3):
        a, b, state, plain_state = both(w, state, plain_state)
        np.testing.assert_array_equal(a, b)
        w = w + a


def test_warm_up_is_the_plain_gradient(x64):
    plain, _ = run(pugd_optax.lpg(CLASSES, eps=0.0, d_eps=0.0))
    warm, state = run(pugd_optax.lpg(CLASSES, eps=0.5, warmup_steps=3))
    np.testing.assert_array_equal(warm[:3], plain[:3])
    assert np.abs(warm[3] - plain[3]).max() > 1e-3
    assert np.abs(state.strength).max() >= 0.5


def test_rule_decides_which_classes_are_amplified(x64):
    _, hard = run(pugd_optax.lpg(CLASSES, d_eps=0.0, eps=0.3))
    _, easy = run(pugd_optax.lpg(CLASSES, d_eps=0.0, eps=0.3, rule=classes.balanced("easy")))
    _, tail = run(pugd_optax.lpg(CLASSES, d_eps=0.0, eps=0.3, rule=classes.long_tail([90, 10, 1], head=0.34)))
    tau = hard.classes.confidence.mean()
    np.testing.assert_allclose(hard.strength, 0.3 * np.sign(tau - hard.classes.confidence), rtol=1e-6)
    np.testing.assert_allclose(easy.strength, -0.3 * np.sign(easy.classes.confidence.mean() - easy.classes.confidence))
    np.testing.assert_allclose(tail.strength, [-0.3, 0.3, 0.3])


@pytest.mark.parametrize("name", ["ldam", "gce", "focal"])
def test_any_loss_of_the_logits_is_weighted_by_class(name):
    """`logit_loss` replaces the cross-entropy; the result is the gradient of its class-weighted mean."""
    x, y, w = jnp.asarray(X[0], jnp.float32), jnp.asarray(Y[0]), jnp.asarray(W, jnp.float32)
    per_example = {
        "ldam": lambda u: losses.ldam(u, y, [9, 3, 1]),
        "gce": lambda u: losses.gce(u, y),
        "focal": lambda u: optax.sigmoid_focal_loss(u, jax.nn.one_hot(y, CLASSES)).sum(-1),
    }[name]
    tx: Any = pugd_optax.lpg(CLASSES, eps=0.5)
    extra = {"logits_fn": lambda w: x @ w, "labels": y, "logit_loss": lambda u: per_example(u).mean()}
    u, state = jax.jit(lambda w: tx.update(w, tx.init(w), w, **extra))(w)
    assert np.abs(state.strength).min() >= 0.5
    expected = jax.jit(jax.grad(lambda w: ((1 + state.strength)[y] * per_example(x @ w)).mean()))(w)
    np.testing.assert_allclose(u, expected, rtol=1e-4, atol=1e-6)


def test_one_hot_soft_labels_are_the_indices():
    tx: Any = pugd_optax.lpg(CLASSES, eps=0.5)
    x, w = jnp.asarray(X[0], jnp.float32), jnp.asarray(W, jnp.float32)
    one_hot = np.eye(CLASSES, dtype=np.float32)[Y[0]]
    update = lambda y: jax.jit(lambda w: tx.update(w, tx.init(w), w, logits_fn=lambda w: x @ w, labels=y))(w)
    a, b = map(update, (Y[0], one_hot))
    chex.assert_trees_all_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", [pugd_optax.lpg, pugd_optax.lpl])
@pytest.mark.parametrize("label", [-1, CLASSES, 99])
def test_a_label_out_of_range_under_jit_is_seen_unless_the_loss_leaves_it_out(method, label):
    x, w = jnp.asarray(X[0], jnp.float32), jnp.asarray(W, jnp.float32)
    y, padded, tx = jnp.asarray(Y[0]), jnp.asarray(Y[0]).at[3].set(label), method(CLASSES)

    @jax.jit
    def update(y, rows):
        loss = lambda u: losses.gce(u[:3], y[:3]).sum()
        extra = {"logits_fn": lambda w: x[: rows.size] @ w, "labels": y[: rows.size]}
        default, _ = tx.update(w, tx.init(w), w, **extra)
        left_out, state = tx.update(w, tx.init(w), w, logit_loss=loss, **extra)
        return default, left_out, state

    default, left_out, state = update(padded, jnp.arange(4))
    assert np.isnan(default).all()
    expected = update(y, jnp.arange(3))
    chex.assert_trees_all_close((left_out, state), expected[1:], rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"num_classes": 1}, ValueError, "num_classes=1"),
        ({"num_classes": 3.0}, TypeError, "num_classes=3.0"),
        ({"eps": -0.1}, ValueError, "eps=-0.1"),
        ({"d_eps": float("nan")}, ValueError, "d_eps=nan"),
        ({"cap": 1.5}, ValueError, r"cap=1.5: expected one finite number in \[0, 1\]"),
        ({"decay": 2.0}, ValueError, "decay=2.0"),
        ({"warmup_steps": -1}, ValueError, "warmup_steps=-1"),
    ],
)
def test_bad_arguments_are_refused(settings, error, message):
    with pytest.raises(error, match=message):
        pugd_optax.lpg(**({"num_classes": 3} | settings))


GOOD = {"logits_fn": lambda w: jnp.asarray(X[0], jnp.float32) @ w, "labels": Y[0]}


@pytest.mark.parametrize(
    ("extra", "error", "message"),
    [
        ({"logits_fn": None}, ValueError, r"logits_fn is None.*tx\.update\(grads, state, params, logits_fn="),
        ({"labels": None}, ValueError, "labels is None"),
        ({"labels": Y[0] + 1}, ValueError, r"labels lie in \[1, 3\]: expected \[0, 2\]"),
        ({"labels": np.eye(3, dtype=int)[Y[0]]}, ValueError, r"labels\.argmax\(-1\)"),
        ({"labels": Y[0][:2]}, ValueError, r"expected \(8,\)"),
        (
            {"logits_fn": lambda w: jnp.zeros((8, 5)) + w.sum()},
            ValueError,
            r"expected \(examples, ..., 3\).*num_classes=5",
        ),
        ({"logits_fn": lambda w: w.sum()}, ValueError, r"logits have the shape \(\)"),
    ],
)
def test_bad_input_is_refused(extra, error, message):
    tx, w = pugd_optax.lpg(CLASSES), jnp.asarray(W, jnp.float32)
    with pytest.raises(error, match=message):
        tx.update(w, tx.init(w), w, **(GOOD | extra))


def test_missing_parameters_are_refused():
    tx, w = pugd_optax.lpg(CLASSES), jnp.asarray(W, jnp.float32)
    with pytest.raises(ValueError, match="params is None"):
        tx.update(w, tx.init(w), **GOOD)


def test_the_loss_that_an_inner_method_gets_has_a_value_with_masked_classes():
    """Logits of -inf, as of classes that are not allowed, do not make it NaN."""
    seen = []

    def update(g, state, params, *, logits_fn, logit_loss, **extra_args):
        seen.append(logit_loss(logits_fn(params)))
        return g, state

    tx: Any = pugd_optax.lpg(CLASSES, inner=optax.GradientTransformationExtraArgs(lambda params: (), update))
    w, y, mask = jnp.zeros((2, CLASSES)), jnp.array([0, 1]), jnp.array([[0.0, 0.0, -jnp.inf]])
    tx.update(w, tx.init(w), w, logits_fn=lambda w: w + mask, labels=y)
    np.testing.assert_allclose(seen[0], np.log(2), rtol=1e-6)
