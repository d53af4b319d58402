"""AE-SAM against its policy written in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pugd_optax import ae_sam, sam
from tests.problems import assert_follows, assert_same, unit


def policy(start, stop, total_steps, decay, radius):
    """The rule of the paper, as a closure over its running moments, and the list of its decisions."""
    moments = {"mean": 0.0, "variance": 0.0}
    taken = []

    def rule(t, w, grad):
        g = grad(w)
        square = g @ g
        moments["mean"] = square if t == 0 else decay * moments["mean"] + (1 - decay) * square
        moments["variance"] = decay * moments["variance"] + (1 - decay) * (square - moments["mean"]) ** 2
        threshold = start + (stop - start) * min(t / total_steps, 1)
        taken.append(square >= moments["mean"] + threshold * np.sqrt(moments["variance"]))
        return grad(w + radius * unit(g)) if taken[-1] else g

    return rule, taken


@pytest.mark.parametrize(("start", "stop", "decay"), [(1.0, -1.0, 0.9), (0.0, 0.0, 0.5), (-1.0, 1.0, 0.9)])
def test_follows_the_policy(start, stop, decay):
    rule, taken = policy(start, stop, 12, decay, 0.25)
    tx = ae_sam(12, radius=0.25, start=start, stop=stop, decay=decay)
    assert_follows(tx, rule, steps=16, lr=0.1)
    assert 0 < sum(taken) < 16


def test_a_low_threshold_is_sam():
    assert_same(ae_sam(10, radius=0.25, start=-100.0, stop=-100.0), sam(0.25))


def test_the_moments_keep_their_dtype_where_decay_is_float64(x64):
    """`inject_hyperparams` gives the arguments the dtype of the parameters."""
    w = jnp.ones(2, jnp.float64)
    for tx in (optax.inject_hyperparams(ae_sam, static_args="total_steps")(10), ae_sam(10, decay=np.float64(0.9))):
        step = lambda state, _, tx=tx: (tx.update(w, state, w, grad_fn=lambda p: p)[1], None)
        state = jax.lax.scan(step, tx.init(w), length=2)[0]
        assert optax.tree.get(state, "LargeGradientState").mean.dtype == jnp.float32


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"total_steps": 0}, "total_steps=0"),
        ({"total_steps": 10, "decay": 1.5}, "decay="),
        ({"total_steps": 10, "start": float("nan")}, "start=nan"),
        ({"total_steps": 10, "radius": -1.0}, "radius=-1"),
    ],
)
def test_refuses_bad_arguments(given, message):
    with pytest.raises(ValueError, match=message):
        ae_sam(**given)
