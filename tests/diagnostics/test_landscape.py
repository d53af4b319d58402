"""Lines, planes and filter-normalised directions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pugd_optax.diagnostics import filter_normalized_direction, loss_line, loss_surface

PARAMS = {"a": jnp.array([1.0, 2.0]), "b": jnp.array([[0.5]])}
D1 = {"a": jnp.array([1.0, 0.0]), "b": jnp.array([[2.0]])}
D2 = {"a": jnp.array([0.0, -1.0]), "b": jnp.array([[1.0]])}


def loss(p):
    return jnp.sum(p["a"] ** 3) + jnp.sum(jnp.cos(p["b"]))


def by_hand(x, y=0.0):
    """The loss at the parameters moved by x along the first direction and y along the second."""
    return (1 + x) ** 3 + (2 - y) ** 3 + np.cos(0.5 + 2 * x + y)


def test_line():
    at = np.linspace(-1, 1, 5)
    np.testing.assert_allclose(loss_line(loss, PARAMS, D1, at), by_hand(at), rtol=1e-5)


def test_surface_has_y_down_and_x_across():
    x, y = np.linspace(-1, 1, 4), np.linspace(-2, 0, 3)
    surface = loss_surface(loss, PARAMS, (D1, D2), x, y)
    assert surface.shape == (3, 4)
    np.testing.assert_allclose(surface, by_hand(x[None, :], y[:, None]), rtol=1e-5)


@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_every_filter_has_the_length_of_the_weights(axis):
    random = np.random.default_rng(0)
    kernel = random.normal(size=(3, 3, 4, 5)) * np.arange(1.0, 6.0)
    params = {
        "conv": jnp.asarray(kernel),
        "dense": jnp.asarray(kernel[0, 0]),
        "bias": jnp.ones(5),
        "gain": jnp.ones(()),
    }
    direction = filter_normalized_direction(params, key=1, axis=axis)
    for name in ("conv", "dense"):
        others = tuple(np.delete(np.arange(params[name].ndim), axis))
        lengths = lambda x, others=others: np.sqrt(np.sum(np.asarray(x) ** 2, axis=others))
        np.testing.assert_allclose(lengths(direction[name]), lengths(params[name]), rtol=1e-5)
    assert not np.any(direction["bias"])
    assert not np.any(direction["gain"])


def test_directions_of_two_keys_are_all_but_orthogonal():
    params = {"kernel": jnp.ones((50, 50))}
    first, second = (np.ravel(filter_normalized_direction(params, key)["kernel"]) for key in (0, 1))
    assert abs(first @ second) < 0.1 * np.linalg.norm(first) * np.linalg.norm(second)


def test_a_filter_of_zeros_does_not_move():
    direction = filter_normalized_direction({"kernel": jnp.zeros((3, 2)).at[:, 0].set(1.0)})
    np.testing.assert_allclose(np.linalg.norm(direction["kernel"], axis=0), [np.sqrt(3), 0.0], rtol=1e-6)


def test_all_can_be_jitted():
    direction = jax.jit(filter_normalized_direction)(PARAMS)
    line = lambda p: loss_line(loss, p, direction, jnp.array([0.0, 0.5]))
    plane = lambda p: loss_surface(loss, p, (direction, direction), jnp.array([0.0]), jnp.array([0.0, 0.5]))
    for f in (line, plane):
        np.testing.assert_allclose(jax.jit(f)(PARAMS), f(PARAMS), rtol=1e-6)


def test_refuses_directions_of_another_shape():
    with pytest.raises(ValueError, match="direction has"):
        loss_line(loss, PARAMS, {"a": D1["a"]}, [0.0])
    with pytest.raises(ValueError, match=r"directions\[0\]\['b'\] has the shape"):
        loss_surface(loss, PARAMS, (D1 | {"b": jnp.ones(2)}, D2), [0.0], [0.0])
    with pytest.raises(ValueError, match=r"directions\[1\] has .*Fix: pass a tree like the parameters"):
        loss_surface(loss, PARAMS, (D1, {"a": D1["a"]}), [0.0], [0.0])
