"""`pugd_optax.nnx` with a loss that creates variables."""

# Modules have attributes that pyright does not know.
# pyright: reportAttributeAccessIssue=false

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import pugd_optax

pytest.importorskip("flax", "0.12.2", "needs the Flax of the extra `flax`")

X = jax.random.normal(jax.random.key(1), (8, 3))


class Recording(nnx.Module):
    """A layer that records its output in a variable that it creates."""

    def __init__(self, rngs: nnx.Rngs):
        self.layer = nnx.Linear(3, 2, rngs=rngs)

    def __call__(self, x):
        h = self.layer(x)
        self.h = nnx.Intermediate(h)
        return h


def loss_fn(model, x):
    return jnp.mean((model(x) - 1) ** 2)


@pytest.mark.parametrize("steps", [1, 2])
def test_created_variables_are_those_of_the_first_pass(steps):
    model = Recording(nnx.Rngs(0))
    vg = pugd_optax.nnx.value_and_grad(loss_fn, pugd_optax.sam(radius=0.3))
    state, step = vg.init(model), nnx.jit(vg)
    for _ in range(steps):
        loss, _, state = step(model, state, X)
    plain = Recording(nnx.Rngs(0))
    np.testing.assert_allclose(loss, loss_fn(plain, X), rtol=1e-6)
    np.testing.assert_allclose(model.h[...], plain.h[...], rtol=1e-6)


@pytest.mark.parametrize("steps", [1, 2])
def test_created_variables_are_averaged_over_groups(steps):
    model = Recording(nnx.Rngs(0))
    halves = 0.5 * (model.layer(X[:4]) + model.layer(X[4:]))
    vg = pugd_optax.nnx.value_and_grad(loss_fn, pugd_optax.sam(radius=0.3), groups=2)
    state, step = vg.init(model), nnx.jit(vg)
    for _ in range(steps):
        _, _, state = step(model, state, X)
    np.testing.assert_allclose(model.h[...], halves, rtol=1e-5, atol=1e-6)
