"""Where the seconds of an epoch go: images a second, and the share of time in which the devices wait for work."""

import dataclasses
import itertools
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from experiments.config.errors import UsageError
from experiments.config.schema import Config
from experiments.data.pipeline import channels
from experiments.data.split import split
from experiments.files import write_json
from experiments.runs.state import initial
from experiments.training.epoch import compile_steps, run_epoch
from experiments.training.experiment import prepare

Interval = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Profile:
    """What an epoch took; `idle` is the share of its time in which a device executed nothing, the mean over devices."""

    steps: int
    seconds: float
    images_per_second: float
    idle: float


def profile(config: Config, folder: Path) -> Profile:
    """Train two epochs and trace the second.

    The folder then holds the trace, for TensorBoard or Perfetto, and the numbers.

    Raises:
      UsageError: naming what is wrong with the settings.
    """
    experiment, seed = prepare(config), config.first_seed
    examples = split(config, experiment.dataset, seed).train
    train, key = experiment.source(examples, channels(examples.images)), jax.random.key(seed)
    state = experiment.place(initial(experiment.optimizer.tx, *experiment.network.init(seed), seed=seed))
    compile_steps(experiment, state, train, key)
    state, _ = run_epoch(experiment, state, train, key, jnp.float32(0), seed, epoch=1)
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # it slows down what is measured
    with jax.profiler.trace(folder, profiler_options=options):
        begun = time.perf_counter()
        run_epoch(experiment, state, train, key, jnp.float32(0), seed, epoch=min(2, config.epochs))
        seconds = time.perf_counter() - begun
    rate = experiment.steps_per_epoch * config.batch / seconds
    made = Profile(experiment.steps_per_epoch, seconds, rate, 1 - _working_seconds(folder) / seconds)
    write_json(folder / "profile.json", dataclasses.asdict(made))
    return made


def covered(intervals: Iterable[Interval]) -> float:
    """The length of what the intervals cover together.

    Example:
      >>> covered([(0, 2), (5, 6), (1, 3)])
      4.0
    """
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def _working_seconds(folder: Path) -> float:
    """The time that the newest trace of a folder shows a device at work, the mean over its devices."""
    newest = max(folder.rglob("*.xplane.pb"), key=lambda path: path.stat().st_mtime)
    planes = list(jax.profiler.ProfileData.from_file(str(newest)).planes)
    # An accelerator is a plane by itself, with a line for each stream; the CPU's programs run in threads of the host.
    devices = [plane for plane in planes if plane.name.startswith("/device:")]
    lines = ("Stream", "XLA Ops") if devices else ("tf_XLA",)
    found = [list(_intervals(plane, lines)) for plane in devices or planes]
    working = [covered(intervals) for intervals in found if intervals]
    if not working:
        raise UsageError(f"{folder}: the trace shows no device at work; use a larger --train-size")
    return sum(working) / len(working) / 1e9


def _intervals(plane: Any, lines: tuple[str, ...]) -> Iterator[Interval]:
    chosen = (line.events for line in plane.lines if line.name.startswith(lines))
    for event in itertools.chain.from_iterable(chosen):
        yield event.start_ns, event.start_ns + event.duration_ns
