"""The record of an epoch: one line of numbers, or the end of the run if something is not finite."""

import inspect
from typing import Any

import jax
import numpy as np

from experiments.config.errors import Diverged
from experiments.runs.state import Progress, State
from experiments.training.experiment import Experiment
from experiments.training.optimizer import METHODS
from experiments.training.step import Metrics


def check_finite(experiment: Experiment, at: Progress, state: State, seed: int) -> None:
    """Raise `Diverged` if the loss of any step of the epoch so far, or a parameter, is not finite.

    If such steps are skipped, it is raised only at the end of an epoch in which all steps were skipped, so that it does
    not depend on when checkpoints are saved.
    """
    loss = np.asarray(at.metrics["loss"])
    if experiment.config.on_nan == "skip" and (np.isfinite(loss).any() or len(loss) < experiment.steps_per_epoch):
        return
    wrong = np.flatnonzero(~np.isfinite(loss))
    if len(wrong):
        what, within = f"the loss is {loss[wrong[0]]}", int(wrong[0])
    elif not all(np.isfinite(jax.device_get(w)).all() for w in jax.tree.leaves(state.params)):
        what, within = "a parameter is not finite after the update", len(loss) - 1
    else:
        return
    step = (at.epoch - 1) * experiment.steps_per_epoch + within
    has_radius = "radius" in inspect.signature(METHODS[experiment.config.method]).parameters
    raise Diverged(
        f"{experiment.config.title}, seed {seed}: {what} at step {step} (epoch {at.epoch}); "
        f"a smaller --lr{' or --method.radius' * has_radius} may help"
    )


def record(experiment: Experiment, at: Progress) -> dict[str, Any]:
    """The line of `metrics.jsonl`: means over the epoch; for the perturbation, means over active steps.

    The learning rate is that of the last step that was not skipped: schedules do not count the others.
    """
    columns: dict[str, Any] = {name: np.asarray(values, np.float32) for name, values in at.metrics.items()}
    metrics = Metrics(**columns)
    taken = np.isfinite(metrics.loss)
    on = metrics.active.astype(bool) & taken
    seen = {
        name: float(getattr(metrics, name)[on].mean()) if on.any() else None
        for name in ("radius", "cosine", "grad_norm", "perturbed_grad_norm")
    }
    step = at.epoch * experiment.steps_per_epoch
    return {
        "epoch": at.epoch,
        "step": step,
        "gradient_evaluations": at.evaluations,
        "seconds": at.seconds,
        "skipped": int((~taken).sum()),
        "lr": float(experiment.optimizer.lr[step - at.skipped - 1]),
        "train_loss": float(metrics.loss[taken].mean()),
        "train_accuracy": float(metrics.accuracy[taken].mean()),
        "active": float(on.mean()),
        **seen,
    }


def summary(line: dict[str, Any]) -> str:
    """The line in a few words, for the progress bar."""
    return f"loss {line['train_loss']:.3f}  val {100 * line['val_accuracy']:.1f} %"
