"""Anti-PGD against its formula, against noise injection in a shifted variable, and on the paper's widening valley."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

from pugd_optax import anti_pgd, noise_injection, perturbed_gradient_descent
from tests.methods.test_noise_injection import xi
from tests.problems import assert_follows, batch, loss, start


def test_takes_the_last_noise_back_and_adds_a_new_one():
    assert_follows(anti_pgd(0.25, key=4), lambda t, w, grad: grad(w) + 0.25 * (xi(t + 1, 4) - xi(t, 4)))


def test_sigma_may_be_a_schedule():
    sigma = lambda t: 0.5 - t / 8
    rule = lambda t, w, grad: grad(w) + sigma(t + 1) * xi(t + 1) - sigma(t) * xi(t)
    assert_follows(anti_pgd(optax.linear_schedule(0.5, 0.0, 4)), rule, steps=4)


def test_equals_noise_before_the_gradient_in_the_variable_less_the_noise(x64):
    """With the same key, z = w - sigma xi follows z <- z - lr grad L(z + sigma xi) at every step."""
    sigma, lr, key = 0.25, 0.125, 9
    unravel = lambda flat: {"b": jnp.asarray(flat[:2]), "w": jnp.asarray(flat[2:].reshape(3, 2))}
    shifted = lambda params, t: jax.tree.map(lambda w, x: w - sigma * x, params, unravel(xi(t, key)))
    after, before = optax.chain(optax.sgd(lr), anti_pgd(sigma, key)), noise_injection(sigma, key)
    w, z = start(), shifted(start(), 0)
    after_state, before_state = after.init(w), before.init(z)
    for t in range(6):
        grad_fn = lambda p, t=t: jax.grad(loss)(p, batch(t))
        updates, after_state = after.update(grad_fn(w), after_state, w)
        w = optax.apply_updates(w, updates)
        u, before_state = before.update(grad_fn(z), before_state, z, grad_fn=grad_fn)
        z = jax.tree.map(lambda x, g: x - lr * g, z, u)
        chex.assert_trees_all_close(shifted(w, t + 1), z, rtol=1e-10, atol=1e-12)


def test_finds_the_wide_part_of_a_valley_that_pgd_leaves_for_the_narrow_one():
    """The loss v^2 |u|^2 / 2 has the trace d v^2 + |u|^2; the valley v = 0 is flatter where u is small."""
    dimension, start_square, alpha = 100, 1.0, 0.2
    lr = alpha / (2 * start_square)
    sigma = float(np.sqrt(min(alpha**3 * start_square / 2, alpha * start_square / (2 * dimension))))
    grad_fn = jax.grad(lambda p: 0.5 * p["v"] ** 2 * jnp.sum(p["u"] ** 2))

    def final_square(noise):
        tx = optax.chain(optax.sgd(lr), noise)
        params = {"u": jnp.zeros(dimension).at[0].set(1.0), "v": jnp.float32(0.0)}

        def step(carry, _):
            params, state = carry
            updates, state = tx.update(grad_fn(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), length=20_000)
        return float(jnp.sum(params["u"] ** 2))

    assert final_square(anti_pgd(sigma)) <= alpha * start_square
    assert final_square(perturbed_gradient_descent(sigma)) >= start_square / alpha


def test_a_schedule_that_ends_at_zero_gives_the_noise_back():
    """With zero gradients and a final sigma of 0, the parameters end at w_0 - sigma_0 xi_0."""
    tx, w = anti_pgd(optax.linear_schedule(0.5, 0.0, 5), key=1), jnp.zeros(3)
    state = tx.init(w)
    first = 0.5 * jax.random.normal(jax.random.split(jax.random.fold_in(jax.random.key(1), 0), 1)[0], (3,))
    for _ in range(5):
        updates, state = tx.update(jnp.zeros(3), state, w)
        w = optax.apply_updates(w, updates)
    np.testing.assert_allclose(w, -first, rtol=1e-5, atol=1e-6)


def test_injected_schedules_give_the_noise_back_too():
    """`optax.inject_hyperparams` passes only the current sigma; the noise taken back is scaled by the previous one."""
    sigma = optax.linear_schedule(0.1, 0.0, 20)
    tx, w = optax.inject_hyperparams(anti_pgd)(sigma=sigma, key=1), jnp.zeros(1000)

    def step(carry, _):
        w, state = carry
        updates, state = tx.update(jnp.zeros_like(w), state, w)
        w = optax.apply_updates(w, updates)
        return (w, state), w

    noise = lambda t: jax.random.normal(jax.random.fold_in(jax.random.fold_in(jax.random.key(1), t), 0), (1000,))
    _, path = jax.lax.scan(step, (w, tx.init(w)), length=40)
    for t in (0, 7, 39):
        carried = max(0.0, 0.1 - 0.005 * t) * np.asarray(noise(t + 1), np.float64)
        np.testing.assert_allclose(path[t], carried - 0.1 * np.asarray(noise(0), np.float64), rtol=0, atol=1e-6)


def test_an_array_given_as_sigma_outlives_a_donated_state():
    sigma, w = jnp.float32(0.5), jnp.zeros(3)
    tx = anti_pgd(sigma)
    donating = jax.jit(tx.update, donate_argnums=1)
    _, state = donating(w, tx.init(w))
    _, state = donating(w, tx.update(w, state)[1])
    assert (float(sigma), float(optax.tree.get(state, "sigma"))) == (0.5, 0.5)


def test_refuses_bad_arguments():
    with pytest.raises(ValueError, match="sigma=-1"):
        anti_pgd(-1)
    with pytest.raises(TypeError, match=r"key=2\.5"):
        anti_pgd(key=2.5)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_short_parameters_carry_one_noise_and_no_more(dtype):
    """The rounding error of a step is carried to the next one, so noise does not accumulate over thousands of steps."""
    sigma, w = 0.01, jnp.full(200, 0.5, dtype)
    tx = optax.chain(optax.sgd(0.0), anti_pgd(sigma, key=2))

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(jnp.zeros_like(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    (w, _), _ = jax.lax.scan(step, (w, tx.init(w)), length=3000)
    assert 0.01 < float(jnp.std(w.astype(jnp.float32))) < 0.02
    with pytest.raises(ValueError, match="params is None"):
        anti_pgd(sigma).update(w, anti_pgd(sigma).init(w))


def test_short_parameters_with_updates_in_float32_need_params_too():
    state = anti_pgd().init(jnp.zeros(3, jnp.bfloat16))
    with pytest.raises(ValueError, match="params is None"):
        anti_pgd().update(jnp.zeros(3), state)


def test_what_rounding_loses_is_split_as_the_parameters_are():
    """It is never whole on one device, and a scan over steps keeps its type on a mesh with explicit axes."""
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Explicit,))
    tx, zeros = anti_pgd(), jnp.zeros(16, jnp.bfloat16)
    with jax.set_mesh(mesh):
        w = jax.device_put(zeros, NamedSharding(mesh, P("x")))
        state = tx.init(w)
        assert optax.tree.get(state, "residual").sharding == w.sharding
        jax.eval_shape(lambda state: jax.lax.scan(lambda s, _: (tx.update(w, s, w)[1], None), state, length=2), state)


def test_a_sharding_for_every_leaf_with_axes():
    params, specs = {"a": jnp.zeros((2, 8)), "b": jnp.zeros(8, jnp.bfloat16)}, {"a": P(None, "x"), "b": P("x")}
    spec_of = lambda x, spec: spec if x.ndim else P()
    mapped = optax.tree.map_params(anti_pgd(), spec_of, anti_pgd().init(params), specs)
    assert optax.tree.get(mapped, "residual") == {"a": P(), "b": P("x")}


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_short_parameters_do_not_remember_a_broken_update(dtype, bad):
    tx, w = anti_pgd(0.1), jnp.ones(3, dtype)
    _, state = tx.update(jnp.array([bad, 1.0, -bad], dtype), tx.init(w), w)
    for _ in range(2):
        u, state = tx.update(jnp.ones(3, dtype), state, w)
        chex.assert_tree_all_finite((u, state.residual))
