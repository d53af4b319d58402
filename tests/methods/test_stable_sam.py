"""StableSAM against its formula."""

import jax.numpy as jnp
import numpy as np
import pytest

from pugd_optax import stable_sam
from tests.problems import assert_follows, path, unit


def rule(t, w, grad):
    g = grad(w)
    return np.linalg.norm(g) * unit(grad(w + 0.25 * unit(g)))


def test_follows_the_formula():
    assert_follows(stable_sam(0.25), rule)


def test_the_gradient_keeps_its_length():
    outputs, state = path(stable_sam(0.25, report=True))
    np.testing.assert_allclose(np.linalg.norm(outputs[-1]), state.report.grad_norm, rtol=1e-6)
    assert state.report.grad_norm != state.report.perturbed_grad_norm


def test_idle_steps_pass_the_gradient():
    assert_follows(stable_sam(0.25, when=lambda t: t > 2), lambda t, w, grad: rule(t, w, grad) if t > 2 else grad(w))


def test_where_the_new_gradient_is_zero_so_is_the_output():
    w = jnp.array([1.0, 2.0])
    tx = stable_sam()
    u, _ = tx.update(w, tx.init(w), w, grad_fn=jnp.zeros_like)
    assert u.tolist() == [0.0, 0.0]


def test_refuses_bad_arguments():
    with pytest.raises(ValueError, match="radius=-1"):
        stable_sam(-1)
    with pytest.raises(ValueError, match="needs grad_fn="):
        stable_sam().update(jnp.ones(2), stable_sam().init(jnp.ones(2)), jnp.ones(2))
