"""How the cost of a perturbed step grows with parameters, batch and devices: time, operations, memory, compile time."""

import dataclasses
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from rich.console import Console
from rich.table import Table

from experiments.bench import clock
from experiments.bench.candidates import STEPS
from experiments.bench.devices import rows_on_enough_devices
from experiments.bench.problems import Problem, mlp
from experiments.bench.result import check, write
from experiments.report.plotting import styles
from experiments.runs.memory import keep_freed

FLOOR = "two gradients"
SHOWN = ("sam", "sam, report", "pugd")


@dataclasses.dataclass(frozen=True)
class Options:
    """Measure how the cost of a step of SAM and PUGD grows, on an MLP, relative to two gradients by hand."""

    widths: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048)
    """Widths, measured at the first batch size that is at least 128."""
    batches: tuple[int, ...] = (32, 128, 512, 2048)
    """Batch sizes, measured at width 512 or the largest width below it."""
    devices: bool = True
    """Also count collectives, FLOPs and bytes over 1, 2, 4 and 8 devices, in the compiled program."""
    repeats: int = 10
    """Interleaved repeats; medians and quartiles are over these."""
    out: Path = Path("runs/bench")
    """Folder for the JSON file and the figure."""


def main(options: Options, console: Console) -> None:
    """Measure the curves and write `growth.json` and `growth.png`."""
    check(options)
    keep_freed()
    width = max([w for w in options.widths if w <= 512] or options.widths)
    batch = min([b for b in options.batches if b >= 128] or options.batches)
    sizes = [("parameters", w, batch) for w in options.widths] + [("batch", width, b) for b in options.batches]
    rows = [row for axis, w, b in sizes for row in _rows(axis, mlp(w, b), options.repeats)]
    console.print(_table(rows))
    devices = rows_on_enough_devices() if options.devices else []
    console.print(_device_table(devices))
    write(options, "growth", [*rows, *devices], _plot(rows, devices), console)


def _rows(axis: str, problem: Problem, repeats: int) -> list[dict]:
    steps = {name: clock.compile_step(STEPS[name], problem) for name in ("SGD", FLOOR, *SHOWN)}
    calls = max(1, int(1e8 / steps["SGD"].flops))  # short steps several at a time
    seconds = clock.interleave({name: clock.runner(step, problem, calls) for name, step in steps.items()}, repeats)
    shared = {"axis": axis, "parameters": problem.size, "batch": len(problem.labels)}
    return [shared | _row(name, steps, seconds, calls, problem.size) for name in SHOWN]


def _row(name: str, steps: dict[str, clock.Compiled], seconds: dict[str, np.ndarray], calls: int, size: int) -> dict:
    median, low, high = clock.ratio(seconds[name], seconds[FLOOR])
    step, floor, sgd = steps[name], steps[FLOOR], steps["SGD"]
    return {
        "name": name,
        "milliseconds": 1e3 * float(np.median(seconds[name])) / calls,
        "ratio": median,
        "quartiles": [low, high],
        "flops": step.flops / floor.flops,
        "bytes": step.bytes / floor.bytes,
        "copies": (step.temporary_bytes - sgd.temporary_bytes) / (4 * size),
        "compile_seconds": step.compile_seconds,
        "sgd_compile_seconds": sgd.compile_seconds,
    }


def _table(rows: list[dict]) -> Table:
    table = Table(title="over two gradients by hand; memory: temporary, more than SGD's, in copies of the parameters")
    for column in ("parameters", "batch", "step", "ms", "ratio", "quartiles", "FLOPs", "bytes", "memory", "compile s"):
        table.add_column(column, justify="left" if column == "step" else "right")
    for row in rows:
        table.add_row(
            f"{row['parameters']:,}",
            str(row["batch"]),
            row["name"],
            f"{row['milliseconds']:.2f}",
            f"{row['ratio']:.3f}",
            "{:.2f}-{:.2f}".format(*row["quartiles"]),
            f"{row['flops']:.3f}",
            f"{row['bytes']:.2f}",
            f"{row['copies']:+.2f}",
            f"{row['compile_seconds']:.2f} ({row['sgd_compile_seconds']:.2f})",
        )
    return table


def _device_table(rows: list[dict]) -> Table:
    table = Table(title="a step over several devices, as compiled; FLOPs and bytes of each device")
    for column in ("method", "perturbation", "devices", "all-reduces", "floats sent", "FLOPs", "bytes"):
        table.add_column(column, justify="left" if column in ("method", "perturbation") else "right")
    for row in rows:
        counts = (f"{row['all_reduces']}", f"{row['floats_sent']:,}", f"{row['flops']:.3g}", f"{row['bytes']:.3g}")
        table.add_row(row["method"], row["perturbation"], str(row["devices"]), *counts)
    return table


def _plot(rows: list[dict], devices: list[dict]):
    figure, panels = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
    for panel, axis in zip(panels[0], ("parameters", "batch"), strict=True):
        for name in SHOWN:
            _curve(panel, [row for row in rows if row["axis"] == axis and row["name"] == name], axis, name)
        panel.axhline(1, color="0.5", linewidth=0.8)
        panel.set_xscale("log")
        if axis == "batch":
            batches = sorted({row["batch"] for row in rows if row["axis"] == "batch"})
            panel.set_xticks(batches, [str(batch) for batch in batches])
            panel.minorticks_off()
        panel.set_xlabel(f"{axis} (MLP, {'batch' if axis == 'parameters' else 'parameters'} fixed)")
        panel.set_ylabel("time over two gradients")
        panel.legend(frameon=False)
    _memory(panels[1][0], [row for row in rows if row["axis"] == "parameters"])
    _collectives(panels[1][1], devices)
    return figure


def _curve(panel, rows: list[dict], axis: str, name: str) -> None:
    ratios = np.array([row["ratio"] for row in rows])
    spread = np.abs(np.array([row["quartiles"] for row in rows]).T - ratios)
    colour, dashes = styles(SHOWN)[name]
    x = [row[axis] for row in rows]
    panel.errorbar(x, ratios, spread, fmt="o", linestyle=dashes, color=colour, markersize=4, capsize=2, label=name)


def _memory(panel, rows: list[dict]) -> None:
    for name in reversed(SHOWN):  # the dashed line over the solid one that it covers
        mine, (colour, dashes) = [row for row in rows if row["name"] == name], styles(SHOWN)[name]
        x, copies = ([row[key] for row in mine] for key in ("parameters", "copies"))
        panel.plot(x, copies, marker="o", markersize=4, linestyle=dashes, color=colour, label=name)
    panel.axhline(1, color="0.5", linewidth=0.8)
    panel.set_xscale("log")
    panel.set_xlabel("parameters")
    panel.set_ylabel("temporary memory more than SGD's,\ncopies of the parameters")
    panel.legend(frameon=False)


def _collectives(panel, rows: list[dict]) -> None:
    kinds = list(dict.fromkeys((row["method"], row["perturbation"]) for row in rows))
    for i, kind in enumerate(kinds):
        mine = [row for row in rows if (row["method"], row["perturbation"]) == kind]
        at = np.arange(len(mine)) + 0.13 * (i - (len(kinds) - 1) / 2)
        panel.bar(at, [row["all_reduces"] for row in mine], 0.12, label=", ".join(kind), color=f"C{i}")
        panel.set_xticks(range(len(mine)), [str(row["devices"]) for row in mine])
    panel.set_xlabel("devices")
    panel.set_ylabel("all-reduces of a step, as compiled")
    if rows:
        panel.set_ylim(0, 3)
        panel.set_yticks(range(4))
        panel.legend(frameon=False, ncols=3, fontsize=8)
