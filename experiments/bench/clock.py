"""Interleaved timing: all candidates in turn, repeatedly, so that a slow moment of the machine affects all of them."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench.problems import Problem
from experiments.runs.memory import give_back


class Compiled(NamedTuple):
    """A compiled step with its starting state, and what the compiler reports about it."""

    run: Callable[..., Any]
    start: Any
    compile_seconds: float
    flops: float
    bytes: float
    temporary_bytes: int


def compile_step(make: Callable[[Problem], Any], problem: Problem) -> Compiled:
    """Compile a candidate's step on a problem, its parameters and state donated."""
    step, init = make(problem)
    params = jax.tree.map(jnp.copy, problem.params)
    start = (params, init(params))
    clock = time.perf_counter()
    lowered = jax.jit(step, donate_argnums=(0, 1)).lower(*start, problem.inputs, problem.labels)
    compiled = lowered.compile()
    seconds = time.perf_counter() - clock
    give_back()
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
    temporary = memory.temp_size_in_bytes if memory else 0
    flops, accessed = (float(cost.get(key, np.nan)) for key in ("flops", "bytes accessed"))
    return Compiled(compiled, start, seconds, flops, accessed, temporary)


def runner(step: Compiled, problem: Problem, calls: int) -> Callable[[], Any]:
    """A function that takes a number of steps from where its last call ended, and blocks until the state is ready."""
    state = step.start

    def run() -> Any:
        nonlocal state
        for _ in range(calls):
            state = step.run(*state, problem.inputs, problem.labels)
        return jax.block_until_ready(state)

    return run


def calls(step: Compiled, problem: Problem, seconds: float = 0.2) -> int:
    """The number of steps, 1 to 100, that take about this many seconds."""
    run = runner(step._replace(start=jax.tree.map(jnp.copy, step.start)), problem, calls=1)  # a step donates its state
    run()
    clock = time.perf_counter()
    run()
    return int(np.clip(seconds / (time.perf_counter() - clock), 1, 100))


def interleave(runs: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, np.ndarray]:
    """Seconds of every run, [repeats], after an untimed round; every other round is in reverse order."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for i in range(repeats):
        for name in list(runs)[:: 1 if i % 2 else -1]:
            clock = time.perf_counter()
            runs[name]()
            seconds[name].append(time.perf_counter() - clock)
    return {name: np.array(values) for name, values in seconds.items()}


def ratio(seconds: np.ndarray, reference: np.ndarray) -> tuple[float, float, float]:
    """Median and quartiles of the ratios, computed for each repeat."""
    low, median, high = np.percentile(seconds / reference, [25, 50, 75])
    return float(median), float(low), float(high)
