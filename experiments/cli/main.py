"""The command line: one function per command; every mistake gives a one-line error and exit status 2."""

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from experiments.cli.options import train_config
from experiments.config.errors import Diverged, Stopped, UsageError, first_line, out_of_memory, pick
from experiments.config.parse import parse

COMMANDS = {
    "demo": "SGD, SAM, PUGD and RTS-PUGD on handwritten digits: table and curves; a minute or two on two cores",
    "train": "train one model with one method; `train --help` lists the options",
    "sweep": "train every combination: the options of `train`, with several values separated by commas",
    "presets": "the papers' recipes, for `train --preset NAME`; `presets NAME` shows the notes on one",
    "report": "rebuild tables (terminal, Markdown, CSV) and curves of a folder of runs",
    "profile": "images per second, and a trace of the devices, with the options of `train`",
    "bench": "the cost of a step and of a run; `bench steps|fraction|growth|compilation` for one part",
    "claims": "the claims of the papers: table, picture and verdict of each",
    "compare": "every method at one budget of gradient evaluations; hours on two cores",
    "reproduce": "measure a number of the README again; `reproduce list` lists them",
}

WORDS = {"presets": "[NAME]", "report": "FOLDER"}
"""The words that commands without options take."""


def main(argv: Sequence[str]) -> int:
    """Run one command; returns the exit status."""
    console = Console()
    console = console if console.is_terminal else Console(width=120)
    try:
        return _dispatch(list(argv), console)
    except (UsageError, OSError) as error:
        line = str(error).replace("\n", "\\n").encode(errors="backslashreplace").decode()  # words may be any bytes
        print(f"error: {line}", file=sys.stderr)
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
    except Exception as error:
        if out_of_memory(error):
            return _say_out_of_memory(error, argv[0])
        lost = _partner_lost(error)
        if lost is None:
            raise
        print(f"{lost} ({first_line(error)})", file=sys.stderr)
        return 1


def _say_out_of_memory(error: Exception, command: str) -> int:
    fix = "Fix: a smaller --batch, or --accumulate; --stream on keeps images off the device"
    later = "; with more memory, --resume continues from the last checkpoint"
    print(
        f"error: out of memory ({first_line(error)}). {fix}{later if command in ('train', 'sweep') else ''}",
        file=sys.stderr,
    )
    return 2


def _partner_lost(error: Exception) -> str | None:
    """The message for an error of a collective operation after another process has died; None for other errors.

    On accelerators it is a RuntimeError, on CPU it may also be a ValueError from Gloo.
    """
    import jax

    from experiments.runs.distributed import PARTNER_LOST

    of_a_collective = isinstance(error, RuntimeError) or "Gloo" in str(error)
    return PARTNER_LOST if of_a_collective and jax.process_count() > 1 else None


def _dispatch(argv: list[str], console: Console) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: python -m experiments COMMAND [OPTIONS]\n")
        print("\n".join(f"  {name:<9} {what}" for name, what in COMMANDS.items()))
        return 0 if argv else 2
    pick("command", argv[0], COMMANDS)
    if argv[0] in WORDS and {"-h", "--help"} & set(argv):
        print(f"usage: python -m experiments {argv[0]} {WORDS[argv[0]]}\n\n{COMMANDS[argv[0]]}")
        return 0
    if argv[0] != "bench":  # which measures compile times
        _keep_compiled()
    run = {
        "demo": _demo,
        "train": _train,
        "sweep": _sweep,
        "presets": _presets,
        "report": _report,
        "profile": _profile,
        "bench": _bench,
        "claims": _claims,
        "compare": _compare,
        "reproduce": _reproduce,
    }
    return run[argv[0]](argv[1:], console)


def _demo(argv: list[str], console: Console) -> int:
    from experiments.cli import cpu, demo

    options = parse(demo.Options, argv, "demo")
    cpu.settle(demo.METHODS)
    demo.main(options, console)
    return 0


def _bench(argv: list[str], console: Console) -> int:
    from experiments.bench import command

    command.main(argv, console)
    return 0


def _train(argv: list[str], console: Console) -> int:
    from experiments.cli import cpu
    from experiments.training import sweep

    config = train_config(argv)
    assert config.out is not None
    cpu.settle([config])
    _refuse_to_overwrite(config.out, config.resume)
    _join_others(config.distributed, console)
    broken = sweep.run([(config.out, config)], console)
    _show(config.out, console)
    return 1 if broken else 0  # the table shows which


