"""Steps with the batch split over all devices, as in the trainer; on a CPU a device is a core."""

import contextlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import pugd_optax
from experiments.bench.problems import Problem
from experiments.training.parallel import Layout, everywhere, layout
from experiments.training.side_by_side import cores

METHODS: dict[str, Callable[[], Any]] = {"SGD, all devices": optax.identity, "sam, all devices": pugd_optax.sam}


def make_devices() -> None:
    """Split the CPU into as many devices as there are cores, unless JAX has already started."""
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", cores())


def runners(problem: Problem, calls: int) -> dict[str, Callable[[], Any]]:
    """Functions that take a number of steps, by the name of the step; none if the devices do not divide the batch."""
    batch = len(problem.inputs)
    if jax.device_count() == 1 or batch % jax.device_count():
        return {}
    on = layout("jit", batch)
    return {name: _runner(problem, method(), on, calls) for name, method in METHODS.items()}


def _runner(problem: Problem, method: optax.GradientTransformation, on: Layout, calls: int) -> Callable[[], Any]:
    tx = optax.with_extra_args_support(optax.chain(method, problem.base()))

    def step(state: Any, data: Any, feed: Any, key: jax.Array, val_loss: jax.Array, *, active: bool | None):
        del data, key, val_loss, active
        params, opt_state = state
        grad_fn = lambda p: jax.grad(problem.loss)(p, *feed)
        updates, opt_state = tx.update(grad_fn(params), opt_state, params, grad_fn=grad_fn)
        return (optax.apply_updates(params, updates), opt_state), ()

    program, params = on.compiled(step), jax.tree.map(jnp.copy, problem.params)
    state = everywhere(on.mesh, (params, tx.init(params)))
    feed = jax.tree.map(lambda x: np.asarray(x)[None], (problem.inputs, problem.labels))

    def run() -> Any:
        nonlocal state
        for _ in range(calls):
            state, _ = program(state, (), feed, jax.random.key(0), np.float32(0), active=None)
        return jax.block_until_ready(state)

    return run
