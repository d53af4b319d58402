"""Zeros and non-finite numbers in the gradients, parameters and batches of every method."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.contract.given import every_method, gradient, plain, updater
from tests.problems import classifier, examples


@every_method
def test_zero_gradients_stay_finite(name):
    tx, update = updater(name)
    u, state = update(classifier(), tx.init(classifier()), examples(scale=0.0))
    u, state = update(classifier(), state, examples(scale=0.0))
    chex.assert_tree_all_finite((u, plain(state)))


@every_method
def test_zero_parameters_stay_finite(name):
    tx, update = updater(name)
    params = jax.tree.map(jnp.zeros_like, classifier())
    u, state = update(params, tx.init(params), examples())
    chex.assert_tree_all_finite((u, plain(state)))


@every_method
@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
def test_a_broken_batch_is_not_remembered(name, bad):
    """After a batch with a non-finite loss, the next three clean batches give finite outputs."""
    tx, update = updater(name)
    params, state = classifier(), tx.init(classifier())
    _, state = update(params, state, examples(scale=bad))
    for _ in range(3):
        u, state = update(params, state, examples())
        chex.assert_tree_all_finite(u)


@every_method
@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_no_new_nan(name, bad):
    """A non-finite entry of the gradient makes no other entry NaN."""
    (tx, update), params, data = updater(name), classifier(), examples()
    grads = gradient(params, data)
    grads["dense"]["bias"] = grads["dense"]["bias"].at[1].set(bad)
    u, state = update(params, tx.init(params), data, grads)
    jax.tree.map(lambda x, g: np.testing.assert_array_less(np.isnan(x), np.isnan(g) + 0.5), u, grads)
    v, _ = update(params, state, data)
    chex.assert_tree_all_finite(v)