def _sweep(argv: list[str], console: Console) -> int:
    from experiments.cli import cpu, sweep_options
    from experiments.training import sweep

    if "-h" in argv or "--help" in argv:
        stop = "`--stop-on-failure` ends the sweep at the first run that fails."
        train_config(["--help"], "sweep", f"{sweep_options.__doc__}\n{stop}")
    experiments = sweep_options.settings([word for word in argv if word != "--stop-on-failure"])
    cpu.settle([config for _, config in experiments])
    _, first = experiments[0]
    assert first.out is not None
    _refuse_to_overwrite(first.out, first.resume)
    _join_others(first.distributed, console)
    failed = sweep.run(experiments, console, () if "--stop-on-failure" in argv else (Exception,))
    if len(failed) == sum(config.seeds for _, config in experiments):
        raise Diverged(f"every run failed, the first: {failed[0]}")
    _show(first.out, console)
    return 1 if failed else 0


def _profile(argv: list[str], console: Console) -> int:
    from experiments.cli import cpu
    from experiments.training import profile

    config = train_config(argv, "profile", profile.__doc__)
    cpu.settle([config])
    assert config.out is not None
    made = profile.profile(config, config.out)
    console.print(
        f"{made.images_per_second:.1f} images/s  {1000 * made.seconds / made.steps:.1f} ms a step  "
        f"trace in {config.out}: tensorboard --logdir {config.out}",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )
    return 0


def _join_others(together: bool, console: Console) -> None:
    from experiments.runs import distributed

    if together:
        distributed.join()
        console.quiet = not distributed.is_first()


def _show(out: Path, console: Console) -> None:
    from experiments.report import tables
    from experiments.runs import distributed

    distributed.first_alone(tables.show)(out, console)


def _refuse_to_overwrite(out: Path, resume: bool) -> None:
    kept = next((name for name in ("result.json", "checkpoints") if next(out.rglob(name), None)), None)
    if kept and not resume:
        what = "results" if kept == "result.json" else "checkpoints"
        raise UsageError(f"--out {out}: contains {what} already; use --resume to continue, or name another folder")
    if resume and next(out.rglob("run.json"), None) is None:
        print(f"warning: --resume: --out {out} holds no run; a new one begins there", file=sys.stderr)


def _presets(argv: list[str], console: Console) -> int:
    from rich.table import Table

    from experiments.config import presets

    notes = presets.notes()
    if len(argv) > 1:
        raise UsageError(f"usage: python -m experiments presets [NAME]; found {len(argv)} words")
    if argv:
        console.print(pick("preset", argv[0], notes), highlight=False, markup=False)
        return 0
    shown = Table(box=None)
    for column in ("preset", "recipe"):
        shown.add_column(column)
    for name, note in notes.items():
        shown.add_row(name, note.splitlines()[0])
    console.print(shown)
    return 0


def _claims(argv: list[str], console: Console) -> int:
    from experiments.claims import command

    command.main(parse(command.Options, argv, "claims"), console)
    return 0


def _compare(argv: list[str], console: Console) -> int:
    from experiments.compare import command

    command.main(parse(command.Options, argv, "compare"), console)
    return 0


def _reproduce(argv: list[str], console: Console) -> int:
    from experiments.cli import cpu, reproduce

    options = parse(reproduce.Options, argv, "reproduce")
    cpu.settle(reproduce.demo.METHODS)
    reproduce.main(options, console)
    return 0


def _report(argv: list[str], console: Console) -> int:
    from experiments.report import tables

    if len(argv) != 1:
        raise UsageError("usage: python -m experiments report FOLDER")
    tables.show(Path(argv[0]), console)
    return 0


def _keep_compiled() -> None:
    """Keep compiled programs between processes, in $PUGD_CACHE_DIR or ~/.cache/pugd_optax, unless a cache is set.

    Small programs are kept too: reading one takes a quarter of the time of compiling it.
    """
    import jax

    from experiments.files import cache_folder

    if not jax.config.jax_compilation_cache_dir:  # pyright: ignore[reportAttributeAccessIssue]
        jax.config.update("jax_compilation_cache_dir", str(cache_folder()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
