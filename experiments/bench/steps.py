"""One step of every method against a lower bound and other implementations, interleaved: compile, time, compare."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import matplotlib.pyplot as plt
import numpy as np
from rich.console import Console
from rich.table import Table

from experiments.bench import all_devices, clock
from experiments.bench.candidates import COMPARISONS, STEPS, Comparison
from experiments.bench.problems import Problem, problem as named_problem
from experiments.bench.result import check, write
from experiments.config.errors import UsageError, pick
from experiments.runs.memory import keep_freed

PEERS = [
    Comparison("SGD", "PyTorch SGD"),
    Comparison("sam", "PyTorch SAM"),
    Comparison("SGD, all devices", "PyTorch SGD", 1.0),
    Comparison("sam, all devices", "PyTorch SAM", 1.0),
    Comparison("PyTorch SAM", "PyTorch SGD"),
]
Peers = Callable[[Problem, int], dict[str, Callable[[], Any]]]


@dataclasses.dataclass(frozen=True)
class Options:
    """Time one step of every method against a lower bound and against other implementations, interleaved."""

    problems: tuple[str, ...] = (
        "resnet8:128", "transformer:16", "mlp512:1024", "mlp512:128", "table:256", "logistic:64",
    )  # fmt: skip
    """Networks, as network:batch or network:batch:dtype; on an accelerator resnet18:128:bfloat16,
    resnet50:128:bfloat16, vit_tiny:128:bfloat16, transformer:64:bfloat16."""
    only: tuple[str, ...] = ()
    """Names of the steps to measure, together with the steps they are compared with. Default: all."""
    torch: bool = False
    """Also time SGD and SAM written in PyTorch (extra `torch`), for the MLPs and resnet8/18/20/32/56; on a GPU compiled
    by torch.compile. On a CPU also the steps of the trainer: each core is a device, and the batch is split."""
    repeats: int = 16
    """Interleaved repeats; medians and quartiles are over these."""
    calls: int | None = None
    """Steps per repeat. Default: as many as the cheapest step can do in about 0.2 s, at most 100."""
    out: Path = Path("runs/bench")
    """Folder for the JSON file and the figure."""


def main(options: Options, console: Console) -> None:
    """Run the benchmark of every problem; `steps.json` and `steps.png` are extended after each."""
    check(options)
    keep_freed()
    peers = _peers(console) if options.torch else None
    results = []
    for text in options.problems:
        results.append(_measure(named_problem(text), options, peers, console))
        write(options, "steps", results, _plot(results), console)  # now, as the next may be interrupted


def _peers(console: Console) -> Peers | None:
    """The steps in PyTorch, which is imported only here, and those on all devices; idle threads sleep."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        from experiments.bench.torch_peer import runners
    except ImportError as error:
        console.print(f"PyTorch peers left out: {error}. Fix: pip install '.[torch]'", markup=False)
        return None
    all_devices.make_devices()
    return lambda problem, calls: runners(problem, calls) | all_devices.runners(problem, calls)


def _measure(problem: Problem, options: Options, peers: Peers | None, console: Console) -> dict:
    judged = _kept(options.only)
    names = list(dict.fromkeys(name for c in judged for name in (c.against, c.name)))
    console.print(f"{problem.name}: compiling {len(names)} steps")
    steps = {name: clock.compile_step(STEPS[name], problem) for name in names}
    calls = options.calls or clock.calls(min(steps.values(), key=lambda step: step.flops), problem)
    runs = {name: clock.runner(step, problem, calls) for name, step in steps.items()}
    if peers is not None:
        try:
            runs |= peers(problem, calls)
            judged = judged + [c for c in PEERS if {c.name, c.against} <= set(runs)]
        except UsageError as reason:
            console.print(f"PyTorch peers left out: {reason}")
    seconds = {name: total / calls for name, total in clock.interleave(runs, options.repeats).items()}
    rows = [_row(c, problem, steps, seconds) for c in judged]
    console.print(_table(problem.name, rows))
    return {"problem": problem.name, "parameters": problem.size, "calls": calls, "rows": rows}


def _kept(only: tuple[str, ...]) -> list[Comparison]:
    known = {c.name: c for c in COMPARISONS}
    for name in only:
        pick("step", name, known)
    return [c for c in COMPARISONS if not only or c.name in only]


def _row(c: Comparison, problem: Problem, steps: dict[str, clock.Compiled], seconds: dict[str, np.ndarray]) -> dict:
    median, low, high = clock.ratio(seconds[c.name], seconds[c.against])
    row = {
        "name": c.name,
        "against": c.against,
        "milliseconds": 1e3 * float(np.median(seconds[c.name])),
        "ratio": median,
        "quartiles": [low, high],
        "bar": c.bar_on(problem.kind),
    }
    if c.name in steps and c.against in steps:
        step, reference = steps[c.name], steps[c.against]
        row |= {
            "flops": step.flops / reference.flops,
            "bytes": step.bytes / reference.bytes,
            "temporary_copies": step.temporary_bytes / (4 * problem.size),
        }
        if not jax.config.jax_compilation_cache_dir:  # pyright: ignore[reportAttributeAccessIssue]
            row["compile_seconds"] = step.compile_seconds
    return row


def _table(title: str, rows: list[dict]) -> Table:
    table = Table(title=title)
    for column in ("step", "to", "ms", "ratio", "quartiles", "bar", "FLOPs", "bytes", "temp", "compile"):
        table.add_column(column, justify="left" if column in ("step", "to") else "right", no_wrap=True)
    for row in rows:
        met = row["bar"] is None or row["ratio"] <= row["bar"]
        compiled = ("flops", "bytes", "temporary_copies", "compile_seconds")
        table.add_row(
            row["name"],
            row["against"],
            f"{row['milliseconds']:.2f}",
            f"{row['ratio']:.3f}",
            "{:.2f}-{:.2f}".format(*row["quartiles"]),
            "" if row["bar"] is None else f"{row['bar']:.2f} {'met' if met else 'over'}",
            *(f"{row[key]:.2f}" if key in row else "" for key in compiled),
        )
    return table


def _plot(results: list[dict]):
    rows, columns = -(-len(results) // 3), min(len(results), 3)
    size = (6 * columns, rows * (1.5 + 0.34 * max(len(result["rows"]) for result in results)))
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for axis in axes.flat[len(results) :]:
        axis.set_axis_off()
    for axis, result in zip(axes.flat, results, strict=False):
        rows = result["rows"][::-1]
        ratios = np.array([row["ratio"] for row in rows])
        spread = np.abs(np.array([row["quartiles"] for row in rows]).T - ratios)
        colors = ["tab:blue" if row["bar"] is None or row["ratio"] <= row["bar"] else "tab:red" for row in rows]
        axis.barh(range(len(rows)), ratios, xerr=spread, color=colors, height=0.6, error_kw={"elinewidth": 1})
        for i, row in enumerate(rows):
            if row["bar"] is not None:
                axis.plot([row["bar"]] * 2, [i - 0.4, i + 0.4], color="black", linewidth=2)
        axis.set_yticks(range(len(rows)), [f"{row['name']} / {row['against']}" for row in rows], fontsize=8)
        axis.set_title(result["problem"])
        axis.set_xlabel("ratio of times (black: the bar; whiskers: quartiles)")
        axis.axvline(1, color="grey", linewidth=0.8)
        axis.margins(y=0.01)
    return figure
