"""Gates without a memory against plain Python over many steps, and every gate inside the methods."""

# Optax types every tree as a union that cannot be subscripted, and schedules take any ArrayLike.
# pyright: reportArgumentType=false, reportOperatorIssue=false

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pugd_optax import rts_pugd, sam, schedules, timing
from tests.contract.given import RESTING, build
from tests.problems import classifier, examples, extra_args
from tests.test_triggers import GAPS, NORMS, STEPS, decisions
from tests.tiers import FEW, slow_but


@pytest.mark.parametrize(
    ("gate", "rule"),
    [
        (timing.after(7), lambda t: t >= 7),
        (timing.after(0), lambda t: True),
        (timing.between(3, 9), lambda t: 3 <= t < 9),
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
    assert not jax.vmap(timing.bernoulli(lambda step: 0.0))(steps).any()
    assert jax.vmap(timing.bernoulli(1.0))(steps).all()
    assert jax.vmap(timing.bernoulli(1))(steps).all()
    assert (jax.vmap(timing.bernoulli(lambda step: step >= 7))(steps) == (steps >= 7)).all()


def test_a_probability_in_half_precision_draws_no_coarser_coins():
    """`optax.inject_hyperparams` gives it the dtype of the parameters; a draw in bfloat16 is one of 128 numbers."""
    p, steps = jnp.bfloat16(0.01), jnp.arange(4000)
    coins = [jax.jit(jax.vmap(timing.bernoulli(x, key=1)))(steps) for x in (p, float(p))]
    np.testing.assert_array_equal(*coins)


def test_bernoulli_refuses_what_is_no_key():
    with pytest.raises(TypeError, match="key='x': expected one PRNG key or a whole number"):
        timing.bernoulli(0.5, key="x")


@pytest.mark.parametrize("integer", [int, np.int64, jnp.int32])
def test_gates_that_can_never_be_active_are_refused_for_any_kind_of_integer(integer):
    for start, stop, message in [(5, 5, "stop=5: the gate can never be active"), (5, 3, "stop=3: .* >= 5")]:
        with pytest.raises(ValueError, match=message):
            timing.between(integer(start), integer(stop))
    with pytest.raises(ValueError, match="warmup=5: no reading"):
        timing.generalization_gap(integer(5), every=integer(100))


def test_steps_of_gates_may_be_traced():
    found = jax.jit(lambda start, stop: [timing.between(start, stop)(3), timing.between(2, stop)(3)])(2, 5)
    assert all(found)


LAST_DECAY = {
    "cosine": (optax.cosine_decay_schedule(0.1, 1000), 0.1, np.ceil(np.arccos(-0.8) / np.pi * 1000)),
    "warm-up": (optax.warmup_cosine_decay_schedule(0.0, 0.1, 100, 1000, 0.01), 0.3, 668),
    "line": (optax.linear_schedule(0.1, 0.0, 1000), 0.1, 900),
    "drops": (optax.piecewise_constant_schedule(0.1, {500: 0.1, 750: 0.1}), 0.05, 750),
    "both drops": (optax.piecewise_constant_schedule(0.1, {500: 0.1, 750: 0.1}), 0.1, 500),
    "restarts": (schedules.half_cosine(0.1, 0.0, 1000, cycles=4), 0.3, 908),
    "the last step": (optax.cosine_decay_schedule(0.1, 999), 1e-9, 999),
    "all": (optax.cosine_decay_schedule(0.1, 1000), 1.0, 0),
}


@pytest.mark.parametrize("kind", LAST_DECAY)
def test_tail(kind):
    schedule, share, first = LAST_DECAY[kind]
    found = np.asarray(jax.vmap(timing.tail(schedule, share, 1000))(jnp.arange(1000)))
    assert found.tolist() == [t >= first for t in range(1000)]


@pytest.mark.parametrize(
    "schedule", [optax.constant_schedule(0.1), optax.linear_schedule(0.0, 0.1, 50), lambda t: t * jnp.nan]
)
def test_tail_refuses_what_can_never_be_active(schedule):
    with pytest.raises(ValueError, match=r"share=0\.1: the gate can never be active.*Fix"):
        timing.tail(schedule, 0.1, 50)


def test_tail_refuses_what_is_no_share_or_schedule():
    with pytest.raises(ValueError, match="share=0: the gate can never be active"):
        timing.tail(optax.linear_schedule(0.1, 0.0, 50), 0, 50)
    with pytest.raises(ValueError, match=r"share=1\.5"):
        timing.tail(optax.linear_schedule(0.1, 0.0, 50), 1.5, 50)
    with pytest.raises(TypeError, match=r"schedule=0\.1: expected a schedule"):
        timing.tail(0.1, 0.5, 50)


ALL_GATES = {
    "after": timing.after(2),
    "between": timing.between(1, 3),
    "every": timing.every(2),
    "bernoulli": timing.bernoulli(0.5, key=3),
    "low_variance": timing.low_variance(2, ratio=100.0, window=2),
    "large_gradient": timing.large_gradient(),
    "generalization_gap": timing.generalization_gap(2, factor=0.5, every=1),
    "tail": timing.tail(optax.linear_schedule(0.1, 0.0, 6), 0.5, 6),
}


@pytest.mark.parametrize("name", slow_but(FEW, RESTING))
def test_every_method_takes_every_gate(name, strict_dtypes):
    """All gates run in one compiled scan; the state holds the decision of each."""
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
    """Radius and scale at an active step t are those of step t, even if earlier steps were inactive."""
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
