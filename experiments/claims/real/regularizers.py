"""On CIFAR-10 a forward difference is the best gradient regulariser, and layer-wise noise is above SGD.

**Statement.** Karakida, Takase, Hayase and Osawa, ICML 2023, https://arxiv.org/abs/2210.02720: gradient regularisation
by a forward difference generalises better than by a backward one or the exact gradient. Orvieto, Raj, Kersting and
Bach, AISTATS 2023, https://arxiv.org/abs/2206.04613: noise on one layer per step generalises better than plain SGD.

**Setting.** As `real.clean`: SGD, the three schemes of gradient regularisation, noise on one tensor per step.

**Hyperparameters.** Learning rate (its peak) and, at full scale, weight decay of each variant, and its strength or
sigma; the step of the differences is 0.05.

**Success criteria.** By test accuracy after the last epoch, the forward scheme is above the backward and the exact one,
and layer-wise noise is above SGD. Also tested: the forward scheme is above SGD.
"""

from experiments.claims.conditions import Condition
from experiments.claims.real.settings import settings
from experiments.claims.setting import Setting, Variant, option
from experiments.claims.study import Outcome, Study, above_sgd, courses, rows
from experiments.claims.variants import method

SCHEMES = ("forward", "backward", "exact")
NOISE = "layer-wise noise"


def variants(setting: Setting) -> dict[str, Variant]:
    """Plain training and what regularises it."""
    strength = option("strength", 0.003, 0.01, 0.03)
    schemes = {s: Variant(method(setting.base, "gradient_regularization", scheme=s), (strength,)) for s in SCHEMES}
    noise = Variant(method(setting.base, "layerwise_noise"), (option("sigma", 0.003, 0.01, 0.03),))
    return {"SGD": Variant(setting.base), **schemes, NOISE: noise}


def _conditions(outcome: Outcome) -> list[Condition]:
    return [
        *(outcome.above(f"forward above {scheme}", "forward", scheme) for scheme in SCHEMES[1:]),
        outcome.above(f"{NOISE} above SGD", NOISE, "SGD"),
        outcome.above("forward above SGD", "forward", "SGD", "extra"),
    ]


STUDY = Study(
    settings("CIFAR-10, regularised"), variants, _conditions, courses, above_sgd, lambda outcome: rows(outcome, "SGD")
)
