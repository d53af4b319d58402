"""Padded positions do not count in the methods that evaluate the logits at the perturbed parameters."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pugd_optax

CLASSES = 4
random = np.random.default_rng(0)
X = random.normal(size=(2, 5, 3)).astype(np.float32)
W = {"a": random.normal(size=(3, 3)).astype(np.float32), "b": random.normal(size=(3, CLASSES)).astype(np.float32)}
WHERE = np.array([[True] * 4 + [False], [True] * 2 + [False] * 3])
Y = np.where(WHERE, random.integers(0, CLASSES, WHERE.shape), -1)
METHODS = {
    "functional_sam": lambda: pugd_optax.functional_sam(0.3),
    "imb_sam": lambda: pugd_optax.imb_sam((9, 8, 7, 6), 0.3, eta=8),
    "focal_sam": lambda: pugd_optax.focal_sam((9, 8, 7, 6), 0.3),
    "inner": lambda: pugd_optax.lpg(CLASSES, inner=pugd_optax.functional_sam(0.3)),
}


def logits_of(w, x):
    return jnp.tanh(x @ w["a"]) @ w["b"]


def loss_fn(w):
    """The mean over the tokens that are not padding."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits_of(w, X[WHERE]), Y[WHERE])
    return losses.mean()


@pytest.mark.parametrize("name", METHODS)
def test_padding_does_not_count(name):
    """Padded sequences with a mask give the output of the unpadded tokens, whatever the padding holds."""
    tx = METHODS[name]()

    def output(x, labels, **extra):
        step = lambda w: tx.update(
            jax.grad(loss_fn)(w), tx.init(w), w, logits_fn=lambda w: logits_of(w, x), labels=labels, **extra
        )
        return jax.jit(step)(W)[0]

    expected = output(X[WHERE], Y[WHERE])
    chex.assert_trees_all_close(output(X, Y, where=WHERE), expected, rtol=1e-5, atol=1e-6)
    noise = np.where(WHERE[..., None], X, 1e3)
    chex.assert_trees_all_close(output(noise, Y, where=WHERE), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_a_mask_of_another_shape_is_refused(name):
    tx = METHODS[name]()
    with pytest.raises(ValueError, match=r"where has the shape \(5,\): expected \(2, 5\)"):
        tx.update(W, tx.init(W), W, logits_fn=lambda w: logits_of(w, X), labels=np.abs(Y), where=np.ones(5, bool))


@pytest.mark.parametrize("name", [*METHODS, "lpg", "lpl"])
def test_a_mistyped_argument_is_refused(name):
    tx = METHODS[name]() if name in METHODS else getattr(pugd_optax, name)(CLASSES)
    with pytest.raises(TypeError, match=r"'logits_loss' of update\. Fix: logit_loss="):
        tx.update(W, tx.init(W), W, logits_fn=lambda w: logits_of(w, X), labels=np.abs(Y), logits_loss=jnp.mean)


def test_more_tokens_than_float16_can_count():
    """Neither the number of 70000 tokens nor the sum of their losses lies within float16."""
    x, labels, w = jnp.ones((70_000, 1), jnp.float16), jnp.zeros(70_000, int), jnp.zeros((1, CLASSES), jnp.float16)
    tx = pugd_optax.lpg(CLASSES)
    step = lambda where: tx.update(w, tx.init(w), w, logits_fn=lambda w: x @ w, labels=labels, where=where)[0]
    np.testing.assert_allclose(step(jnp.ones(70_000, bool)), step(None), rtol=1e-2)
    np.testing.assert_allclose(step(None), [[-0.75, 0.25, 0.25, 0.25]], rtol=1e-2)
