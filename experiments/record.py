"""What an epoch leaves behind: one line of numbers, or the end of the run where a loss is not finite."""

from typing import Any

import numpy as np

from experiments.job import Job
from experiments.names import Diverged
from experiments.step import Metrics


def check_finite(job: Job, metrics: Metrics, seed: int, epoch: int) -> None:
    """Raise `Diverged` if the loss of any step is not finite."""
    wrong = np.flatnonzero(~np.isfinite(metrics.loss))
    if len(wrong):
        step = (epoch - 1) * job.steps_per_epoch + int(wrong[0])
        raise Diverged(
            f"{job.config.title}, seed {seed}: the loss is {metrics.loss[wrong[0]]} at step {step} (epoch {epoch}); "
            "a smaller --lr or --method.radius may help"
        )


def record(job: Job, epoch: int, metrics: Metrics, evaluations: int, seconds: float) -> dict[str, Any]:
    """The line of `metrics.jsonl`: means over the epoch; those of the perturbation over its active steps."""
    on = metrics.active.astype(bool)
    seen = {
        name: float(getattr(metrics, name)[on].mean()) if on.any() else None
        for name in ("radius", "cosine", "grad_norm", "perturbed_grad_norm")
    }
    step = epoch * job.steps_per_epoch
    return {
        "epoch": epoch,
        "step": step,
        "gradient_evaluations": evaluations,
        "seconds": seconds,
        "lr": float(job.recipe.lr(step - 1)),
        "train_loss": float(metrics.loss.mean()),
        "train_accuracy": float(metrics.accuracy.mean()),
        "active": float(on.mean()),
        **seen,
    }


def summary(line: dict[str, Any]) -> str:
    """The line in a few words, for the progress bar."""
    return f"loss {line['train_loss']:.3f}  validation {100 * line['val_accuracy']:.1f} %"
