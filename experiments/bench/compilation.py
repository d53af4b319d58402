"""Compile time of a step of every method by number of tensors, relative to a step by hand with as many gradients."""

import dataclasses
import inspect
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import optax
from jax.flatten_util import ravel_pytree
from rich.console import Console
from rich.progress import track
from rich.table import Table

import pugd_optax
from experiments.bench.candidates import ours
from experiments.bench.problems import Problem, layers
from experiments.bench.result import check, write
from experiments.config.errors import pick
from experiments.report.plotting import styles
from pugd_optax import methods as all_methods

BAR = 1.5
MARKED = 5
"""The number of methods with the highest ratios that are coloured in the figure."""
_ONCE = ("esam", "noise_injection", "layerwise_noise", "nso", "perturbed_gradient_descent")
DRAWS = {**dict.fromkeys(_ONCE, 1), "anti_pgd": 2}
"""How many random numbers a method draws per parameter."""
GIVEN: dict[str, Any] = {"total_steps": 1000, "strength": 0.01, "num_classes": 10, "counts": range(10, 0, -1)}
"""Arguments for which methods have no default."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Measure the CPU seconds for tracing and compiling a step, for networks of 24 to 300 tensors."""

    leaves: tuple[int, ...] = (24, 60, 120, 240, 300)
    """Numbers of tensors."""
    only: tuple[str, ...] = ()
    """Methods to measure. Default: all methods of the package."""
    repeats: int = 1
    """Compilations of each; the fastest counts."""
    out: Path = Path("runs/bench")
    """Folder for the JSON file and the figure."""


def main(options: Options, console: Console) -> None:
    """Compile and write `compilation.json` and `compilation.png`."""
    check(options)
    methods = makers(options.only)
    _seconds(by_hand(1), layers(4), 1)  # one-time imports and compilations of JAX do not count
    works = {name: (_gradients(method), DRAWS.get(name, 0)) for name, method in methods.items()}
    rows = []
    for leaves in options.leaves:
        problem = layers(leaves)
        for name, method in track(methods.items(), f"{leaves} tensors", console=console):
            # Measured next to the method, because machines change their speed.
            floor = _seconds(by_hand(*works[name]), problem, options.repeats)
            seconds = _seconds(ours(method), problem, options.repeats)
            ratio, gradients = seconds / floor, works[name][0]
            rows.append({"method": name, "leaves": leaves, "gradients": gradients, "seconds": seconds, "ratio": ratio})
    console.print(_table(rows))
    write(options, "compilation", rows, _plot(rows), console)


def by_hand(gradients: int, draws: int = 0) -> Callable[[Problem], Any]:
    """A step with this many gradients, each at a point moved by the previous one, and the base update.

    For a method that draws noise, the first point is moved by as many vectors of normal numbers, split into the
    tensors.
    """

    def make(problem: Problem):
        tx = problem.base()

        def step(params, state, inputs, labels):
            at, (flat, unravel) = params, ravel_pytree(params)
            for i in range(draws):
                noise = jax.random.normal(jax.random.fold_in(jax.random.key(i), labels[0]), flat.shape)
                at = jax.tree.map(lambda w, x: w + 1e-3 * x, at, unravel(noise))
            g = jax.grad(problem.loss)(at, inputs, labels)
            for _ in range(gradients - 1):
                at = jax.tree.map(lambda w, x: w + 1e-3 * x, at, g)
                g = jax.grad(problem.loss)(at, inputs, labels)
            updates, state = tx.update(g, state, params)
            return optax.apply_updates(params, updates), state

        return step, tx.init

    return make


def makers(only: tuple[str, ...]) -> dict[str, Callable[[], optax.GradientTransformation]]:
    """Every method of the package with its defaults, and gradient regularisation by the exact derivative."""
    for name in only:
        pick("method", name, dict.fromkeys(all_methods.__all__))
    names = [name for name in all_methods.__all__ if not only or name in only]
    made = {name: _maker(getattr(pugd_optax, name)) for name in names}
    if "sam_on" in made:  # the network has no normalisation layers, so the biases are used instead
        biases = lambda params: jax.tree.map(lambda x: x.ndim == 1, params)
        made["sam_on"] = lambda: pugd_optax.sam_on(mask=biases)
    if "gradient_regularization" in made:
        made["gradient_regularization exact"] = lambda: pugd_optax.gradient_regularization(0.01, 0.1, "exact")
    return made


def _maker(method: Callable[..., Any]) -> Callable[[], optax.GradientTransformation]:
    needed = [name for name, p in inspect.signature(method).parameters.items() if p.default is p.empty]
    return lambda: method(**{name: GIVEN[name] for name in needed if name in GIVEN})


def _gradients(method: Callable[[], Any]) -> int:
    """How many gradients a step costs, by its operations on a small network, rounded up."""
    problem = layers(4)
    batch = {
        "losses_fn": lambda p: problem.losses(p, problem.inputs, problem.labels),
        "logits_fn": lambda p: problem.logits_fn(p, problem.inputs),
        "labels": problem.labels,
    }
    loss_fn = lambda p: problem.loss(p, problem.inputs, problem.labels)
    report = pugd_optax.diagnostics.delta_report(method(), loss_fn, problem.params, active=True, **batch)
    return math.ceil((report.cost or 1) - 0.25)


def _seconds(make: Callable[[Problem], Any], problem: Problem, repeats: int) -> float:
    """CPU seconds of this process over all threads, so that other work on the machine does not count."""
    found = []
    for _ in range(repeats):
        step, init = make(problem)
        start = (problem.params, init(problem.params), problem.inputs, problem.labels)
        jax.block_until_ready(jnp.zeros(()))
        clock = time.process_time()
        jax.jit(step, donate_argnums=(0, 1)).lower(*start).compile()
        found.append(time.process_time() - clock)
    return min(found)


def _table(rows: list[dict]) -> Table:
    sizes = sorted({row["leaves"] for row in rows})
    table = Table(title=f"CPU seconds of tracing and compiling; over a step by hand, {BAR} is the bar")
    table.add_column("method")
    table.add_column("gradients", justify="right")
    for leaves in sizes:
        table.add_column(f"{leaves} tensors", justify="right")
    for name in dict.fromkeys(row["method"] for row in rows):
        mine = {row["leaves"]: row for row in rows if row["method"] == name}
        cells = [f"{mine[n]['seconds']:.1f} ({mine[n]['ratio']:.2f})" for n in sizes]
        table.add_row(name, str(mine[sizes[0]]["gradients"]), *cells)
    return table


def _plot(rows: list[dict]):
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
    top = sorted(rows, key=lambda row: -row["ratio"])
    highest = list(dict.fromkeys(row["method"] for row in top))[:MARKED]
    style = styles(["sam", "pugd", *highest])
    for name in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == name]
        look: dict[str, Any] = {"color": "0.7", "linewidth": 0.8}
        if name in style:
            look = {"label": name, "zorder": 3, "color": style[name][0], "linestyle": style[name][1]}
        left.plot([row["leaves"] for row in mine], [row["seconds"] for row in mine], marker=".", **look)
        right.plot([row["leaves"] for row in mine], [row["ratio"] for row in mine], marker=".", **look)
    left.set(xlabel="tensors", ylabel="CPU seconds")
    right.set(xlabel="tensors", ylabel="over a step by hand of as many gradients", ylim=(0, None))
    right.axhline(BAR, color="black", linewidth=1)
    left.legend(frameon=False, title="grey: all other methods")
    return figure
