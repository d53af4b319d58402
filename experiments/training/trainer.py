"""The trainer: one seed of an experiment, from the first step or the last checkpoint to the result in its folder."""

import contextlib
import dataclasses
import math
import shlex
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NoReturn

import jax
import numpy as np

from experiments.config.errors import Stopped
from experiments.config.schema import Config
from experiments.data.pipeline import Source, channels
from experiments.data.split import split
from experiments.runs import checkpoint, observer, run_dir
from experiments.runs.distributed import any_process, first_alone
from experiments.runs.observer import Observer
from experiments.runs.progress import Reporter, silent
from experiments.runs.signals import graceful_shutdown
from experiments.runs.state import Progress, Snapshot
from experiments.runs.tensorboard import scalars
from experiments.runs.tracker import tracked
from experiments.training.epoch import compile_steps, copied, run_epoch
from experiments.training.evaluate import evaluate, evaluate_each
from experiments.training.experiment import Experiment
from experiments.training.metrics import check_finite, record, summary
from experiments.training.sharpness import sharpness

SECONDS_BETWEEN_REPORTS = 0.5
EXAMPLES_A_CALL = (100, 1000)
"""Limits of the number of examples per evaluation call, which is otherwise that of the validation examples."""
NUMBERS_A_CALL = 1000 * 32 * 32 * 3
"""Numbers in the images of an evaluation call, beyond which it takes no more examples than a step holds at a time."""


@dataclasses.dataclass
class Training:
    """One seed during training: its inputs, its state and its reports."""

    experiment: Experiment
    seed: int
    folder: Path
    train: Source
    val: Source
    signals: list
    report: Reporter
    now: Snapshot
    chunk: int
    observed: Source
    queued: str = ""
    observers: list[Observer] = dataclasses.field(default_factory=list)
    saved: float = dataclasses.field(default_factory=time.monotonic)

    @property
    def name(self) -> str:
        """The name used by the progress bar and in errors."""
        return f"{self.experiment.config.title}, seed {self.seed}"

    @property
    def steps(self) -> int:
        """The number of completed steps."""
        return (self.now.progress.epoch - 1) * self.experiment.steps_per_epoch + self.now.progress.within

    def advance(self) -> None:
        """Train to the end of the epoch, or until a checkpoint is due."""
        at, begun = self.now.progress, time.perf_counter()
        key, val_loss = jax.random.key(self.seed), np.float32(at.val_loss)
        state, metrics = run_epoch(
            self.experiment, self.now.state, self.train, key, val_loss, self.seed, at.epoch, at.within, self._pause()
        )
        at.seconds += time.perf_counter() - begun
        self.now = self.now._replace(state=state)
        for name, values in metrics._asdict().items():
            at.metrics.setdefault(name, []).extend(np.asarray(values).tolist())
        at.skipped += int((~np.isfinite(metrics.loss)).sum())
        at.within = len(at.metrics["loss"])
        check_finite(self.experiment, at, state, self.seed)
        idle, active = self.experiment.optimizer.cost
        costs = np.where(metrics.active, active, idle)
        at.evaluations = float(np.cumsum([at.evaluations, *costs])[-1])  # rounded alike wherever an epoch is divided
        if at.within == self.experiment.steps_per_epoch:
            self._end_epoch()
        stopping = any_process(bool(self.signals))
        if stopping or any_process(self._due()):
            self._save()
        if stopping:
            self.stop()

    def stop(self) -> NoReturn:
        """End the work after a signal."""
        which = self.signals[0] if self.signals else signal.SIGTERM  # which another process was sent
        later = continuation(self.experiment.config) or "; saved"
        raise Stopped(f"{self.name}: {which.name} at step {self.steps}{later}", which)

    def _end_epoch(self) -> None:
        """Evaluate on the validation examples and write a line of metrics."""
        at, (state, _, _) = self.now.progress, self.now
        loss, accuracy = evaluate(
            self.experiment.network.graphdef,
            state.params,
            state.model_state,
            self.val,
            self.experiment.layout.mesh,
            self.chunk,
        )
        if accuracy > at.best_accuracy:  # a copy: the state itself is donated to the next step
            at.best_epoch, at.best_accuracy = at.epoch, accuracy
            self.now = self.now._replace(best=copied((state.params, state.model_state)))
        line = record(self.experiment, at) | {"val_loss": loss, "val_accuracy": accuracy} | self._sharpness()
        run_dir.append(self.folder, line)
        _notify(self, "epoch", line)
        self.report(self.name, 1, summary(line))
        at.epoch, at.within, at.val_loss, at.metrics = at.epoch + 1, 0, loss, {}

    def _sharpness(self) -> dict[str, float]:
        """Measure the sharpness if it is due."""
        every, (state, _, at) = self.experiment.config.sharpness, self.now
        if not every or at.epoch % every:
            return {}
        graphdef = self.experiment.network.graphdef
        return {"sharpness": sharpness(graphdef, state.params, state.model_state, self.observed)}

    def _due(self) -> bool:
        """Whether a checkpoint is due by the interval of epochs, by the clock, or because the run has ended."""
        every, at = self.experiment.config.checkpoint_every, self.now.progress
        if not every:
            return False
        at_interval = at.within == 0 and ((at.epoch - 1) % every == 0 or at.epoch > self.experiment.config.epochs)
        return at_interval or self._late()

    def _late(self) -> bool:
        config = self.experiment.config
        return bool(config.checkpoint_every) and time.monotonic() - self.saved > 60 * config.checkpoint_minutes

    def _save(self) -> None:
        checkpoint.save(self.folder, self.steps, self.now)
        self.saved = time.monotonic()

    def _pause(self) -> Callable[[int], bool]:
        """Called after every step: shows the speed within a long epoch, and returns whether a checkpoint is due."""
        first, begun, total = self.now.progress.within, time.monotonic(), self.experiment.steps_per_epoch
        shown = begun

        def pause(done: int) -> bool:
            nonlocal shown
            now = time.monotonic()
            if now - shown > SECONDS_BETWEEN_REPORTS:
                shown, rate = now, (done - first) * self.experiment.config.batch / (now - begun)
                self.report(self.name, 0, f"{done}/{total} steps, {rate:.0f} images/s")
            return any_process(bool(self.signals) or self._late())

        return pause


