"""The delta report: what it measures, and its count of gradient evaluations."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pugd_optax
from pugd_optax import timing
from pugd_optax.diagnostics import delta_report, delta_table

PARAMS = {"w": jnp.array([3.0, 0.5]), "v": jnp.array([4.0])}


def loss(p):
    return jnp.sum(jnp.tanh(p["w"]) ** 2) + 0.1 * jnp.sum(p["v"] ** 4)


def count(tx, **given):
    return delta_report(tx, loss, PARAMS, **given).gradient_evaluations


def test_plain_gradient():
    assert delta_report(optax.identity(), loss, PARAMS) == (0.0, 0.0, pytest.approx(1.0), None, 1, 1.0)


def test_measures_delta_against_the_gradient():
    g = np.array([3.0, 4.0])
    report = delta_report(pugd_optax.normalize(), lambda p: jnp.sum(p * g), jnp.zeros(2))
    np.testing.assert_allclose(report[:3], (4.0, 0.8, 1.0), rtol=1e-6)
    turn = optax.stateless(lambda updates, params: updates[::-1] * jnp.array([-1.0, 1.0]))
    report = delta_report(turn, lambda p: jnp.sum(p * g), jnp.zeros(2))
    np.testing.assert_allclose(report[:3], (5 * np.sqrt(2), np.sqrt(2), 0.0), rtol=1e-6, atol=1e-6)


def test_a_zero_gradient_gives_zeros():
    report = delta_report(pugd_optax.sam(0.1), lambda p: 0.0 * jnp.sum(p), jnp.ones(2))
    assert report[:3] == (0.0, 0.0, 0.0)


def test_a_broken_gradient_is_not_reported_as_unchanged():
    broken = optax.stateless(lambda updates, params: updates * jnp.nan)
    report = delta_report(broken, lambda p: jnp.sum(p), jnp.ones(2))
    assert np.isnan(report.delta_norm)
    assert np.isnan(report.relative)


@pytest.mark.parametrize(
    ("tx", "evaluations"),
    [
        (optax.clip_by_global_norm(1.0), 1),
        (pugd_optax.pugd(), 2),
        (pugd_optax.sam(when=False), 1),
        (pugd_optax.sam(when=timing.after(1)), 1),
        (pugd_optax.sam(when=timing.every(2)), 2),
        (pugd_optax.amp(steps=3), 4),
        (pugd_optax.multi_step_sam(steps=2), 3),
        (pugd_optax.noise_injection(), 1),
        (pugd_optax.momentum_sam(), 1),
        (pugd_optax.nso(), 2),
        (pugd_optax.gradient_regularization(), 2),
        (pugd_optax.gradient_regularization(scheme="central"), 3),
        (pugd_optax.gradient_regularization(scheme="exact"), 3),
        (optax.chain(pugd_optax.sam(), optax.clip_by_global_norm(1.0)), 2),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else "",
)
def test_counts_the_evaluations_that_run(tx, evaluations):
    assert count(tx) == evaluations


def test_counts_what_a_loop_runs_not_what_is_written():
    def update(updates, state, params=None, *, grad_fn, **extra_args):
        del extra_args
        total = jax.lax.fori_loop(0, 5, lambda i, p: jax.tree.map(lambda w, g: w - 0.1 * g, p, grad_fn(p)), params)
        return total, state

    assert count(optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)) == 5


def test_a_later_state_shows_a_later_step():
    tx = pugd_optax.sam(when=timing.after(1))
    state = tx.init(PARAMS)
    g = jax.grad(loss)(PARAMS)
    _, state = tx.update(g, state, PARAMS, grad_fn=jax.grad(loss))
    assert count(tx) == 1
    assert count(tx, state=state) == 2


def test_extra_arguments_reach_the_transformation():
    assert count(pugd_optax.sam(), active=False) == 1


def test_reports_the_radius_that_was_used():
    assert delta_report(pugd_optax.pugd(radius=0.25), loss, PARAMS).radius == 0.25
    assert delta_report(pugd_optax.sam(0.25, when=False), loss, PARAMS).radius == 0.0


def network(batch=256):
    """The loss and parameters of an MLP dominated by matrix products, and the arguments that the methods need."""
    random = np.random.default_rng(0)
    params = {"w": jnp.asarray(random.normal(size=(32, 64)), jnp.float32) / 6, "v": jnp.ones((64, 4)) / 8}
    x, y = jnp.asarray(random.normal(size=(batch, 32)), jnp.float32), jnp.asarray(random.integers(0, 4, batch))
    logits_fn = lambda p: jnp.tanh(x @ p["w"]) @ p["v"]
    losses_fn = lambda p: optax.softmax_cross_entropy_with_integer_labels(logits_fn(p), y)
    return lambda p: losses_fn(p).mean(), params, {"logits_fn": logits_fn, "losses_fn": losses_fn, "labels": y}


@pytest.mark.parametrize(
    ("tx", "low", "high"),
    [
        (optax.identity(), 1.0, 1.0),
        (pugd_optax.sam(), 2.0, 2.15),
        (pugd_optax.sam(when=False), 1.0, 1.1),
        (pugd_optax.multi_step_sam(steps=3), 4.0, 4.3),
        (pugd_optax.momentum_sam(), 1.0, 1.15),
        (pugd_optax.gradient_regularization(scheme="exact"), 2.1, 3.2),
        (pugd_optax.lpg(4), 1.0, 1.2),
        (pugd_optax.pegr(0.01), 1.1, 3.0),
    ],
    ids=["gradient", "sam", "off", "multi_step_sam", "momentum_sam", "exact", "lpg", "pegr"],
)
def test_cost_is_in_gradients_whatever_way_they_are_taken(tx, low, high):
    """The cost is the FLOPs of the compiled step, so gradients that bypass `grad_fn` are counted too."""
    loss_fn, params, more = network()
    assert low <= delta_report(tx, loss_fn, params, **more).cost <= high


def test_table_has_a_line_for_every_method():
    methods = {"sgd": optax.identity(), "a long name": pugd_optax.sam(0.1)}
    lines = delta_table(loss, PARAMS, methods).splitlines()
    assert [line.split()[0] for line in lines] == ["method", "sgd", "a"]
    assert len({len(line) for line in lines}) == 1
    assert lines[1].split()[1:] == ["0", "0", "1", "-", "1", "1"]
    assert lines[2].split()[-3:-1] == ["0.1", "2"]


def test_an_error_of_a_named_method_is_raised():
    with pytest.raises(ValueError, match="logits_fn"):
        delta_table(loss, PARAMS, {"lpg": pugd_optax.lpg(3)})


@pytest.fixture
def small_family(monkeypatch):
    """Replaces the list of methods by five, one of each kind, as compiling all of them takes a minute."""
    names = ["sam", "rst", "lpg", "pegr", "sam_on"]
    monkeypatch.setattr(pugd_optax.methods, "__all__", names)
    return names


def test_one_call_prints_the_family_on_a_model(small_family):
    loss_fn, params, more = network(batch=64)
    lines = delta_table(loss_fn, params, **more).splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines[1:] if ":" not in line}
    assert set(rows) == {"gradient", "normalize", "sam", "rst", "lpg", "pegr"}
    assert rows["rst"] == rows["sam"], "active on the step that is shown, whatever its coin says"
    assert rows["lpg"][4] == rows["pegr"][4] == "-"
    costs = [float(row[-1]) for row in rows.values()]
    assert costs == sorted(costs), "the cheapest first"
    assert costs[0] == 1
    assert lines[-1].startswith("sam_on: sam_on found none of the names")
    assert "Fix: " in lines[-1]


def test_the_family_says_what_a_method_lacks(small_family):
    lines = delta_table(loss, PARAMS).splitlines()
    lacking = {line.split(":")[0]: line for line in lines if ": " in line}
    assert set(lacking) == {"lpg", "pegr", "sam_on"}
    assert "logits_fn is None" in lacking["lpg"]
    assert "losses_fn" in lacking["pegr"]


def test_every_method_of_the_package_can_be_made_for_the_family():
    from pugd_optax.diagnostics.delta import _default

    given = {"total_steps": 10, "strength": 0.01, "num_classes": 3, "counts": [8, 4, 2]}
    for name in pugd_optax.methods.__all__:
        assert isinstance(_default(name, given), optax.GradientTransformation)


def test_unknown_needs_surface_as_the_method_states_them():
    with pytest.raises(ValueError, match="train_loss= and val_loss="):
        delta_report(pugd_optax.sam(when=timing.generalization_gap()), loss, PARAMS)
