"""Layer-wise noise: one tensor per step in turn, and a variance that stays small in wide networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pugd_optax import layerwise_noise, noise_injection

PARAMS = {"a": jnp.ones(4), "b": jnp.ones((2, 3)), "c": jnp.ones(5)}


def offsets(tx, steps, params=PARAMS):
    """The perturbation of every step: the output minus the parameters, as the gradient at w is w."""
    state, eps = tx.init(params), []
    update = jax.jit(lambda state: tx.update(params, state, params, grad_fn=lambda p: p))
    for _ in range(steps):
        u, state = update(state)
        eps.append(jax.tree.map(lambda a, b: np.asarray(a - b, np.float64), u, params))
    return eps


def moved(eps):
    return [[name for name in step if np.any(step[name])] for step in eps]


def test_one_tensor_a_step_in_turn():
    assert moved(offsets(layerwise_noise(0.1), 7)) == [["a"], ["b"], ["c"], ["a"], ["b"], ["c"], ["a"]]


def test_random_order_visits_every_tensor_about_as_often():
    names = moved(offsets(layerwise_noise(0.1, order="random"), 300))
    assert all(len(step) == 1 for step in names)
    counts = [names.count([name]) for name in "abc"]
    assert min(counts) > 70
    assert names[:3] * 100 != names


def test_the_round_is_over_the_selected_tensors():
    mask = {"a": True, "b": False, "c": True}
    assert moved(offsets(layerwise_noise(0.1, mask=mask), 4)) == [["a"], ["c"], ["a"], ["c"]]


def test_the_noise_is_that_of_the_key_and_the_step():
    """The draws of `fold_in(key, t)` times the standard deviation of the step, in chunks of 2**16."""
    params = {"a": jnp.zeros(70_000), "b": jnp.zeros((2, 5))}
    for t, eps in enumerate(offsets(layerwise_noise(lambda step: 0.25 * (step + 1), key=7), 4, params)):
        key = jax.random.split(jax.random.fold_in(jax.random.key(7), t))[1]
        draws = np.concatenate([jax.random.normal(jax.random.fold_in(key, k), (2**16,)) for k in range(2)])
        name = "ab"[t % 2]
        expected = 0.25 * (t + 1) * draws[: params[name].size].reshape(params[name].shape)
        np.testing.assert_allclose(eps[name], expected, rtol=1e-6)


def test_equal_energy_over_a_cycle():
    """M steps on one tensor each have as much squared noise as M steps on all tensors with sigma / sqrt(M)."""
    params = {name: jnp.zeros(4000) for name in "abcd"}
    energy = lambda tx: sum(np.sum(x**2) for step in offsets(tx, 4, params) for x in step.values())
    np.testing.assert_allclose(energy(layerwise_noise(0.2)), energy(noise_injection(0.2 / np.sqrt(4))), rtol=0.05)


@pytest.mark.slow
def test_variance_stays_bounded_as_a_linear_network_grows_wide():
    """With noise on both layers at once the variance grows with the width; with noise on one layer it does not."""
    random = np.random.default_rng(0)
    x = jnp.asarray(random.normal(size=(40, 20)), jnp.float32)

    def spread(tx, width):
        """The standard deviation of the perturbed loss over 100 steps, for a network with zero residuals."""
        params = {
            "first": jnp.asarray(random.normal(size=(20, width)) / np.sqrt(width), jnp.float32),
            "second": jnp.asarray(random.normal(size=(width, 1)) / np.sqrt(width), jnp.float32),
        }
        y = x @ params["first"] @ params["second"]

        def step(state, _):
            eps, state = tx.update(params, state, params, grad_fn=lambda p: jax.tree.map(jnp.subtract, p, params))
            noisy = jax.tree.map(jnp.add, params, eps)
            return state, 0.5 * jnp.mean((x @ noisy["first"] @ noisy["second"] - y) ** 2)

        return float(jax.lax.scan(step, tx.init(params), length=100)[1].std())

    everything, one = noise_injection(0.05), layerwise_noise(0.05 * np.sqrt(2))
    narrow, wide = spread(everything, 20), spread(everything, 10_000)
    assert narrow < 2 * spread(one, 20)
    assert wide > 5 * spread(one, 10_000)
    assert wide > 5 * narrow


def test_refuses_bad_arguments():
    with pytest.raises(ValueError, match="sigma=-1"):
        layerwise_noise(-1)
    with pytest.raises(ValueError, match="order='shuffled': expected 'cyclic' or 'random'"):
        layerwise_noise(order="shuffled")  # pyright: ignore[reportArgumentType]
    tx = layerwise_noise(mask={"a": False, "b": False, "c": False})
    with pytest.raises(ValueError, match="mask selects no tensor"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS, grad_fn=lambda p: p)
    with pytest.raises(ValueError, match="needs grad_fn="):
        layerwise_noise().update(PARAMS, layerwise_noise().init(PARAMS), PARAMS)
