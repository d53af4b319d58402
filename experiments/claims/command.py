"""The command: list the claims, run one or all, write the page."""

import dataclasses
import importlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from experiments import claims
from experiments.claims import NAMES, TRAINED
from experiments.claims.claim import Finding, Saved, load, save, verdict
from experiments.claims.page import table, write
from experiments.claims.study import FRESH_SEED, Lab, Scale, trainings
from experiments.config.errors import UsageError, pick
from experiments.runs.environment import environment
from experiments.runs.run_dir import refuse_unwritable


@dataclasses.dataclass(frozen=True)
class Options:
    """Run a claim of the papers: table, picture, verdict."""

    name: Annotated[str, tyro.conf.Positional] = "list"
    """A claim, `all`, `list`, or `report` to write the page again from what was saved."""
    scale: Scale = "full"
    """smoke: seconds, to see that it runs; full: minutes on two cores, two for toy theory and about ten for trainings;
    paper: the papers' data, networks and lengths, for an accelerator (toy theory stays at full)."""
    first_seed: int = 200
    """Seeds count up from here. Below 200 are those on which settings were chosen."""
    out: Path = Path("runs/claims")
    """Folder of the JSON, the pictures, `results.md`, and of the trainings, which are not run again."""
    data_dir: Path | None = None
    """Folder of the data files that trainings read. Default: the environment variable PUGD_DATA_DIR."""


def main(options: Options, console: Console) -> None:
    """Do what the options say."""
    if options.name == "list":
        return console.print(_listed())
    if options.name == "report":
        if not any(options.out.glob("*.json")):
            raise UsageError(f"--out {options.out}: holds no findings; run `claims all` first or name another folder")
        return console.print(f"written to {write(options.out)}", soft_wrap=True)
    pick("claim", options.name, dict.fromkeys([*NAMES, "all", "list", "report"]))
    names = NAMES if options.name == "all" else [options.name]
    _check(names, options)
    for name in names:
        _run(name, options, console)
    console.print(f"written to {write(options.out)}", soft_wrap=True)


def claim(name: str):
    """The module of a claim: its docstring is the lab note, `run` gives the `Finding`."""
    place = name if name in TRAINED else f"theory.{name.replace('.', '_')}"
    return importlib.import_module(f"{claims.__name__}.{place}")


def find(name: str, scale: Scale, first_seed: int, lab: Lab) -> Finding:
    """Run a claim; one of toy theory has no scale beyond full."""
    if name in TRAINED:
        return claim(name).run(scale, first_seed, lab)
    return claim(name).run("full" if scale == "paper" else scale, first_seed)


def _check(names: Sequence[str], options: Options) -> None:
    """Known before anything is computed."""
    refuse_unwritable(options.out)
    if options.first_seed < FRESH_SEED and set(names) & set(TRAINED):
        raise UsageError(
            f"--first-seed {options.first_seed}: settings are chosen on seeds below {FRESH_SEED}; name one from it on"
        )
    for path in (options.out / f"{name}.json" for name in names):
        if path.exists() and (there := load(path).scale) != options.scale:
            raise UsageError(f"--out {options.out}: holds {path.stem} at --scale {there}; name another folder")


def _data_dir(options: Options) -> Path | None:
    folder = options.data_dir or os.environ.get("PUGD_DATA_DIR")
    return Path(folder) if folder else None


def _command(name: str, options: Options) -> str:
    """What was asked for, with a word for the folder of the data, on which the settings of a claim depend."""
    data = " --data-dir DATA" if name in TRAINED and _data_dir(options) else ""
    return f"python -m experiments claims {name} --scale {options.scale} --first-seed {options.first_seed}{data}"


def _note(module) -> str:
    return (module.__doc__ or "").strip()


def _run(name: str, options: Options, console: Console) -> None:
    module, start = claim(name), time.perf_counter()
    lab = Lab(options.out / "trained" / options.scale, _data_dir(options), console)
    finding = find(name, options.scale, options.first_seed, lab)
    seconds, asked = time.perf_counter() - start, _command(name, options)
    save(Saved(name, _note(module), asked, options.scale, seconds, trainings(lab), environment(), finding), options.out)
    cells = table(finding.rows)
    shown = Table(title=f"{name}: {verdict(finding.checks)}", title_justify="left", title_style="bold")
    for column in cells[0]:
        shown.add_column(column, justify="right" if column else "left")
    for row in cells[1:]:
        shown.add_row(*row)
    console.print(shown)
    for check in finding.checks:
        console.print(f"{'met' if check.met else 'not met'}: {check.condition} ({check.numbers})", highlight=False)
    console.print(f"{finding.reading} ({seconds:.0f} s)\n", highlight=False)


def _listed() -> Table:
    shown = Table(box=None)
    for column in ("claim", "statement"):
        shown.add_column(column)
    for name in NAMES:
        shown.add_row(name, _note(claim(name)).splitlines()[0])
    return shown
