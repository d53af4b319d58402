"""Losses of logits and labels against NumPy formulas and their limits."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pugd_optax import losses

CLASSES = 4
random = np.random.default_rng(4)
U: Any = 2 * random.normal(size=(7, CLASSES))
Y = np.array([0, 3, 1, 2, 0, 1, 3])
COUNTS = np.array([5000, 645, 83, 50])
WRONG: Any = "1"

ALL = {
    "balanced_softmax": lambda u, y: losses.balanced_softmax(u, y, COUNTS),
    "logit_adjustment": lambda u, y: losses.logit_adjustment(u, y, COUNTS),
    "ldam": lambda u, y: losses.ldam(u, y, COUNTS),
    "gce": losses.gce,
    "sce": losses.sce,
    "forward_correction": lambda u, y: losses.forward_correction(u, y, 0.6 * np.eye(CLASSES) + 0.1),
}
every_loss = pytest.mark.parametrize("name", ALL)


def cross_entropy(u, y=Y):
    log_p = u - np.log(np.exp(u - u.max(-1, keepdims=True)).sum(-1, keepdims=True)) - u.max(-1, keepdims=True)
    return -log_p[np.arange(len(y)), y]


def test_balanced_softmax(x64):
    p = COUNTS * np.exp(U) / (COUNTS * np.exp(U)).sum(-1, keepdims=True)
    np.testing.assert_allclose(losses.balanced_softmax(U, Y, COUNTS), -np.log(p[np.arange(7), Y]), rtol=1e-12)


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 2.0])
def test_logit_adjustment(x64, tau):
    prior = COUNTS / COUNTS.sum()
    expected = cross_entropy(U + tau * np.log(prior))
    np.testing.assert_allclose(losses.logit_adjustment(U, Y, COUNTS, tau), expected, rtol=1e-12)
    np.testing.assert_allclose(losses.adjust_logits(jnp.asarray(U), COUNTS, tau), U - tau * np.log(prior), rtol=1e-12)


def test_balanced_softmax_is_logit_adjustment_at_one(x64):
    frequencies = COUNTS / COUNTS.sum()
    a, b = losses.balanced_softmax(U, Y, COUNTS), losses.logit_adjustment(U, Y, frequencies, tau=1.0)
    np.testing.assert_allclose(a, b, rtol=1e-12)


def test_post_hoc_adjustment_undoes_the_adjusted_loss(x64):
    """Adjusting the logits post hoc inverts the adjusted loss; with equal class counts it changes no prediction."""
    u = jnp.asarray(U)
    np.testing.assert_allclose(losses.logit_adjustment(losses.adjust_logits(u, COUNTS), Y, COUNTS), cross_entropy(U))
    equal = [7, 7, 7, 7]
    np.testing.assert_array_equal(losses.adjust_logits(u, equal).argmax(-1), U.argmax(-1))


def test_ldam(x64):
    margins = COUNTS**-0.25 * 0.5 / (COUNTS**-0.25).max()
    assert margins.max() == 0.5
    shifted = U.copy()
    shifted[np.arange(7), Y] -= margins[Y]
    np.testing.assert_allclose(losses.ldam(U, Y, COUNTS), cross_entropy(30 * shifted), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(losses.ldam(U, Y, COUNTS, max_margin=0.0, scale=1.0), cross_entropy(U), rtol=1e-12)


def test_ldam_in_half_precision_outlives_its_scale():
    """The scaled logit 30 x 1e4 overflows float16; the value may be infinite, but the gradient is correct."""
    u, y = (
        jnp.array([[1e4, 0.0, 0.0, 0.0], [0.5, 0.0, 0.0, 0.0], [1e4, 0.0, 0.0, 1e4]], jnp.float16),
        np.array([0, 0, 3]),
    )
    value, slope = jax.value_and_grad(lambda u: losses.ldam(u, y, COUNTS).sum())(u)
    exact = jax.value_and_grad(lambda u: losses.ldam(u, y, COUNTS).sum())(u.astype(jnp.float32))
    assert value.dtype == slope.dtype == jnp.float16
    np.testing.assert_allclose(value, exact[0], rtol=1e-2)
    np.testing.assert_allclose(slope, exact[1], rtol=1e-2, atol=1e-3)


def test_weighted_mean_is_that_of_the_authors(x64):
    """As in PyTorch's weighted cross-entropy, the weighted sum is divided by the sum of the weights in the batch."""
    each, weights = cross_entropy(U), np.asarray(losses.class_balanced_weights(COUNTS), np.float64)[Y]
    found = losses.weighted_mean(losses.balanced_softmax(U, Y, [1, 1, 1, 1]), jnp.asarray(weights))
    np.testing.assert_allclose(found, (weights * each).sum() / weights.sum(), rtol=1e-12)
    np.testing.assert_array_equal(losses.weighted_mean(jnp.ones(3), jnp.zeros(3)), 0)


