"""The curve over radii against float64 NumPy, and the suggested radius against a crossing computed by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pugd_optax
from pugd_optax.diagnostics import radius_curve
from tests.problems import BATCHES, START, batch, gradient, loss, start, unit

RADII = np.array([0.01, 0.1, 0.5, 2.0, 5.0])


def loss_by_hand(flat, t):
    x, y = (np.asarray(part, np.float64) for part in batch(t))
    b, w = flat[: y.shape[1]], flat[y.shape[1] :].reshape(x.shape[1], -1)
    return np.sum(np.logaddexp(0, -y * (x @ w + b))) / len(x) + 0.0125 * np.sum(w**4)


def curve_by_hand(ascent, t):
    """The cosine, rise and gradient norm at RADII for one batch; `ascent(g, w)` is the perturbation at radius 1."""
    g, rows = gradient(START, t), []
    for radius in RADII:
        w_star = START + radius * ascent(g, START)
        g_star = gradient(w_star, t)
        cosine = g @ g_star / np.linalg.norm(g) / np.linalg.norm(g_star)
        rise = loss_by_hand(w_star, t) / loss_by_hand(START, t) - 1
        rows.append((cosine, rise, np.linalg.norm(g_star)))
    return np.array(rows)


@pytest.mark.parametrize(
    ("method", "ascent"),
    [
        (pugd_optax.sam, lambda g, w: unit(g)),
        (pugd_optax.pugd, lambda g, w: unit(np.abs(w) * g)),
        (lambda r: pugd_optax.gsam(r, when=pugd_optax.timing.after(1000)), lambda g, w: unit(g)),
        (lambda r: optax.chain(pugd_optax.gnp(r), optax.clip_by_global_norm(1e-3)), lambda g, w: unit(g)),
    ],
    ids=["sam", "pugd", "a gate that is not open yet", "a chain"],
)
def test_means_over_batches(method, ascent):
    batches = [batch(t) for t in range(3)]
    curve = radius_curve(method, loss, start(jnp.float32), batches, radii=RADII)
    expected = np.mean([curve_by_hand(ascent, t) for t in range(3)], axis=0)
    np.testing.assert_allclose(np.stack(curve[1:4], axis=1), expected, rtol=2e-4, atol=2e-5)
    assert all(x.dtype == np.float64 for x in curve[:4])


def test_the_suggested_radius_turns_the_gradient_by_the_target(x64):
    """The cosine at the suggested radius is the target up to interpolation; a lower target suggests a larger radius."""
    radii = np.geomspace(0.01, 10, 40)
    found = []
    for target in (0.98, 0.95, 0.92):
        suggested = radius_curve(pugd_optax.sam, loss, start(), [batch(0)], radii=radii, target=target).suggested
        again = radius_curve(pugd_optax.sam, loss, start(), [batch(0)], radii=[suggested])
        np.testing.assert_allclose(again.cosine, target, atol=1e-3)
        found.append(suggested)
    assert found == sorted(found)


def test_no_suggestion_outside_the_radii():
    curve = lambda radii: radius_curve(pugd_optax.sam, loss, start(jnp.float32), [batch(0)], radii=radii)
    assert curve([1e-3, 1e-2]).suggested is None
    beyond = curve([100.0, 200.0])
    assert beyond.suggested is None
    assert str(beyond).endswith("suggested: none of these")


def test_several_evaluations():
    """Ascents of several steps are measured at the last one; two-sided schemes by the mean of both sides."""
    radii, batches, params = [0.1, 0.5], [batch(1)], start(jnp.float32)
    several = radius_curve(lambda r: pugd_optax.multi_step_sam(r, steps=3), loss, params, batches, radii=radii)
    g = gradient(START, 1)
    for i, radius in enumerate(radii):
        eps = np.zeros_like(START)
        for _ in range(3):
            eps = eps + radius / 3 * unit(gradient(START + eps, 1))
        g_star = gradient(START + eps, 1)
        np.testing.assert_allclose(several.grad_norm[i], np.linalg.norm(g_star), rtol=1e-3)
    sides = radius_curve(
        lambda h: pugd_optax.gradient_regularization(step=h, scheme="central"), loss, params, batches, radii=radii
    )
    both = [[np.linalg.norm(gradient(START + sign * h * g, 1)) for sign in (1, -1)] for h in radii]
    np.testing.assert_allclose(sides.grad_norm, np.mean(both, axis=1), rtol=1e-4)


def test_batches_may_be_any_iterable_and_radii_in_any_order():
    rising = radius_curve(pugd_optax.sam, loss, start(jnp.float32), (batch(t) for t in range(2)), radii=RADII)
    falling = radius_curve(pugd_optax.sam, loss, start(jnp.float32), [batch(0), batch(1)], radii=RADII[::-1])
    np.testing.assert_array_equal(rising.radii, RADII)
    np.testing.assert_allclose(rising.cosine, falling.cosine, rtol=1e-6)
    assert BATCHES > 2


def test_compiles_once_for_all_radii():
    traces = []

    def counted(params, data):
        traces.append(1)
        return loss(params, data)

    radius_curve(pugd_optax.sam, counted, start(jnp.float32), [batch(0), batch(1)], radii=RADII)
    assert len(traces) <= 3, "the loss at w and at w + eps, whatever the number of radii"


def test_prints_a_table():
    lines = str(radius_curve(pugd_optax.sam, loss, start(jnp.float32), [batch(0)], radii=RADII)).splitlines()
    assert lines[0].split() == ["radius", "cos(g,", "g*)", "rise", "|g*|"]
    assert len(lines) == len(RADII) + 2
    assert [float(line.split()[0]) for line in lines[1:-1]] == RADII.tolist()
    assert lines[-1].startswith("suggested: ")


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"method": pugd_optax.sam()}, TypeError, "method is a GradientTransformationExtraArgs.*Fix: pugd_optax.sam"),
        ({"method": lambda r: optax.clip(r)}, ValueError, "at radius=0.1 it evaluates no gradient away from params"),
        ({"params": jax.tree.map(jnp.zeros_like, start()), "batches": [0.0]}, ValueError, "gradient is not 0"),
        ({"batches": []}, ValueError, "batches is empty"),
        ({"radii": []}, ValueError, r"radii=\[\]: expected finite numbers > 0"),
        ({"radii": [0.1, 0.0]}, ValueError, "radii="),
        ({"radii": [[0.1]]}, ValueError, "radii="),
        ({"target": 1.0}, ValueError, "target=1.0"),
    ],
)
def test_refuses_bad_arguments(given, error, message):
    flat = lambda params, data: sum(jnp.sum(w**2) for w in jax.tree.leaves(params))
    good = {"method": pugd_optax.sam, "loss_fn": flat, "params": start(), "batches": [batch(0)], "radii": [0.1]}
    with pytest.raises(error, match=message):
        radius_curve(**(good | given))
