"""Noise on one layer a step generalises better than plain SGD and than noise on all weights, on real images.

**Statement.** Orvieto, Raj, Kersting and Bach, *Explicit Regularization in Overparametrized Models via Noise
Injection*, AISTATS 2023, https://arxiv.org/abs/2206.04613: layer-wise perturbations, whose variance stays bounded as
the network grows wide, improve the generalisation of real networks.

**Setting.** Fashion-MNIST at 14 x 14, 1000 images for training, MLP 196-256-256-10 with ReLU, momentum 0.9, batch 100,
30 epochs, cosine learning rate, last epoch, test set of 10000. Layer by layer: noise of sigma on one of the six tensors
a step, cyclic; all at once: sigma / sqrt(6) on all, the same energy.

**Hyperparameters.** On 5 seeds with separate images: plain SGD's learning rate and weight decay; with that decay, for
either noise learning rate and sigma, by accuracy on 2000 validation images, on one grid that is extended if the best
value is on its edge. Verdict: other seeds, images from the other half of the training set.

**Success criteria.** Percent of test accuracy, paired by seed; of interest from 0.5. Paper: layer by layer above plain
SGD; layer by layer above all weights.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import optax

from experiments.claims.claim import Finding, Line, Panel, Rows, Scale
from experiments.claims.conditions import above
from experiments.claims.theory import images, tuning
from experiments.claims.theory.tuning import Chosen, choose
from pugd_optax import layerwise_noise, noise_injection

PLAIN, LAYER, ALL, TENSORS = "SGD", "layer by layer", "all weights", 6
MAKERS = {
    PLAIN: lambda key: optax.identity(),
    LAYER: lambda key, sigma: layerwise_noise(sigma, key),
    ALL: lambda key, sigma: noise_injection(sigma / np.sqrt(TENSORS), key),
}
MARGIN = 0.5


class Size(NamedTuple):
    """How large the experiment is."""

    dataset: str
    examples: int
    epochs: int
    width: int
    rates: tuple[float, ...]
    decays: tuple[float, ...]
    sigmas: tuple[float, ...]
    choosing_seeds: int
    seeds: int

    @property
    def training(self) -> images.Training:
        """Network and length."""
        return images.classifier(self.dataset, (self.width, self.width), self.epochs)


SIZES: dict[Scale, Size] = {
    "smoke": Size("digits", 200, 2, 16, (0.1,), (1e-4,), (0.01,), 1, 2),
    "full": Size(
        *("fashion_mnist", 1000, 30, 256, (0.005, 0.01, 0.02, 0.04, 0.08), tuning.DECAYS, (0.01, 0.03, 0.1), 5, 20)
    ),
}


def run(scale: Scale, first_seed: int = 200, data_dir: Path | None = None) -> Finding:
    """Choose for either noise, then train what was chosen on fresh seeds."""
    size = SIZES[scale]
    choosing, fresh = tuning.seeds(size.choosing_seeds, first_seed, size.seeds)
    tried = images.to_choose(size.dataset, data_dir, choosing, size.examples)
    final = images.to_judge(size.dataset, data_dir, fresh, size.examples)
    chosen = _chosen(size, {n: images.compiled(size.training, m, tried, choosing) for n, m in MAKERS.items()})
    found = {n: images.compiled(size.training, m, final, fresh)(**chosen[n].values) for n, m in MAKERS.items()}
    rows: Rows = {
        name: {"test %": list(values), f"against {PLAIN}": list(values - found[PLAIN])}
        for name, values in found.items()
    }
    points = [Line(name, [0.0], [list(values)]) for name, values in found.items()]
    conditions = [
        above(f"layer by layer above {other}", found[LAYER], found[other], margin=MARGIN, unit="points")
        for other in (PLAIN, ALL)
    ]
    panel = Panel("Test set, chosen on other images", "test accuracy, %", "", points, kind="points")
    said = "; ".join(f"{name}: {choice}, {choice.score:.1f} % on validation images" for name, choice in chosen.items())
    choices = [choice.choice("Fashion-MNIST", name) for name, choice in chosen.items()]
    return Finding(rows, [panel], conditions, f"Chosen: {said}.", choices)


def _chosen(size: Size, measures: dict) -> dict[str, Chosen]:
    """Plain SGD's rate and decay first; that decay for all."""
    mean = lambda name: lambda **point: float(np.mean(measures[name](**point)))
    chosen = {PLAIN: choose(mean(PLAIN), {"rate": size.rates, "decay": size.decays})}
    grid = {"rate": size.rates, "decay": (chosen[PLAIN].values["decay"],), "sigma": size.sigmas}
    return chosen | {name: choose(mean(name), grid) for name in (LAYER, ALL)}
