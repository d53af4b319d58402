"""Per-class state and rules against NumPy loops over classes."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec as P

from pugd_optax import classes

CLASSES = 4
random = np.random.default_rng(1)
LOGITS: Any = random.normal(size=(5, 6, CLASSES)).astype(np.float32)
LABELS = np.array([[0, 1, 1, 0, 1, 0], [2, 2, 2, 2, 2, 2], [0, 2, 1, 1, 1, 0], [1, 0, 2, 2, 1, 1], [0, 0, 0, 0, 0, 1]])


WRONG_TYPE: Any = "soft"


def true_class_probability(logits, labels):
    e = np.exp(logits.astype(np.float64))
    return (e / e.sum(-1, keepdims=True))[np.arange(len(labels)), labels]


def state_of(confidence, seen=None, counts=None, step=1):
    confidence = jnp.asarray(confidence, jnp.float32)
    seen = jnp.ones(len(confidence), bool) if seen is None else jnp.asarray(seen)
    counts = jnp.ones(len(confidence)) if counts is None else jnp.asarray(counts, jnp.float32)
    return classes.ClassState(confidence, seen, counts, jnp.asarray(step, jnp.int32))


@pytest.mark.parametrize("decay", [None, 0.0, 0.9])
def test_observe_follows_the_formula(decay):
    keep = 1 - 1 / CLASSES if decay is None else decay
    state, mean, counts = classes.init(CLASSES), {}, np.zeros(CLASSES)
    observe = jax.jit(lambda s, u, y: classes.observe(s, u, y, decay=decay))
    for u, y in zip(LOGITS, LABELS, strict=True):
        state = observe(state, u, y)
        p = true_class_probability(u, y)
        for c in set(y):
            mean[c] = keep * mean[c] + (1 - keep) * p[y == c].mean() if c in mean else p[y == c].mean()
            counts[c] += (y == c).sum()
    np.testing.assert_allclose(state.confidence, [mean.get(c, 0.0) for c in range(CLASSES)], rtol=1e-5)
    np.testing.assert_array_equal(state.seen, [True, True, True, False])
    np.testing.assert_array_equal(state.counts, counts)
    assert int(state.step) == len(LOGITS)
    assert [x.dtype for x in state] == [jnp.float32, bool, jnp.float32, jnp.int32]


def test_single_class_batch_moves_one_class():
    before = classes.observe(classes.init(CLASSES), LOGITS[0], LABELS[0])
    after = classes.observe(before, LOGITS[1], LABELS[1])
    others = np.array([0, 1, 3])
    for field in ("confidence", "seen", "counts"):
        np.testing.assert_array_equal(getattr(after, field)[others], getattr(before, field)[others])
    assert after.seen[2]
    assert not before.seen[2]


def test_a_broken_example_is_not_remembered():
    logits = LOGITS[0].copy()
    logits[0] = np.nan  # an example of class 0
    before = classes.observe(classes.init(CLASSES), LOGITS[2], LABELS[2])
    after = classes.observe(before, logits, LABELS[0])
    assert after.confidence[0] == before.confidence[0]
    assert after.counts[0] == before.counts[0]
    assert np.isfinite(np.asarray(after.confidence)).all()
    assert after.confidence[1] != before.confidence[1]


def test_soft_labels_count_by_share():
    y = random.dirichlet(np.ones(CLASSES), size=6).astype(np.float32)
    state = classes.observe(classes.init(CLASSES), LOGITS[0], y)
    p = np.exp(LOGITS[0]) / np.exp(LOGITS[0]).sum(-1, keepdims=True)
    np.testing.assert_allclose(state.confidence, (y * p).sum(0) / y.sum(0), rtol=1e-5)
    np.testing.assert_allclose(state.counts, y.sum(0), rtol=1e-6)
    one_hot = np.eye(CLASSES, dtype=np.float32)[LABELS[0]]
    a = classes.observe(classes.init(CLASSES), LOGITS[0], one_hot)
    b = classes.observe(classes.init(CLASSES), LOGITS[0], LABELS[0])
    chex.assert_trees_all_equal(a, b)


def test_labels_of_one_byte_are_counted_once():
    """With 300 classes, class 256 must not be taken for the label 0 of an 8-bit integer."""
    state = classes.observe(classes.init(300), jnp.zeros((3, 300)), jnp.array([0, 44, 255], jnp.uint8))
    np.testing.assert_array_equal(np.flatnonzero(state.counts), [0, 44, 255])


def test_labels_out_of_range_under_jit_are_not_counted():
    y = jnp.array([0, 1, -1, 4, 1, 0])
    state = jax.jit(classes.observe)(classes.init(CLASSES), LOGITS[0], y)
    kept = np.array([0, 1, 4, 5])
    expected = classes.observe(classes.init(CLASSES), LOGITS[0][kept], np.asarray(y)[kept])
    chex.assert_trees_all_close(state, expected, rtol=1e-6)


@pytest.mark.parametrize("soft", [False, True])
def test_padding_is_not_counted_whatever_its_label(soft):
    where = np.array([True, True, False, True, False, True])
    y = np.where(where, LABELS[0], -1)
    labels = np.where(where[:, None], np.eye(CLASSES)[y], 7).astype(np.float32) if soft else y
    found = classes.observe(classes.init(CLASSES), LOGITS[0], labels, where=where)
    expected = classes.observe(classes.init(CLASSES), LOGITS[0][where], labels[where])
    chex.assert_trees_all_close(found, expected, rtol=1e-6)


def test_no_gradient_flows_through_the_state():
    confidence = lambda u: classes.observe(classes.init(CLASSES), u, LABELS[0]).confidence.sum()
    np.testing.assert_array_equal(jax.grad(confidence)(jnp.asarray(LOGITS[0])), 0)


@pytest.mark.parametrize("split", ["shuffled", "by class"])
def test_sums_over_devices_give_the_state_of_the_whole_batch(split):
    """A mean of per-device means would be wrong where devices hold different numbers of a class."""
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    u = jnp.asarray(random.normal(size=(8, CLASSES)), jnp.float32)
    y = np.array([0, 1, 2, 0, 1, 0, 0, 1]) if split == "shuffled" else np.array([0, 0, 0, 1, 1, 1, 1, 2])
    observe = lambda u, y: classes.observe(classes.init(CLASSES), u, y, axis_name="data")
    sharded = jax.jit(jax.shard_map(observe, mesh=mesh, in_specs=P("data"), out_specs=P()))(u, y)
    whole = classes.observe(classes.init(CLASSES), u, y)
    chex.assert_trees_all_close(sharded, whole, rtol=1e-6)


def test_balanced_compares_with_the_mean_of_the_seen_classes():
    q, seen = np.array([0.9, 0.2, 0.0, 0.4]), np.array([True, True, False, True])
    tau = q[seen].mean()
    sign, extent = classes.balanced()(state_of(q, seen))
    np.testing.assert_array_equal(sign[seen], np.sign(tau - q)[seen])
    np.testing.assert_allclose(extent[seen], np.abs(tau - q)[seen], rtol=1e-6)
    flipped, same = classes.balanced("easy")(state_of(q, seen))
    np.testing.assert_array_equal(flipped, -sign)
    np.testing.assert_array_equal(same, extent)


def test_balanced_with_threshold_and_dead_zone():
    sign, extent = classes.balanced(dead_zone=0.15, threshold=0.5)(state_of([0.9, 0.4, 0.1, 0.6]))
    np.testing.assert_array_equal(sign, [-1, 0, 1, 0])
    np.testing.assert_allclose(extent, [0.4, 0.1, 0.4, 0.1], rtol=1e-5)


def test_relative_extents_are_shares_of_the_farthest_class_on_each_side():
    """As in LPL's code, the extent is the gap over the largest gap of the same sign among the classes seen."""
    rule = classes.balanced(threshold=0.5, relative=True)
    sign, extent = rule(state_of([0.9, 0.7, 0.4, 0.5, 0.0], seen=[True, True, True, True, False]))
    np.testing.assert_array_equal(sign[:4], [-1, -1, 1, 0])
    np.testing.assert_allclose(extent[:4], [1, 0.5, 1, 0], rtol=1e-6)
    _, extent = rule(state_of([0.9, 0.7]))
    np.testing.assert_allclose(extent, [1, 0.5], rtol=1e-6)


