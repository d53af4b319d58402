"""The command: list the claims, run one or all, write the page."""

import dataclasses
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from experiments.claims import catalog, page
from experiments.claims.budget import within
from experiments.claims.claim import Saved, Scale, load, save
from experiments.claims.conditions import judge, verdict
from experiments.claims.ledger import Ledger
from experiments.claims.protocol import FRESH_SEED
from experiments.claims.workspace import Workspace
from experiments.config.errors import Stopped, UsageError, pick
from experiments.runs.environment import environment
from experiments.runs.memory import keep_freed
from experiments.runs.run_dir import refuse_unwritable

ACCELERATOR = ("real.clean", "real.noisy", "real.longtail", "real.regularizers")
"""The claims to run on an accelerator, the most informative ones first."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Run a claim of the papers: table, figure, verdict."""

    name: Annotated[str, tyro.conf.Positional] = "list"
    """A claim, `all`, `list`, `report` to write the page again from the saved results, or `accelerator`: the claims at
    real scale, the most informative ones first, at --scale paper unless it is smoke."""
    scale: Scale = "full"
    """smoke: seconds, only to check that it runs; full: up to a quarter of an hour on two cores for small problems,
    some hours for trainings that the ledger does not contain; paper: the papers' data, networks and training
    lengths, for an accelerator (small problems stay at full)."""
    first_seed: int = 200
    """The first seed; the others follow it. Seeds below 200 are used for choosing hyperparameters."""
    out: Path = Path("runs/claims")
    """Folder for the JSON files, the figures and `results.md`, and for the runs while they are trained."""
    ledger: Path | None = None
    """Folder of the ledgers, which record every finished run, so that none is trained twice. Default: that of this
    checkout, experiments/results/ledger; at smoke scale a folder in --out."""
    budget_minutes: float | None = None
    """Stop after this many minutes, at the next step of the current runs; the same command continues from there."""
    jobs: int | None = None
    """Number of trainings side by side. Default: that of `train`."""
    data_dir: Path | None = None
    """Folder of the data files for trainings. Default: the environment variable PUGD_DATA_DIR."""


def main(options: Options, console: Console) -> None:
    """Run the command."""
    if options.name == "list":
        return console.print(_listed())
    if options.name == "report":
        if not any(options.out.glob("*.json")):
            raise UsageError(f"--out {options.out}: contains no findings; run `claims all`, or name another folder")
        return console.print(f"written to {page.write(options.out)}", soft_wrap=True)
    if options.budget_minutes is not None and not options.budget_minutes > 0:
        raise UsageError(f"--budget-minutes {options.budget_minutes:g}: expected more than 0")
    if options.jobs is not None and options.jobs < 1:
        raise UsageError(f"--jobs {options.jobs}: expected at least 1")
    names, options = _asked(options)
    _check(names, options)
    if options.scale == "paper":
        keep_freed()  # the temporary arrays of a step exceed 32 MB; clearing their pages took 13 % of the time
    with within(options.budget_minutes) as used_up:
        for name in names:
            try:
                _run(name, options, console)
            except Stopped:
                if not used_up():
                    raise
            if used_up():
                console.print(f"{options.budget_minutes:g} minutes are used up; run the same command again to continue")
                break
    if any(options.out.glob("*.json")):
        console.print(f"written to {page.write(options.out)}", soft_wrap=True)


def _asked(options: Options) -> tuple[list[str], Options]:
    """The requested claims, and the options for them."""
    every = list(catalog.claims())
    pick("claim", options.name, dict.fromkeys([*every, "all", "list", "report", "accelerator"]))
    if options.name == "accelerator":
        scale = "smoke" if options.scale == "smoke" else "paper"
        return list(ACCELERATOR), dataclasses.replace(options, scale=scale)
    return every if options.name == "all" else [options.name], options


def _check(names: Sequence[str], options: Options) -> None:
    """Report errors that can be known before anything is computed."""
    refuse_unwritable(options.out)
    if options.first_seed < FRESH_SEED and any(map(catalog.reads_data, names)):
        what = f"hyperparameters are chosen on seeds below {FRESH_SEED}; name one from {FRESH_SEED} on"
        raise UsageError(f"--first-seed {options.first_seed}: {what}")
    for path in (options.out / f"{name}.json" for name in names):
        if path.exists() and (there := load(path).scale) != options.scale:
            raise UsageError(f"--out {options.out}: holds {path.stem} at --scale {there}; name another folder")


def data_dir_of(named: Path | None) -> Path | None:
    """The folder of the data files: the option, or the environment variable."""
    folder = named or os.environ.get("PUGD_DATA_DIR")
    return Path(folder) if folder else None


def ledger_of(named: Path | None, scale: str, out: Path) -> Path:
    """The folder of the ledgers: the option; by default that of this checkout, at smoke scale one in the output."""
    committed = Path(__file__).parents[1] / "results" / "ledger"
    return named or (out / "ledger" if scale == "smoke" else committed)


def _command(name: str, options: Options) -> str:
    """The command that repeats the claim, with a placeholder for the data folder where one was used."""
    data = " --data-dir DATA" if catalog.reads_data(name) and data_dir_of(options.data_dir) else ""
    return f"python -m experiments claims {name} --scale {options.scale} --first-seed {options.first_seed}{data}"


def _run(name: str, options: Options, console: Console) -> None:
    start = time.perf_counter()
    ledger = Ledger(ledger_of(options.ledger, options.scale, options.out), name)
    folder, data_dir = options.out / "trained" / options.scale, data_dir_of(options.data_dir)
    workspace = Workspace(folder, ledger, data_dir, console, options.jobs)
    finding = catalog.find(name, options.scale, options.first_seed, workspace)
    seconds, command = time.perf_counter() - start, _command(name, options)
    save(Saved(name, command, options.scale, seconds, workspace.trainings, environment(), finding), options.out)
    cells = page.table(finding.rows)
    shown = Table(title=f"{name}: {verdict(finding.conditions)}", title_justify="left", title_style="bold")
    for column in cells[0]:
        shown.add_column(column, justify="right" if column else "left")
    for row in cells[1:]:
        shown.add_row(*row)
    console.print(shown)
    for judged in judge(finding.conditions):
        kind, statement, *_ = judged.condition
        console.print(f"{judged.result} ({kind}): {statement} ({judged.numbers})", highlight=False)
    console.print(f"{finding.reading} ({seconds:.0f} s)\n", highlight=False)


def _listed() -> Table:
    shown = Table(box=None)
    for column in ("claim", "statement"):
        shown.add_column(column)
    for name in catalog.claims():
        shown.add_row(name, catalog.statement(name))
    return shown
