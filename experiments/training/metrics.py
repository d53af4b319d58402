"""The record of an epoch: one line of numbers, or the end of the run if something is not finite."""

from typing import Any

import jax
import numpy as np

from experiments.config.errors import Diverged
from experiments.runs.state import Progress, State
from experiments.training.experiment import Experiment
from experiments.training.step import Metrics


def check_finite(experiment: Experiment, metrics: Metrics, state: State, seed: int, first: int) -> None:
    """Raise `Diverged` if the loss of any step since step `first`, or a parameter, is not finite.

    If such steps are skipped, it is raised only if all steps were skipped.
    """
    if experiment.config.on_nan == "skip" and np.isfinite(metrics.loss).any():
        return
    wrong = np.flatnonzero(~np.isfinite(metrics.loss))
    if len(wrong):
        what, step = f"the loss is {metrics.loss[wrong[0]]}", first + int(wrong[0])
    elif not all(np.isfinite(jax.device_get(w)).all() for w in jax.tree.leaves(state.params)):
        what, step = "a parameter is not finite after the update", first + len(metrics.loss) - 1
    else:
        return
    epoch = step // experiment.steps_per_epoch + 1
    raise Diverged(
        f"{experiment.config.title}, seed {seed}: {what} at step {step} (epoch {epoch}); "
        "a smaller --lr or --method.radius may help"
    )


def record(experiment: Experiment, at: Progress) -> dict[str, Any]:
    """The line of `metrics.jsonl`: means over the epoch; for the perturbation, means over active steps."""
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
        "lr": float(experiment.optimizer.lr[step - 1]),
        "train_loss": float(metrics.loss[taken].mean()),
        "train_accuracy": float(metrics.accuracy[taken].mean()),
        "active": float(on.mean()),
        **seen,
    }


def summary(line: dict[str, Any]) -> str:
    """The line in a few words, for the progress bar."""
    return f"loss {line['train_loss']:.3f}  val {100 * line['val_accuracy']:.1f} %"
