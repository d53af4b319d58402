"""The ledger: one line for every finished run of a claim, so that no run is trained twice on any machine.

    <folder>/<claim>.jsonl   {"key", "settings", "seed", "commit", "versions", "device", "result", "curve", "error",
                             "xla_flags", "resumed"}, where a run that diverged has an error and no result

`settings` are the settings that affect the result and differ from the defaults; `key` is their hash. A study reads the
lines of all claims and appends its own when its runs end.
"""

import hashlib
import itertools
import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.config.errors import UsageError
from experiments.config.schema import Config
from experiments.files import sync
from experiments.runs import records, run_dir
from experiments.runs.lock import wait_for

POINTS = 40
"""The number of epochs of a curve that are kept, including the first and the last."""
CURVES = (
    *("epoch", "gradient_evaluations", "val_accuracy", "train_accuracy"),
    *("cosine", "grad_norm", "perturbed_grad_norm"),
)


class Line(NamedTuple):
    """A finished run; if it diverged, `error` says how and there is no result.

    `xla_flags` are those of the compiler. If commit, versions, device or flags changed where the run was resumed,
    `resumed` holds the new ones, and the epochs before.
    """

    key: str
    settings: dict[str, Any]
    seed: int
    commit: str
    versions: dict[str, str]
    device: str
    result: dict[str, Any]
    curve: dict[str, list[float]]
    error: str = ""
    xla_flags: str = ""
    resumed: Sequence[dict[str, Any]] = ()

    @property
    def commits(self) -> list[str]:
        """The commits that trained parts of it."""
        return [self.commit, *(part["commit"] for part in self.resumed)]

    @property
    def machine(self) -> str:
        """Device, version of JAX and flags, in words; those of every part if they differ."""
        parts = [_machine(part) for part in (self._asdict(), *self.resumed)]
        return ", then ".join(name for name, _ in itertools.groupby(parts))


class Ledger:
    """The lines of all claims, and the file to which new lines are appended."""

    def __init__(self, folder: Path, claim: str):
        self.path = folder / f"{claim}.jsonl"
        self._lock = threading.Lock()
        self._lines: dict[tuple[str, int], Line] = {}
        self._read: dict[Path, tuple[int, int]] = {}  # bytes and lines that are known of each file
        self.refresh()

    def refresh(self) -> None:
        """Read what has been added since, also by other processes; of several lines for a run the first one counts."""
        for path in sorted(self.path.parent.glob("*.jsonl")):
            known = self._read.get(path, (0, 0))
            if path.stat().st_size != known[0]:
                found, self._read[path] = _after(path, *known)
                for line in found:
                    self._lines.setdefault((line.key, line.seed), line)

    def find(self, config: Config, seed: int) -> Line | None:
        """The run with these settings and this seed, if it has ended."""
        return self._lines.get((key(config), seed))

    def refuse_unwritable(self) -> None:
        """Report before a training that its line could not be written.

        Raises:
          UsageError: if the file or its folder cannot be written to.
        """
        there = next(path for path in (self.path, *self.path.parents) if path.exists())
        if not os.access(there, os.W_OK) or there.is_dir() == (there == self.path):
            what = f"{there} cannot be written to; name another folder"
            raise UsageError(f"--ledger {self.path.parent}: {what}")

    def add(self, config: Config, seed: int, folder: Path) -> None:
        """Append the finished run in a folder, unless it is known; the line is on the disk when this returns."""
        with self._lock:
            self.refresh()
            if self.find(config, seed) is None:
                line = _line(config, seed, folder)
                _append(self.path, line)
                self._lines[line.key, seed] = line


def key(config: Config) -> str:
    """A hash of the settings that affect the result.

    Example:
      >>> key(Config(lr="0.1")) == key(Config(lr="0.1", label="another name", seeds=7)) != key(Config(lr="0.2"))
      True
    """
    return hashlib.sha256(json.dumps(run_dir.identity(config), sort_keys=True).encode()).hexdigest()[:16]


def read(path: Path) -> list[Line]:
    """The lines of a file, without an unfinished last line from a killed process.

    Raises:
      UsageError: if another line is not a record of a run.
    """
    return _after(path, 0, 0)[0]


def _after(path: Path, start: int, count: int) -> tuple[list[Line], tuple[int, int]]:
    """The lines after the first `count`, which take `start` bytes; and these two numbers for the whole file."""
    with path.open("rb") as file:
        file.seek(start)
        *lines, rest = file.read().split(b"\n")
        end = file.tell() - len(rest)
    found = []
    for number, line in enumerate(lines, count + 1):
        try:
            found.append(Line(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise UsageError(f"{path}: line {number} is not a record of a run ({error}); remove the line") from error
    return found, (end, count + len(lines))


def _append(path: Path, line: Line) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        wait_for(file)  # what looks like an unfinished line could be one that another process is writing
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)  # removes an unfinished last line from a killed process
        file.write(json.dumps(line._asdict()).encode() + b"\n")
        sync(file)


def _line(config: Config, seed: int, folder: Path) -> Line:
    about = records.about(folder)
    resumed = [{"epoch": turn["epoch"], **_origin(turn)} for turn in about.get("resumed", ())]
    line = Line(key(config), run_dir.identity(config), seed, **_origin(about), result={}, curve={}, resumed=resumed)
    if (folder / "failure.json").exists():
        return line._replace(error=json.loads((folder / "failure.json").read_text())["error"])
    (run,) = records.read(folder)
    metrics = [run.metrics[i] for i in np.unique(np.linspace(0, len(run.metrics) - 1, POINTS).astype(int))]
    curve = {name: [_short(epoch[name]) for epoch in metrics] for name in CURVES if name in metrics[0]}
    result = {name: _short(value) for name, value in run.result.items()} | {"steps": run.metrics[-1]["step"]}
    seen = {name: values for name, values in curve.items() if any(v is not None for v in values)}
    return line._replace(result=result, curve=seen)


def _origin(about: dict[str, Any]) -> dict[str, Any]:
    """What may change the rounding of a result, from the environment of a run."""
    versions = {name: version for name, version in about["packages"].items() if version}
    flags = about.get("xla_flags") or ""
    return {"commit": str(about["commit"]), "versions": versions, "device": about["device"], "xla_flags": flags}


def _machine(origin: dict[str, Any]) -> str:
    flags = origin["xla_flags"] and f" and {origin['xla_flags']}"
    return f"{origin['device']} with JAX {origin['versions'].get('jax')}{flags}"


def _short(x: Any) -> Any:
    """Five digits."""
    if isinstance(x, list):
        return [_short(v) for v in x]
    return float(f"{x:.5g}") if isinstance(x, float) else x
