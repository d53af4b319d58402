"""Several experiments in one run, their seeds interleaved."""

import collections
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from experiments.config.errors import Stopped, UsageError
from experiments.config.schema import Config
from experiments.runs import checkpoint, progress, records, run_dir
from experiments.runs.lock import held
from experiments.training import trainer
from experiments.training.experiment import Experiment, prepare


def run(
    experiments: Sequence[tuple[Path, Config]], console: Console, tolerated: tuple[type[Exception], ...] = ()
) -> list[str]:
    """Train every experiment with every one of its seeds.

    All settings are checked before the first run starts. Seeds are the outer loop, so that a slow period of the
    machine affects every method.

    Args:
      experiments: where the runs of a setting go, and the settings.
      console: where progress is shown.
      tolerated: errors that end one run alone: they are noted in its folder, and the others are trained all the same.

    Returns:
      A line for each run that failed.
    """
    todo, failed = _todo(experiments)
    with progress.reporter(console, sum(_epochs(experiment, folder) for experiment, _, folder in todo)) as report:
        for experiment, seed, folder in todo:
            with held(folder):
                if _done(experiment, folder):  # by another process, meanwhile
                    continue
                try:
                    trainer.run(experiment, seed, folder, report)
                except Stopped:
                    raise
                except tolerated as error:
                    run_dir.fail(folder, error)
                    failed.append(f"{folder}: {error}")
    return failed


def _todo(experiments: Sequence[tuple[Path, Config]]) -> tuple[list[tuple[Experiment, int, Path]], list[str]]:
    """Experiment, seed and folder of every run that is not complete, one seed after the other; and what is broken."""
    for root, _ in experiments:
        run_dir.refuse_unwritable(root)
    prepared = [(root, prepare(config)) for root, config in experiments]
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
                todo.append((experiment, seed, folder))
        except records.Unreadable as error:  # of this seed alone
            broken.append(str(error))
    if not todo and broken:
        raise UsageError(f"{broken[0]}")
    return todo, broken


def _done(experiment: Experiment, folder: Path) -> bool:
    if not experiment.config.resume:
        return False
    if run_dir.complete(folder, experiment.config):
        return True
    records.epochs(folder, _epochs_saved(experiment, folder))  # a broken line is met before training, not after it
    return False


def _epochs_saved(experiment: Experiment, folder: Path) -> int:
    """Whole epochs that the last checkpoint holds."""
    return max(checkpoint.steps(folder), default=0) // experiment.steps_per_epoch


def _epochs(experiment: Experiment, folder: Path) -> int:
    """Epochs that are left, from the last checkpoint on."""
    return experiment.config.epochs - (_epochs_saved(experiment, folder) if experiment.config.resume else 0)
