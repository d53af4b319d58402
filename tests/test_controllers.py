"""Self-tuning radii and a gate: where they settle, their bounds, and that methods without them cost nothing extra."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pugd_optax import methods, pugd, reevaluate, sam, timing, value_and_grad
from pugd_optax.schedules import target_cosine, target_rise
from tests.problems import classifier, examples, extra_args

CURVATURE, W = np.array([1.0, 9.0, 25.0]), np.array([1.0, 0.3, -0.1])


def loss(w: Any) -> jax.Array:
    return 0.5 * jnp.sum(jnp.asarray(CURVATURE, jnp.float32) * w**2)


def init(tx: Any, w: Any) -> Any:
    return tx.init(w)


def settled(tx: Any, steps: int = 400) -> Any:
    """The state after many steps at one point."""
    w, grad_fn = jnp.asarray(W, jnp.float32), jax.grad(loss)

    def step(state, _):
        return tx.update(grad_fn(w), state, w, grad_fn=grad_fn, value=loss(w))[1], None

    return jax.lax.scan(step, tx.init(w), length=steps)[0]


def root(f, low=1e-6, high=10.0):
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if f(middle) > 0 else (low, middle)
    return low


@pytest.mark.parametrize("target", [0.95, 0.8])
@pytest.mark.parametrize(("method", "size"), [(sam, 1.0), (pugd, np.abs(W))])
def test_settles_at_the_radius_of_the_target_cosine(method, size, target):
    """On a quadratic, where the cosine at every radius is known, the radius settles at the target."""

    def above(radius):
        g = CURVATURE * W
        star = CURVATURE * (W + radius * size * g / np.linalg.norm(size * g))
        return g @ star / np.linalg.norm(g) / np.linalg.norm(star) - target

    state = settled(method(target_cosine(target, start=0.5, gain=0.5)))
    np.testing.assert_allclose(state.radius, root(above), rtol=1e-3)


def test_settles_at_the_radius_of_the_target_rise():
    def below(radius):
        g = CURVATURE * W
        at = lambda v: 0.5 * CURVATURE @ v**2
        return 0.3 - (at(W + radius * g / np.linalg.norm(g)) / at(W) - 1)

    np.testing.assert_allclose(settled(sam(target_rise(0.3, gain=0.3))).radius, root(below), rtol=1e-3)


@pytest.mark.parametrize("start", [0.02, 0.1, 5.0])
def test_one_step_follows_the_formula(start):
    g = CURVATURE * W
    eps = start * g / np.linalg.norm(g)
    star = CURVATURE * (W + eps)
    cosine = g @ star / np.linalg.norm(g) / np.linalg.norm(star)
    rise = 0.5 * (g + star) @ eps / (0.5 * CURVATURE @ W**2)
    for tune, error in ((target_cosine, cosine - 0.4), (target_rise, np.clip(1 - rise / 0.4, -1, 1))):
        state = settled(sam(tune(0.4, start=start, gain=0.3)), steps=1)
        np.testing.assert_allclose(state.controller.value, start * np.exp(0.3 * error), rtol=1e-5)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, -np.inf])
def test_target_rise_stays_where_the_loss_says_nothing(value):
    w, tx = jnp.ones(2), sam(target_rise(start=0.1))
    state = tx.update(w, tx.init(w), w, grad_fn=lambda p: p, value=jnp.float32(value))[1]
    assert optax.tree.get(state, "ReevaluateState").controller.value == np.float32(0.1)


def test_stays_within_its_bounds():
    for target, bound in ((-1.0, 0.7), (1.0, 0.02)):
        state = settled(sam(target_cosine(target, start=0.1, gain=5.0, low=0.02, high=0.7)))
        np.testing.assert_allclose(state.radius, bound, rtol=1e-6)


def test_moves_on_active_steps_alone_and_not_by_broken_ones():
    w, grad_fn = jnp.asarray(W, jnp.float32), jax.grad(loss)
    tx: Any = sam(target_cosine(0.0, start=0.1, gain=1.0), when=timing.every(2))
    state, values = tx.init(w), []
    for t in range(4):
        broken = t == 2
        again = (lambda p: p * jnp.nan) if broken else grad_fn
        _, state = tx.update(grad_fn(w), state, w, grad_fn=again)
        values.append(float(state.controller.value))
    assert values[0] > 0.15
    assert values[1:] == values[:1] * 3
    _, state = tx.update(grad_fn(w), state, w, grad_fn=grad_fn)
    np.testing.assert_allclose(state.radius, values[0], rtol=1e-6)
    assert float(state.controller.value) > values[0]


def test_a_gate_follows_the_cosine_as_its_formula_does():
    """The gate follows its formula at points of small and large cosine, and over a step with a NaN gradient."""
    points = np.random.default_rng(0).normal(size=(24, 3)) * np.where(np.arange(24) % 8 < 4, 1, 50)[:, None]
    points[9] = np.nan
    expected, mean = [], -1.0
    for t, w in enumerate(points):
        expected.append(mean < 0.995 or t % 5 == 0)
        g = CURVATURE * w
        star = g + 0.3 * CURVATURE * g / np.linalg.norm(g)
        cosine = g @ star / np.linalg.norm(g) / np.linalg.norm(star)
        if expected[-1] and np.isfinite(cosine):
            mean = cosine if mean == -1 else 0.5 * mean + 0.5 * cosine
    tx: Any = sam(0.3, when=timing.turning(0.995, probe=5))
    grad_fn = jax.grad(loss)

    def step(state: Any, w: jax.Array) -> tuple[Any, jax.Array]:
        state = tx.update(grad_fn(w), state, w, grad_fn=grad_fn)[1]
        return state, state.active

    state, found = jax.lax.scan(step, init(tx, jnp.zeros(3)), jnp.asarray(points, jnp.float32))
    assert found.tolist() == expected
    assert 6 < sum(expected) < 18
    np.testing.assert_allclose(state.gate.cosine, mean, rtol=1e-5)


@pytest.mark.parametrize("tune", [target_cosine, target_rise])
def test_states_keep_their_dtype_where_arguments_are_float64(tune, x64):
    """NumPy's numbers are float64, unlike Python's, which take the dtype of the state."""
    tx = sam(tune(gain=np.float64(0.1)), when=timing.turning(decay=np.float64(0.5)))
    assert settled(tx, steps=2).controller.value.dtype == jnp.float32


def test_the_first_radius_may_be_an_array_and_the_state_donated():
    w, start = jnp.ones(2), jnp.float32(0.1)
    tx: Any = sam(target_cosine(start=start))
    update = jax.jit(lambda state: tx.update(w, state, w, grad_fn=lambda p: p)[1], donate_argnums=0)
    update(tx.init(w))
    assert tx.init(w).controller.value == start


def test_a_checkpoint_keeps_the_radius(tmp_path):
    import orbax.checkpoint as ocp

    tx: Any = pugd(target_cosine(0.5, gain=1.0), when=timing.turning(0.9, probe=3))
    before = settled(tx, steps=5)
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", before)
        shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, before)
        whole = ocp.args.PyTreeRestore(shapes, restore_args=ocp.checkpoint_utils.construct_restore_args(shapes))
        after = checkpointer.restore(tmp_path / "state", whole)
    assert before.controller.value not in (0.05, before.radius)
    jax.tree.map(np.testing.assert_array_equal, after, before)
    assert jax.tree.structure(after) == jax.tree.structure(before)


WITH_RADIUS = [n for n in methods.__all__ if "radius" in inspect.signature(getattr(methods, n)).parameters]


@pytest.mark.parametrize("name", WITH_RADIUS)
def test_every_method_with_a_radius_takes_one(name):
    """The state of the controller can be traced and donated."""
    given: dict[str, Any] = {key: {"total_steps": 8} for key in ("rts_pugd", "ae_sam")}
    given |= {"imb_sam": {"counts": (30, 20, 10)}, "focal_sam": {"counts": (30, 20, 10)}}
    tx = getattr(methods, name)(**given.get(name, {}), radius=target_cosine(0.9))
    params, extra = classifier(), extra_args(examples())
    update = lambda state: tx.update(extra["grad_fn"](params), state, params, active=True, **extra)[1]
    state = tx.init(params)
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(state))
    after = jax.jit(update)(state)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    np.testing.assert_allclose(optax.tree.get(after, "ReevaluateState").radius, 0.05, rtol=1e-6)
    assert optax.tree.get(after, "ReevaluateState").controller.value != 0.05


@pytest.mark.parametrize("radius", [0.1, optax.linear_schedule(0.1, 0.2, 5)])
def test_costs_nothing_elsewhere(radius):
    """Other radii add neither state nor equations of the controller."""
    w, grad_fn = jnp.asarray(W, jnp.float32), jax.grad(loss)

    def program(radius):
        tx = reevaluate(optax.identity(), radius=radius)
        return str(jax.make_jaxpr(lambda state: tx.update(grad_fn(w), state, w, grad_fn=grad_fn))(tx.init(w)))

    assert jax.tree.leaves(init(sam(radius), w).controller) == []
    assert " exp " in program(target_cosine())
    for primitive in (" exp ", " sqrt ", " dot_general"):
        assert primitive not in program(radius)


def test_value_and_grad_passes_the_loss():
    vg: Any = value_and_grad(lambda w: (loss(w), w[0]), sam(target_rise(0.3, gain=1.0)), has_aux=True)
    w = jnp.asarray(W, jnp.float32)
    _, _, state = vg(w, vg.init(w))
    assert state.controller.value != 0.05


def test_target_rise_says_that_it_needs_the_loss():
    w, tx = jnp.ones(2), sam(target_rise())
    with pytest.raises(ValueError, match=r"target_rise needs the loss.*Fix: tx\.update\(.*value=loss"):
        tx.update(w, tx.init(w), w, grad_fn=lambda p: p)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: target_cosine(1.5), r"target=1\.5.*in \[-1, 1\]"),
        (lambda: target_rise(0), r"target=0.*Fix: target=0\.1"),
        (lambda: target_cosine(low=0), r"low=0.*Fix: low=1e-3"),
        (lambda: target_cosine(start=20.0), r"start=20\.0.*in \[0\.001, 10\]"),
        (lambda: target_cosine(low=2.0, high=1.0), r"high=1\.0.*>= 2"),
        (lambda: target_cosine(gain=-1.0), r"gain=-1\.0"),
        (lambda: timing.turning(1.5), r"below=1\.5.*in \[-1, 1\]"),
        (lambda: timing.turning(probe=0), "probe=0.*>= 1"),
        (lambda: timing.turning(decay=1.0), r"decay=1\.0.*in \[0, 1\)"),
    ],
)
def test_bad_input(make, text):
    with pytest.raises(ValueError, match=text):
        make()
