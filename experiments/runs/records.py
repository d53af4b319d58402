"""Reading and checking the records in run folders."""

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

from experiments.config.errors import UsageError
from experiments.config.schema import Config

SCORES = ("test_accuracy", "last_test_accuracy")
CURVES = ("gradient_evaluations", "val_accuracy")
"""The numbers that a report cannot do without: in the result, and in every line of the metrics."""


class Unreadable(UsageError):
    """The record of a run cannot be read."""

    def __init__(self, folder: Path, reason: str):
        super().__init__(f"{folder}: not a readable run ({reason}); remove the folder to run it again")


class Run(NamedTuple):
    """One complete run, as read from its folder."""

    group: str
    title: str
    config: dict[str, Any]
    queued: str
    seed: int
    metrics: list[dict[str, Any]]
    result: dict[str, Any]
    folder: Path


def about(folder: Path) -> dict[str, Any]:
    """The settings, seed and machine of a run, from `run.json`.

    Raises:
      Unreadable: if they cannot be read.
    """
    found = _read_json(folder / "run.json")
    wanted = {"config": dict, "title": str, "seed": int, "started": str}
    wrong = [name for name, kind in wanted.items() if not isinstance(found.get(name), kind)]
    if wrong:
        raise Unreadable(folder, f"run.json has no {wrong[0]}")
    return found


def lines(folder: Path) -> list[str]:
    """The lines of `metrics.jsonl`; bytes that are not text are escaped."""
    path = folder / "metrics.jsonl"
    return path.read_text(errors="replace").splitlines() if path.exists() else []


def epochs(folder: Path, count: int) -> list[dict[str, Any]]:
    """The metrics of epochs 1 to `count`; the file may contain more lines.

    Raises:
      Unreadable: if they are not present once each and in order.
    """
    found = lines(folder)
    metrics = [_parsed(line) for line in found[:count]]
    if [line.get("epoch") for line in metrics] != list(range(1, count + 1)):
        raise Unreadable(folder, f"metrics.jsonl does not contain its epochs 1 to {count}, once each and in order")
    return metrics


def read(root: Path) -> list[Run]:
    """The complete runs in a folder, in the order in which they were queued.

    Runs that cannot be read are skipped; `unfinished` lists them.

    Raises:
      UsageError: if there are none.
    """
    found, wrong = [], []
    for path in sorted(root.rglob("result.json")):
        try:
            found.append(_read_run(path.parent, root))
        except Unreadable as error:
            wrong.append(error)
    if not found:
        why = f"{wrong[0]}" if wrong else f"{root}: no complete run (a folder with result.json) in it"
        raise UsageError(f"{why}")
    return sorted(found, key=lambda run: run.queued)


def unfinished(root: Path) -> list[str]:
    """One line for each run in a folder that `read` skips: what failed, how far it got, or what is damaged."""
    names = ("run.json", "result.json", "failure.json")
    folders = sorted({path.parent for name in names for path in root.rglob(name)})
    return [line for folder in folders for line in _why_unfinished(folder, root)]


def _why_unfinished(folder: Path, root: Path) -> list[str]:
    name = folder.relative_to(root)
    try:
        if (folder / "result.json").exists():
            _read_run(folder, root)
            return []
        if (folder / "failure.json").exists():
            return [f"{name}: {_read_json(folder / 'failure.json').get('error')}"]
        return [f"{name}: {len(lines(folder))} of {about(folder)['config'].get('epochs')} epochs"]
    except Unreadable as error:
        return [str(error)]


def _read_run(folder: Path, root: Path) -> Run:
    settings, result = about(folder), _read_json(folder / "result.json")
    count = settings["config"].get("epochs")
    if not isinstance(count, int) or not _numbers(result, SCORES):
        raise Unreadable(folder, f"no epochs in run.json, or no accuracy in result.json: {count}, {[*result]}")
    if len(lines(folder)) > count:
        raise Unreadable(folder, f"metrics.jsonl does not contain its epochs 1 to {count}, once each and in order")
    metrics = epochs(folder, count)
    if not all(_numbers(line, CURVES) for line in metrics):
        raise Unreadable(folder, f"a line of metrics.jsonl lacks {' or '.join(CURVES)}")
    group, title = folder.relative_to(root).parts[:-2], settings["title"]
    config = dataclasses.asdict(Config()) | settings["config"]  # a run older than a setting used its default
    queued = settings.get("queued", settings["started"])
    return Run("/".join(group), title, config, queued, settings["seed"], metrics, result, folder)


def _numbers(found: dict[str, Any], names: tuple[str, ...]) -> bool:
    """Whether there are numbers of these names."""
    return all(isinstance(found.get(name), float | int) for name in names)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise Unreadable(path.parent, f"{path.name}: {error}") from error
    if not isinstance(found, dict):
        raise Unreadable(path.parent, f"{path.name} is not an object")
    return found


def _parsed(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