@pytest.mark.parametrize("given", [True, False])
def test_long_tail_ranks_by_count(given):
    counts = np.array([5, 500, 50, 5000, 16])
    rule = classes.long_tail(counts, head=0.4) if given else classes.long_tail(head=0.4)
    sign, extent = rule(state_of(np.zeros(5), counts=np.ones(5) if given else counts))
    np.testing.assert_array_equal(sign, [1, -1, 1, -1, 1])
    np.testing.assert_allclose(extent, [5 / 5, 500 / 5000, 5 / 50, 5000 / 5000, 5 / 16], rtol=1e-6)


def test_long_tail_leaves_classes_without_examples_out():
    sign, extent = classes.long_tail(head=0.25)(state_of(np.zeros(4), counts=[8, 0, 2, 4]))
    np.testing.assert_array_equal(sign, [-1, 0, 1, 1])
    np.testing.assert_allclose(extent, [1, 0, 1, 0.5])
    sign, extent = classes.long_tail()(classes.init(3))
    np.testing.assert_array_equal(sign, 0)
    np.testing.assert_array_equal(extent, 0)


def test_strength_is_the_signed_capped_bound():
    state = state_of([0.9, 0.1, 0.0, 0.5], seen=[True, True, False, True])
    t = classes.strength(state, classes.balanced(), eps=0.1, d_eps=1.0, cap=0.45)
    np.testing.assert_allclose(t, [-0.45, 0.45, 0, 0], rtol=1e-6)
    t = classes.strength(state, classes.balanced(threshold=0.6), eps=0.1, d_eps=1.0)
    np.testing.assert_allclose(t, [-0.4, 0.6, 0, 0.2], rtol=1e-5)