def continuation(config: Config) -> str:
    """What continues stopped work, for messages: `--resume` with the folder of `train` or `sweep`, or nothing."""
    again = f"; --resume --out {shlex.quote(str(config.out))} goes on" if config.out else ""
    return "; the same command goes on" if config.resume else again


def run(experiment: Experiment, seed: int, folder: Path, report: Reporter = silent, queued: str = "") -> dict[str, Any]:
    """Train one seed and write its folder; with `resume`, from its last checkpoint on.

    A signal ends it at the next step, with a checkpoint; after the last step, when it is complete.

    Returns:
      The result: test accuracy of the epoch chosen on validation data and of the last epoch, gradient evaluations,
      seconds of training (evaluation and compilation left out), images a second, seconds of compilation.

    Raises:
      Diverged: if a loss is not finite; the folder then holds no result.
      Stopped: after a signal.
    """
    parts = split(experiment.config, experiment.dataset, seed)
    scale = channels(parts.train.images)
    train = experiment.source(parts.train, scale)
    observed, val, test = (experiment.held_out(part, scale) for part in parts)
    with graceful_shutdown() as signals, contextlib.ExitStack() as stack:
        chunk, fresh = _examples_a_call(experiment.config, parts.val.images.shape), _fresh(experiment, seed)
        training = Training(experiment, seed, folder, train, val, signals, report, fresh, chunk, observed, queued)
        report(training.name, 0, "compiling")
        compile_seconds = compile_steps(experiment, training.now.state, train, jax.random.key(seed))
        training.now = _restore_or_start(training)
        training.observers = _observers(training, stack) or []
        while training.now.progress.epoch <= experiment.config.epochs:
            training.advance()
        result = _test(training, test) | {"compile_seconds": compile_seconds}
        run_dir.finish(folder, result)
        _notify(training, "result", result)
        if any_process(bool(signals)):  # after the last look at them; the runs that would follow shall not begin
            training.stop()
    return result


def _examples_a_call(config: Config, shape: tuple[int, ...]) -> int:
    """Examples per evaluation call for validation images of this shape: memory that suffices for a step suffices."""
    of_a_step, small = config.batch // config.accumulate, NUMBERS_A_CALL // math.prod(shape[1:])
    return min(max(of_a_step, small), int(np.clip(shape[0], *EXAMPLES_A_CALL)))


@first_alone
def _observers(training: Training, stack: contextlib.ExitStack) -> list[Observer]:
    """The requested observers, until the stack is left; only the first process has them."""
    config, folder = training.experiment.config, training.folder
    settings = observer.settings(dataclasses.asdict(config)) | {"seed": training.seed}
    found = [scalars(folder, training.now.progress.epoch, settings)] if config.tensorboard else []
    if config.tracker != "none":
        found.append(tracked(config.tracker, training.name, settings, folder))
    return [stack.enter_context(watching) for watching in found]


@first_alone
def _notify(training: Training, what: Literal["epoch", "result"], numbers: dict[str, Any]) -> None:
    """Notify the observers."""
    for watching in training.observers:
        getattr(watching, what)(numbers)


def _fresh(experiment: Experiment, seed: int) -> Snapshot:
    state = experiment.begin(seed)
    return Snapshot(state, copied((state.params, state.model_state)), Progress())


def _restore_or_start(training: Training) -> Snapshot:
    """The last checkpoint if the run is resumed and has one; otherwise a new folder."""
    config, folder, data_version = training.experiment.config, training.folder, training.experiment.dataset.version
    restored = checkpoint.restore(folder, training.now) if config.resume else None
    if restored is None:
        run_dir.start(folder, config, training.seed, training.queued, data_version)
        return training.now
    run_dir.resume(folder, restored.progress.epoch - 1)
    return restored


def _test(training: Training, test: Source) -> dict[str, Any]:
    """Evaluate on the test set, once: with the parameters chosen on validation data, and with the last ones."""
    experiment, (last, best, at) = training.experiment, training.now
    labels, config = np.asarray(test.data.labels), experiment.config
    graphdef, where = experiment.network.graphdef, (test, experiment.layout.mesh, training.chunk)
    correct = evaluate_each(graphdef, last.params, last.model_state, *where)[1]
    of_class = [correct[labels == c] for c in range(experiment.dataset.num_classes)]
    return {
        "best_epoch": at.best_epoch,
        "val_accuracy": at.best_accuracy,
        "test_accuracy": evaluate(graphdef, *best, *where)[1],
        "last_test_accuracy": float(correct.mean()),
        "last_test_accuracy_by_class": [float(each.mean()) if each.size else None for each in of_class],
        "parameters": sum(x.size for x in jax.tree.leaves(last.params)),
        "gradient_evaluations": at.evaluations,
        "skipped_steps": at.skipped,
        "seconds": at.seconds,
        "images_per_second": config.epochs * experiment.steps_per_epoch * config.batch / at.seconds,
    }
