"""The command line: words to settings, and every mistake to one line and exit status 2."""

import contextlib
import dataclasses
import datetime
import io
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro
from rich.console import Console

from experiments.config import Config
from experiments.names import Diverged, Stopped, UsageError, nearest, pick

T = TypeVar("T")
COMMANDS = {
    "demo": "the main job: SGD, SAM, PUGD and RTS-PUGD on handwritten digits; minutes on two cores",
    "train": "train one model with one method; `train --help` lists the options",
    "bench": "step costs of every method against the floor and against peers",
    "claims": "the claims of the papers: table, picture and verdict of each",
    "report": "rebuild the table and the curves of a folder of runs",
}


def main(argv: Sequence[str]) -> int:
    """Run one command; returns the exit status."""
    console = Console()
    console = console if console.is_terminal else Console(width=120)
    try:
        return _dispatch(list(argv), console)
    except (UsageError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Diverged as error:
        print(f"stopped: {error}", file=sys.stderr)
        return 1
    except Stopped as stop:
        print(f"stopped: {stop}", file=sys.stderr)
        return stop.status
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def _dispatch(argv: list[str], console: Console) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: python -m experiments COMMAND [OPTIONS]\n")
        print("\n".join(f"  {name:<8} {what}" for name, what in COMMANDS.items()))
        return 0 if argv else 2
    if argv[0] not in COMMANDS:
        pick("command", argv[0], COMMANDS)
    _keep_compiled()
    run = {"demo": _demo, "train": _train, "bench": _bench, "claims": _claims, "report": _report}[argv[0]]
    return run(argv[1:], console)


def _demo(argv: list[str], console: Console) -> int:
    from experiments import demo

    demo.main(parse(demo.Options, argv), console)
    return 0


def _bench(argv: list[str], console: Console) -> int:
    from experiments.bench import run

    run.main(parse(run.Options, argv), console)
    return 0


def _train(argv: list[str], console: Console) -> int:
    from experiments import report, sweep

    config = train_config(argv)
    assert config.out is not None
    if not config.resume and next(config.out.rglob("result.json"), None):
        raise UsageError(f"--out {config.out}: holds results already; --resume goes on there, or name another folder")
    sweep.run([(config.out, config)], console)
    report.show(config.out, console)
    return 0


def _claims(argv: list[str], console: Console) -> int:
    from experiments.claims import command

    command.main(parse(command.Options, argv), console)
    return 0


def _report(argv: list[str], console: Console) -> int:
    from experiments import report

    if len(argv) != 1:
        raise UsageError("usage: python -m experiments report FOLDER")
    report.show(Path(argv[0]), console)
    return 0


def train_config(argv: Sequence[str]) -> Config:
    """Settings from the options of `train`, with the folders filled in."""
    plain, dotted = _dotted(argv)
    config = parse(Config, plain, also=("--method.OPTION", "--optimizer.OPTION"))
    folder = os.environ.get("PUGD_DATA_DIR")
    time = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return dataclasses.replace(
        config,
        method_options=dotted["method"],
        optimizer_options=dotted["optimizer"],
        data_dir=config.data_dir or (Path(folder) if folder else None),
        out=config.out or Path("runs") / f"{time}-{config.dataset}-{config.model}-{config.method}",
    )


def parse(kind: type[T], argv: Sequence[str], also: Sequence[str] = ()) -> T:
    """Settings of that kind; an unknown option or a bad value is a `UsageError`."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            made, unknown = tyro.cli(kind, args=list(argv), return_unknown_args=True, prog="python -m experiments")
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise UsageError(_one_line(said.getvalue())) from None
    if unknown:
        known = ["--" + f.name.replace("_", "-") for f in dataclasses.fields(kind) if not f.name.endswith("_options")]  # pyright: ignore
        raise UsageError(f"unknown option {unknown[0]!r}{nearest(unknown[0], [*known, *also])} --help lists them all")
    return made


def _dotted(argv: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Take `--method.NAME VALUE` and `--optimizer.NAME VALUE` out of the options."""
    plain: list[str] = []
    found: dict[str, list[tuple[str, str]]] = {"method": [], "optimizer": []}
    words = iter(argv)
    for word in words:
        owner, dot, rest = word.removeprefix("--").partition(".")
        if not (word.startswith("--") and dot and owner in found):
            plain.append(word)
            continue
        name, equals, content = rest.partition("=")
        content = content if equals else next(words, None)
        if content is None:
            raise UsageError(f"{word} needs a value")
        found[owner].append((name.replace("-", "_"), content))
    return plain, {k: tuple(v) for k, v in found.items()}


def _one_line(box: str) -> str:
    """The sentences of the parser's box, without its frame."""
    lines = [line.strip("│╭╰╮╯─ \n") for line in box.splitlines()]
    text = " ".join(line for line in lines[1:] if line)
    return re.split(r"Argument helptext:|For full helptext", text)[0].strip()


def _keep_compiled() -> None:
    """Keep compiled programs between processes, in $PUGD_CACHE_DIR or ~/.cache/pugd_optax."""
    import jax

    folder = os.environ.get("PUGD_CACHE_DIR", str(Path.home() / ".cache" / "pugd_optax"))
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
