"""Keys and draws of the noise methods, and that these never evaluate the gradient at the parameters themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pugd_optax import gaussian, layerwise_noise, momentum_sam, noise_injection, nso, sam
from pugd_optax.noise import as_key


def bits(key):
    return jax.random.key_data(key).tolist()


def test_keys_are_typed_whatever_they_come_from():
    expected = bits(jax.random.key(7))
    for given in (7, np.int64(7), jnp.int32(7), jax.random.key(7), jax.random.PRNGKey(7)):
        assert bits(as_key(given)) == expected
    assert bits(jax.jit(as_key)(jnp.int32(7))) == expected


@pytest.mark.parametrize("key", [1.5, "7", None, True, jnp.arange(3), jax.random.split(jax.random.key(0))])
def test_refuses_what_is_not_one_key(key):
    with pytest.raises(TypeError, match="expected one PRNG key or a whole number"):
        as_key(key)


def test_gaussian_is_standard_normal_independent_between_tensors_and_steps():
    like = {"a": jnp.zeros(20_000), "b": jnp.zeros((100, 200))}
    tx = gaussian(0)
    noise = [tx.update(like, tx.init(like), like, step=t)[0] for t in (0, 1)]
    draws = np.stack([np.ravel(x) for step in noise for x in (step["a"], step["b"])])
    np.testing.assert_allclose(draws.mean(axis=1), 0, atol=0.03)
    np.testing.assert_allclose(np.corrcoef(draws), np.eye(4), atol=0.03)
    np.testing.assert_allclose(draws.var(axis=1), 1, atol=0.04)


def test_many_numbers_are_drawn_in_chunks_that_differ():
    """The tensors lie behind each other in chunks of 2**16 draws; complex ones take two and have unit variance."""
    like = {"a": jnp.zeros(70_000), "b": jnp.zeros(5, jnp.complex64), "c": jnp.zeros((3, 30_000))}
    key = jax.random.fold_in(jax.random.key(5), 2)
    draws = np.concatenate([jax.random.normal(jax.random.fold_in(key, k), (2**16,)) for k in range(3)])
    noise = gaussian(5).update(like, optax.EmptyState(), like, step=2)[0]
    np.testing.assert_array_equal(noise["a"], draws[:70_000])
    pairs = draws[70_000:70_005] + 1j * draws[70_005:70_010]
    np.testing.assert_allclose(noise["b"], pairs / np.sqrt(2), rtol=1e-6)
    np.testing.assert_array_equal(noise["c"], draws[70_010:160_010].reshape(3, 30_000))


def test_gaussian_depends_on_key_and_step_alone():
    like = {"a": jnp.zeros(5)}
    draw = lambda key, step: gaussian(key).update(like, optax.EmptyState(), like, step=step)[0]["a"].tolist()
    assert draw(3, 4) == draw(jax.random.key(3), jnp.int32(4))
    assert len({tuple(draw(key, step)) for key in (0, 1) for step in (0, 1)}) == 4


@pytest.mark.parametrize(
    ("tx", "evaluations"),
    [(noise_injection(), 1), (layerwise_noise(), 1), (nso(), 2), (momentum_sam(), 1), (sam(), 2)],
    ids=["noise_injection", "layerwise_noise", "nso", "momentum_sam", "sam"],
)
def test_gradient_evaluations_by_floating_point_operations(tx, evaluations):
    """The caller computes the gradient at the parameters; jit removes it unless the method reads it."""
    x = jnp.ones((1000, 30))
    params = {"w": jnp.ones((30, 20)), "v": jnp.ones((20, 1))}
    grad_fn = jax.grad(lambda p: jnp.mean((jnp.tanh(x @ p["w"]) @ p["v"]) ** 2))
    step = lambda p, state: tx.update(grad_fn(p), state, p, grad_fn=grad_fn)
    flops = lambda f, *args: jax.jit(f).lower(*args).compile().cost_analysis()["flops"]
    ratio = flops(step, params, tx.init(params)) / flops(grad_fn, params)
    assert evaluations - 0.05 < ratio < evaluations + 0.2
