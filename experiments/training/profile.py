"""Profile an epoch: images per second, and a trace by `jax.profiler` that shows when each device works or waits.

Open the trace with `tensorboard --logdir FOLDER` (with `pip install tensorboard-plugin-profile`) or drop the file
`perfetto_trace.json.gz` in it onto https://ui.perfetto.dev.
"""

import dataclasses
import time
from pathlib import Path

import jax
import jax.numpy as jnp

from experiments.config.schema import Config
from experiments.data.pipeline import channels
from experiments.data.split import split
from experiments.files import write_json
from experiments.runs.run_dir import refuse_unwritable
from experiments.runs.state import initial
from experiments.training.epoch import compile_steps, run_epoch
from experiments.training.experiment import prepare


@dataclasses.dataclass(frozen=True)
class Profile:
    """Measurements of an epoch."""

    steps: int
    seconds: float
    images_per_second: float


def profile(config: Config, folder: Path) -> Profile:
    """Train two epochs and trace the second; writes the trace and the numbers to the folder.

    Raises:
      UsageError: if the settings are wrong, or the folder cannot be written to.
    """
    refuse_unwritable(folder)
    experiment, seed = prepare(config), config.first_seed
    examples = split(config, experiment.dataset, seed).train
    train, key = experiment.source(examples, channels(examples.images)), jax.random.key(seed)
    state = experiment.place(initial(experiment.optimizer.tx, *experiment.network.init(seed), seed=seed))
    compile_steps(experiment, state, train, key)
    state, _ = run_epoch(experiment, state, train, key, jnp.float32(0), seed, epoch=1)
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # it would slow down the training
    with jax.profiler.trace(folder, create_perfetto_trace=True, profiler_options=options):
        begun = time.perf_counter()
        run_epoch(experiment, state, train, key, jnp.float32(0), seed, epoch=min(2, config.epochs))
        seconds = time.perf_counter() - begun
    rate = experiment.steps_per_epoch * config.batch / seconds
    made = Profile(experiment.steps_per_epoch, seconds, rate)
    write_json(folder / "profile.json", dataclasses.asdict(made))
    return made
