"""Triggers, the gates with a memory, against plain Python and the loops in the code of their authors."""

# Optax types every tree as a union that cannot be subscripted, and schedules take any ArrayLike.
# pyright: reportArgumentType=false, reportOperatorIssue=false

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pugd_optax import timing

STEPS = 40
NORMS = np.abs(np.random.default_rng(5).normal(size=STEPS) * np.linspace(1.0, 0.02, STEPS) + 1.0)


def decisions(gate, norms=NORMS, **extra):
    """The decisions of a gate with memory for gradients of these norms, in one scan."""

    def update(state, inputs):
        step, length, more = inputs
        active, state = gate.update(state, {"w": jnp.full(4, 0.5) * length}, step=step, **more)
        return state, active

    more = {k: jnp.asarray(v, jnp.float32) for k, v in extra.items()}
    inputs = jnp.arange(len(norms), dtype=jnp.int32), jnp.asarray(norms, jnp.float32), more
    return np.asarray(jax.jit(lambda s: jax.lax.scan(update, s, inputs))(gate.init({}))[1])


def low_variance_reference(norms, warmup, ratio, window, every=1, accuracies=None):
    on, best, out = False, -np.inf, []
    for t in range(len(norms)):
        if t > 0 and t % every == 0:
            new_best = accuracies is None or accuracies[t] > best
            best = best if accuracies is None else max(best, accuracies[t])
            ready = t > warmup and t >= window and new_best
            on = on or (ready and np.var(norms[t - window : t]) < ratio * np.var(norms[:warmup]))
        out.append(on)
    return out


@pytest.mark.parametrize(
    ("warmup", "ratio", "window", "every"), [(4, 0.2, 3, 1), (10, 0.2, 10, 1), (8, 0.5, 10, 7), (10, 0.02, 5, 4)]
)
def test_low_variance(warmup, ratio, window, every):
    gate = timing.low_variance(warmup, ratio=ratio, window=window, every=every)
    accuracies = np.sin(np.arange(STEPS)).round(2)
    for extra in ({}, {"val_accuracy": accuracies}):
        expected = low_variance_reference(NORMS, warmup, ratio, window, every, extra.get("val_accuracy"))
        assert extra or any(expected)
        assert not all(expected)
        assert decisions(gate, **extra).tolist() == expected


def published_variance_loop(norms, accuracies, init_epoch, gamma, k):
    """The loop of the RTS author, `train_model_timing_var`, fed with norms [epochs, batches]: the first active epoch.

    Written from the description in words: one check an epoch, only where its accuracy is a new best; at epoch
    `init_epoch` the variance of all norms so far, times gamma, is the reference; later, and after epoch k, the variance
    of the last k norms is compared with it.
    """
    best, reference = 0.0, -1.0
    for epoch, accuracy in enumerate(accuracies):
        if not accuracy > best:
            continue
        best, seen = accuracy, norms[: epoch + 1].ravel()
        if epoch == init_epoch:
            reference = gamma * np.var(seen)
        elif epoch > max(k, init_epoch) and np.var(seen[-k:]) < reference:
            return epoch + 1
    return None


def first_active_epoch(gate, norms, accuracies):
    """The first active epoch; `val_accuracy=` holds the accuracy of the previous epoch, the latest known."""
    batches = norms.shape[1]
    latest = np.repeat(np.concatenate([[np.nan], accuracies[:-1]]), batches)
    fired = decisions(gate, norms.ravel(), val_accuracy=latest)
    first = np.flatnonzero(fired)
    assert not first.size or first[0] % batches == 0, "the author switches between epochs"
    return first[0] // batches if first.size else None


