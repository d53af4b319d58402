"""The bound from the class strengths, against its formula and against the distance travelled in training."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pugd_optax
from pugd_optax import classes, logits
from pugd_optax.diagnostics import class_bound

COUNTS = np.array([900, 90, 10])
STRENGTH: Any = np.array([-0.5, 0.2, 0.9])
GIVEN: dict[str, Any] = {"rate_sum": 0.3, "jacobian": 2.0, "radius": 1.5, "num_params": 40}


def test_follows_the_formula(x64):
    found = class_bound(0.2, COUNTS, STRENGTH, **GIVEN, confidence=0.9)
    distance = np.sqrt(2) * 2 * 0.3 * (0.9 * 0.5 + 0.09 * 1.2 + 0.01 * 1.9)
    kl = 40 * distance**2 / (2 * 1.5**2)
    np.testing.assert_allclose(found.distance, distance, rtol=1e-6)
    np.testing.assert_allclose(found.kl, kl, rtol=1e-6)
    np.testing.assert_allclose(found.bound, 0.2 + np.sqrt((kl + np.log(2 * np.sqrt(1000) / 0.1)) / 2000), rtol=1e-6)


@pytest.mark.parametrize("rule", [classes.balanced(), classes.confusion(40, bound=2.0), classes.prior([60, 30, 10])])
def test_training_stays_within_the_distance(rule):
    """Softmax regression on full batches: the Jacobian has the norm of the example, and class shares are exact."""
    random = np.random.default_rng(0)
    x, y = jnp.asarray(random.normal(size=(100, 4)), jnp.float32), np.repeat(np.arange(3), [60, 30, 10])
    tx: Any = pugd_optax.lpg(3, rule=rule)

    @jax.jit
    def step(w, state):
        u, state = tx.update(w, state, w, logits_fn=lambda w: x @ w, labels=y)
        return w - 0.1 * u, state

    w, state, strengths = jnp.zeros((4, 3)), tx.init(jnp.zeros((4, 3))), []
    for _ in range(40):
        w, state = step(w, state)
        strengths.append(state.strength)
    jacobian = float(jnp.linalg.norm(x, axis=1).max())
    given: Any = GIVEN | {"rate_sum": 40 * 0.1, "jacobian": jacobian}
    found = class_bound(0.0, [60, 30, 10], np.mean(strengths, 0), **given)
    assert float(jnp.linalg.norm(w)) <= found.distance


def test_bounded_targets_lower_the_bound():
    offsets = logits.offsets(b=-2.0 * (1 - np.eye(3)))
    bounded = class_bound(0.1, COUNTS, logits.largest_pull(offsets, 3) - 1, **GIVEN)
    plain = class_bound(0.1, COUNTS, np.zeros(3), **GIVEN)
    np.testing.assert_allclose(bounded.distance / plain.distance, np.tanh(0.5), rtol=1e-6)
    assert bounded.bound < plain.bound


def test_more_parameters_than_int32_can_count():
    large, small = (class_bound(0.1, COUNTS, STRENGTH, **GIVEN | {"num_params": n}) for n in (3_000_000_000, 3))
    np.testing.assert_allclose(large.kl, 1e9 * small.kl, rtol=1e-6)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"risk": 1.5}, ValueError, "risk=1.5"),
        ({"counts": [3, 0, 1]}, ValueError, "expected numbers above 0"),
        ({"strength": np.zeros(2)}, ValueError, r"strength has the shape \(2,\): expected \(3,\)"),
        ({"rate_sum": -1.0}, ValueError, "rate_sum=-1.0"),
        ({"jacobian": -1.0}, ValueError, "jacobian=-1.0"),
        ({"radius": 0.0}, ValueError, "radius=0.0: expected a number above 0"),
        ({"num_params": 0}, ValueError, "num_params=0"),
        ({"confidence": 1.0}, ValueError, "confidence=1.0"),
        ({"confidence": 0.0}, ValueError, "confidence=0.0"),
    ],
)
def test_bad_input_is_refused(changed, error, message):
    good: Any = {"risk": 0.1, "counts": COUNTS, "strength": STRENGTH, **GIVEN}
    with pytest.raises(error, match=message):
        class_bound(**(good | changed))
