"""Rules of two offsets against NumPy: what they count, when counts are frozen, devices, and LPG with them."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, PartitionSpec as P

import pugd_optax
from pugd_optax import classes, losses
from pugd_optax.logits import additive

CLASSES, INPUTS, STEPS, BATCH = 4, 3, 20, 12
random = np.random.default_rng(3)
X = random.normal(size=(STEPS, BATCH, INPUTS))
Y = random.integers(0, CLASSES, (STEPS, BATCH))
W = random.normal(size=(INPUTS, CLASSES))
EYE = np.eye(CLASSES)


def softmax(u):
    p = np.exp(u - u.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def learned(counts, bound):
    t = counts + 1 + 4 * np.eye(len(counts))
    t /= t.sum(1, keepdims=True)
    b = np.zeros_like(t)
    for c in range(len(t)):
        for k in range(len(t)):
            b[c, k] = np.clip(np.log(t[k, c]) - np.log(t[c, c]), -bound, 0)
    return b


class Reference:
    """LPG with a confusion rule for softmax regression in float64: one object per run, one call per step."""

    def __init__(self, first, last, bound):
        self.first, self.last, self.bound, self.step_now = first, last, bound, 0
        self.counts = np.zeros((CLASSES, CLASSES))

    def step(self, w, x, y):
        u = x @ w
        if self.first <= self.step_now < self.last:
            for k, c in zip(u.argmax(1), y, strict=True):
                self.counts[k, c] += 1
        early = self.step_now < self.last
        b = -min(2.0, self.bound) * (1 - EYE) if early else learned(self.counts, self.bound)
        self.step_now += 1
        return x.T @ (softmax(u) - softmax(u + b[y])) / len(y)


def run(tx: Any, **extra: Any):
    """The outputs of `tx` along w <- w - u / 2, and the last state. The incoming gradient is a dummy value."""

    @jax.jit
    def step(w, state, x, y):
        u, state = tx.update(jnp.full_like(w, 1e3), state, w, logits_fn=lambda w: x @ w, labels=y, **extra)
        return w - 0.5 * u, state, u

    w, outputs, state = jnp.asarray(W), [], tx.init(jnp.asarray(W))
    for x, y in zip(X, Y, strict=True):
        w, state, u = step(w, state, x, y)
        outputs.append(u)
    return np.stack(outputs), state


@pytest.mark.parametrize(("bound", "window", "first", "last"), [(3.0, (0.05, 0.2), 1, 4), (0.7, (0.0, 0.51), 0, 11)])
def test_confusion_follows_the_formula_and_is_frozen_after_its_window(x64, bound, window, first, last):
    reference, w, expected = Reference(first, last, bound), W.copy(), []
    for x, y in zip(X, Y, strict=True):
        expected.append(reference.step(w, x, y))
        w = w - 0.5 * expected[-1]
    rule = classes.confusion(STEPS, bound, window)
    outputs, state = run(pugd_optax.lpg(CLASSES, rule=rule))
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(state.rule, reference.counts)
    assert reference.counts.sum() == (last - first) * BATCH
    osc = np.ptp(learned(reference.counts, bound), axis=1)
    np.testing.assert_allclose(optax.tree.get(state, "strength"), np.tanh(osc / 4) - 1, rtol=1e-5)


def first(tx: Any, w: jax.Array, **extra: Any):
    """The output and state of the first step under jit; the extra arguments stay concrete."""
    return jax.jit(lambda w: tx.update(w, tx.init(w), w, **extra))(w)


def offsets_after(rule: classes.BatchRule, counts: Any, step: int) -> Any:
    """The offsets of a rule for these confusion counts after `step` batches."""
    none = jnp.zeros((1, len(counts)))
    seen = classes.init(len(counts))._replace(step=jnp.asarray(step))
    return jax.jit(lambda counts: rule.update(counts, seen, none, none, None)[0])(jnp.asarray(counts))


@pytest.mark.parametrize("bound", [0.3, 3.0, float("inf")])
def test_offsets_lie_within_the_bound(bound):
    rule = classes.confusion(100, bound)
    counts = random.integers(0, 9, (CLASSES, CLASSES)).astype(np.float32)
    for step in (1, 50):
        strength = offsets_after(rule, counts, step)
        b = np.asarray(strength.b)
        assert strength.a is None
        assert b.min() >= -bound
        assert b.max() == 0
        np.testing.assert_array_equal(np.diagonal(b), 0)


def test_the_bound_may_be_traced():
    """The bound may be traced, so a sweep over bounds compiles to one program."""
    counts = random.integers(0, 9, (CLASSES, CLASSES)).astype(np.float32)
    for step in (1, 50):
        offsets = lambda bound, step=step: offsets_after(classes.confusion(100, bound), counts, step).b
        found = jax.jit(jax.vmap(offsets))(jnp.array([0.3, 3.0, jnp.inf]))
        np.testing.assert_allclose(found, [offsets(b) for b in (0.3, 3.0, np.inf)], rtol=1e-6)


def test_without_confusions_an_infinite_bound_comes_near_cross_entropy(x64):
    """With a million correct examples of each class, the posterior of another class is one in a million."""
    strength = offsets_after(classes.confusion(10, float("inf")), 1e6 * EYE, 9)
    u, y = jnp.asarray(X[0] @ W), Y[0]
    loss = lambda u: optax.softmax_cross_entropy_with_integer_labels(u, y).mean()
    edited = jax.jit(jax.grad(lambda u: loss(pugd_optax.logits.perturb(u, y, strength))))(u)
    np.testing.assert_allclose(edited, (softmax(u) - EYE[y]) / BATCH, rtol=0, atol=1e-5)


def test_confused_classes_are_believed_less():
    counts = 100.0 * np.eye(3)
    counts[0, 1] = 60  # what is 0 is often labelled 1, and nothing else is confused
    b = offsets_after(classes.confusion(10), counts, 9).b
    assert b[1, 0] == pytest.approx(np.log(61 / 167) - np.log(105 / 107), rel=1e-5)
    rest = np.asarray(b)[[0, 0, 1, 2, 2], [1, 2, 2, 0, 1]]
    np.testing.assert_array_equal(rest, -3)


@pytest.mark.parametrize("tau", [1.0, 0.3, lambda step: 0.1 * step])
def test_prior_is_logit_adjustment(x64, tau):
    counts = [500, 60, 8, 5]
    outputs, state = run(pugd_optax.lpg(CLASSES, rule=classes.prior(counts, tau)))
    gradient = jax.jit(jax.grad(lambda w, x, y, at: losses.logit_adjustment(x @ w, y, counts, at).mean()))
    w = jnp.asarray(W)
    for step, (x, y) in enumerate(zip(X, Y, strict=True)):
        at: Any = tau(step) if callable(tau) else tau
        g = gradient(w, x, y, at)
        np.testing.assert_allclose(outputs[step], g, rtol=1e-9, atol=1e-12)
        w = w - 0.5 * g
    np.testing.assert_array_equal(state.strength, 0)


@pytest.mark.parametrize("loss", ["gce", "ldam", "logit adjustment"])
def test_plug_in_around_another_loss(x64, loss):
    """The edit applies to any mean of losses of the logits, scaled by the weight that the loss gives each example."""
    per_example = {
        "gce": lambda u, y: losses.gce(u, y),
        "ldam": lambda u, y: losses.ldam(u, y, [9, 3, 2, 1], scale=3.0),
        "logit adjustment": lambda u, y: losses.logit_adjustment(u, y, [9, 3, 2, 1]),
    }[loss]
    x, y, w = jnp.asarray(X[0]), jnp.asarray(Y[0]), jnp.asarray(W)
    tx: Any = pugd_optax.lpg(CLASSES, rule=classes.confusion(10))
    logit_loss = lambda u: per_example(u, y).mean()
    u, _ = first(tx, w, logits_fn=lambda w: x @ w, labels=y, logit_loss=logit_loss)
    b = pugd_optax.logits.offsets(b=-2.0 * (1 - EYE))
    edited = lambda w: logit_loss(pugd_optax.logits.perturb(x @ w, y, b))
    expected, plain = jax.jit(lambda w: (jax.grad(edited)(w), jax.grad(lambda w: logit_loss(x @ w))(w)))(w)
    np.testing.assert_allclose(u, expected, rtol=0, atol=1e-12)
    assert np.linalg.norm(u) < np.linalg.norm(plain)


def test_inner_methods_see_the_same_frozen_offsets(x64):
    tx: Any = pugd_optax.lpg(CLASSES, rule=classes.confusion(10), inner=pugd_optax.sam(0.3))
    x, y = X[0], Y[0]
    gradient = lambda w: x.T @ (softmax(x @ w) - softmax(x @ w - 2.0 * (1 - EYE)[y])) / BATCH
    g = gradient(W)
    expected = gradient(W + 0.3 * g / np.linalg.norm(g))
    u, state = first(tx, jnp.asarray(W), logits_fn=lambda w: x @ w, labels=y)
    np.testing.assert_allclose(u, expected, rtol=0, atol=1e-7)
    assert int(state.classes.step) == 1


RULES = {
    "confusion": lambda: classes.confusion(8, window=(0.0, 0.3)),
    "prior": lambda: classes.prior([5, 4, 3, 2]),
    "balanced": lambda: None,
}


def train(tx: Any, **settings):
    """Several steps as one function of the data."""

    def steps(w, x, y, where):
        state = tx.init(w)
        for i in range(4):
            extra = {"logits_fn": lambda w, i=i: x[i] @ w, "labels": y[i], "where": where[i]}
            u, state = tx.update(w, state, w, **extra)
            w = w - 0.5 * (u if not settings else settings["average"](u))
        return w, state

    return steps


@pytest.mark.parametrize("name", RULES)
def test_four_devices_give_the_step_of_one_with_uneven_padding(name):
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    x, w = X.astype(np.float32), jnp.asarray(W, jnp.float32)
    where = np.arange(BATCH)[None, :] + np.zeros((STEPS, 1)) < 7  # two full devices, one of one row, one empty
    y = np.where(where, Y, -1)
    mean = {"average": lambda u: jax.lax.pmean(u, "data")}
    local = train(pugd_optax.lpg(CLASSES, rule=RULES[name](), axis_name="data"), **mean)
    specs = (P(), P(None, "data"), P(None, "data"), P(None, "data"))
    split = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=False))(w, x, y, where)
    whole = jax.jit(train(pugd_optax.lpg(CLASSES, rule=RULES[name]())))(w, x, y, where)
    chex.assert_trees_all_close(split, whole, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("soft", [False, True])
def test_padding_of_sequences_does_not_count(name, soft):
    """Tokens of shape (batch, length, classes) with a mask give the result of the unpadded tokens."""
    x, w = jnp.asarray(random.normal(size=(2, 5, INPUTS)), jnp.float32), jnp.asarray(W, jnp.float32)
    where = np.array([[True] * 4 + [False], [True] * 2 + [False] * 3])
    y = np.where(where, random.integers(0, CLASSES, (2, 5)), -1)
    labels = np.where(where[..., None], np.eye(CLASSES)[y], np.nan).astype(np.float32) if soft else y
    tx: Any = pugd_optax.lpg(CLASSES, rule=RULES[name]())
    real, flat = x[where], labels[where]
    a = first(tx, w, logits_fn=lambda w: x @ w, labels=labels, where=where)
    b = first(tx, w, logits_fn=lambda w: real @ w, labels=flat)
    c = jax.jit(lambda w, m, y: tx.update(w, tx.init(w), w, logits_fn=lambda w: x @ w, labels=y, where=m))(
        w, where, labels
    )
    for found in (a, c):
        chex.assert_trees_all_close(found, b, rtol=1e-5, atol=1e-6)
    lpl: Any = pugd_optax.lpl(CLASSES)
    a = first(lpl, w, logits_fn=lambda w: x @ w, labels=labels, where=where)
    b = first(lpl, w, logits_fn=lambda w: real @ w, labels=flat)
    chex.assert_trees_all_close(a, b, rtol=1e-5, atol=1e-6)


def test_a_batch_of_padding_alone_changes_nothing():
    tx: Any = pugd_optax.lpg(CLASSES, rule=classes.confusion(8, window=(0.0, 0.3)))
    w, x = jnp.asarray(W, jnp.float32), jnp.asarray(X[0], jnp.float32)
    none = np.zeros(BATCH, bool)
    u, state = first(tx, w, logits_fn=lambda w: x @ w, labels=np.full(BATCH, -1), where=none)
    np.testing.assert_array_equal(u, 0)
    assert not state.classes.seen.any()
    np.testing.assert_array_equal(state.rule, 0)


def test_mixup_counts_by_share():
    rule, seen = classes.confusion(8, window=(0.0, 0.3)), classes.init(CLASSES)._replace(step=jnp.ones((), jnp.int32))
    u = jnp.asarray(X[0] @ W, jnp.float32)
    soft = np.asarray(random.dirichlet(np.ones(CLASSES), BATCH), np.float32)
    counts = jax.jit(lambda u, soft: rule.update(rule.init(CLASSES), seen, u, soft, None)[1])(u, soft)
    np.testing.assert_allclose(counts, np.eye(CLASSES)[np.asarray(u).argmax(1)].T @ soft, rtol=1e-5)


def test_rows_that_are_not_finite_are_not_counted():
    """A logit of -inf only means a class that is not allowed: its row counts, for another class."""
    rule, seen = classes.confusion(8, window=(0.0, 0.3)), classes.init(CLASSES)._replace(step=jnp.ones((), jnp.int32))
    u, one_hot = (X[0] @ W).astype(np.float32), EYE[Y[0]].astype(np.float32)
    u[3, 1], u[5, 0], u[:, 2] = np.nan, np.inf, -np.inf
    counts = jax.jit(lambda u, one_hot: rule.update(rule.init(CLASSES), seen, u, one_hot, None)[1])(u, one_hot)
    assert counts.sum() == BATCH - 2
    assert counts[2].sum() == 0


def test_a_rule_of_ones_own_may_remember_and_give_one_number_a_class():
    """A custom rule that alternates between amplifying and dampening all classes works with an edit."""
    init = lambda num_classes: jnp.ones(())
    rule = classes.BatchRule(init, lambda sign, seen, *_: (0.5 * sign * jnp.ones(CLASSES), -sign))
    tx: Any = pugd_optax.lpg(CLASSES, rule=rule, edit=additive)
    w, x, y = jnp.asarray(W, jnp.float32), jnp.asarray(X[0], jnp.float32), np.zeros(BATCH, int)
    g = softmax(X[0] @ W) - EYE[y]
    step, state = jax.jit(lambda state: tx.update(w, state, w, logits_fn=lambda w: x @ w, labels=y)), tx.init(w)
    for t in (0.5, -0.5, 0.5):
        u, state = step(state)
        np.testing.assert_allclose(u, X[0].T @ (g + t * g.mean(0)) / BATCH, rtol=1e-4, atol=1e-6)


def test_transitions():
    counts = random.integers(0, 50, (3, 3)).astype(np.float32)
    expected = counts + 1 + 4 * np.eye(3)
    np.testing.assert_allclose(
        classes.transitions(jnp.asarray(counts)), expected / expected.sum(1, keepdims=True), rtol=1e-6
    )
