"""The command: train the runs missing in the ledger, save the numbers, write the page."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.claims.command import data_dir_of, ledger_of
from experiments.claims.ledger import Ledger
from experiments.claims.protocol import FRESH_SEED
from experiments.claims.study import outcome_of
from experiments.claims.workspace import Workspace
from experiments.compare import page
from experiments.compare.tasks import Scale, contestants, tasks
from experiments.config.errors import UsageError, first_line
from experiments.files import write_json
from experiments.runs.environment import environment
from experiments.runs.run_dir import refuse_unwritable


@dataclasses.dataclass(frozen=True)
class Options:
    """Compare all methods with the same number of gradient evaluations on a few small tasks: ranks, gains, a page."""

    scale: Scale = "full"
    """smoke: seconds, only to check that it runs; full: hours."""
    out: Path = Path("runs/compare")
    """Folder for the numbers, the figure and the page, and for the runs while they are trained."""
    report: bool = False
    """Only write the figure and the page again from the saved numbers, without training."""
    ledger: Path | None = None
    """Folder of the ledger of finished runs, so that none is trained twice. Default: that of this checkout,
    experiments/results/ledger; at smoke scale a folder in --out."""
    data_dir: Path | None = None
    """Folder of the data files. Without it, and without the environment variable PUGD_DATA_DIR, tasks that need files
    are skipped."""


def main(options: Options, console: Console) -> None:
    """Run the command."""
    path = options.out / "compare.json"
    if not options.report:
        refuse_unwritable(options.out)
        write_json(path, _measured(options, console))
    if not path.exists():
        raise UsageError(f"--out {options.out}: holds no compare.json; run `compare` first or name another folder")
    try:
        written = page.write(json.loads(path.read_text(), parse_constant=float), options.out)
    except (ValueError, LookupError, TypeError, StopIteration) as error:
        what = f"{path}: no numbers of `compare` ({type(error).__name__}: {first_line(error)})"
        raise UsageError(f"{what}; run `compare` again") from error
    console.print(f"written to {written}", soft_wrap=True)


def _measured(options: Options, console: Console) -> dict[str, Any]:
    data_dir = data_dir_of(options.data_dir)
    ledger = Ledger(ledger_of(options.ledger, options.scale, options.out), "compare")
    workspace = Workspace(options.out / options.scale, ledger, data_dir, console)
    results = {}
    for task in tasks(options.scale, data_dir is not None):
        task = task._replace(base=dataclasses.replace(task.base, data_dir=data_dir))
        found = outcome_of(contestants(task), task, FRESH_SEED, workspace)
        results[task.name] = {
            name: {
                "test %": _short(trained.accuracy),
                "gradient evaluations": _short(trained.result("gradient_evaluations")),
                "rate": list(found.choices[name].chosen.values()),
            }
            for name, trained in found.variants.items()
        }
    data = " --data-dir DATA" if data_dir else ""
    command = f"python -m experiments compare --scale {options.scale}{data}"
    trainings = workspace.trainings._asdict() if workspace.trainings else None
    return {"command": command, "environment": environment(), "trainings": trainings, "tasks": results}


def _short(values: Any) -> list[float]:
    return [float(f"{value:.5g}") for value in values]
