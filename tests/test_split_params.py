"""Parameters split over devices in `shard_map`: with `norm_axis_name`, a step equals that of one device."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, PartitionSpec as P

import pugd_optax
from pugd_optax import dual_norm, reevaluate, timing
from pugd_optax.schedules import target_cosine, target_rise
from tests.conftest import QUICKLY

SPEC = {"w": P(None, "model"), "b": P("model"), "v": P("model"), "gain": P()}
"""Each device holds a part of `w`, `b` and `v`; `gain` is replicated, if types record that."""
X, Y = (np.random.default_rng(0).normal(size=s).astype(np.float32) for s in ((12, 5), (12,)))


def params(gain: bool = True) -> dict[str, jax.Array]:
    random = np.random.default_rng(1)
    draw = lambda *shape: jnp.asarray(random.normal(size=shape), jnp.float32)
    return {"w": draw(5, 8), "b": draw(8), "v": draw(8)} | ({"gain": jnp.float32(0.7)} if gain else {})


def gradient(p: Any, total: Any = lambda x: x) -> Any:
    """The gradient of half the mean square of `gain * tanh(x w + b) v - y`; `total` sums over devices in the loss."""
    hidden, gain = jnp.tanh(X @ p["w"] + p["b"][None]), p.get("gain", 0.7)
    out = total(hidden @ p["v"])
    residual = (gain * out - Y) / len(Y)
    back = gain * residual[:, None] * p["v"][None] * (1 - hidden**2)
    found = {"w": X.T @ back, "b": back.sum(0), "v": gain * (hidden.T @ residual), "gain": residual @ out}
    return {k: found[k] for k in p}


def value(p: Any) -> jax.Array:
    return 0.5 * jnp.mean((p["gain"] * (jnp.tanh(X @ p["w"] + p["b"][None]) @ p["v"]) - Y) ** 2)


WEIGHTS = {"w": True, "b": False, "v": True, "gain": True}
PLAIN = ("amp", "asam", "fisher_sam", "friendly_sam", "gnp", "gsam", "le_sam", "looksam", "momentum_sam")
PLAIN += ("multi_step_sam", "pugd", "sam", "stable_sam", "unified_sam", "vasso", "wsam", "zsharp")
METHODS = {name: getattr(pugd_optax, name) for name in PLAIN} | {
    "adaptive vasso": lambda: pugd_optax.vasso(adaptive=True),
    "ae_sam": lambda: pugd_optax.ae_sam(2, start=-1.0, stop=1.0),
    "backward": lambda: pugd_optax.gradient_regularization(0.1, 0.1, "backward"),
    "cosine scale": lambda: pugd_optax.pugd(scale="cosine"),
    "dual norm 1": lambda: reevaluate(dual_norm(1), radius=0.1),
    "dual norm 1.5": lambda: reevaluate(dual_norm(1.5), radius=0.1),
    "dual norm inf": lambda: reevaluate(dual_norm(np.inf), radius=0.1),
    "low_variance": lambda: pugd_optax.sam(0.3, when=timing.low_variance(2, ratio=100.0, window=2)),
    "reuse": lambda: pugd_optax.pugd(idle="reuse", when=timing.every(2)),
    "sam_on": lambda: pugd_optax.sam_on(mask=WEIGHTS),
    "target_cosine": lambda: pugd_optax.sam(target_cosine(0.5)),
    "target_rise": lambda: pugd_optax.sam(target_rise(0.5)),
    "tensor by tensor": lambda: pugd_optax.looksam(per_tensor=True, every=2),
    "turning": lambda: pugd_optax.sam(0.3, when=timing.turning(0.9, probe=3)),
}
STEPS = 4
UNCHECKED = ("pugd", "gsam", "amp", "stable_sam", "ae_sam")


def run(tx: Any, p: Any, total: Any, **extra: Any) -> Any:
    """The outputs, radii and gate decisions of a few steps."""
    grad_fn = lambda p: gradient(p, total)
    state, found, loss = tx.init(p), [], value(params())
    for _ in range(STEPS):
        u, state = tx.update(grad_fn(p), state, p, grad_fn=grad_fn, value=loss, **extra)
        p = jax.tree.map(lambda w, x: w - 0.1 * x, p, u)
        found.append((u, [optax.tree.get(state, name) for name in ("radius", "active")]))
    return found


@pytest.mark.parametrize(("name", "check_vma"), [*((n, True) for n in METHODS), *((n, False) for n in UNCHECKED)])
def test_steps_are_those_of_one_device_with_the_whole(name, check_vma):
    tx = METHODS[name]()
    mesh = jax.make_mesh((4,), ("model",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])
    over = lambda x: jax.lax.psum(x, "model")
    split = lambda p: run(tx, p, over, norm_axis_name="model")
    p = params(gain=check_vma)
    spec = {k: SPEC[k] for k in p}
    specs = {"mesh": mesh, "in_specs": (spec,), "out_specs": [(spec, [P(), P()])] * STEPS, "check_vma": check_vma}
    found = jax.jit(jax.shard_map(split, **specs), compiler_options=QUICKLY)(p)
    whole = jax.jit(lambda p: run(tx, p, lambda x: x), compiler_options=QUICKLY)(p)
    chex.assert_trees_all_close(found, whole, rtol=1e-4, atol=1e-5)


def test_the_report_is_of_the_whole():
    tx = pugd_optax.pugd(report=True)
    mesh = jax.make_mesh((4,), ("model",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])

    def report(p, total=lambda x: x, **extra):
        grad_fn = lambda p: gradient(p, total)
        return tx.update(grad_fn(p), tx.init(p), p, grad_fn=grad_fn, **extra)[1].report

    split = lambda p: report(p, lambda x: jax.lax.psum(x, "model"), norm_axis_name="model")
    found = jax.jit(jax.shard_map(split, mesh=mesh, in_specs=(SPEC,), out_specs=P()))(params())
    chex.assert_trees_all_close(found, jax.jit(report)(params()), rtol=1e-5)


@pytest.mark.parametrize("name", ["sam", "zsharp", "dual norm 1.5"])
def test_leaves_may_be_split_over_different_axes(name):
    """On a mesh of two axes, a leaf that is split over one of them counts once along the other."""
    spec = {"w": P("model", "data"), "b": P("model"), "gain": P()}
    mesh = jax.make_mesh((2, 2), ("model", "data"), axis_types=(AxisType.Auto,) * 2, devices=jax.devices()[:4])
    cube, tx = (lambda p: jax.tree.map(lambda w: w**3, p)), METHODS[name]()
    p = {"w": params()["w"][:4], "b": params()["b"], "gain": jnp.float32(0.7)}

    def step(p, **extra):
        return tx.update(cube(p), tx.init(p), p, grad_fn=cube, **extra)[0]

    split = lambda p: step(p, norm_axis_name=("model", "data"))
    found = jax.jit(jax.shard_map(split, mesh=mesh, in_specs=(spec,), out_specs=spec), compiler_options=QUICKLY)(p)
    chex.assert_trees_all_close(found, step(p), rtol=1e-5)


@pytest.mark.parametrize("axes", [None, ()], ids=["None", "empty"])
def test_no_axis_is_one_device(axes):
    p, tx = params(), pugd_optax.zsharp()
    found = run(tx, p, lambda x: x, norm_axis_name=axes)
    chex.assert_trees_all_equal(found, run(tx, p, lambda x: x))


def test_the_gradient_by_hand_is_the_gradient():
    chex.assert_trees_all_close(jax.jit(gradient)(params()), jax.jit(jax.grad(value))(params()), rtol=1e-4, atol=1e-6)
