"""LPG raises the balanced accuracy on long-tailed data by amplifying the gradients of the tail.

**Statement.** The abstract of LPG, https://arxiv.org/abs/2605.29494: perturbing logit gradients by class improves
long-tailed learning; amplified classes are augmented positively, dampened ones negatively. Our LPG is a derivation from
that abstract; none of the paper's numbers are claimed for it.

**Setting.** Fashion-MNIST subsampled exponentially, the largest class 100 or 10 times the smallest (about 2500 and 4000
images), MLP, 30 epochs, batch 128, cosine learning rate. The test set is balanced, so accuracy is balanced accuracy;
head, medium and tail are the 3, 4 and 3 classes by falling count. LPG with `long_tail`: the four largest classes are
dampened, the others amplified. Renormalised: the same with the total weight of a batch unchanged, so that the learning
rate does not change. Other remedies at the same cost of one gradient per step: LPL, class-balanced weights, logit
adjustment, LDAM (margins in logits, because the head has no normalisation); at three: ImbSAM (tail: fewer than 100
examples) and Focal SAM.

**Hyperparameters.** Learning rate and weight decay of each variant, and its own hyperparameter (strength, beta, bound,
tau, margin, radius).

**Success criteria.** In each setting: LPG's balanced accuracy is above that of plain training, and so is its accuracy
on the tail. Also tested: so is that of renormalised LPG; and LPG is within one point of class-balanced weights.
"""

import dataclasses

from experiments.claims.claim import Panel, Scale
from experiments.claims.conditions import Condition, above
from experiments.claims.lpg.common import (
    CIFAR10,
    FASHION,
    PARTS,
    SMOKE,
    class_panel,
    lpg,
    of_loss,
    order,
    part,
    small,
    table,
)
from experiments.claims.setting import Axis, Setting, Variant, option, rates
from experiments.claims.study import MARGIN, Outcome, Study
from experiments.claims.variants import method
from experiments.config.schema import Config
from experiments.report.stats import show

_TAIL = dataclasses.replace(FASHION, train_size=10_000, imbalance="exp:100")
_DIGITS = dataclasses.replace(SMOKE, imbalance="exp:10")
SETTINGS: dict[Scale, tuple[Setting, ...]] = {
    "smoke": (Setting("long-tailed digits", _DIGITS, (rates(0.03),), most_seeds=2, tiny=True),),
    "full": (
        small("ratio 100", _TAIL),
        small("ratio 10", dataclasses.replace(_TAIL, imbalance="exp:10")),
    ),
    "paper": tuple(
        Setting(
            f"CIFAR-10, ratio {ratio}",
            dataclasses.replace(CIFAR10, imbalance=f"exp:{ratio}"),
            (),
            choosing_seeds=1,
            most_seeds=3,
        )
        for ratio in (100, 10)
    ),
}

RENORMALISED, BALANCED = "LPG, renormalised", "class-balanced weights"


def variants(setting: Setting) -> dict[str, Variant]:
    """Plain training, LPG, and the other remedies; at smoke scale those of the success criteria alone."""
    base = setting.base
    others = rivals(base)
    found = {
        "plain": Variant(base),
        "LPG": lpg(base, rule="long_tail"),
        RENORMALISED: lpg(base, rule="long_tail", renormalize=True),
    }
    return found | ({BALANCED: others[BALANCED]} if setting.tiny else others)


def rivals(base: Config) -> dict[str, Variant]:
    """What else is done about a long tail."""
    weights = Axis(
        "1 - beta",
        (1e-4, 1e-3, 1e-2),
        lambda config, x: dataclasses.replace(config, reweight=f"class_balanced:{1 - x:.12g}"),
        below=1.0,
    )
    return {
        BALANCED: Variant(base, (weights,)),
        "LPL": Variant(method(base, "lpl", rule="long_tail"), (option("eps", 0.2, 0.4, 1.0),)),
        "logit adjustment": of_loss(base, "logit_adjustment:{:g}", "tau", 0.5, 1.0, 2.0),
        "LDAM": of_loss(base, "ldam:{:g}:1", "margin", 0.5, 1.0, 2.0),
        "ImbSAM": Variant(method(base, "imb_sam", eta=100), (option("radius", 0.05, 0.1, 0.2),)),
        "Focal SAM": Variant(method(base, "focal_sam"), (option("radius", 0.05, 0.1, 0.2),)),
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
    return [class_panel(outcome, "plain", "LPG", RENORMALISED, BALANCED)]


def _summary(outcome: Outcome) -> str:
    moved = {name: show(part(outcome["LPG"], name) - part(outcome["plain"], name)) for name in PARTS}
    said = ", ".join(f"{name} {value}" for name, value in moved.items())
    return f"{order(outcome)}. LPG moves the accuracy of {said} points."


STUDY = Study(SETTINGS, variants, _conditions, _panels, _summary, table)