def test_strength_warms_up_and_takes_schedules():
    rule = lambda state: (jnp.ones(1), jnp.zeros(1))
    at = lambda step, **kw: float(classes.strength(state_of([0.5], step=step), rule, d_eps=0.0, **kw)[0])
    assert [at(step, eps=0.5, warmup_steps=2) for step in (1, 2, 3)] == [0, 0, 0.5]
    schedule = lambda step: 0.25 * step  # the first batch observed is step 0, as in Optax's schedules
    assert [at(step, eps=schedule) for step in (1, 2, 3)] == [0, 0.25, 0.5]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: classes.init(1), ValueError, "num_classes=1"),
        (lambda: classes.init(WRONG_TYPE), TypeError, "num_classes='soft'"),
        (lambda: classes.balanced(WRONG_TYPE), ValueError, "direction='soft': expected 'hard' or 'easy'"),
        (lambda: classes.balanced(dead_zone=-0.1), ValueError, "dead_zone=-0.1"),
        (lambda: classes.balanced(threshold=1.5), ValueError, "threshold=1.5"),
        (lambda: classes.balanced(dead_zone=2.0), ValueError, "dead_zone=2.0"),
        (
            lambda: classes.observe(classes.init(4), LOGITS[0], LABELS[0], where=np.ones(5, bool)),
            ValueError,
            r"where has the shape \(5,\): expected \(6,\)",
        ),
        (lambda: classes.long_tail([3, 0, 1]), ValueError, r"counts=\[3\.0, 0\.0, 1\.0\]: expected numbers above 0"),
        (lambda: classes.long_tail([3, -1]), ValueError, "expected numbers above 0"),
        (lambda: classes.long_tail([[3, 1]]), ValueError, r"counts have the shape \(1, 2\)"),
        (
            lambda: classes.long_tail([3, 1])(classes.init(3)),
            ValueError,
            r"counts have the shape \(2,\): expected \(3,\)",
        ),
        (lambda: jax.jit(lambda n: classes.long_tail(n)(classes.init(2)))(jnp.ones(2)), TypeError, "counts are traced"),
        (lambda: classes.long_tail(head=1.5), ValueError, "head=1.5"),
        (lambda: classes.strength(state_of([0.5]), classes.balanced(), -0.1, 0.0), ValueError, "eps=-0.1"),
        (lambda: classes.strength(state_of([0.5]), classes.balanced(), 0.1, 0.0, cap=-0.5), ValueError, "cap=-0.5"),
        (lambda: jax.jit(classes.init)(3), TypeError, "num_classes is traced.*static_args"),
        (lambda: classes.observe(classes.init(3), LOGITS[0], LABELS[0]), ValueError, r"num_classes=4"),
        (lambda: classes.observe(classes.init(4), LOGITS[0].astype(int), LABELS[0]), TypeError, "dtype int"),
        (lambda: classes.observe(classes.init(4), LOGITS[0], LABELS[0], decay=1.5), ValueError, "decay=1.5"),
        (lambda: classes.observe(classes.init(4), LOGITS[0], LABELS[0] + 3), ValueError, r"labels lie in \[3, 4\]"),
    ],
)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
