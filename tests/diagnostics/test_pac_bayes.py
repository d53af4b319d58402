"""The bound against its formula, and how often the true risk exceeds it."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pugd_optax.diagnostics import average_sharpness, pac_bayes_bound, perturbed_risk
from pugd_optax.diagnostics.pac_bayes import kl_inverse

W, START = (
    {"a": jnp.array([1.0, 2.0]), "b": jnp.array([3.0])},
    {"a": jnp.array([0.5, 2.0]), "b": jnp.array([1.0])},
)


def binary_kl(q, p):
    """The KL divergence of two Bernoulli distributions in float64."""
    first = q * math.log(q / p) if q > 0 else 0.0
    return first + ((1 - q) * math.log((1 - q) / (1 - p)) if q < 1 else 0.0)


@pytest.mark.parametrize("q", [0.0, 1e-4, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("bound", [1e-6, 1e-3, 0.1, 2.0])
def test_kl_inverse_solves_its_equation(q, bound):
    p = float(kl_inverse(np.array(q), np.array(bound)))
    assert q < p < 1
    np.testing.assert_allclose(binary_kl(q, p), bound, rtol=1e-4)


def test_kl_inverse_at_its_ends():
    assert kl_inverse(np.array(1.0), np.array(0.1)) == 1.0
    assert kl_inverse(np.array(0.3), np.array(1e9)) == 1.0
    np.testing.assert_allclose(kl_inverse(np.array([0.0, 0.3]), np.array([0.0, 0.0])), [0.0, 0.3], atol=1e-12)
    np.testing.assert_allclose(kl_inverse(np.array(0.0), np.array(0.25)), 1 - math.exp(-0.25), rtol=1e-12)


@pytest.mark.parametrize("samples", [None, 300])
def test_the_bound_is_its_formula(samples):
    """The bound equals its formula, with both KL inverses found by a grid search."""
    radius, n, delta, delta_sampling, risk = 0.7, 500, 0.01, 0.05, 0.2
    kl = (0.5**2 + 2.0**2) / (2 * (radius / math.sqrt(3)) ** 2)
    bound = float(
        pac_bayes_bound(
            risk, W, START, radius, n, samples=samples, confidence=1 - delta, sampling_confidence=1 - delta_sampling
        )
    )

    def inverse(q, c):
        grid = [Fraction(q) + (1 - Fraction(q)) * Fraction(i, 10**5) for i in range(10**5)]
        return float(max(p for p in grid if binary_kl(q, float(p)) <= c))

    expected = risk if samples is None else inverse(risk, math.log(1 / delta_sampling) / samples)
    expected = inverse(expected, (kl + math.log(2 * math.sqrt(n) / delta)) / n)
    assert 0 <= bound - expected < 3e-5


def test_complex_parameters_have_the_bound_of_their_parts():
    """The noise of a complex number has half of its variance in each part, so that both have the same Q and P."""
    w, start = np.array([1 + 2j, 3j]), np.array([1j, 1.0])
    parts = lambda x: np.stack([x.real, x.imag])
    bound = lambda w, start: pac_bayes_bound(0.1, w, start, 5.0, 200, samples=None)
    np.testing.assert_allclose(bound(w, start), bound(parts(w), parts(start)), rtol=1e-12)


def test_the_inverse_is_far_below_the_root_where_the_risk_is_small():
    """At risk 0, KL 500 and 50000 examples, the KL inverse gives 0.0101 and the square-root bound 0.0714."""
    w, start, n = np.array([1.0]), np.array([0.0]), 50_000
    radius = math.sqrt(1 / (2 * 500))
    bound = pac_bayes_bound(0.0, w, start, radius, n, samples=None, confidence=0.95)
    root = math.sqrt((500 + math.log(2 * math.sqrt(n) / 0.05)) / (2 * n))
    np.testing.assert_allclose(bound, 1 - math.exp(-(500 + math.log(2 * math.sqrt(n) / 0.05)) / n), rtol=1e-9)
    np.testing.assert_allclose([float(bound), root], [0.0101, 0.0714], atol=1e-4)


def test_it_falls_with_radius_examples_and_samples_and_never_leaves_the_unit_interval():
    bound = lambda radius, n, m: float(pac_bayes_bound(0.1, W, START, radius, n, samples=m))
    found = [bound(1.0, 1000, 100), bound(3.0, 1000, 100), bound(3.0, 9000, 100), bound(3.0, 9000, 10_000)]
    assert found == sorted(found, reverse=True)
    assert 0.1 < found[-1] < 0.13
    assert bound(1e-3, 10, 1) == 1.0


def test_a_grid_pays_for_all_of_its_radii():
    """The bounds for k radii are those for single radii with both error probabilities divided by k."""
    radii, risks = [0.5, 1.0, 2.0], [0.05, 0.1, 0.3]
    grid = pac_bayes_bound(risks, W, START, radii, 1000, samples=500, confidence=0.94, sampling_confidence=0.97)
    singles = [
        pac_bayes_bound(risk, W, START, radius, 1000, samples=500, confidence=0.98, sampling_confidence=0.99)
        for risk, radius in zip(risks, radii, strict=True)
    ]
    np.testing.assert_allclose(grid, singles, rtol=1e-12)
    assert grid.shape == (3,)
    assert grid.dtype == np.float64


@pytest.mark.parametrize("samples", [1, 10, 100])
def test_it_holds_where_the_estimate_is_all_there_is(samples):
    """A counter-example to a bound that ignores the sampling error of the risk; the error is 1 if and only if w0 > 0.

    Under N(0, 1) both risks are 1/2 for any examples, and KL is 0. The sampled risk plus the PAC-Bayes term alone is
    below 1/2 for 35 to 50 % of the keys; the bound may fail for at most 6 %.
    """
    zero, keys, n = jnp.zeros(1), 2000, 50_000
    error = lambda w: (w[0] > 0).astype(jnp.float32)
    measure = jax.jit(jax.vmap(lambda key: perturbed_risk(error, zero, 1.0, key, samples=samples)))
    risks = np.asarray(measure(jnp.arange(keys)), np.float64)
    naive = risks + math.sqrt(math.log(2 * math.sqrt(n) / 0.05) / (2 * n)) < 0.5
    assert 0.3 < naive.mean() < 0.6
    bounds = [pac_bayes_bound(r, zero, zero, 1.0, n, samples=samples, confidence=0.95) for r in np.unique(risks)]
    violated = np.asarray(bounds)[np.searchsorted(np.unique(risks), risks)] < 0.5
    assert violated.mean() < 0.015, "0.01 of the sampling, and what 2000 keys add to it by chance"
    if samples == 100:
        assert violated.any(), "a bound that never fails gives more away than it has to"
        assert np.median(bounds) < 0.75


def test_it_holds_over_data_sets_for_the_least_bound_of_a_grid():
    """Threshold classifiers with label noise, fitted to each data set; their true risk has a closed form.

    x is uniform on [-1, 1], its label is sign(x), flipped with probability 0.2, and the classifier is sign(x - w).
    """
    n, samples, sets, radii = 60, 50, 400, np.array([0.05, 0.2, 0.8])
    random = np.random.default_rng(0)
    x = random.uniform(-1, 1, (sets, n))
    y = np.sign(x) * np.where(random.uniform(size=(sets, n)) < 0.2, -1, 1)
    candidates = np.linspace(-0.9, 0.9, 37)
    errors = (np.sign(x[:, None] - candidates[:, None]) != y[:, None]).mean(axis=2)
    w = candidates[errors.argmin(axis=1)]

    def risks(x, y, w, key):
        error = lambda v: jnp.mean((jnp.sign(x - v) != y).astype(jnp.float32))
        return jnp.stack([perturbed_risk(error, w, r, key + i, samples=samples) for i, r in enumerate(radii)])

    found = np.asarray(jax.jit(jax.vmap(risks))(jnp.asarray(x), jnp.asarray(y), jnp.asarray(w), 3 * jnp.arange(sets)))
    xi = random.normal(size=(1, 1, 20_000))
    shifted = np.clip(w[:, None, None] + radii[None, :, None] * xi[:, :, :2000], -1, 1)
    truth = 0.2 + 0.6 * np.abs(shifted).mean(axis=2) / 2
    start, bounds = np.zeros(()), np.empty((sets, 3))
    for i in range(sets):
        bounds[i] = pac_bayes_bound(
            np.clip(found[i], 0, 1), np.float64(w[i]), start, radii, n, samples=samples, confidence=0.9
        )
    best = bounds.argmin(axis=1)
    violated = bounds.min(axis=1) < truth[np.arange(sets), best]
    assert violated.mean() < 0.11
    assert np.median(bounds.min(axis=1)) < 0.7


def test_perturbed_risk_draws_independently_and_pairs_do_not():
    """For the error w0 > 0 around 0, antithetic pairs always average to 1/2; independent draws have a spread."""
    zero = jnp.zeros(1)
    error = lambda w: (w[0] > 0).astype(jnp.float32)
    alone = jax.vmap(lambda key: perturbed_risk(error, zero, 1.0, key, samples=20))(jnp.arange(200))
    np.testing.assert_allclose(np.std(alone), 0.5 / math.sqrt(20), rtol=0.2)
    paired = jax.vmap(lambda key: error(zero) + average_sharpness(error, zero, 1.0, key, samples=20))(jnp.arange(200))
    np.testing.assert_allclose(paired, 0.5)


def test_perturbed_risk_is_the_expectation():
    """For the error w0 > 0.5 in three dimensions at radius 1, the expectation is the normal tail at 0.5 sqrt(3)."""
    found = perturbed_risk(lambda w: w["a"][0] > 0.5, {"a": jnp.zeros(2), "b": jnp.zeros(1)}, 1.0, samples=20_000)
    expected = 0.5 * math.erfc(0.5 * math.sqrt(3) / math.sqrt(2))
    assert abs(found - expected) < 4 * math.sqrt(expected * (1 - expected) / 20_000)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"risk": 1.5}, "risk=1.5: expected numbers in"),
        ({"risk": np.nan}, "risk=nan: expected numbers in"),
        ({"radius": -0.1}, "radius=-0.1: expected a radius > 0"),
        ({"radius": 0.0}, "radius=0.0: expected a radius > 0"),
        ({"radius": [0.1, 0.2]}, r"risk has the shape \(\), radius has \(2,\)"),
        ({"risk": [], "radius": []}, r"radius=\[\]: expected a radius > 0"),
        ({"num_examples": 0}, "num_examples=0"),
        ({"samples": 0}, "samples=0"),
        ({"confidence": 1.0}, "confidence=1.0"),
        ({"confidence": 0}, "confidence=0: expected a number in"),
        ({"sampling_confidence": 1.0}, "sampling_confidence=1.0"),
        ({"prior": jnp.ones(1)}, r"prior has the shape \(1,\), params has \(2,\)"),
        ({"prior": jnp.ones((2, 2))}, "Fix: pass the parameters that training started from"),
    ],
)
def test_refuses_bad_arguments(given, message):
    good = {"risk": 0.1, "params": jnp.ones(2), "prior": jnp.ones(2), "radius": 0.1, "num_examples": 10, "samples": 9}
    with pytest.raises(ValueError, match=message):
        pac_bayes_bound(**(good | given))


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_parameters_that_are_not_finite_have_no_bound_below_one(broken):
    assert pac_bayes_bound(0.05, np.array([broken, 0.0]), np.zeros(2), 0.3, 1000, samples=None) == 1.0


def test_says_how_many_draws_are_behind_the_risk_or_that_it_is_exact():
    with pytest.raises(TypeError, match="samples"):
        pac_bayes_bound(0.1, W, START, 1.0, 100)