def test_low_variance_is_the_loop_of_its_author():
    """The gate starts in the epoch of the author's loop, for falling and for stationary norms."""
    random, found = np.random.default_rng(3), []
    for falling in (0.0, 0.01, 0.03):
        for gamma in (0.2, 0.5):
            norms = np.float32(5 + random.normal(size=(60, 8)) * np.exp(-falling * np.arange(60))[:, None])
            accuracies = np.float32(np.linspace(0.5, 0.9, 60) + 0.05 * random.normal(size=60))
            accuracies[6] = accuracies[:6].max() + 0.01  # else the author's trigger is dead
            gate = timing.low_variance(7 * 8, ratio=gamma, window=6, every=8)
            found.append(published_variance_loop(norms, accuracies, 6, gamma, 6))
            assert first_active_epoch(gate, norms, accuracies) == found[-1]
    assert len(set(found)) > 3
    accuracies[6] = 0.0
    assert published_variance_loop(norms, accuracies, 6, 0.5, 6) is None
    assert first_active_epoch(gate, norms, accuracies) is not None, "this accident of the loop is not copied"


def test_a_check_at_every_step_fires_by_chance():
    """On stationary norms, checks at every step eventually see low variance; checks once an epoch rarely do."""
    norms = np.random.default_rng(0).normal(size=(8, 500)) + 5
    often = [decisions(timing.low_variance(100), row)[-1] for row in norms]
    rarely = [decisions(timing.low_variance(100, every=100), row)[-1] for row in norms]
    assert sum(often) > 5
    assert sum(rarely) <= 2


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


def test_large_gradient_starts_at_the_first_norm_that_is_finite():
    """The mean starts at the first finite norm, so of falling norms only the first counts as large."""
    falling = np.linspace(2.0, 0.44, STEPS)
    for broken in (np.nan, np.inf, 1e25):
        found = decisions(timing.large_gradient(0.5), np.concatenate([[broken, broken], falling]))
        assert not found[:2].any()
        assert found[2:].tolist() == [True] + [False] * (STEPS - 1)


GAPS = np.concatenate([np.linspace(0.1, 0.14, 12), np.linspace(0.2, 0.6, STEPS - 12)])


def gap_reference(gaps, warmup, factor, every, reference_every):
    reference = np.mean([gaps[t] for t in range(1, warmup + 1) if t % reference_every == 0])
    on, out = False, []
    for t in range(len(gaps)):
        on = on or bool(t > warmup and t % every == 0 and gaps[t] > factor * reference)
        out.append(on)
    return out


@pytest.mark.parametrize(
    ("warmup", "factor", "every", "reference_every"),
    [(10, 3.0, 1, None), (10, 3.0, 4, None), (10, 3.0, 4, 1), (3, 2.0, 3, 3), (5, 100.0, 1, 5)],
)
def test_generalization_gap(warmup, factor, every, reference_every):
    period = reference_every or every
    expected = gap_reference(GAPS, warmup, factor, every, period)
    read = [t > 0 and (t % every == 0 or (t <= warmup and t % period == 0)) for t in range(STEPS)]
    between = np.where(read, 1.0 + GAPS, 99.0)
    gate = timing.generalization_gap(warmup, factor=factor, every=every, reference_every=reference_every)
    for sign in (1, -1):
        train, val = np.ones(STEPS), 1.0 + sign * (between - 1.0)
        assert decisions(gate, train_loss=train, val_loss=val).tolist() == expected
    assert any(expected) == (factor < 100)


# |validation loss - training loss| by epoch, of the author's stored runs with xi = 10 and t = 3
# (github.com/eeyzs1/CV_RTS, results/cifar_10/pugdt_delta_100xi10.0mu*_t3.json), up to where each switched.
PUBLISHED_GAPS = {
    2: "2418 423 105 54 193 366 514 592 633 979 1036 1305",
    3: "2418 423 105 54 193 366 514 592 633 979 1036 1305 1413 1712 1588 1392 1709 1718 2080 2075 2566",
    4: "2282 700 803 456 154 37 354 521 892 866 732 752 1129 1612 1402 1479 1757 1784 1932 1671 2427 2934 2168 2368 "
    "2971 2477 2528 2586 2320 2552 2588 2468 3047",
}


