"""The trainer: one seed of a job, from the first step to the result in its folder."""

import dataclasses
import math
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import runs
from experiments.epoch import compile_steps, run_epoch
from experiments.job import Job, on_device, split
from experiments.progress import Reporter, silent
from experiments.record import check_finite, record, summary
from experiments.step import Data, State, evaluate, hits, initial


@dataclasses.dataclass
class Best:
    """The state with the highest validation accuracy so far, the first of equals."""

    epoch: int = 0
    accuracy: float = -math.inf
    params: Any = None
    rest: Any = None

    def see(self, epoch: int, accuracy: float, state: State) -> None:
        """Keep a copy (the state itself is donated to the next step) if it is better."""
        if accuracy > self.accuracy:
            self.epoch, self.accuracy = epoch, accuracy
            self.params, self.rest = jax.tree.map(jnp.copy, (state.params, state.rest))


def run(job: Job, seed: int, folder: Path, report: Reporter = silent) -> dict[str, Any]:
    """Train one seed and write its folder.

    Returns:
      The result: test accuracy of the epoch chosen on validation data and of the last epoch, gradient evaluations,
      seconds of training (evaluation and compilation left out), seconds of compilation.

    Raises:
      Diverged: if a loss is not finite; the folder then holds no result.
    """
    parts = split(job.config, job.dataset, seed)
    train, val, test = (on_device(part, parts.train) for part in parts)
    params, rest = job.network.init(seed)
    state, key = initial(job.recipe.tx, params, rest, seed), jax.random.key(seed)
    report(f"{job.config.title}, seed {seed}", 0, "compiling")
    compile_seconds = compile_steps(job, state, train, key)
    runs.start(folder, job.config, seed)
    best, seconds, evaluations, val_loss = Best(), 0.0, 0, jnp.float32(0)
    for epoch in range(1, job.config.epochs + 1):
        begun = time.perf_counter()
        state, metrics = run_epoch(job, state, train, key, val_loss, seed, epoch)
        seconds += time.perf_counter() - begun
        check_finite(job, metrics, seed, epoch)
        loss, accuracy = evaluate(job.network.graphdef, state.params, state.rest, val)
        best.see(epoch, accuracy, state)
        val_loss = jnp.float32(loss)
        evaluations += int(np.where(metrics.active, job.recipe.cost[1], job.recipe.cost[0]).sum())
        line = record(job, epoch, metrics, evaluations, seconds) | {"val_loss": loss, "val_accuracy": accuracy}
        runs.append(folder, line)
        report(f"{job.config.title}, seed {seed}", 1, summary(line))
    result = _test(job, best, state, test) | {
        "gradient_evaluations": evaluations,
        "seconds": seconds,
        "compile_seconds": compile_seconds,
    }
    runs.finish(folder, result)
    return result


def _test(job: Job, best: Best, last: State, test: Data) -> dict[str, Any]:
    """Read the test set, once: with the parameters chosen on validation data, and with the last ones."""
    right, labels = hits(job.network.graphdef, last.params, last.rest, test), np.asarray(test.labels)
    return {
        "best_epoch": best.epoch,
        "val_accuracy": best.accuracy,
        "test_accuracy": evaluate(job.network.graphdef, best.params, best.rest, test)[1],
        "last_test_accuracy": float(right.mean()),
        "last_test_accuracy_by_class": [float(right[labels == c].mean()) for c in np.unique(labels)],
        "parameters": sum(x.size for x in jax.tree.leaves(last.params)),
    }
