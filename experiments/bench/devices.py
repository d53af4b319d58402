"""Communication of a step over several devices: collectives in the program, operations and bytes of each device.

These are counted, not timed: simulated devices on one host share its cores, so their times are meaningless.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

import pugd_optax
from experiments.bench.problems import Problem, mlp, momentum

METHODS: dict[str, Callable[[], Any]] = {"SGD": optax.identity, "sam": pugd_optax.sam, "pugd": pugd_optax.pugd}
COUNTS = (1, 2, 4, 8)


def rows(counts: tuple[int, ...] = COUNTS, width: int = 512, batch: int = 128) -> list[dict]:
    """Every method on every number of devices, with the global and with the local perturbation."""
    problem = mlp(width, batch)
    spellings = {"global": _global, "local": _local}
    return [
        {"method": method, "perturbation": name, "devices": count} | _count(make(problem, tx(), count))
        for method, tx in METHODS.items()
        for name, make in spellings.items()
        for count in counts
    ]


def rows_on_enough_devices() -> list[dict]:
    """The rows; on a CPU with too few devices, from a separate process with enough host devices."""
    if len(jax.devices()) >= max(COUNTS) or jax.default_backend() != "cpu":
        return rows(tuple(count for count in COUNTS if count <= len(jax.devices())))
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={max(COUNTS)}"
    command = [sys.executable, "-m", "experiments.bench.devices"]
    done = subprocess.run(command, env={**os.environ, "XLA_FLAGS": flags}, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def _global(problem: Problem, method: Any, count: int):
    """`jit` on a batch that is split over the devices: gradient and perturbation are those of the whole batch."""
    mesh = Mesh(np.array(jax.devices()[:count]), "data")
    tx = optax.chain(method, momentum())

    def step(params, state, inputs, labels):
        grad_fn = lambda p: jax.grad(problem.loss)(p, inputs, labels)
        updates, state = tx.update(grad_fn(params), state, params, grad_fn=grad_fn)
        return optax.apply_updates(params, updates), state

    split, whole = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
    jitted = jax.jit(step, in_shardings=(whole, whole, split, split), out_shardings=whole)
    return jitted.lower(problem.params, tx.init(problem.params), problem.inputs, problem.labels).compile()


def _local(problem: Problem, method: Any, count: int):
    """`shard_map`: each device perturbs with the gradient of its own examples (m-sharpness)."""
    mesh = Mesh(np.array(jax.devices()[:count]), "data")
    gradient = pugd_optax.value_and_grad(problem.loss, method, axis_name="data")
    tx = momentum()

    def step(params, states, inputs, labels):
        _, grads, perturbation = gradient(params, states[0], inputs, labels)
        updates, state = tx.update(grads, states[1], params)
        return optax.apply_updates(params, updates), (perturbation, state)

    specs = (P(), P(), P("data"), P("data"))
    mapped = jax.jit(jax.shard_map(step, mesh=mesh, in_specs=specs, out_specs=P()))
    states = (gradient.init(problem.params), tx.init(problem.params))
    return mapped.lower(problem.params, states, problem.inputs, problem.labels).compile()


def _count(compiled: Any) -> dict:
    cost = compiled.cost_analysis() or {}
    sent = [line for line in compiled.as_text().splitlines() if re.search(r" all-reduce(-start)?\(", line)]
    return {
        "all_reduces": len(sent),
        "floats_sent": sum(map(_floats, sent)),
        "flops": float(cost.get("flops", np.nan)),
        "bytes": float(cost.get("bytes accessed", np.nan)),
    }


def _floats(line: str) -> int:
    """Number of floats in the result of one instruction, `%name = (f32[2,3]{1,0}, f32[]) all-reduce(...)`."""
    shapes = re.findall(r"f\d+\[([\d,]*)\]", line.split(" all-reduce")[0])
    return sum(int(np.prod([int(n) for n in shape.split(",") if n])) for shape in shapes)


if __name__ == "__main__":
    print(json.dumps(rows()))