def test_weighted_mean_in_half_precision_outlives_the_sum_of_its_weights():
    """The sum of 70000 weights of 1 is beyond float16."""
    found = losses.weighted_mean(jnp.full(70_000, 2.0, jnp.float16), jnp.ones(70_000, jnp.float16))
    assert found.dtype == jnp.float16
    assert found == 2


def test_weighted_mean_is_larger_than_the_mean_of_weighted_losses_on_a_long_tail():
    """The factor is the documented one for the class counts of CIFAR-10-LT with an imbalance of 100."""
    counts = (5000 * 100 ** (-np.arange(10) / 9)).astype(int)
    weights = np.asarray(losses.class_balanced_weights(counts))
    assert 1 / ((counts * weights).sum() / counts.sum()) == pytest.approx(5.8, abs=0.05)


@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_forward_correction(x64, rate):
    flips = (1 - rate) * np.eye(CLASSES) + rate * np.roll(np.eye(CLASSES), 1, 1)
    p = np.exp(-np.stack([cross_entropy(U, np.full(7, c)) for c in range(CLASSES)], 1))
    expected = -np.log((p @ flips)[np.arange(7), Y])
    np.testing.assert_allclose(losses.forward_correction(U, Y, flips), expected, rtol=1e-12)
    if not rate:
        np.testing.assert_allclose(expected, cross_entropy(U), rtol=1e-12)


def test_forward_correction_is_finite_where_probabilities_underflow():
    u, flips = jnp.array([[200.0, 0.0, 0.0, -200.0]]), 0.6 * np.eye(CLASSES) + 0.1
    value, slope = jax.jit(jax.value_and_grad(lambda u, t: losses.forward_correction(u, np.array([3]), t).sum()))(
        u, flips
    )
    np.testing.assert_allclose(value, -np.log(0.1), rtol=1e-5)
    assert np.isfinite(slope).all()


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.9999])
def test_class_balanced_weights(beta):
    expected = (1 - beta) / (1 - beta ** COUNTS.astype(np.float64))
    weights = losses.class_balanced_weights(COUNTS, beta)
    np.testing.assert_allclose(weights, expected * CLASSES / expected.sum(), rtol=1e-6)
    np.testing.assert_allclose(weights.sum(), CLASSES, rtol=1e-6)


def test_class_balanced_weights_tend_to_inverse_frequency():
    inverse = (1 / COUNTS) / (1 / COUNTS).sum() * CLASSES
    np.testing.assert_allclose(losses.class_balanced_weights(COUNTS, 1 - 1e-9), inverse, rtol=1e-4)


def test_drw_weights_defer():
    at = jax.jit(lambda step: losses.drw_weights(COUNTS, step, start=160))
    np.testing.assert_array_equal(at(159), 1)
    np.testing.assert_array_equal(at(160), losses.class_balanced_weights(COUNTS))


@pytest.mark.parametrize("q", [0.3, 0.7, 1.0])
def test_gce(x64, q):
    p = np.exp(-cross_entropy(U))
    np.testing.assert_allclose(losses.gce(U, Y, q), (1 - p**q) / q, rtol=1e-12)


