"""A perturbed gradient keeps its gain when the second gradient is on part of the batch or on part of the steps.

**Statement.** Four papers make a perturbed step cheaper than two gradients and report no loss: on some of the examples
(ESAM, https://arxiv.org/abs/2110.03141), on some of the steps, its direction reused in between (LookSAM,
https://arxiv.org/abs/2203.02714), without a second gradient (momentum SAM, https://arxiv.org/abs/2401.12033), on some
of the steps alone (RTS, https://github.com/eeyzs1/CV_RTS). For PUGD: a quarter of the batch, or a reused direction.

**Setting.** As `rts.early`: 500 handwritten digits with a fifth of the training labels wrong, ResNet-8, 20 epochs;
where a data folder is named, also 1000 clean images of Fashion-MNIST, MLP, 30 epochs. RTS is PUGD in the last steps
alone, its radius rising along a quarter of a sine. The cost of a run is counted in gradient evaluations, a forward pass
as a third of one.

**Hyperparameters.** Each variant has two learning rates and two values of a hyperparameter of its own (weight decay,
radius, weight of the reused direction), chosen by validation accuracy on two seeds of their own. An earlier trainer had
measured the same variants on the digits, on other seeds; the candidates are those of then. The criteria were set before
any run of this claim.

**Success criteria.** In each setting, by test accuracy after the last epoch: PUGD on a quarter of the batch, PUGD that
reuses its direction on four of five steps, and RTS in half of the steps are each within one point of PUGD; LookSAM and
ESAM are each within one point of SAM. Besides: the first three are above SGD.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.claims.claim import Line, Panel, Rows, Scale
from experiments.claims.conditions import Condition
from experiments.claims.rts import settings
from experiments.claims.study import Outcome, Study, cost, rows
from experiments.claims.variants import grid, method, stretch
from experiments.claims.workspace import Setting
from experiments.config.schema import Config
from experiments.report.stats import show

RADII = (1.0, 2.0)
"""Radii of PUGD, and mean radii of RTS."""
RATES = ("cosine:0.05:0.0", "cosine:0.15:0.0")
SETTINGS: dict[Scale, tuple[Setting, ...]] = {
    scale: tuple(s._replace(candidates=1 if scale == "smoke" else 4) for s in found)
    for scale, found in settings.SETTINGS.items()
}
QUARTER, REUSED, HALF = "PUGD, quarter of the batch", "PUGD, reused on 4 of 5 steps", "RTS, last half"
LOOKSAM, ESAM = "LookSAM, every 5th step", "ESAM, half of the batch"
KEEPS = {QUARTER: "PUGD", REUSED: "PUGD", HALF: "PUGD", LOOKSAM: "SAM", ESAM: "SAM"}
"""A variant and the one whose gain it keeps."""


def shortcuts(setting: Setting, chosen: Mapping[str, Config]) -> dict[str, list[Config]]:
    """The candidates of each variant; at smoke scale without those that no criterion asks for."""
    del chosen
    base = setting.base
    decays = grid(base, weight_decay=(base.weight_decay, base.weight_decay + 5e-3))
    quarter, half = (dataclasses.replace(base, second_batch=text) for text in ("0.25", "raised:0.5"))
    variants = {
        "SGD": decays,
        "SAM": _strengths(base, "sam", "radius", (0.05, 0.2)),
        "PUGD": _strengths(base, "pugd", "radius", RADII),
        LOOKSAM: _strengths(base, "looksam", "alpha", (0.1, 0.4), radius=0.1, every=5),
        ESAM: _strengths(half, "esam", "radius", (0.02, 0.05)),
        QUARTER: _strengths(quarter, "pugd", "radius", RADII),
        REUSED: _strengths(base, "pugd", "radius", RADII, idle="reuse", when="every:5"),
        HALF: _late(base, 0.5),
    }
    if setting.candidates > 1:
        variants |= {
            "SGD, twice the epochs": [stretch(config, 2) for config in decays],
            "momentum SAM": _strengths(base, "momentum_sam", "radius", (0.1, 0.3)),
            "RTS, last tenth": _late(base, 0.1),
            "RTS, last quarter": _late(base, 0.25),
        }
    return {label: _rated(setting, configs) for label, configs in variants.items()}


def _rated(setting: Setting, configs: Sequence[Config]) -> list[Config]:
    """Each configuration with each learning rate, as many as the setting tries."""
    return [rated for config in configs for rated in grid(config, lr=RATES)][: setting.candidates]


def _strengths(base: Config, name: str, key: str, values: Sequence[float], **options: Any) -> list[Config]:
    return [method(base, name, **{key: value}, **options) for value in values]


def _late(base: Config, fraction: float) -> list[Config]:
    """RTS in the last part of training, its radius rising along a quarter of a sine."""
    waves = [f"quarter:sin:{radius * math.pi / 2:.6g}:0.0" for radius in RADII]
    return [method(base, "rts_pugd", radius=wave, when=f"after:{1 - fraction:g}") for wave in waves]


def _conditions(outcome: Outcome) -> list[Condition]:
    above = [outcome.above(f"{label}, above SGD", label, "SGD", "extra") for label in (QUARTER, REUSED, HALF)]
    kept = [outcome.within(f"{label}, within one point of {of}", label, of) for label, of in KEEPS.items()]
    return above + kept


def _table(outcome: Outcome) -> Rows:
    made = rows(outcome, "SGD")
    for variant, row in zip(outcome.variants.values(), made.values(), strict=True):
        row["time / SGD"] = list(variant.result("seconds") / outcome["SGD"].result("seconds"))
    return made


def _panels(outcome: Outcome) -> list[Panel]:
    seconds = outcome["SGD"].result("seconds")
    prices = {
        "gradient evaluations, SGD's are 1": lambda v: cost(v, outcome.setting).mean(),
        "time, SGD's is 1": lambda v: np.median(v.result("seconds") / seconds),
    }
    return [
        Panel(
            outcome.setting.name,
            name,
            "test accuracy, %",
            [Line(label, [float(price(v))], [list(v.accuracy)]) for label, v in outcome.variants.items()],
            kind="scatter",
        )
        for name, price in prices.items()
    ]


def _summary(outcome: Outcome) -> str:
    sgd = outcome["SGD"].accuracy
    gains = ", ".join(
        f"{label} {show(v.accuracy - sgd)} at {cost(v, outcome.setting).mean():.2f}"
        for label, v in outcome.variants.items()
        if label != "SGD"
    )
    return f"points above SGD, and gradient evaluations: {gains}."


STUDY = Study(SETTINGS, (shortcuts,), _conditions, _panels, _summary, _table)
