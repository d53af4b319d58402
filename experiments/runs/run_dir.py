"""Run folders: what was run, with what, and what came out; everything a report needs.

<root>/<group>/<label>/seed<k>/run.json        settings, seed, versions, commit, machine
metrics.jsonl   one line an epoch
events.*        the same for TensorBoard
checkpoints/    the last two (runs/checkpoint.py)
failure.json    what went wrong, in a sweep that went on
.lock           held while it is trained (runs/lock.py)
result.json     written last: the run is complete
"""

import dataclasses
import json
import os
import re
import shutil
import traceback
from pathlib import Path
from typing import Any, NamedTuple

import jax

from experiments.config.errors import Diverged, UsageError
from experiments.config.schema import ELSEWHERE, Config
from experiments.files import write_json, write_text
from experiments.runs.distributed import first_alone
from experiments.runs.environment import environment
from experiments.runs.lock import held


class Run(NamedTuple):
    """One complete run, as read from its folder."""

    group: str
    title: str
    config: dict[str, Any]
    started: str
    seed: int
    metrics: list[dict[str, Any]]
    result: dict[str, Any]
    folder: Path


def folder_of(root: Path, config: Config, seed: int) -> Path:
    """Where the run of that seed goes."""
    return root / re.sub(r"[^\w.=+-]+", "_", config.title).strip("_") / f"seed{seed}"


def refuse_unwritable(root: Path) -> None:
    """Known before anything is compiled.

    Raises:
      UsageError: if the folder cannot be made or written to.
    """
    there = next(path for path in (root, *root.parents) if path.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise UsageError(f"--out {root}: {there} is not a folder that can be written to; name another")


def remove(root: Path, config: Config) -> None:
    """Remove the runs of that title, of every seed.

    Raises:
      UsageError: if one of them is being trained.
    """
    for folder in folder_of(root, config, 0).parent.glob("seed*"):
        with held(folder):
            shutil.rmtree(folder)


@first_alone
def start(folder: Path, config: Config, seed: int) -> None:
    """Make the folder and note what is about to run; what an earlier run left there is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    for pattern in ("result.json", "metrics.jsonl", "failure.json", "events.out.tfevents.*"):
        for path in folder.glob(pattern):
            path.unlink()
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    write_json(folder / "run.json", {"config": _plain(config), "title": config.title, "seed": seed, **environment()})


def complete(folder: Path, config: Config) -> bool:
    """Whether the folder holds the result of these settings.

    Raises:
      UsageError: if it, or that of another seed beside it, holds a run with others: both would share a row.
    """
    for path in sorted(folder.parent.glob("seed*/run.json")):
        other = differing(json.loads(path.read_text())["config"], _plain(config))
        if other:
            raise UsageError(f"{path.parent}: holds a run with another {', '.join(other)}; name another folder")
    return all((folder / name).exists() for name in ("run.json", "result.json"))


def differing(there: dict[str, Any], asked: dict[str, Any]) -> list[str]:
    """The settings, of those that a result depends on, in which two runs differ."""
    one, two = _substance(there), _substance(asked)
    devices = there.get("devices"), asked.get("devices")
    if two["parallel"] != "jit" and None not in devices:  # None: older runs did not count them
        one["devices"], two["devices"] = devices
    return sorted(key for key in two if one[key] != two[key])


@first_alone
def cut(folder: Path, epochs: int) -> None:
    """Keep the lines of the first epochs, those that a checkpoint knows of.

    Raises:
      UsageError: if there are fewer.
    """
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    if len(lines) < epochs:
        raise UsageError(f"{path}: {len(lines)} lines, the checkpoint is of {epochs} epochs; remove the folder")
    write_text(path, "".join(lines[:epochs]))
    (folder / "failure.json").unlink(missing_ok=True)


@first_alone
def fail(folder: Path, error: Exception) -> None:
    """Note in the folder why its run did not end."""
    folder.mkdir(parents=True, exist_ok=True)
    what = str(error) if isinstance(error, Diverged | UsageError) else f"{type(error).__name__}: {error}"
    write_json(folder / "failure.json", {"error": what, "traceback": "".join(traceback.format_exception(error))})


@first_alone
def append(folder: Path, record: dict[str, Any]) -> None:
    """Add one line to the metrics."""
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")


@first_alone
def finish(folder: Path, result: dict[str, Any]) -> None:
    """Mark the run as complete."""
    write_json(folder / "result.json", result)


def read(root: Path) -> list[Run]:
    """All complete runs below a folder, in the order in which they were started.

    Raises:
      UsageError: if there are none.
    """
    found = [_read_run(path.parent, root) for path in sorted(root.rglob("result.json"))]
    if not found:
        raise UsageError(f"{root}: no complete run (a folder with result.json) in it")
    return sorted(found, key=lambda run: run.started)


def unfinished(root: Path) -> list[str]:
    """A line for each run below a folder that has begun and holds no result: what failed, or how far it came."""
    folders = [path.parent for path in sorted(root.rglob("run.json"))]
    return [_why_unfinished(folder, root) for folder in folders if not (folder / "result.json").exists()]


def _why_unfinished(folder: Path, root: Path) -> str:
    name = folder.relative_to(root)
    if (folder / "failure.json").exists():
        return f"{name}: {json.loads((folder / 'failure.json').read_text())['error']}"
    metrics = folder / "metrics.jsonl"
    done = len(metrics.read_text().splitlines()) if metrics.exists() else 0
    total = json.loads((folder / "run.json").read_text())["config"]["epochs"]
    return f"{name}: {done} of {total} epochs"


def _read_run(folder: Path, root: Path) -> Run:
    try:
        about, result = (json.loads((folder / name).read_text()) for name in ("run.json", "result.json"))
        metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        epochs = about["config"]["epochs"]
        if [line.get("epoch") for line in metrics] != list(range(1, epochs + 1)):
            raise ValueError(f"metrics.jsonl does not hold its epochs 1 to {epochs}, once each and in order")
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder}: not a readable run ({error}); remove it or run it again") from error
    group = folder.relative_to(root).parts[:-2]
    return Run(
        "/".join(group), about["title"], about["config"], about["started"], about["seed"], metrics, result, folder
    )


def _substance(config: dict[str, Any]) -> dict[str, Any]:
    """The settings that a result depends on, as JSON keeps them; the label is a name alone."""
    known = {**_plain(Config()), **config}  # a run from before there was a setting had its default
    return json.loads(json.dumps({k: v for k, v in known.items() if k not in (*ELSEWHERE, "label")}))


def _plain(config: Config) -> dict[str, Any]:
    """The settings with the number of devices counted where a result depends on it."""
    if config.parallel != "jit":
        config = dataclasses.replace(config, devices=config.devices or jax.device_count())
    return {k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(config).items()}
