"""Each gate against plain Python over many steps, by itself and inside the methods."""

# Optax types every tree as a union that cannot be subscripted, and schedules take any ArrayLike.
# pyright: reportArgumentType=false, reportOperatorIssue=false

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pugd_optax import rts_pugd, sam, schedules, timing
from tests.problems import classifier, examples, extra_args
from tests.test_contract import build, gated_method

STEPS = 40
NORMS = np.abs(np.random.default_rng(5).normal(size=STEPS) * np.linspace(1.0, 0.02, STEPS) + 1.0)


def decisions(gate, norms=NORMS, **extra):
    """What a gate with memory decides for gradients of these norms, as one scan."""

    def update(state, inputs):
        step, length, more = inputs
        active, state = gate.update(state, {"w": jnp.full(4, 0.5) * length}, step=step, **more)
        return state, active

    more = {k: jnp.asarray(v, jnp.float32) for k, v in extra.items()}
    inputs = jnp.arange(len(norms), dtype=jnp.int32), jnp.asarray(norms, jnp.float32), more
    return np.asarray(jax.jit(lambda s: jax.lax.scan(update, s, inputs))(gate.init({}))[1])


@pytest.mark.parametrize(
    ("gate", "rule"),
    [
        (timing.after(7), lambda t: t >= 7),
        (timing.after(0), lambda t: True),
        (timing.between(3, 9), lambda t: 3 <= t < 9),
        (timing.between(4, 4), lambda t: False),
        (timing.every(1), lambda t: True),
        (timing.every(5), lambda t: t % 5 == 0),
        (timing.every(5, offset=7), lambda t: t >= 7 and (t - 7) % 5 == 0),
    ],
)
def test_gates_without_memory(gate, rule):
    expected = [rule(t) for t in range(STEPS)]
    assert [bool(gate(t)) for t in range(STEPS)] == expected
    assert jax.jit(jax.vmap(gate))(jnp.arange(STEPS)).tolist() == expected


def test_bernoulli_follows_its_probability_and_its_key():
    steps = jnp.arange(4000)
    coins = jax.jit(jax.vmap(timing.bernoulli(0.3, key=1)))(steps)
    assert abs(float(coins.mean()) - 0.3) < 0.03
    assert (coins == jax.vmap(timing.bernoulli(0.3, key=jax.random.key(1)))(steps)).all()
    assert (coins != jax.vmap(timing.bernoulli(0.3, key=2))(steps)).any()
    assert not jax.vmap(timing.bernoulli(0.0))(steps).any()
    assert jax.vmap(timing.bernoulli(1.0))(steps).all()


def test_bernoulli_refuses_what_is_no_key():
    with pytest.raises(TypeError, match="key='x': expected one PRNG key or a whole number"):
        timing.bernoulli(0.5, key="x")


def test_bernoulli_with_a_schedule():
    """Probability 0 for the first half and 1 after it is `after`."""
    rising = timing.bernoulli(lambda step: jnp.where(step > 19, 1.0, 0.0))
    assert [bool(rising(t)) for t in range(STEPS)] == [t > 19 for t in range(STEPS)]


def low_variance_reference(norms, warmup, ratio, window):
    on, out = False, []
    for t in range(len(norms)):
        ready = t >= warmup and t >= window - 1
        on = on or (ready and np.var(norms[t - window + 1 : t + 1]) < ratio * np.var(norms[:warmup]))
        out.append(on)
    return out


@pytest.mark.parametrize(("warmup", "ratio", "window"), [(4, 0.2, 3), (10, 0.2, 10), (3, 0.5, 10), (10, 0.02, 5)])
def test_low_variance(warmup, ratio, window):
    expected = low_variance_reference(NORMS, warmup, ratio, window)
    assert any(expected)
    assert not all(expected)
    assert decisions(timing.low_variance(warmup, ratio=ratio, window=window)).tolist() == expected


def test_low_variance_never_fires_on_a_steady_start():
    assert not decisions(timing.low_variance(4, window=3), np.ones(STEPS)).any()


def test_low_variance_reads_a_broken_norm_as_the_one_before():
    broken, mended = NORMS.copy(), NORMS.copy()
    broken[[2, 17]], mended[[2, 17]] = [np.nan, np.inf], NORMS[[1, 16]]
    gate = timing.low_variance(5, window=4)
    assert decisions(gate, broken).tolist() == decisions(gate, mended).tolist()
    assert decisions(gate, broken).any()


def large_gradient_reference(norms, threshold, decay):
    mean, variance, out = norms[0] ** 2, 0.0, []
    for t, length in enumerate(norms):
        mean = decay * mean + (1 - decay) * length**2
        variance = decay * variance + (1 - decay) * (length**2 - mean) ** 2
        out.append(length**2 >= mean + threshold(t) * np.sqrt(variance))
    return out


@pytest.mark.parametrize("decay", [0.5, 0.9])
def test_large_gradient(decay):
    falling = optax.linear_schedule(1.0, -1.0, STEPS)
    for threshold, rule in [(0.3, lambda t: 0.3), (falling, lambda t: 1 - 2 * t / STEPS)]:
        expected = large_gradient_reference(NORMS, rule, decay)
        found = decisions(timing.large_gradient(threshold, decay=decay))
        assert 0 < sum(expected[1:]) < STEPS - 1
        assert found[1:].tolist() == expected[1:], "the first step compares a number with itself"


def test_large_gradient_forgets_a_broken_norm():
    broken = NORMS.copy()
    broken[6] = np.nan
    without = decisions(timing.large_gradient(), np.delete(NORMS, 6))
    assert np.delete(decisions(timing.large_gradient(), broken), 6).tolist() == without.tolist()