def test_gce_tends_to_cross_entropy(x64):
    np.testing.assert_allclose(losses.gce(U, Y, 1e-9), cross_entropy(U), rtol=1e-6)


@pytest.mark.parametrize(("alpha", "beta"), [(0.1, 1.0), (6.0, 0.1), (1.0, 0.0), (0.0, 1.0)])
def test_sce(x64, alpha, beta):
    p, label = np.exp(U) / np.exp(U).sum(-1, keepdims=True), np.eye(CLASSES)[Y]
    reverse = -(p * np.log(np.where(label == 1, 1.0, 1e-4))).sum(-1)
    expected = alpha * cross_entropy(U) + beta * reverse
    np.testing.assert_allclose(losses.sce(U, Y, alpha, beta), expected, rtol=1e-12)


@every_loss
def test_hopeless_examples_have_finite_gradients(name):
    """Values and gradients are finite where p_y underflows to 0, where the power in GCE has an infinite slope."""
    u, y = jnp.array([[200.0, 0.0, 0.0, -200.0]]), jnp.array([3])
    value, slope = jax.value_and_grad(lambda u: ALL[name](u, y).sum())(u)
    assert np.isfinite(value)
    assert np.isfinite(np.asarray(slope)).all()


@every_loss
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_dtype_and_shape_are_kept(name, dtype, strict_dtypes):
    u = jnp.asarray(random.normal(size=(2, 3, CLASSES)), dtype)
    y = jnp.array([[0, 1, 2], [3, 0, 1]])
    value = ALL[name](u, y)
    assert value.shape == (2, 3)
    assert value.dtype == dtype
    np.testing.assert_allclose(
        value.astype(jnp.float32)[1], ALL[name](u[1].astype(jnp.float32), y[1]), rtol=0.1, atol=0.1
    )


@every_loss
def test_labels_out_of_range_raise_or_give_nan_under_jit(name):
    u, y = jnp.zeros((3, CLASSES)), np.array([0, 4, -1])
    with pytest.raises(ValueError, match=r"labels lie in \[-1, 4\]: expected \[0, 3\]"):
        ALL[name](u, y)
    np.testing.assert_array_equal(np.isnan(jax.jit(ALL[name])(u, y)), [False, True, True])
    slopes = jax.jit(jax.grad(lambda u, y: ALL[name](u, y).sum()))(u, y)
    np.testing.assert_array_equal(np.isnan(slopes).all(-1), [False, True, True])


@pytest.mark.parametrize(("dtype", "number"), [(jnp.uint8, 256), (jnp.int8, 128), (jnp.uint8, 300)])
def test_labels_of_one_byte_may_index_more_classes_than_it_holds(dtype, number):
    """The number of classes itself does not fit into the dtype of the labels, as with bytes as tokens."""
    u, y = jnp.asarray(random.normal(size=(3, number)), jnp.float32), jnp.array([0, 5, 127])
    counts, flips = np.arange(1, number + 1), 0.5 * np.eye(number) + 0.5 / number
    for loss in (
        losses.gce,
        lambda u, y: losses.ldam(u, y, counts),
        lambda u, y: losses.forward_correction(u, y, flips),
    ):
        np.testing.assert_array_equal(jax.jit(loss)(u, y.astype(dtype)), jax.jit(loss)(u, y))


@pytest.mark.parametrize("floor", [1e-4, 1e-9])
def test_sce_in_half_precision_keeps_a_floor_that_rounds_to_zero(floor):
    u = jnp.array([[1.0, 0.0, -1.0, 0.5]])
    found, expected = (
        losses.sce(u.astype(jnp.float16), jnp.array([1]), floor=floor),
        losses.sce(u, jnp.array([1]), floor=floor),
    )
    assert found.dtype == jnp.float16
    np.testing.assert_allclose(found, expected, rtol=1e-2)


