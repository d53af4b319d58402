"""Several experiments in one run, their seeds interleaved."""

import collections
import datetime
import functools
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
from rich.console import Console

from experiments.config.errors import Stopped, UsageError, first_line
from experiments.config.schema import Config
from experiments.runs import checkpoint, progress, records, run_dir, tracker
from experiments.runs.lock import held
from experiments.runs.signals import graceful_shutdown
from experiments.training import trainer
from experiments.training.experiment import Experiment, prepare
from experiments.training.side_by_side import cores, each, one_at_a_time
from experiments.training.together import Group, refuse_unfit, shares


class Turn(NamedTuple):
    """A run: the experiment, the seed and the folder; reports order their rows by the time `queued`."""

    experiment: Experiment
    seed: int
    folder: Path
    queued: str


class Part(NamedTuple):
    """Turns that are trained together, and the number of seeds that their program takes."""

    turns: Sequence[Turn]
    size: int


def run(
    experiments: Sequence[tuple[Path, Config]],
    console: Console,
    tolerated: tuple[type[Exception], ...] = (),
    ended: Callable[[Config, int, Path], None] = lambda config, seed, folder: None,
) -> list[str]:
    """Train every experiment with every one of its seeds.

    All settings are checked before the first run starts. Seeds are the outer loop, so that a slow period of the
    machine affects every method. Runs go on side by side, by default as many as a CPU has cores, in threads that share
    what is compiled; each computes what it would compute alone. With `seeds_at_once` a thread has that many seeds of
    one experiment, which one program trains: see `together`.

    Args:
      experiments: where the runs of a setting go, and the settings.
      console: where progress is shown.
      tolerated: errors that end one run alone: they are noted in its folder, and the others are trained all the same.
      ended: called with the settings, the seed and the folder of every run that has ended, in whichever thread it ran.

    Returns:
      A line for each run that failed.
    """
    todo, failed = _todo(experiments)
    epochs = sum(_epochs(turn.experiment, turn.folder) for turn in todo)
    with graceful_shutdown() as signals, progress.reporter(console, epochs) as report:
        one = functools.partial(_train, report=one_at_a_time(report), tolerated=tolerated, ended=ended, signals=signals)
        several, parts = functools.partial(_train_part, train=one, signals=signals), _parts(todo)
        found = each(several, parts, _workers([part.turns[0] for part in parts]), signals)
    return failed + [line for lines in found for line in lines if line]


def _parts(todo: Sequence[Turn]) -> list[Part]:
    """Turns that are trained together, of one experiment each; the first seeds of all experiments come first."""
    of_one = collections.defaultdict(list)
    for turn in todo:
        of_one[turn.folder.parent].append(turn)
    parts = [
        Part(share, len(divided[0]))
        for turns in of_one.values()
        for divided in [shares(turns, turns[0].experiment.config.seeds_at_once)]
        for share in divided
    ]
    return sorted(parts, key=lambda part: part.turns[0].seed - part.turns[0].experiment.config.first_seed)


def _train_part(part: Part, train: Callable[[Turn], str], signals: list[signal.Signals]) -> list[str]:
    """Train seeds together; a line for each that failed in a way that is tolerated."""
    turns, size = part
    if len(turns) == 1:
        return [train(turns[0])]
    group = Group(turns[0].experiment, len(turns), size, signals)

    def member(turn: Turn) -> str:
        with group.member() as experiment:
            return train(turn._replace(experiment=experiment))

    return each(member, turns, len(turns), signals)


def _train(
    turn: Turn,
    report: progress.Reporter,
    tolerated: tuple[type[Exception], ...],
    ended: Callable[[Config, int, Path], None],
    signals: list[signal.Signals],
) -> str:
    """Train one run; returns a line if it failed with a tolerated error."""
    experiment, seed, folder, queued = turn
    if signals:
        what = f"{experiment.config.title}, seed {seed}: {signals[0].name} before it began"
        raise Stopped(f"{what}{trainer.continuation(experiment.config)}", signals[0])
    with held(folder):
        if _done(experiment, folder):  # by another process, meanwhile
            return ""
        try:
            trainer.run(experiment, seed, folder, report, queued)
        except Stopped:
            raise
        except tolerated as error:
            run_dir.fail(folder, error)
            report(experiment.config.title, 0, "failed", experiment.config.epochs - len(records.lines(folder)))
            ended(experiment.config, seed, folder)
            return f"{folder}: {first_line(error)}"
        ended(experiment.config, seed, folder)
    return ""


def _workers(todo: Sequence[Turn]) -> int:
    """The number of runs at a time, each on one device: as requested, by default one per core of a CPU, elsewhere 1."""
    asked = [turn.experiment.config.jobs for turn in todo if turn.experiment.config.jobs]
    if any(turn.experiment.layout.mesh.size > 1 for turn in todo) or jax.process_count() > 1:
        return 1
    default = cores() if jax.default_backend() == "cpu" else 1
    return max(1, min([len(todo), *(asked or [default])]))


def _todo(experiments: Sequence[tuple[Path, Config]]) -> tuple[list[Turn], list[str]]:
    """Experiment, seed and folder of every incomplete run, one seed after the other; and the damaged records."""
    for root, config in experiments:
        run_dir.refuse_unwritable(root)
        tracker.refuse_missing(config.tracker)
    prepared = [(root, prepare(config)) for root, config in experiments]
    for _, experiment in prepared:
        refuse_unfit(experiment)
    turns = [
        (experiment, seed, run_dir.folder_of(root, experiment.config, seed))
        for i in range(max(config.seeds for _, config in experiments))
        for root, experiment in prepared
        if i < experiment.config.seeds
        for seed in [experiment.config.first_seed + i]
    ]
    folders = [folder for _, _, folder in turns]
    places = [str(folder).casefold() for folder in folders]  # some file systems do not know case
    count = collections.Counter(places)
    twice = {place: folder for place, folder in zip(places, folders, strict=True) if count[place] > 1}
    if twice:
        raise UsageError(f"{min(twice.values())}: two of the experiments would be written there; are they the same?")
    todo, broken = [], []
    for experiment, seed, folder in turns:
        checkpoint.refuse_unusable(folder)
        try:
            if not _done(experiment, folder):
                todo.append(Turn(experiment, seed, folder, datetime.datetime.now(datetime.UTC).isoformat()))
        except records.Unreadable as error:  # of this seed alone
            broken.append(str(error))
    if not todo and broken:
        raise UsageError(f"{broken[0]}")
    return todo, broken


def _done(experiment: Experiment, folder: Path) -> bool:
    if not experiment.config.resume:
        return False
    if run_dir.complete(folder, experiment.config, experiment.dataset.version):
        return True
    records.epochs(folder, _epochs_saved(experiment, folder))  # a broken line is met before training, not after it
    return False


def _epochs_saved(experiment: Experiment, folder: Path) -> int:
    """The number of complete epochs in the last checkpoint."""
    return max(checkpoint.steps(folder), default=0) // experiment.steps_per_epoch


def _epochs(experiment: Experiment, folder: Path) -> int:
    """The remaining epochs after the last checkpoint."""
    return experiment.config.epochs - (_epochs_saved(experiment, folder) if experiment.config.resume else 0)
