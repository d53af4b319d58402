"""The cost of a run that perturbs on a fraction of its steps, compared with 1 + f runs of SGD at fraction f."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from rich.console import Console
from rich.table import Table

import pugd_optax
from experiments.bench import clock
from experiments.bench.candidates import ours, plain
from experiments.bench.problems import Problem, problem as named_problem
from experiments.bench.result import check, write
from experiments.report.plotting import PALETTE
from experiments.runs.memory import keep_freed

FRACTIONS = (0.0, 0.1, 0.25, 0.5, 1.0)
BAR = 1.03


@dataclasses.dataclass(frozen=True)
class Options:
    """Time whole runs of RTS-PUGD at several active fractions against whole runs of SGD, interleaved."""

    problems: tuple[str, ...] = ("resnet8:32", "mlp512:1024")
    """Networks, as network:batch or network:batch:dtype."""
    steps: int = 20
    """Steps per run."""
    repeats: int = 8
    """Interleaved repeats; medians and quartiles are over these."""
    out: Path = Path("runs/bench")
    """Folder for the JSON file and the figure."""


def main(options: Options, console: Console) -> None:
    """Run every problem and write `fraction.json` and `fraction.png`."""
    check(options)
    keep_freed()
    results = [_measure(text, options, console) for text in options.problems]
    write(options, "fraction", results, _plot(results), console)


def spread_out(fraction: float, steps: int) -> np.ndarray:
    """Bool [steps], a fraction of them active, evenly spaced.

    Example:
      >>> spread_out(0.25, 8).astype(int).tolist()
      [0, 0, 0, 1, 0, 0, 0, 1]
    """
    return np.diff(np.floor(fraction * np.arange(steps + 1) + 1e-9)) > 0


def rts(plan: np.ndarray) -> optax.GradientTransformation:
    """RTS-PUGD with the plan as its gate, repeated."""
    table = jnp.asarray(plan)
    return pugd_optax.rts_pugd(len(plan), when=lambda step: table[step % len(plan)])


def static(problem: Problem, plan: np.ndarray) -> Callable[[], Any]:
    """Two compiled steps; Python decides which one to call."""
    steps = {on: clock.compile_step(ours(lambda: rts(plan), active=bool(on)), problem) for on in np.unique(plan)}
    state = next(iter(steps.values())).start

    def run() -> Any:
        nonlocal state
        for on in plan:
            state = steps[on].run(*state, problem.inputs, problem.labels)
        return jax.block_until_ready(state)

    return run


def traced(problem: Problem, plan: np.ndarray) -> Callable[[], Any]:
    """One compiled step; the gate decides in a `lax.cond`."""
    return clock.runner(clock.compile_step(ours(lambda: rts(plan)), problem), problem, len(plan))


def scanned(problem: Problem, plan: np.ndarray) -> Callable[[], Any]:
    """The whole run in one call: a `lax.scan` over steps whose gate decides in a `lax.cond`."""

    def make(problem: Problem):
        step, init = ours(lambda: rts(plan))(problem)

        def steps(params: Any, state: Any, inputs: jax.Array, labels: jax.Array):
            once = lambda carry, _: (step(carry[0], carry[1], inputs, labels), None)
            return jax.lax.scan(once, (params, state), length=len(plan))[0]

        return steps, init

    return clock.runner(clock.compile_step(make, problem), problem, 1)


def _measure(text: str, options: Options, console: Console) -> dict:
    problem = named_problem(text)
    gates = {"two steps": static, "cond": traced, "cond in scan": scanned}
    console.print(f"{problem.name}: compiling {len(gates) * len(FRACTIONS) + 1} runs")
    plans = {fraction: spread_out(fraction, options.steps) for fraction in FRACTIONS}
    runs = {(g, f): make(problem, plans[f]) for g, make in gates.items() for f in FRACTIONS}
    sgd = clock.runner(clock.compile_step(plain, problem), problem, options.steps)
    seconds = clock.interleave({"SGD": sgd, **{f"{g} {f}": run for (g, f), run in runs.items()}}, options.repeats)
    rows = [_row(g, f, plans[f].mean(), seconds[f"{g} {f}"], seconds["SGD"]) for g, f in runs]
    console.print(_table(problem.name, rows))
    return {"problem": problem.name, "sgd_milliseconds": 1e3 * float(np.median(seconds["SGD"])), "rows": rows}


def _row(gate: str, fraction: float, share: float, seconds: np.ndarray, sgd: np.ndarray) -> dict:
    median, low, high = clock.ratio(seconds, sgd)
    over = median / (1 + float(share))
    return {"gate": gate, "fraction": fraction, "ratio": median, "quartiles": [low, high], "over": over, "bar": BAR}


def _table(title: str, rows: list[dict]) -> Table:
    table = Table(title=f"{title}: time of a run over a run of SGD, and over 1 + fraction of them (bar {BAR})")
    for column in ("gate", "fraction", "over SGD", "quartiles", "over (1 + f) SGD", ""):
        table.add_column(column, justify="left" if column == "gate" else "right")
    for row in rows:
        quartiles = "{:.2f}-{:.2f}".format(*row["quartiles"])
        met = "met" if row["over"] <= BAR else "over"
        table.add_row(row["gate"], f"{row['fraction']:g}", f"{row['ratio']:.3f}", quartiles, f"{row['over']:.3f}", met)
    return table


def _plot(results: list[dict]):
    figure, axes = plt.subplots(1, len(results), figsize=(5.5 * len(results), 4.5), squeeze=False, layout="constrained")
    for axis, result in zip(axes[0], results, strict=True):
        axis.plot([0, 1], [1, 2], color="0.4", linewidth=1, label="1 + fraction")
        axis.fill_between([0, 1], [1, 2], [BAR, 2 * BAR], color="0.88", label="within 3 %")
        for i, gate in enumerate(dict.fromkeys(row["gate"] for row in result["rows"])):
            rows = [row for row in result["rows"] if row["gate"] == gate]
            ratios = np.array([row["ratio"] for row in rows])
            spread = np.abs(np.array([row["quartiles"] for row in rows]).T - ratios)
            at = np.array([row["fraction"] for row in rows]) + 0.012 * (i - 1)
            axis.errorbar(
                at,
                ratios,
                spread,
                fmt="osD"[i],
                color=PALETTE[i],
                markersize=4.5,
                capsize=2,
                elinewidth=0.8,
                label=gate,
            )
        axis.set_title(result["problem"])
        axis.set_xlabel("active fraction: share of the steps that evaluate a second gradient")
        axis.set_ylabel("time of a run, SGD's is 1")
        axis.legend(frameon=False)
    return figure