@every_loss
def test_padding_is_left_out_as_the_module_says(name):
    u, y = jnp.asarray(U[:2], jnp.float32), np.array([1, -1])
    left_out = lambda u, y: jnp.where(y >= 0, ALL[name](u, jnp.where(y >= 0, y, 0)), 0).sum()
    slopes = jax.jit(jax.grad(left_out))(u, y)
    np.testing.assert_allclose(slopes[0], jax.grad(lambda u: ALL[name](u, 1))(u[0]), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(slopes[1], 0)


@every_loss
def test_an_example_at_a_time_is_the_batch(name):
    u = jnp.asarray(U, jnp.float32)
    np.testing.assert_allclose(jax.vmap(ALL[name])(u, jnp.asarray(Y)), ALL[name](u, Y), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ALL[name](u[1], 3), ALL[name](u, Y)[1], rtol=1e-5)


@every_loss
@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (
            np.eye(CLASSES, dtype=np.float32)[Y],
            TypeError,
            r"expected integer class indices. Fix: labels\.argmax\(-1\)",
        ),
        (np.eye(CLASSES, dtype=np.int32)[Y], ValueError, r"labels have the shape \(7, 4\): expected \(7,\)"),
        (Y[:3], ValueError, r"labels have the shape \(3,\): expected \(7,\)"),
    ],
)
def test_one_hot_labels_are_refused(name, labels, error, message):
    with pytest.raises(error, match=message):
        ALL[name](jnp.asarray(U), labels)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: losses.balanced_softmax(U, Y, [1, 2, 3, 0]), ValueError, r"counts=\[1\.0, 2\.0, 3\.0, 0\.0\]"),
        (lambda: losses.ldam(U, Y, [1, 2, 3]), ValueError, r"counts have the shape \(3,\): expected \(4,\)"),
        (lambda: losses.class_balanced_weights([1, np.inf]), ValueError, "expected numbers above 0"),
        (
            lambda: losses.class_balanced_weights([1, 2], beta=1.0),
            ValueError,
            r"beta=1\.0: expected a number in \[0, 1\)",
        ),
        (lambda: losses.class_balanced_weights([1, 2], beta=1.5), ValueError, "beta=1.5"),
        (lambda: losses.drw_weights([1, 2], 0, start=-1), ValueError, "start=-1"),
        (lambda: losses.ldam(U, Y, COUNTS, scale=0.0), ValueError, "scale=0.0"),
        (lambda: losses.ldam(U, Y, COUNTS, max_margin=-1.0), ValueError, "max_margin=-1.0"),
        (lambda: losses.logit_adjustment(U, Y, COUNTS, tau=-1.0), ValueError, r"tau=-1\.0: .* >= 0"),
        (lambda: losses.logit_adjustment(U, Y, COUNTS, tau=np.inf), ValueError, "tau=inf"),
        (lambda: losses.logit_adjustment(U, Y, COUNTS, tau=WRONG), TypeError, "tau='1': expected a number"),
        (lambda: losses.gce(U, Y, q=0.0), ValueError, "q=0.0"),
        (lambda: losses.gce(U, Y, q=1.5), ValueError, "q=1.5"),
        (lambda: losses.sce(U, Y, floor=0.0), ValueError, "floor=0.0"),
        (lambda: losses.gce(U.astype(int), Y), TypeError, "logits have the dtype int64"),
    ],
)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_optax_has_the_focal_loss(x64):
    """Optax's sigmoid focal loss, called as the docstring of the module shows, equals its formula."""
    p, label = 1 / (1 + np.exp(-U)), np.eye(CLASSES)[Y]
    p_t, alpha = np.where(label == 1, p, 1 - p), np.where(label == 1, 0.25, 0.75)
    value = optax.sigmoid_focal_loss(jnp.asarray(U), jax.nn.one_hot(Y, CLASSES), alpha=0.25, gamma=2.0).sum(-1)
    np.testing.assert_allclose(value, (-alpha * (1 - p_t) ** 2 * np.log(p_t)).sum(-1), rtol=1e-8)