GAPS = np.concatenate([np.linspace(0.1, 0.14, 12), np.linspace(0.2, 0.6, STEPS - 12)])


@pytest.mark.parametrize(("warmup", "factor", "every"), [(10, 3.0, 1), (10, 3.0, 4), (1, 2.0, 3), (5, 100.0, 1)])
def test_generalization_gap(warmup, factor, every):
    readings = [t for t in range(STEPS) if t % every == 0]
    reference = np.mean([GAPS[t] for t in readings if t < warmup])
    on, expected = False, []
    for t in range(STEPS):
        on = on or (t in readings and t >= warmup and GAPS[t] > factor * reference)
        expected.append(on)
    between = np.where([t in readings for t in range(STEPS)], 1.0 + GAPS, 99.0)
    for sign in (1, -1):
        train, val = np.ones(STEPS), 1.0 + sign * (between - 1.0)
        found = decisions(timing.generalization_gap(warmup, factor=factor, every=every), train_loss=train, val_loss=val)
        assert found.tolist() == expected
    assert any(expected) == (factor < 100)


def test_generalization_gap_leaves_broken_readings_out():
    gaps = GAPS.copy()
    gaps[[0, 3, 30]] = np.nan
    gate = timing.generalization_gap(10, every=1)
    found = decisions(gate, train_loss=np.zeros(STEPS), val_loss=gaps)
    reference = np.nanmean(gaps[:10])
    first = next(t for t in range(10, STEPS) if gaps[t] > 3 * reference)
    assert found.tolist() == [t >= first for t in range(STEPS)]
    nothing = decisions(timing.generalization_gap(1, every=1), train_loss=np.zeros(STEPS), val_loss=gaps)
    assert not nothing.any(), "without one reading of the reference there is nothing to compare with"


def test_generalization_gap_asks_for_its_losses():
    gate = timing.generalization_gap()
    with pytest.raises(ValueError, match=r"val_loss=.*Fix: tx\.update"):
        gate.update(gate.init({}), {}, step=jnp.int32(0), train_loss=1.0)


ALL_GATES = {
    "after": timing.after(2),
    "between": timing.between(1, 3),
    "every": timing.every(2),
    "bernoulli": timing.bernoulli(0.5, key=3),
    "low_variance": timing.low_variance(2, ratio=100.0, window=2),
    "large_gradient": timing.large_gradient(),
    "generalization_gap": timing.generalization_gap(2, factor=0.5, every=1),
}


@gated_method
def test_every_method_takes_every_gate(name, strict_dtypes):
    """All seven in one compiled scan; the state says what each gate decided."""
    txs = {kind: build(name, when=gate) for kind, gate in ALL_GATES.items()}
    params, extra = classifier(), extra_args(examples())
    norms = NORMS[:6]
    losses = {"train_loss": np.zeros(6, np.float32), "val_loss": GAPS[6:12].astype(np.float32)}

    def step(states, inputs):
        length, more = inputs
        grads = jax.tree.map(lambda w: jnp.full(w.shape, length / 4.0, w.dtype), params)  # 16 numbers
        new = {k: tx.update(grads, states[k], params, **extra, **more)[1] for k, tx in txs.items()}
        return new, {k: optax.tree.get(s, "active") for k, s in new.items()}

    inputs = jnp.asarray(norms, jnp.float32), jax.tree.map(jnp.asarray, losses)
    states = {k: tx.init(params) for k, tx in txs.items()}
    found = jax.jit(lambda s: jax.lax.scan(step, s, inputs))(states)[1]
    for kind, gate in ALL_GATES.items():
        if isinstance(gate, timing.Gate):
            expected = decisions(gate, norms, **(losses if kind == "generalization_gap" else {})).tolist()
        else:
            expected = [bool(gate(t)) for t in range(6)]
        assert found[kind].tolist() == expected, kind


def test_gate_may_be_an_array():
    params, extra = classifier(), extra_args(examples())
    for when in (jnp.asarray(True), np.bool_(True)):
        _, state = sam(when=when).update(params, sam(when=when).init(params), params, **extra)
        assert bool(optax.tree.get(state, "active"))


def test_rts_counts_all_three_knobs_on_every_step():
    """Radius and scale at an active step t are those of t, however many steps before it were not active."""
    total, params, extra = 12, classifier(), extra_args(examples())
    radius, scale = schedules.quarter_wave("sin", 1.0, 0.1, total), schedules.quarter_wave("cos", 2.0, 0.5, total)
    seen = []

    def recorded_scale(step):
        jax.debug.callback(lambda t: seen.append(int(t)), step)
        return scale(step)

    tx = rts_pugd(total, radius=radius, scale=recorded_scale, when=timing.every(3, offset=2))
    state = tx.init(params)
    update = jax.jit(lambda s: tx.update(extra["grad_fn"](params), s, params, **extra))
    for t in range(total):
        _, state = jax.block_until_ready(update(state))
        jax.effects_barrier()
        active = t >= 2 and (t - 2) % 3 == 0
        assert (int(optax.tree.get(state, "step")), bool(optax.tree.get(state, "active"))) == (t + 1, active)
        np.testing.assert_allclose(optax.tree.get(state, "radius"), radius(t) if active else 0.0, rtol=1e-6)
    assert seen == [2, 5, 8, 11]


def test_large_gradient_outlives_a_spike_whose_deviation_overflows():
    gate, fired = timing.large_gradient(0.5), []
    state = gate.init({})
    for t, g in enumerate([1.0, 0.5, 1.5, 1e10, 0.5, 1.5, 0.5, 1.5]):
        active, state = gate.update(state, {"w": jnp.float32(g)}, step=jnp.int32(t))
        fired.append(bool(active))
    assert np.isfinite(state.variance)
    assert fired[-1]
