"""Properties for every tree, dtype and scale, checked under `disable_jit` so that new trees compile nothing."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import assume, given, strategies as st

from pugd_optax import (
    decompose,
    methods,
    mix,
    normalize,
    projected_ascent,
    reevaluate,
    restrict,
    scale_by_abs_params,
    schedules,
    unit_sum,
)

SHAPES = [(), (1,), (3,), (2, 2), (0, 3)]
FLOATS = ["float32", "bfloat16", "float16", "float64"]
TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 4e-3, "float64": 1e-11, "complex64": 1e-5}
LARGEST = {"float16": 4, "float64": 30}
"""The largest powers of ten whose squared norms are finite; 15 for dtypes whose norms are taken in float32."""


def numbers(shape, seed):
    x = np.random.default_rng(seed).normal(size=shape)
    return np.where(np.random.default_rng(seed + 1).random(shape) < 0.2, 0.0, x)


leaves = st.builds(numbers, st.sampled_from(SHAPES), st.integers(0, 1000))
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
        st.tuples(inner, inner),
    ),
    max_leaves=5,
)


@st.composite
def cases(draw, dtypes=tuple(FLOATS), powers=30):
    """A dtype and a function that draws trees of one structure, dtype and scale."""
    dtype = draw(st.sampled_from(dtypes))
    limit = min(powers, LARGEST.get(dtype, 15))
    power = draw(st.integers(-limit, limit))
    shape = draw(trees)

    def another(seed, scale=10.0**power):
        values = iter(range(seed, seed + 10_000, 17))
        fresh = lambda x: numbers(x.shape, next(values)) + (1j * numbers(x.shape, next(values)) if "c" in dtype else 0)
        return jax.tree.map(lambda x: jnp.asarray(fresh(x) * scale, dtype), shape)

    return dtype, another


def flat(tree):
    parts = [np.ravel(np.asarray(x).astype(np.complex128)) for x in jax.tree.leaves(tree)]
    return np.concatenate([*parts, np.zeros(0)])


def length(tree):
    return np.linalg.norm(flat(tree))


def same_type(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    assert [(x.shape, x.dtype) for x in jax.tree.leaves(a)] == [(x.shape, x.dtype) for x in jax.tree.leaves(b)]


@pytest.fixture(autouse=True, scope="module")
def op_by_op():
    with jax.enable_x64(True), jax.disable_jit():
        yield


def ascend(tx, g, w):
    return optax.with_extra_args_support(tx).update(g, tx.init(w), w, step=0)[0]


@given(cases((*FLOATS, "complex64")))
def test_normalize_gives_length_one_or_zero(case):
    dtype, draw = case
    g = draw(0)
    assume(not 0 < length(g) < 1e-6 or dtype != "float16")
    u = ascend(normalize(), g, g)
    same_type(u, g)
    np.testing.assert_allclose(length(u), float(length(g) > 0), rtol=TOLERANCE[dtype])
    for x, y in zip(jax.tree.leaves(ascend(normalize(per_tensor=True), g, g)), jax.tree.leaves(g), strict=True):
        np.testing.assert_allclose(length(x), float(length(y) > 0), rtol=TOLERANCE[dtype])


@given(cases(powers=20), st.integers(-8, 8))
def test_perturbations_do_not_see_the_scale_of_the_gradient(case, power):
    """Scaling the gradient by a power of two is exact, so the perturbation changes by rounding errors only."""
    dtype, draw = case
    assume(dtype != "float16")
    g, w = draw(0), draw(50, scale=1.0)
    scaled = jax.tree.map(lambda x: x * jnp.asarray(2.0**power, x.dtype), g)
    for tx in (normalize(), optax.chain(scale_by_abs_params(0.1), normalize(), scale_by_abs_params(0.1))):
        np.testing.assert_allclose(
            flat(ascend(tx, scaled, w)), flat(ascend(tx, g, w)), rtol=TOLERANCE[dtype], atol=1e-6
        )


@given(cases(("float32", "bfloat16", "float64"), powers=15), st.integers(-10, 10))
def test_pugd_moves_by_the_radius_and_leaves_zeros_alone(case, power):
    dtype, draw = case
    g, w = draw(0), draw(50, scale=10.0**power)
    eps = ascend(optax.chain(scale_by_abs_params(), normalize()), g, w)
    size = np.abs(flat(g) * flat(w)).max(initial=0)
    if size == 0 or 1e-18 < size < 1e18:  # elsewhere the square leaves float32, and the norm counts as 0 or not finite
        np.testing.assert_allclose(length(eps), float(size > 0), rtol=TOLERANCE[dtype])
    assert not flat(eps)[flat(w) == 0].any()


@given(cases((*FLOATS, "complex64")), st.floats(1e-3, 1e3))
def test_projected_ascent_stays_in_every_ball(case, radius):
    dtype, draw = case
    g = draw(0)
    eps = ascend(projected_ascent(radius), g, g)
    same_type(eps, g)
    for x, y in zip(jax.tree.leaves(eps), jax.tree.leaves(g), strict=True):
        assert length(x) <= min(radius, length(y)) * (1 + TOLERANCE[dtype]) + 1e-7


@given(cases(), st.data())
def test_restrict_zeroes_the_rest(case, data):
    _, draw = case
    g = draw(0)
    mask = jax.tree.map(lambda _: data.draw(st.booleans()), g)
    eps = ascend(restrict(normalize(), mask), g, g)
    same_type(eps, g)
    chosen = [x for x, on in zip(jax.tree.leaves(g), jax.tree.leaves(mask), strict=True) if on]
    rest = [x for x, on in zip(jax.tree.leaves(eps), jax.tree.leaves(mask), strict=True) if not on]
    assert not flat(rest).any()
    np.testing.assert_allclose(length(eps), float(length(chosen) > 0), rtol=2e-2)


COMBINES = {
    "mix": mix(0.3, 0.7),
    "unit_sum": unit_sum(0.5),
    "norm_ratio": unit_sum("norm_ratio"),
    "cosine": unit_sum("cosine"),
    "decompose": decompose(0.4),
}


@pytest.mark.parametrize("name", COMBINES)
@given(case=cases((*FLOATS, "complex64")))
def test_combines_are_finite_and_typed(name, case):
    dtype, draw = case
    g, g_star = draw(0), draw(50)
    zero = jax.tree.map(jnp.zeros_like, g)
    for a, b in ((g, g_star), (zero, g_star), (g, zero), (zero, zero), (g, g)):
        u = COMBINES[name](a, b)
        same_type(u, g)
        assert np.isfinite(flat(u)).all()
        if name in ("unit_sum", "norm_ratio", "cosine"):
            assert length(u) <= 1 + TOLERANCE[dtype]


@given(cases(("float32", "float64"), powers=25))
def test_decompose_is_orthogonal_to_the_part_it_adds(case):
    dtype, draw = case
    g, g_star = draw(0), draw(50)
    assume(length(g_star) > 0)
    added = flat(decompose(1.0)(g, g_star)) - flat(g_star)
    cosine = abs(np.vdot(added, flat(g_star))) / max(length(g) * length(g_star), 1e-300)
    assert cosine < 10 * TOLERANCE[dtype]


REEVALUATING = ["pugd", "sam", "asam", "amp", "gnp", "gsam", "wsam", "looksam", "friendly_sam", "momentum_sam"]


@pytest.mark.parametrize("name", REEVALUATING)
@given(case=cases(powers=25), power=st.integers(-8, 8))
def test_methods_are_finite_and_typed(name, case, power):
    """Over two steps, the outputs and the points at which `grad_fn` is evaluated are finite."""
    dtype, draw = case
    limit = LARGEST.get(dtype, 15) // 2
    g, g_star, w = draw(0), draw(50), draw(100, scale=10.0 ** max(-limit, min(limit, power)))
    tx, points = getattr(methods, name)(), []

    def grad_fn(point):
        points.append(point)
        return jax.tree.map(lambda x: 0.05 * x if name == "wsam" else x, g_star)

    state = tx.init(w)
    for grads in (g, g_star):
        grads = jax.tree.map(lambda x: 0.05 * x if name == "wsam" else x, grads)
        u, state = tx.update(grads, state, w, grad_fn=grad_fn)
        same_type(u, g)
        assert np.isfinite(flat(u)).all()
        if name == "pugd":
            assert length(u) <= 1 + TOLERANCE[dtype]
    for point in points:
        same_type(point, w)
        assert np.isfinite(flat(point)).all()


@given(cases(("float32", "bfloat16", "float16")))
def test_idle_output_is_the_input(case):
    _, draw = case
    g = draw(0)
    tx = reevaluate(normalize(), when=False)
    u, _ = tx.update(g, tx.init(g), g, grad_fn=lambda p: p)
    chex.assert_trees_all_equal(u, g)


@given(
    st.sampled_from(["cos", "sin", "icos", "isin"]), st.floats(0.1, 3.0), st.floats(0.01, 1.0), st.integers(1, 10**6)
)
def test_quarter_waves_stay_in_their_bounds_and_never_turn(kind, high, share, steps):
    low = share * high
    schedule = schedules.quarter_wave(kind, high, low, steps)
    values = np.asarray([schedule(t) for t in sorted({0, 1, steps // 3, steps // 2, steps, steps + 1})])
    bounds = (1 / high, 1 / low) if kind.startswith("i") else (low, high)
    assert bounds[0] * (1 - 1e-5) <= values.min()
    assert values.max() <= bounds[1] * (1 + 1e-5)
    falling = kind in ("cos", "isin")
    assert (np.diff(values) * (1 if falling else -1) <= 1e-5 * bounds[1]).all()


@given(st.floats(0.1, 3.0), st.floats(0.0, 1.0), st.integers(1, 10**5), st.integers(1, 50))
def test_half_cosine_stays_in_its_bounds_and_restarts_at_the_top(high, share, steps, cycles):
    low = share * high
    schedule = schedules.half_cosine(high, low, steps, cycles=cycles)
    values = np.asarray([schedule(t) for t in {0, 1, steps // 3, steps // 2, steps, steps + 1}])
    assert low - 1e-6 <= values.min()
    assert values.max() <= high + 1e-6
    np.testing.assert_allclose(schedule(steps), low, rtol=1e-5, atol=1e-7)
    if steps % cycles == 0 and cycles > 1:
        np.testing.assert_allclose(schedule(steps // cycles), high, rtol=1e-5)
