"""Noise stability optimization against its formula, and the effect of its second point."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pugd_optax import noise_injection, nso
from tests.methods.test_noise_injection import xi
from tests.problems import assert_follows


def test_follows_the_formula():
    rule = lambda t, w, grad: (grad(w + 0.25 * xi(t, 5)) + grad(w - 0.25 * xi(t, 5))) / 2
    assert_follows(nso(0.25, key=5), rule)


def test_on_a_quadratic_loss_the_noise_cancels():
    w = jnp.array([1.0, -2.0])
    tx = nso(0.5)
    u, _ = tx.update(w, tx.init(w), w, grad_fn=lambda p: 3 * p)
    np.testing.assert_allclose(u, 3 * w, rtol=1e-6)


def test_same_mean_as_noise_injection_and_less_variance(x64):
    w = jnp.array([1.0, -0.5])

    def draws(tx):
        def step(state, _):
            u, state = tx.update(w, state, w, grad_fn=lambda p: 4 * p**3)
            return state, u

        return jax.lax.scan(step, tx.init(w), length=50_000)[1]

    one, two = draws(noise_injection(0.1)), draws(nso(0.1))
    np.testing.assert_allclose(two.mean(axis=0), 4 * w**3 + 12 * 0.1**2 * w, rtol=2e-3)
    assert bool((two.std(axis=0) < 0.3 * one.std(axis=0)).all())


def test_mask_keeps_the_rest_still():
    w = {"a": jnp.ones(3), "b": jnp.ones(3)}
    seen = []
    tx = nso(0.1, mask={"a": True, "b": False})
    tx.update(w, tx.init(w), w, grad_fn=lambda p: seen.append(p) or p)
    assert [p["b"].tolist() for p in seen] == [[1.0] * 3] * 2
    np.testing.assert_allclose(seen[0]["a"] + seen[1]["a"], 2.0, rtol=1e-6)
    assert bool((seen[0]["a"] != 1.0).all())


def test_refuses_bad_arguments():
    with pytest.raises(ValueError, match="sigma=-1"):
        nso(-1)
    with pytest.raises(TypeError, match="key='seed'"):
        nso(key="seed")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="needs grad_fn="):
        nso().update(jnp.ones(2), nso().init(jnp.ones(2)), jnp.ones(2))
