"""ESAM's random subset: which weights move, how far, and that the mean perturbation is that of SAM."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pugd_optax import esam, sam
from tests.problems import assert_follows, assert_same, start, unit


def kept(t, beta, key):
    """The mask of step t: True for the parameters that move, all tensors concatenated."""
    chunk = jax.random.fold_in(jax.random.fold_in(jax.random.key(key), t), 0)
    return np.asarray(jax.random.uniform(chunk, (sum(x.size for x in start().values()),), jnp.float32)) < beta


def test_follows_the_formula():
    def rule(t, w, grad):
        g = grad(w)
        return grad(w + 0.25 / 0.5 * kept(t, 0.5, 3) * unit(g))

    assert_follows(esam(0.25, beta=0.5, key=3), rule)


def test_beta_one_is_sam():
    assert_same(esam(0.25, beta=1.0), sam(0.25))


def test_sam_in_the_mean_and_longer_by_the_root():
    g, w = jnp.arange(1.0, 2001.0), jnp.zeros(2000)
    tx = esam(1.0, beta=0.25)
    state = tx.init(w)

    def step(state, _):
        eps, state = tx.update(g, state, w, grad_fn=lambda p: p)
        return state, eps

    eps = np.asarray(jax.lax.scan(step, state, length=400)[1])
    np.testing.assert_allclose(eps.mean(axis=0) @ unit(np.asarray(g)), 1.0, rtol=0.02)
    np.testing.assert_allclose(np.sqrt((eps**2).sum(axis=1).mean()), 1 / np.sqrt(0.25), rtol=0.02)
    np.testing.assert_allclose((eps != 0).mean(), 0.25, rtol=0.02)


def test_mask_keeps_the_rest_still():
    w = {"a": jnp.ones(50), "b": jnp.ones(50)}
    tx = esam(0.5, mask={"a": True, "b": False})
    u, _ = tx.update(w, tx.init(w), w, grad_fn=lambda p: p)
    assert u["b"].tolist() == [1.0] * 50
    assert bool((u["a"] > 1.0).any())


@pytest.mark.parametrize(
    ("given", "message"),
    [({"beta": 0.0}, "beta=0"), ({"beta": 1.5}, "beta=1"), ({"radius": -1.0}, "radius=-1")],
)
def test_refuses_bad_arguments(given, message):
    with pytest.raises(ValueError, match=message):
        esam(**given)


def test_refuses_a_bad_key():
    with pytest.raises(TypeError, match="key='a'"):
        esam(key="a")  # pyright: ignore[reportArgumentType]
