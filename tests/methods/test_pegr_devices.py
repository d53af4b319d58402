"""PEGR on two devices equals PEGR on one device, as its norms are those of single examples."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, PartitionSpec as P

import pugd_optax
from pugd_optax import per_example
from tests.conftest import QUICKLY
from tests.ghost_models import IMAGES, LABELS, TOKENS, VECTORS, Dense, Language, Recurrent, Residual, linen

MODELS = {
    "dense": (Dense(), VECTORS, LABELS),
    "residual": (Residual(), IMAGES, LABELS),
    "language": (Language(), TOKENS, TOKENS),
    "recurrent": (Recurrent(), VECTORS, LABELS),
}
LARGE = ("residual", "language")
CASES = [
    pytest.param(name, per_example.ghost, checked, marks=[pytest.mark.slow] if name in LARGE else [])
    for name in MODELS
    for checked in (True, False)
]
CASES += [("dense", per_example.reference, True), ("dense", per_example.signs(0), True)]


@pytest.mark.parametrize(("name", "penalty", "check_vma"), CASES)
def test_two_devices_give_the_gradient_of_one(name, penalty, check_vma):
    """Random signs are equal on both devices, so that penalty gives the mean of the gradients of the two halves."""
    model, x, y = MODELS[name]
    x = jnp.asarray(x, jnp.int32 if x.dtype.kind == "i" else jnp.float32)
    params = linen(model, x, y)[1]

    def losses_fn(p, x, y):
        losses = optax.softmax_cross_entropy_with_integer_labels(model.apply(p, x), y)
        return losses.reshape(len(x), -1).mean(1)

    def gradient(**axis):
        vg = pugd_optax.value_and_grad(lambda *args: losses_fn(*args).mean(), pugd_optax.pegr(0.1, penalty), **axis)
        given = lambda x, y: {"losses_fn": lambda p: losses_fn(p, x, y)}
        return lambda p, x, y: vg(p, vg.init(p), x, y, extra_args=given(x, y))[1]

    mesh = Mesh(np.array(jax.devices()[:2]), ("data",))
    specs = {"mesh": mesh, "in_specs": (P(), P("data"), P("data")), "out_specs": P(), "check_vma": check_vma}
    split = jax.shard_map(gradient(axis_name="data"), **specs)
    whole = gradient()
    halves = lambda p, x, y: jax.tree.map(lambda a, b: (a + b) / 2, whole(p, x[:2], y[:2]), whole(p, x[2:], y[2:]))
    exact = penalty in (per_example.ghost, per_example.reference)
    run = lambda f: jax.jit(f, compiler_options=QUICKLY)(params, x, jnp.asarray(y))
    found, expected = run(split), run(whole if exact else halves)
    assert optax.tree.norm(optax.tree.sub(found, expected)) < 1e-5 * optax.tree.norm(expected)
