"""Accuracy against cost: what remains of the effect of a perturbed gradient when it costs less than two.

500 handwritten digits, a fifth of their labels wrong, ResNet-8 with GroupNorm, batch 50, momentum 0.9, weight decay
5e-4, cosine learning rate, as in the demo. Every arm chooses among four settings, two learning rates and two
strengths, by the mean validation accuracy of the last epoch, on seeds that are not used again. The test set is read
once a seed, with the last parameters.
"""

import dataclasses
import itertools
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from rich.console import Console
from rich.table import Table

from experiments.bench import trial
from experiments.bench.arms import ARMS
from experiments.bench.result import check, write
from experiments.config.errors import pick
from experiments.report.stats import interval

RATES = (0.05, 0.15)
Setting = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Options:
    """Accuracy against cost of everything that is cheaper than two gradients; about 10 minutes."""

    only: tuple[str, ...] = ()
    """Names of arms to keep. Default: all."""
    epochs: int = 20
    """Passes over the training examples."""
    choosing: int = 2
    """Seeds on which the settings of an arm are chosen."""
    seeds: int = 5
    """Seeds that are reported."""
    out: Path = Path("runs/bench")
    """Folder of the JSON and the picture."""


def main(options: Options, console: Console) -> None:
    """Choose, train, and write `pareto.json` and `pareto.png`."""
    check(options)
    rows = measure(options, console)
    console.print(_table(rows))
    write(options, "pareto", rows, _plot(rows), console)


def measure(options: Options, console: Console) -> list[dict]:
    """Choose the settings of every arm, then train it on fresh seeds; seeds are the outer loop."""
    arms = {name: pick("arm", name, ARMS) for name in (["SGD", *options.only] if options.only else ARMS)}
    ready = {name: trial.prepare(arm, options.epochs) for name, arm in arms.items()}
    console.print(f"{len(ready)} arms compiled")
    tried: dict[str, dict[Setting, list[float]]] = {
        name: {setting: [] for setting in itertools.product(RATES, arm.strengths)} for name, arm in arms.items()
    }
    for seed, name in itertools.product(range(100, 100 + options.choosing), arms):
        for setting, found in tried[name].items():
            params, _ = trial.run(ready[name], seed, *setting)
            found.append(float(trial.accuracy(params, trial.load(seed)[1])))
    chosen = {name: max(found, key=lambda setting: float(np.mean(found[setting]))) for name, found in tried.items()}
    console.print("settings chosen")
    ends: dict[str, list[tuple[float, float]]] = {name: [] for name in arms}
    for seed, name in itertools.product(range(options.seeds), arms):
        params, seconds = trial.run(ready[name], seed, *chosen[name])
        ends[name].append((float(trial.accuracy(params, trial.load(seed)[2])), seconds))
    one = {name: ready[name].flops / ready["SGD"].flops for name in arms}
    times = {name: np.array([seconds for _, seconds in ends[name]]) for name in arms}
    return [
        {
            "name": name,
            "learning_rate": chosen[name][0],
            "strength": chosen[name][1],
            "validation": [{"setting": setting, "accuracy": found} for setting, found in tried[name].items()],
            "test": [accuracy for accuracy, _ in ends[name]],
            "cost": one[name],
            "time": float(np.median(times[name] / times["SGD"])),
        }
        for name in arms
    ]


def _table(rows: list[dict]) -> Table:
    table = Table(title="digits, a fifth of the labels wrong; cost of a run, SGD's is 1")
    for column in ("arm", "gradients", "time", "test % (95 %)", "over SGD", "learning rate", "strength"):
        table.add_column(column, justify="left" if column == "arm" else "right", no_wrap=True)
    plain = np.array(rows[0]["test"])
    for row in rows:
        test = np.array(row["test"])
        mean, half, _ = interval(100 * test)
        gain, gap, _ = interval(100 * (test - plain))
        table.add_row(
            row["name"],
            f"{row['cost']:.2f}",
            f"{row['time']:.2f}",
            f"{mean:.1f} ± {half:.1f}",
            f"{gain:+.1f} ± {gap:.1f}" if row is not rows[0] else "",
            f"{row['learning_rate']:g}",
            f"{row['strength']:g}",
        )
    return table


def _plot(rows: list[dict]):
    figure, panels = plt.subplots(1, 2, figsize=(12, 5), sharey=True, layout="constrained")
    ends = [interval(100 * np.array(row["test"])) for row in rows]
    for panel, key, label in zip(panels, ("cost", "time"), ("gradient evaluations", "time"), strict=True):
        costs = np.array([row[key] for row in rows])
        for i, (row, cost, end) in enumerate(zip(rows, costs, ends, strict=True)):
            style = {"color": f"C{i % 10}", "marker": "os^D"[i // 4 % 4], "markersize": 7, "capsize": 2}
            beside = 0.02 * np.sum(np.abs(costs[:i] - cost) < 0.02)  # arms of one price, side by side
            panel.errorbar(
                cost + beside, end.mean, end.half, linestyle="none", elinewidth=0.8, label=row["name"], **style
            )
        best = np.maximum.accumulate([end.mean for end, _ in sorted(zip(ends, costs, strict=True), key=lambda x: x[1])])
        panel.step(np.sort(costs), best, where="post", color="0.6", linewidth=1, zorder=0)
        panel.set_xlabel(f"{label} of a run (SGD: 1)")
        panel.grid(color="0.92", linewidth=0.6)
    panels[0].set_ylabel("test accuracy % of the last epoch, mean and 95 % interval")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=9)
    return figure
