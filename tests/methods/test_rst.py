"""RST: SAM on randomly chosen steps."""

import jax
import numpy as np
import optax
import pytest

from pugd_optax import rst, sam
from tests.problems import assert_follows, assert_same, path, unit


def coin(t, p, key):
    with jax.enable_x64(True):
        return bool(jax.random.bernoulli(jax.random.fold_in(jax.random.key(key), t), p))


def test_sam_where_the_coin_says_so_and_plain_elsewhere():
    rule = lambda t, w, grad: grad(w + 0.25 * unit(grad(w))) if coin(t, 0.5, 3) else grad(w)
    assert len({coin(t, 0.5, 3) for t in range(6)}) == 2
    assert_follows(rst(0.5, radius=0.25, key=3), rule)


def test_probability_one_is_sam_and_zero_is_plain():
    assert_same(rst(1.0, radius=0.25), sam(0.25))
    assert_follows(rst(lambda step: 0.0), lambda t, w, grad: grad(w))


def test_probability_may_be_a_schedule():
    tx = rst(optax.piecewise_constant_schedule(1.0, {3: 0.0}), radius=0.25)
    assert_follows(tx, lambda t, w, grad: grad(w + 0.25 * unit(grad(w))) if t < 3 else grad(w))


def test_state_says_which_step_it_was():
    state = path(rst(1.0, radius=0.25))[1]
    assert bool(state.active)
    np.testing.assert_allclose(state.radius, 0.25)


def test_the_key_may_be_whatever_is_a_whole_number():
    """The key may be a NumPy integer or the traced array that `optax.inject_hyperparams` passes."""
    expected = path(rst(0.5, radius=0.25, key=3))[0]
    for tx in (rst(0.5, 0.25, np.int64(3)), optax.inject_hyperparams(rst)(0.5, 0.25, 3)):  # pyright: ignore[reportArgumentType]
        np.testing.assert_allclose(path(tx)[0], expected, rtol=1e-12)


@pytest.mark.parametrize("given", [{"probability": 1.5}, {"probability": -0.1}, {"radius": -1.0}])
def test_refuses_bad_arguments(given):
    with pytest.raises(ValueError, match=f"^{next(iter(given))}=.*expected one finite number"):
        rst(**given)
