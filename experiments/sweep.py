"""Several experiments in one go, their seeds interleaved."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from experiments import progress, runs, train
from experiments.config import Config
from experiments.job import prepare


def run(experiments: Sequence[tuple[Path, Config]], console: Console) -> None:
    """Train every experiment with every one of its seeds.

    All settings are checked before the first run starts. Seeds are the outer loop, so that a slow spell of the machine
    meets every method.

    Args:
      experiments: where the runs of a setting go, and the settings.
      console: where progress is shown.
    """
    jobs = [(root, prepare(config)) for root, config in experiments]
    turns = [
        (job, job.config.first_seed + i, root)
        for i in range(max(config.seeds for _, config in experiments))
        for root, job in jobs
        if i < job.config.seeds
    ]
    todo = [(job, seed, runs.folder_of(root, job.config, seed)) for job, seed, root in turns]
    todo = [turn for turn in todo if not (turn[0].config.resume and runs.complete(turn[2], turn[0].config))]
    with progress.reporter(console, sum(job.config.epochs for job, _, _ in todo)) as report:
        for job, seed, folder in todo:
            train.run(job, seed, folder, report)
