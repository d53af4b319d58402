"""Eigenvalues and trace against the dense Hessian, and against matfree, an independent implementation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from pugd_optax.diagnostics import hessian_eigenvalues, hessian_trace, leading_eigenvalue

random = np.random.default_rng(0)
X, Y = random.normal(size=(8, 3)), random.normal(size=8)


def network(dtype=None):
    weights = {"w": np.arange(12.0).reshape(3, 4) / 10 - 0.5, "b": np.linspace(-1, 1, 4), "v": np.ones(4)}
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), weights)


def loss(p):
    hidden = jnp.tanh(jnp.asarray(X, p["w"].dtype) @ p["w"] + p["b"][None, :])
    return jnp.mean((hidden @ p["v"] - jnp.asarray(Y, p["w"].dtype)) ** 2)


@functools.cache
def dense():
    with jax.enable_x64(True):
        return dense_at(network())


def dense_at(params):
    return np.asarray(_dense(ravel_pytree(params)[0]))


@jax.jit
def _dense(flat):
    unravel = ravel_pytree(network())[1]
    return jax.hessian(lambda x: loss(unravel(x)))(flat)


def eigenvalues(loss, params, *args, **kwargs):
    """The result of `hessian_eigenvalues` under jit; a test below compares it with the result without jit."""
    return jax.jit(lambda p: hessian_eigenvalues(loss, p, *args, **kwargs))(params)


def diagonal(values):
    values = jnp.asarray(values)
    return lambda w: 0.5 * jnp.sum(values * w**2)


@pytest.mark.parametrize("k", [1, 3, 20])
def test_as_many_steps_as_parameters_are_exact(x64, k):
    values = eigenvalues(loss, network(), k)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(dense())[::-1][:k], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("k", [1, 5, 20])
def test_the_spectrum_is_that_of_matfree(x64, k):
    eig, decomp = pytest.importorskip("matfree.eig"), pytest.importorskip("matfree.decomp")
    flat, unravel = ravel_pytree(network())
    flat_loss = lambda x: loss(unravel(x))
    product = lambda v: jax.jvp(jax.grad(flat_loss), (flat,), (v,))[1]
    start = jax.random.normal(jax.random.key(5), flat.shape)
    spectrum, _ = jax.jit(lambda start: eig.eigh_partial(decomp.tridiag_sym(20))(product, start))(start)
    found = eigenvalues(loss, network(), k)
    np.testing.assert_allclose(found, np.sort(spectrum)[::-1][:k], rtol=1e-8, atol=1e-9)


def test_the_trace_is_that_of_matfree(x64):
    stochtrace = pytest.importorskip("matfree.stochtrace")
    flat, unravel = ravel_pytree(network())
    product = lambda v: jax.jvp(jax.grad(lambda x: loss(unravel(x))), (flat,), (v,))[1]
    sampler = stochtrace.sampler_signs(flat, num=4000)
    estimate = stochtrace.estimator_monte_carlo(stochtrace.monte_carlo_trace(), sampler)
    theirs = jax.jit(lambda key: estimate(product, key))(jax.random.key(1))
    ours = jax.jit(lambda p: hessian_trace(loss, p, key=2, samples=4000))(network())
    spread = np.sqrt(2 * (np.sum(dense() ** 2) - np.sum(np.diag(dense()) ** 2)) / 4000)
    assert abs(theirs - ours) < 4 * np.sqrt(2) * spread


SPECTRUM = np.array([5.0, 3.0, 1.0, -2.0], np.float32)


@jax.jit
def measured(w, scale):
    """The eigenvalues of a quadratic, its leading eigenvalue with the vector, and its trace."""
    loss_fn = lambda w: jnp.vdot(w, scale * (0.5 * SPECTRUM * w))
    leading = leading_eigenvalue(loss_fn, w, steps=4)
    return hessian_eigenvalues(loss_fn, w, k=4), leading, hessian_trace(loss_fn, w, samples=1)


@pytest.mark.parametrize("scale", [1e-30, 1e-19, 1e19, 1e30])
def test_curvature_of_every_scale(scale):
    """At scales of 1e-23 and 1e19 the squares of the curvatures are outside the range of float32."""
    found, (top, vector), trace = measured(np.full(4, 0.1, np.float32), np.float32(scale))
    np.testing.assert_allclose(np.float64(found) / scale, np.sort(SPECTRUM)[::-1], rtol=1e-4)
    np.testing.assert_allclose(np.float64(top) / scale, 5.0, rtol=1e-4)
    np.testing.assert_allclose(np.abs(vector), [1.0, 0.0, 0.0, 0.0], atol=1e-3)
    np.testing.assert_allclose(np.float64(trace) / scale, 7.0, rtol=1e-5)


def test_the_leading_eigenvalue_follows_training(x64):
    """Three Hessian-vector products per call, started at the previous vector, track the largest eigenvalue."""
    lead, gradient = jax.jit(functools.partial(leading_eigenvalue, loss)), jax.jit(jax.grad(loss))
    params, vector, ratios = network(), None, []
    for _ in range(12):
        top, vector = lead(params, vector)
        ratios.append(float(top) / np.linalg.eigvalsh(dense_at(params))[-1])
        params = jax.tree.map(lambda w, g: w - 0.05 * g, params, gradient(params))
    assert max(ratios) <= 1 + 1e-9
    assert ratios[0] < 0.95
    assert min(ratios[2:]) > 0.98
    assert min(ratios[5:]) > 0.995
    direction = ravel_pytree(vector)[0]
    np.testing.assert_allclose(jnp.linalg.norm(direction), 1.0, rtol=1e-9)
    program = str(jax.make_jaxpr(lambda p, v: leading_eigenvalue(loss, p, v))(params, vector))
    assert "length=3" in program


def test_few_steps_find_the_top_from_below():
    spectrum = np.concatenate([[10.0, 6.0], np.linspace(-1, 1, 998)])
    values = eigenvalues(diagonal(spectrum), jnp.zeros(1000), k=2, steps=30)
    np.testing.assert_allclose(values, [10.0, 6.0], rtol=1e-4)
    early = eigenvalues(diagonal(spectrum), jnp.zeros(1000), steps=3)
    assert 0 < early[0] < 10.0


@pytest.mark.parametrize(
    "spectrum",
    [[5.0, 5.0, 5.0, 2.0], [0.0, 0.0, 0.0, 0.0], [-1.0, -2.0, -3.0, -3.0], [1.0, 0.0, 0.0, -1.0]],
    ids=["multiple", "zero", "negative", "mixed"],
)
def test_exhausted_krylov_spaces_go_on(spectrum):
    """Equal eigenvalues exhaust the Krylov space early; all of them are found, and no spurious ones."""
    values = eigenvalues(diagonal(spectrum), jnp.ones(4), k=4)
    np.testing.assert_allclose(values, sorted(spectrum, reverse=True), atol=1e-5)


def test_products_are_in_full_precision():
    """The default of a GPU keeps 10 bits, with which vectors are not orthogonal to 1e-6."""
    loss, w = lambda w: jnp.sum(w**4), jnp.ones(9)
    for measure in (hessian_eigenvalues, leading_eigenvalue):
        text = str(jax.make_jaxpr(lambda w, measure=measure: measure(loss, w))(w))
        assert text.count("dot_general[") == text.count("Precision.HIGHEST, Precision.HIGHEST") > 4


def test_the_most_negative_ones_from_the_negative_loss(x64):
    values = eigenvalues(lambda p: -loss(p), network(), 2)
    np.testing.assert_allclose(-values, np.linalg.eigvalsh(dense())[:2], rtol=1e-9)


def test_trace_is_unbiased(x64):
    hessian = dense()
    spread = np.sqrt(2 * (np.sum(hessian**2) - np.sum(np.diag(hessian) ** 2)))
    estimate = jax.jit(lambda p: hessian_trace(loss, p, samples=4000))(network())
    assert abs(estimate - np.trace(hessian)) < 4 * spread / np.sqrt(4000)
    assert abs(hessian_trace(loss, network(), samples=1) - np.trace(hessian)) > 1e-6


def test_trace_of_a_diagonal_hessian_is_exact():
    np.testing.assert_allclose(hessian_trace(diagonal([1.0, 2.0, -4.0]), jnp.ones(3), samples=1), -1.0, rtol=1e-6)


def test_short_floats_are_evaluated_in_float32():
    values = hessian_eigenvalues(loss, network(jnp.bfloat16))
    np.testing.assert_allclose(values, np.linalg.eigvalsh(dense())[-1:], rtol=0.05)
    assert values.dtype == jnp.float32


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_vector_without_a_direction_is_a_fresh_start(value):
    """Zeros, or what a call returned at parameters whose Hessian was not finite."""
    vector = jax.tree.map(jnp.zeros_like, network()) | {"v": jnp.array([0.0, value, 0.0, 0.0])}
    np.testing.assert_allclose(leading_eigenvalue(loss, network(), vector)[0], leading_eigenvalue(loss, network())[0])


def test_can_be_jitted():
    top = jax.jit(lambda p: hessian_eigenvalues(loss, p, 2))(network())
    np.testing.assert_allclose(top, hessian_eigenvalues(loss, network(), 2), rtol=1e-4)
    trace = jax.jit(lambda p: hessian_trace(loss, p))(network())
    np.testing.assert_allclose(trace, hessian_trace(loss, network()), rtol=1e-4)


def test_refuses_bad_arguments():
    with pytest.raises(ValueError, match="k=0"):
        hessian_eigenvalues(loss, network(), 0)
    with pytest.raises(ValueError, match="k=21: the Hessian of 20 parameters"):
        hessian_eigenvalues(loss, network(), 21)
    with pytest.raises(ValueError, match="steps=2"):
        hessian_eigenvalues(loss, network(), 3, steps=2)
    with pytest.raises(ValueError, match="samples=0"):
        hessian_trace(loss, network(), samples=0)
    with pytest.raises(ValueError, match="steps=1"):
        leading_eigenvalue(loss, network(), steps=1)
    with pytest.raises(ValueError, match=r"vector\['v'\] has the shape.*Fix: pass the vector of the last call"):
        leading_eigenvalue(loss, network(), network() | {"v": jnp.ones(3)})
    for measure in (hessian_eigenvalues, hessian_trace, leading_eigenvalue):
        with pytest.raises(ValueError, match="real parameters"):
            measure(lambda w: jnp.sum(jnp.abs(w) ** 2), jnp.ones(2, jnp.complex64))