@pytest.mark.parametrize(("factor", "last"), [(2, 11), (3, 20), (4, 32)])
def test_generalization_gap_switches_where_the_stored_runs_of_its_author_did(factor, last):
    """The gate switches in the epoch after `enable_pugd_epoch` of the author's three stored runs."""
    gaps = np.array(PUBLISHED_GAPS[factor].split(), float) / 1e4
    assert len(gaps) == last + 1
    gate = timing.generalization_gap(10, factor=factor, every=3, reference_every=1)
    seen = np.concatenate([[np.nan], gaps])
    found = decisions(gate, np.ones(len(seen)), train_loss=np.zeros(len(seen)), val_loss=seen)
    assert np.flatnonzero(found).tolist() == [last + 1]
    ours = timing.generalization_gap(10, factor=factor, every=3)
    assert decisions(ours, np.ones(len(seen)), train_loss=np.zeros(len(seen)), val_loss=seen).any()


def published_gap_loop(gaps, xi, mu, t):
    """The loop of `train_model_timing_delta`: the mean gap before epoch xi, then a check where t divides epoch + 1."""
    threshold = mu * np.mean(gaps[:xi])
    return next((e + 1 for e in range(xi + 1, len(gaps)) if (e + 1) % t == 0 and gaps[e] > threshold), None)


def test_generalization_gap_is_the_loop_of_its_author():
    """The gate fires where the author's loop does; with mu = 0.01, as in the newest notebook, at the first check."""
    random, found, batches = np.random.default_rng(1), [], 4
    for mu, t in [(2.0, 3), (3.0, 3), (2.0, 4), (0.01, 10), (50.0, 3)]:
        gaps = np.float32(0.05 + 0.01 * np.arange(50) + 0.05 * np.abs(random.normal(size=50)))
        found.append(published_gap_loop(gaps, 10, mu, t))
        latest = np.repeat(np.concatenate([[np.nan], gaps[:-1]]), batches)
        gate = timing.generalization_gap(10 * batches, factor=mu, every=t * batches, reference_every=batches)
        fired = np.flatnonzero(decisions(gate, np.ones(200), train_loss=0 * latest, val_loss=latest))
        assert (fired[0] / batches if fired.size else None) == found[-1]
    assert found[3] == 20
    assert found[4] is None
    assert len(set(found)) > 3


def test_generalization_gap_leaves_broken_readings_out():
    gaps = GAPS.copy()
    gaps[[1, 3, 30]] = np.nan
    gate = timing.generalization_gap(10, every=1)
    found = decisions(gate, train_loss=np.zeros(STEPS), val_loss=gaps)
    reference = np.nanmean(gaps[1:11])
    first = next(t for t in range(11, STEPS) if gaps[t] > 3 * reference)
    assert found.tolist() == [t >= first for t in range(STEPS)]
    nothing = decisions(timing.generalization_gap(1, every=1), train_loss=np.zeros(STEPS), val_loss=gaps)
    assert not nothing.any(), "without one reading of the reference there is nothing to compare with"


def test_generalization_gap_refuses_a_warmup_without_a_reading():
    with pytest.raises(ValueError, match=r"warmup=99: no reading, one every 100 steps.*Fix: warmup=100 or more"):
        timing.generalization_gap(99)
    timing.generalization_gap(99, reference_every=50)


def test_generalization_gap_asks_for_its_losses():
    gate = timing.generalization_gap()
    with pytest.raises(ValueError, match=r"val_loss=.*Fix: tx\.update"):
        gate.update(gate.init({}), {}, step=jnp.int32(0), train_loss=1.0)


def test_large_gradient_outlives_a_spike_whose_deviation_overflows():
    gate, fired = timing.large_gradient(0.5), []
    state = gate.init({})
    for t, g in enumerate([1.0, 0.5, 1.5, 1e10, 0.5, 1.5, 0.5, 1.5]):
        active, state = gate.update(state, {"w": jnp.float32(g)}, step=jnp.int32(t))
        fired.append(bool(active))
    assert np.isfinite(state.variance)
    assert fired[-1]


def test_low_variance_goes_on_from_a_state_of_numpy_arrays():
    """Some checkpoint formats restore arrays as NumPy's, which have no `at`; outside jit they arrive as they are."""
    gate = timing.low_variance(4, window=2)
    state = jax.tree.map(np.asarray, gate.init({}))
    _, after = gate.update(state, {"w": jnp.array([3.0, 4.0])}, step=jnp.int32(0))
    assert after.window.tolist() == [5.0, 0.0]
