"""The page: the best methods on each task, in words and as a table."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.claims.claim import Trainings
from experiments.compare.figure import draw
from experiments.compare.ranks import Ranks, ranks
from experiments.compare.tasks import PLAIN
from experiments.files import write_text
from experiments.report.stats import below, show
from experiments.report.tables import markdown_table

NEAR = 1.0
"""A method is named next to the best if its mean is at most this many points lower."""
Results = Mapping[str, Mapping[str, Mapping[str, list[float]]]]
"""Task -> method -> number -> one value per seed."""


def write(saved: Mapping[str, Any], folder: Path) -> Path:
    """Write `compare.md` and `compare.png` from the saved numbers."""
    results: Results = saved["tasks"]
    everywhere = [name for name in next(iter(results.values())) if all(name in methods for methods in results.values())]
    found = ranks({name: _scores(results, name) for name in everywhere})
    gains = {task: {name: _gain(methods, name) for name in everywhere} for task, methods in results.items()}
    draw(found, gains, folder / "compare.png")
    tasks = ranks({name: [_mean(of[name]) for of in results.values()] for name in everywhere})
    parts = [
        _head(saved, found),
        _across(tasks),
        *(_task(task, methods) for task, methods in results.items()),
        _table(results, found),
    ]
    write_text(folder / "compare.md", "\n".join(parts))
    return folder / "compare.md"


def _scores(results: Results, name: str) -> list[float]:
    """Test accuracies of all tasks and seeds."""
    return [value for methods in results.values() for value in methods[name]["test %"]]


def _mean(columns: Mapping[str, list[float]]) -> float:
    """Mean test accuracy; NaN if a run diverged, because the others are not a sample of all."""
    return float(np.mean(columns["test %"]))


def _gain(methods: Mapping[str, Mapping[str, list[float]]], name: str) -> float:
    return _mean(methods[name]) - _mean(methods[PLAIN])


def _head(saved: Mapping[str, Any], found: Ranks) -> str:
    first, leaders = next(iter(found.mean)), found.leaders
    place = list(found.mean).index(PLAIN) + 1
    about = saved["environment"]
    commit = str(about["commit"])[:12]
    plain = "among them" if PLAIN in leaders else "not among them"
    return f"""# Every method at one budget

Written by `{saved["command"]}`; do not edit. Plain training (`{PLAIN}`) and every method with its defaults, each for
the epochs that the same number of gradient evaluations pays. The network is an MLP if the task names no other, the
optimizer SGD with momentum, on the vision transformer (ViT) AdamW. The learning rate, and nothing else, is chosen by
validation accuracy on the first half of the training data; test accuracy is that after the last epoch of fresh seeds on
the second half. Blocks of the ranks are a task and a seed ({found.blocks}). A method that takes part in some tasks
alone has no rank. Test sets are balanced.

`{first}` has the best mean rank, {found.mean[first]:.1f}; plain training is number {place} of {len(found.mean)}. By
Nemenyi's test at 5 % {len(leaders)} methods, plain training {plain}, cannot be distinguished from the best (Friedman:
p = {found.p:.1g}): {", ".join(f"`{name}`" for name in leaders)}.

![Mean ranks, and gains over plain training](compare.png)

JAX {about["packages"]["jax"]}, {about["device"]}, {about["cores"]} cores, commit {commit}{_trained(saved)}.
"""


def _trained(saved: Mapping[str, Any]) -> str:
    """On which machines; empty for numbers saved before this was recorded."""
    trainings = Trainings(**saved["trainings"]) if saved.get("trainings") else None
    return f"; {trainings.count} trainings{trainings.where}" if trainings else ""


def _across(tasks: Ranks) -> str:
    """What the tasks alone say: the seeds of a task are not a sample of tasks."""
    if tasks.blocks < 2:
        return ""
    apart = f"{len(tasks.leaders)} of {len(tasks.mean)} methods cannot be distinguished from the best"
    return f"""The seeds of a task show how certain a rank is on this task, not on others: with only the
{tasks.blocks} tasks as blocks, {apart} (Friedman: p = {tasks.p:.1g}). The ranks are about these tasks.
"""


def _task(task: str, methods: Mapping[str, Mapping[str, list[float]]]) -> str:
    """The best methods of a task, those close to the best, and those that diverged at some seed."""
    means = {name: _mean(columns) for name, columns in methods.items()}
    ordered = sorted((name for name in means if not np.isnan(means[name])), key=lambda name: -means[name])
    best = means[ordered[0]]
    near = ", ".join(f"`{name}` {means[name]:.1f}" for name in ordered if means[name] > best - NEAR)
    lower = [name for name in ordered if below(methods[name]["test %"], methods[PLAIN]["test %"])]
    worse = ", ".join(f"`{name}`" for name in lower) or "none"
    failed = ", ".join(f"`{name}`" for name in means if name not in ordered)
    plain = f"{means[PLAIN]:.1f}." + (f" Diverged: {failed}." if failed else "")
    return f"""## {task[0].upper()}{task[1:]}

Within a point of the best: {near}. Plain training: {plain} Below plain training by a paired 95 % interval,
uncorrected: {worse}.
"""


def _table(results: Results, found: Ranks) -> str:
    """A row for each method: rank, accuracy on each task, gradient evaluations relative to plain training."""
    cells = [["method", "mean rank", *results, "gradients / plain"]]
    for name, rank in found.mean.items():
        spent = lambda methods, name: np.nanmedian(methods[name]["gradient evaluations"])
        cost = np.mean([spent(methods, name) / spent(methods, PLAIN) for methods in results.values()])
        accuracy = [show(methods[name]["test %"]) for methods in results.values()]
        cells.append([f"`{name}`", f"{rank:.1f}", *accuracy, f"{cost:.2f}"])
    return "## All of them\n\n" + markdown_table(cells)
