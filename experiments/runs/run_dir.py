"""Run folders: settings, environment and results of a run; everything a report needs.

<root>/<group>/<label>/seed<k>/run.json        settings, seed, versions, commit, machine
metrics.jsonl   one line per epoch
events.*        the same for TensorBoard
checkpoints/    the last two (runs/checkpoint.py)
failure.json    what went wrong, in a sweep that continued
.lock           held during training (runs/lock.py)
result.json     written last: the run is complete
"""

import dataclasses
import hashlib
import json
import os
import re
import shutil
import sys
import traceback
from pathlib import Path
from typing import Any

import jax

from experiments.config.errors import Diverged, UsageError, first_line
from experiments.config.schema import ELSEWHERE, Config
from experiments.files import sync, write_json, write_text
from experiments.runs import checkpoint, records
from experiments.runs.distributed import first_alone, is_first
from experiments.runs.environment import environment
from experiments.runs.lock import held

LONGEST = 60
"""Maximum number of characters of a title in a folder name; file systems allow 255 bytes."""


def folder_of(root: Path, config: Config, seed: int) -> Path:
    """The folder of a seed: two levels below the root, whatever the title is."""
    name = re.sub(r"[^\w.=+-]+", "_", config.title).strip("_.")
    if len(name) > LONGEST:
        name = f"{name[:LONGEST]}-{hashlib.sha256(config.title.encode()).hexdigest()[:8]}"
    return root / name / f"seed{seed}"


