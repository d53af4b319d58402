"""PEGR on real images beside which there is noise.

**Statement.** Meng, Cao and Zou, *Per-Example Gradient Regularization Improves Learning Signals from Noisy Data*,
https://arxiv.org/abs/2303.17940: PEGR learns the signal and suppresses the noise of the training data, and so improves
the test error. Which real data the paper uses could not be read; this setting is ours.

**Setting.** An example is an image of MNIST or Fashion-MNIST at 14 x 14 and a patch of 196 Gaussian numbers of standard
deviation 1, the noise; 200 examples for training. Networks: the paper's CNN with ten classes (ten filters each, applied
to both patches, squared ReLU, fixed second layer), and an MLP 392-64-10 with ReLU on both patches. Momentum 0.9, batch
50, 50 epochs, cosine learning rate, last epoch; the test set of 10000 with noise of its own. Whole-batch GR is exact
and regularises the gradient of each batch. The files are not fetched: `--data-dir` or PUGD_DATA_DIR names their folder,
and without them there is no verdict; smoke scale has handwritten digits of 8 x 8, to see that it runs.

**Hyperparameters.** On 5 seeds with separate images, for every method learning rate and, where it has one, strength or
weight decay, by accuracy on 2000 validation images, on grids that extend where their edge wins. Verdict: other seeds,
images from the other half of the training set.

**Success criteria.** Percent of test accuracy, paired by seed; of interest from 1 point. Paper, in each setting: PEGR
above plain SGD. Extra: PEGR above weight decay, and above whole-batch GR.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import pugd_optax
from experiments.claims.claim import Finding, Line, Panel, Rows, Scale
from experiments.claims.conditions import Condition, above
from experiments.claims.theory import images, tuning
from experiments.claims.theory.tuning import Chosen, choose

PLAIN, DECAY, BATCH, PEGR = "SGD", "weight decay", "whole-batch GR", "PEGR"
MAKERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    PLAIN: lambda key: optax.identity(),
    BATCH: lambda key, strength: pugd_optax.gradient_regularization(strength, scheme="exact"),
    PEGR: lambda key, strength: pugd_optax.pegr(strength),
}
FILTERS, MARGIN = 10, 1.0


class Task(NamedTuple):
    """Data and network."""

    name: str
    dataset: str
    network: str


class Size(NamedTuple):
    """How large the experiment is."""

    tasks: tuple[Task, ...]
    examples: int
    epochs: int
    rates: tuple[float, ...]
    decays: tuple[float, ...]
    strengths: tuple[float, ...]
    choosing_seeds: int
    seeds: int


SIZES: dict[Scale, Size] = {
    "smoke": Size((Task("digits, CNN", "digits", "cnn"),), 100, 2, (0.1,), (1e-3,), (0.01,), 1, 2),
    "full": Size(
        (
            Task("MNIST, CNN", "mnist", "cnn"),
            Task("Fashion-MNIST, CNN", "fashion_mnist", "cnn"),
            Task("Fashion-MNIST, MLP", "fashion_mnist", "mlp"),
        ),
        200,
        50,
        (0.005, 0.01, 0.02, 0.04, 0.08),
        (1e-3, 3e-3, 1e-2, 3e-2),
        (0.003, 0.01, 0.03, 0.1),
        5,
        20,
    ),
}


def run(scale: Scale, first_seed: int = 200, data_dir: Path | None = None) -> Finding:
    """Every task: choose for every method, then train what was chosen on fresh seeds."""
    size = SIZES[scale]
    results = {task.name: _solve(task, size, first_seed, data_dir) for task in size.tasks}
    rows: Rows = {
        f"{task}, {name}": {"test %": list(values), f"against {PLAIN}": list(values - found[PLAIN])}
        for task, (found, _) in results.items()
        for name, values in found.items()
    }
    panels = [
        Panel(task, "test accuracy, %", "", [Line(n, [0.0], [list(v)]) for n, v in found.items()], kind="points")
        for task, (found, _) in results.items()
    ]
    conditions = [condition for task, (found, _) in results.items() for condition in _conditions(task, found)]
    said = "; ".join(f"{task}: {_said(chosen)}" for task, (_, chosen) in results.items())
    choices = [c.choice(task, name) for task, (_, chosen) in results.items() for name, c in chosen.items()]
    return Finding(rows, panels, conditions, f"Chosen: {said}.", choices)


def _solve(task: Task, size: Size, first_seed: int, data_dir: Path | None) -> tuple[dict, dict[str, Chosen]]:
    """Test accuracies of the methods, [seeds], and what was chosen."""
    choosing, fresh = tuning.seeds(size.choosing_seeds, first_seed, size.seeds)
    tried = _beside_noise(images.to_choose(task.dataset, data_dir, choosing, size.examples), choosing)
    final = _beside_noise(images.to_judge(task.dataset, data_dir, fresh, size.examples), fresh)
    training = _training(task, size, tried.x.shape[-1])
    knobs = {PLAIN: {}, DECAY: {"decay": size.decays}} | {name: {"strength": size.strengths} for name in (BATCH, PEGR)}
    programs = {name: MAKERS.get(name, MAKERS[PLAIN]) for name in knobs}
    measured = lambda parts, seeds: {m: images.compiled(training, m, parts, seeds) for m in set(programs.values())}
    try_out, judge = measured(tried, choosing), measured(final, fresh)
    score = lambda name: lambda **point: float(np.mean(try_out[programs[name]](**point)))
    chosen = {name: choose(score(name), {"rate": size.rates} | knob) for name, knob in knobs.items()}
    return {name: judge[programs[name]](**choice.values) for name, choice in chosen.items()}, chosen


def _beside_noise(parts: images.Parts, seeds: range) -> images.Parts:
    """Examples [..., 2, pixels]: the image, and a patch of noise."""
    rng = np.random.default_rng([seeds[0], 3])
    beside = lambda x: np.stack([x, rng.standard_normal(x.shape, np.float32)], axis=-2)
    return parts._replace(x=beside(parts.x), test_x=beside(parts.test_x))


def _training(task: Task, size: Size, pixels: int) -> images.Training:
    if task.network == "cnn":
        start = lambda key: 0.01 * jax.random.normal(key, (10, FILTERS, pixels))
        return images.Training(start, size.epochs, 50, _cnn)
    flat = lambda params, x: images.logits(params, x.reshape(len(x), -1))
    return images.Training(lambda key: images.mlp(key, (2 * pixels, 64, 10)), size.epochs, 50, flat)


def _cnn(w: jax.Array, x: jax.Array) -> jax.Array:
    """Logits [n, classes]: for each class the mean over its filters, the sum over the patches."""
    return jnp.mean(jnp.sum(jax.nn.relu(jnp.einsum("npd,jrd->npjr", x, w)) ** 2, axis=1), axis=-1)


def _conditions(task: str, found: dict[str, np.ndarray]) -> list[Condition]:
    return [
        above(
            f"{task}: PEGR above {other}",
            found[PEGR],
            found[other],
            margin=MARGIN,
            kind="paper" if other == PLAIN else "extra",
            unit="points",
        )
        for other in (PLAIN, DECAY, BATCH)
    ]


def _said(chosen: dict[str, Chosen]) -> str:
    return ", ".join(f"{name} ({choice}; {choice.score:.1f} % on validation images)" for name, choice in chosen.items())
