"""LPG raises the balanced accuracy on long-tailed data by amplifying the gradients of the tail.

**Statement.** The abstract of LPG, https://arxiv.org/abs/2605.29494: perturbing logit gradients by class improves
long-tailed learning; amplified classes are augmented positively, dampened ones negatively. Our LPG is a derivation from
that abstract; none of the paper's numbers is claimed for it.

**Setting.** Fashion-MNIST subsampled exponentially, the largest class 100 or 10 times the smallest (about 2500 and 4000
images), MLP, 30 epochs, batch 128, cosine learning rate. The test set is balanced, so accuracy is balanced accuracy;
head, medium and tail are the 3, 4 and 3 classes by falling count. LPG with `long_tail`: the four largest classes are
dampened, the others amplified. Renormalised: the same with the total weight of a batch unchanged, so that the learning
rate does not change. Other remedies at the same cost of one gradient a step: LPL, class-balanced weights, logit
adjustment, LDAM (margins up to 2 logits, because the head has no normalisation).

**Hyperparameters.** Each variant has three learning rates and two values of a hyperparameter of its own (weight decay,
strength, margin, beta, tau), chosen by accuracy on 2000 balanced and clean validation images, two seeds of their own.
The settings were fixed beforehand.

**Success criteria.** In each setting: LPG's balanced accuracy is above that of plain training, and so is its accuracy
on the tail. Besides: so is that of renormalised LPG; and LPG is within one point of class-balanced weights.
"""

import dataclasses
from collections.abc import Mapping

from experiments.claims.claim import Panel, Scale
from experiments.claims.conditions import Condition, above
from experiments.claims.lpg.common import (
    CIFAR10,
    FASHION,
    PARTS,
    SMOKE,
    class_panel,
    hyperparameters,
    lpg,
    lpl,
    of_loss,
    order,
    part,
    plain,
    reweighted,
    strength_panel,
    table,
)
from experiments.claims.study import MARGIN, Outcome, Study
from experiments.claims.workspace import Setting
from experiments.config.schema import Config
from experiments.report.stats import show

_TAIL = dataclasses.replace(FASHION, train_size=10_000, imbalance="exp:100")
_DIGITS = dataclasses.replace(SMOKE, imbalance="exp:10")
SETTINGS: dict[Scale, tuple[Setting, ...]] = {
    "smoke": (Setting("long-tailed digits", _DIGITS, seeds=2, choosing_seeds=1, candidates=1),),
    "full": (
        Setting("ratio 100", _TAIL, seeds=8, choosing_seeds=2, candidates=6),
        Setting("ratio 10", dataclasses.replace(_TAIL, imbalance="exp:10"), seeds=8, choosing_seeds=2, candidates=6),
    ),
    "paper": tuple(
        Setting(
            f"CIFAR-10, ratio {ratio}",
            dataclasses.replace(CIFAR10, imbalance=f"exp:{ratio}"),
            seeds=3,
            choosing_seeds=1,
            candidates=2,
        )
        for ratio in (100, 10)
    ),
}

RENORMALISED, BALANCED = "LPG, renormalised", "class-balanced weights"


def candidates(setting: Setting, chosen: Mapping[str, Config]) -> dict[str, list[Config]]:
    """The candidates of each variant."""
    del chosen
    variants = {
        "plain": plain(setting),
        "LPG": lpg(setting, rule="long_tail"),
        RENORMALISED: lpg(setting, rule="long_tail", renormalize=True),
        BALANCED: reweighted(setting, "class_balanced:0.999", "class_balanced:0.9999"),
    }
    if setting.candidates == 1:
        return variants
    return variants | {
        "LPL": lpl(setting, rule="long_tail"),
        "logit adjustment": of_loss(setting, "logit_adjustment:1", "logit_adjustment:0.5"),
        "LDAM": of_loss(setting, "ldam:2:1", "ldam:0.5:1"),
    }


def _conditions(outcome: Outcome) -> list[Condition]:
    ours, reference = part(outcome["LPG"], "tail"), part(outcome["plain"], "tail")
    return [
        outcome.above("LPG above plain training", "LPG", "plain"),
        outcome.above("renormalised LPG above plain training", RENORMALISED, "plain", "extra"),
        above(outcome.named("on the tail too"), ours, reference, margin=MARGIN, unit="points"),
        outcome.within(f"LPG within one point of {BALANCED}", "LPG", BALANCED, "extra"),
    ]


def _panels(outcome: Outcome) -> list[Panel]:
    panels = [class_panel(outcome, "plain", "LPG", RENORMALISED, BALANCED)]
    if outcome.setting.name != "ratio 100":
        return panels
    kinds = {"LPG": {"rule": "long_tail"}, RENORMALISED: {"rule": "long_tail", "renormalize": True}}
    return [*panels, strength_panel(outcome, kinds)]


def _summary(outcome: Outcome) -> str:
    moved = {name: show(part(outcome["LPG"], name) - part(outcome["plain"], name)) for name in PARTS}
    said = ", ".join(f"{name} {value}" for name, value in moved.items())
    return (
        f"{order(outcome)}. LPG moves the accuracy of {said} points. With the strengths tried, its weights of two "
        "classes differ by at most 9 times, class-balanced ones by up to the ratio of the counts. "
        f"Hyperparameters: {hyperparameters(outcome)}."
    )


STUDY = Study(SETTINGS, (candidates,), _conditions, _panels, _summary, table)