def refuse_unwritable(root: Path) -> None:
    """Report errors that can be known before anything is compiled.

    Raises:
      UsageError: if the folder cannot be created or written to.
    """
    there = next(path for path in (root, *root.parents) if path.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise UsageError(f"--out {root}: {there} is not a folder that can be written to; name another")


def remove(root: Path, config: Config) -> None:
    """Remove the runs with this title, for every seed.

    Raises:
      UsageError: if one of them is being trained.
    """
    for folder in folder_of(root, config, 0).parent.glob("seed*"):
        with held(folder):
            shutil.rmtree(folder)


@first_alone
def start(folder: Path, config: Config, seed: int, queued: str = "", data_version: str = "") -> None:
    """Create the folder and record what is about to run; remains of an unfinished run are removed.

    `queued` determines its place among runs side by side: the time at which it was put into the queue. `data_version`
    is that of the data set.

    Raises:
      UsageError: if the folder contains a result or a checkpoint.
    """
    if _holds_work(folder):
        raise UsageError(f"{folder}: contains a run already; use --resume to continue, or name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    done = len(records.lines(folder))
    if done:
        print(f"warning: {folder}: {done} epochs but no checkpoint; starting again from the first", file=sys.stderr)
    for pattern in ("metrics.jsonl", "failure.json", "events.out.tfevents.*"):
        for path in folder.glob(pattern):
            path.unlink()
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    about = {"config": _plain(config, data_version), "title": config.title, "seed": seed, **environment()}
    write_json(folder / "run.json", about | ({"queued": queued} if queued else {}))


def _holds_work(folder: Path) -> bool:
    return (folder / "result.json").exists() or bool(checkpoint.steps(folder))


def complete(folder: Path, config: Config, data_version: str = "") -> bool:
    """Whether the folder contains the result of these settings, on this version of the data set.

    Raises:
      UsageError: if it, or the folder of another seed, contains a run with other settings: both would share a row.
      Unreadable: if its record cannot be read. Records of other seeds do not matter here.
    """
    if _holds_work(folder):
        records.about(folder)
    for path in sorted(folder.parent.glob("seed*/run.json")):
        try:
            there = records.about(path.parent)
        except records.Unreadable:
            if path.parent == folder:
                raise
            continue
        _refuse_other(path.parent, there, config, data_version)
    return (folder / "result.json").exists()


def _refuse_other(folder: Path, there: dict[str, Any], config: Config, data_version: str) -> None:
    other = differing(there["config"], _plain(config, data_version))
    longer = "; its schedules span its epochs, so a run of more epochs starts anew" if "epochs" in other else ""
    if other:
        raise UsageError(f"{folder}: holds a run with another {', '.join(other)}{longer}; name another folder")
    if there.get("title", config.title) != config.title:
        raise UsageError(f"{folder}: holds the run {there['title']!r}, not {config.title!r}; name another folder")


def differing(there: dict[str, Any], asked: dict[str, Any]) -> list[str]:
    """The settings that affect the result and differ between two runs."""
    one, two = _substance(there), _substance(asked)
    devices = there.get("devices"), asked.get("devices")
    if two["parallel"] != "jit" and None not in devices:  # None: older runs did not record it
        one["devices"], two["devices"] = devices
    if "data_version" not in one.keys() & two.keys():  # older runs did not record this either
        one, two = ({k: v for k, v in x.items() if k != "data_version"} for x in (one, two))
    # Versions may differ: a setting that only one of the runs knows is one in which they differ.
    return sorted(key for key in one.keys() | two.keys() if one.get(key) != two.get(key))


def identity(config: Config) -> dict[str, Any]:
    """The settings that affect the result and differ from the defaults.

    Example:
      >>> identity(Config(lr="0.2", label="name", seeds=3))
      {'lr': '0.2'}
    """
    default = _substance({})
    return {name: value for name, value in _substance(_plain(config)).items() if value != default[name]}


@first_alone
def resume(folder: Path, epochs: int) -> None:
    """Keep the lines of the first epochs, up to the checkpoint; report and record what has changed since.

    Raises:
      UsageError: if these lines are missing or damaged.
    """
    records.epochs(folder, epochs)
    write_text(folder / "metrics.jsonl", "".join(f"{line}\n" for line in records.lines(folder)[:epochs]))
    (folder / "failure.json").unlink(missing_ok=True)
    _note_changes(folder, epochs)


def _note_changes(folder: Path, epochs: int) -> None:
    """If versions, commit, devices or flags have changed: a warning, and a note in `run.json`."""
    about, now = records.about(folder), environment()
    turns = about.get("resumed", [])
    then = _compared(turns[-1] if turns else about)
    changed = [f"{key} {then[key]} -> {x}" for key, x in _compared(now).items() if then.get(key, x) != x]
    if changed:
        print(f"warning: {folder}: continues after epoch {epochs} with another {', '.join(changed)}", file=sys.stderr)
        write_json(folder / "run.json", about | {"resumed": [*turns, {"epoch": epochs, **now}]})


def _compared(about: dict[str, Any]) -> dict[str, Any]:
    names = ("python", "commit", "device", "xla_flags")
    return {**about.get("packages", {}), **{name: about[name] for name in names if name in about}}


def fail(folder: Path, error: Exception) -> None:
    """Record in the folder why its run failed."""
    if not is_first():
        return
    folder.mkdir(parents=True, exist_ok=True)
    what = str(error) if isinstance(error, Diverged | UsageError) else f"{type(error).__name__}: {first_line(error)}"
    write_json(folder / "failure.json", {"error": what, "traceback": "".join(traceback.format_exception(error))})


@first_alone
def append(folder: Path, record: dict[str, Any]) -> None:
    """Add a line to the metrics; it is on the disk when this returns."""
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")
        sync(file)


@first_alone
def finish(folder: Path, result: dict[str, Any]) -> None:
    """Mark the run as complete."""
    write_json(folder / "result.json", result)


def _substance(config: dict[str, Any]) -> dict[str, Any]:
    """The settings that affect the result, as stored in JSON; the label is only a name."""
    known = {**_plain(Config()), **config}  # runs older than a setting used its default
    return json.loads(json.dumps({k: v for k, v in known.items() if k not in (*ELSEWHERE, "label")}))


def _plain(config: Config, data_version: str = "") -> dict[str, Any]:
    """The settings, with the version of the data if it has one, and the number of devices if it affects the result."""
    if config.parallel != "jit":
        config = dataclasses.replace(config, devices=config.devices or jax.device_count())
    kept = {k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(config).items()}
    return kept | ({"data_version": data_version} if data_version else {})
