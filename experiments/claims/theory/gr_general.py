"""Gradient regularisation by a forward difference generalises better than by a backward one or the exact gradient.

**Statement.** Karakida, Takase, Hayase and Osawa, *Understanding Gradient Regularization in Deep Learning*, ICML 2023,
https://arxiv.org/abs/2210.02720: of the schemes forward (F-GR), backward (B-GR) and double backpropagation, F-GR
reaches the highest test accuracy, with a large step of the difference.

**Setting.** Fashion-MNIST at 14 x 14, 1000 images for training, MLP 196-64-64-10 with ReLU, momentum 0.9, batch 100, 30
epochs, cosine learning rate, last epoch, test set of 10000. Exact: the gradient of double backpropagation, by a
Hessian-vector product. The paper has WideResNets on whole CIFAR sets.

**Hyperparameters.** On 5 seeds with separate images: plain SGD's learning rate and weight decay; with that decay, for
each scheme learning rate, strength and step, by validation accuracy on 2000 images, on one grid that is extended if the
best value is on its edge. Verdict: other seeds, images from the other half of the training set.

**Success criteria.** Percent of test accuracy, paired by seed; of interest from 0.5. Paper: forward above backward;
forward above exact; the step chosen for the forward scheme is larger than the smallest one offered. Extra: forward
above plain SGD.

**Observations.** The criterion that holds is about a choice among steps whose validation accuracies differ by less than
half a point: the chosen strengths are the smallest of the grid or next to it, where no scheme changes much, and none is
above plain SGD.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optax

from experiments.claims.claim import Finding, Line, Panel, Rows, Scale
from experiments.claims.conditions import Condition, Kind, above, exact
from experiments.claims.theory import images, tuning
from experiments.claims.theory.tuning import Chosen, choose
from pugd_optax import gradient_regularization

PLAIN, FORWARD, BACKWARD, EXACT = "SGD", "forward", "backward", "exact"
MARGIN, STEP = 0.5, "step"
Measure = Callable[..., np.ndarray]


class Size(NamedTuple):
    """How large the experiment is."""

    dataset: str
    examples: int
    epochs: int
    rates: tuple[float, ...]
    decays: tuple[float, ...]
    strengths: tuple[float, ...]
    steps: tuple[float, ...]
    choosing_seeds: int
    seeds: int

    @property
    def training(self) -> images.Training:
        """Network and length."""
        return images.classifier(self.dataset, (64, 64), self.epochs)


SIZES: dict[Scale, Size] = {
    "smoke": Size("digits", 200, 2, (0.1,), (1e-4,), (0.01,), (0.05,), 1, 2),
    "full": Size(
        "fashion_mnist", 1000, 30, tuning.RATES, tuning.DECAYS, (0.01, 0.03, 0.1, 0.3), (0.05, 0.15, 0.5), 5, 30
    ),
}


def run(scale: Scale, first_seed: int = 200, data_dir: Path | None = None) -> Finding:
    """Choose for every scheme, then train what was chosen on fresh seeds."""
    size = SIZES[scale]
    choosing, fresh = tuning.seeds(size.choosing_seeds, first_seed, size.seeds)
    tried = images.to_choose(size.dataset, data_dir, choosing, size.examples)
    measures = {
        n: images.compiled(size.training, _maker(n), tried, choosing) for n in (PLAIN, FORWARD, BACKWARD, EXACT)
    }
    chosen = _chosen(size, measures)
    final = images.to_judge(size.dataset, data_dir, fresh, size.examples)
    found = {n: images.compiled(size.training, _maker(n), final, fresh)(**c.values) for n, c in chosen.items()}
    rows: Rows = {
        name: {"test %": list(found[name]), f"against {PLAIN}": list(found[name] - found[PLAIN])} for name in found
    }
    choices = [choice.choice("Fashion-MNIST", name) for name, choice in chosen.items()]
    conditions = _conditions(found, chosen, size)
    return Finding(rows, _panels(found, size, measures, chosen), conditions, _reading(chosen), choices)


def _maker(name: Any):
    if name == PLAIN:
        return lambda key: optax.identity()
    return lambda key, strength, step=0.05: gradient_regularization(strength, step, name)


def _chosen(size: Size, measures: dict[str, Measure]) -> dict[str, Chosen]:
    """Plain SGD's rate and decay first; that decay for all."""
    mean = lambda name: lambda **point: float(np.mean(measures[name](**point)))
    chosen = {PLAIN: choose(mean(PLAIN), {"rate": size.rates, "decay": size.decays})}
    decay = chosen[PLAIN].values["decay"]
    for name in (FORWARD, BACKWARD, EXACT):
        grid = {"rate": size.rates, "decay": (decay,), "strength": size.strengths}
        grid |= {} if name == EXACT else {STEP: size.steps}
        chosen[name] = choose(mean(name), grid, reach=2)
    return chosen


def _panels(
    found: dict[str, np.ndarray], size: Size, measures: dict[str, Measure], chosen: dict[str, Chosen]
) -> list[Panel]:
    points = [Line(name, [0.0], [list(values)]) for name, values in found.items()]
    panels = [Panel("Test set, chosen on other images", "test accuracy, %", "", points, kind="points")]
    if len(size.steps) == 1:
        return panels
    swept = lambda name: [list(measures[name](**{**chosen[name].values, STEP: step})) for step in size.steps]
    lines = [Line(name, list(size.steps), swept(name)) for name in (FORWARD, BACKWARD)]
    title = "At the chosen rate and strength"
    return [*panels, Panel(title, "step of the difference", "validation accuracy, %", lines, "x")]


def _conditions(found: dict[str, np.ndarray], chosen: dict[str, Chosen], size: Size) -> list[Condition]:
    def ahead(other: str, kind: Kind = "paper") -> Condition:
        statement = f"forward above {other}"
        return above(statement, found[FORWARD], found[other], margin=MARGIN, kind=kind, unit="points")

    step = chosen[FORWARD].values[STEP]
    large = exact("the forward scheme chose more than the smallest step", step - min(size.steps))
    return [ahead(BACKWARD), ahead(EXACT), large, ahead(PLAIN, "extra")]


def _reading(chosen: dict[str, Chosen]) -> str:
    said = "; ".join(f"{name}: {choice}, {choice.score:.1f} % on validation images" for name, choice in chosen.items())
    return f"Chosen: {said}."
