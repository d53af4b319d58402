"""LPG raises the balanced accuracy on long-tailed data by amplifying the gradients of the tail.

**Paper.** The abstract of LPG, https://arxiv.org/abs/2605.29494: perturbing logit gradients by class improves
long-tailed learning; amplified classes are augmented positively, dampened ones negatively. Our LPG is a derivation from
that abstract, and none of the paper's figures is claimed for it.

**Setting.** Fashion-MNIST thinned out exponentially, largest class 100 or 10 times the smallest (about 2500 and 4000
images), perceptron, 30 epochs, batch 128, cosine learning rate. The test set is balanced, so accuracy is balanced
accuracy; head, medium and tail are the 3, 4 and 3 classes by falling count. LPG with `long_tail`: the four largest
classes are dampened, the others amplified. Renormalised: the same with the total weight of a batch unchanged, so that
no learning rate changes. Other remedies at the same cost of one gradient a step: LPL, class-balanced weights, logit
adjustment, LDAM (margins up to 2 logits: the head has no normalisation).

**Chosen.** Each arm's learning rate among three and one knob of its own among two (weight decay, strength, margin,
beta, tau), by accuracy on 2000 balanced and clean validation images, two seeds of their own. The settings were fixed
beforehand.

**Decides.** In each setting: LPG's balanced accuracy is above that of plain training; so is that of renormalised LPG;
so is LPG's accuracy on the tail; and LPG loses less than one point against class-balanced weights.
"""

import dataclasses

from experiments.claims.claim import Check, Finding
from experiments.claims.lpg.arms import (
    CIFAR10,
    FASHION,
    SMOKE,
    Arms,
    chosen,
    class_panel,
    lpg,
    lpl,
    of_loss,
    order,
    part,
    plain,
    reweighted,
    sweep,
    table,
)
from experiments.claims.study import Lab, Scale, Setting, above, across, choose, no_worse, train
from experiments.config.schema import Config
from experiments.report.stats import below, show

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


def run(scale: Scale, first_seed: int, lab: Lab) -> Finding:
    """Every arm in every setting; the strength is swept where a run takes seconds."""
    return across(SETTINGS[scale], lambda setting: _find(setting, first_seed, lab), lab)


def candidates(setting: Setting) -> dict[str, list[Config]]:
    """What each arm chooses among."""
    arms = {
        "plain": plain(setting),
        "LPG": lpg(setting, rule="long_tail"),
        RENORMALISED: lpg(setting, rule="long_tail", renormalize=True),
        BALANCED: reweighted(setting, "class_balanced:0.999", "class_balanced:0.9999"),
    }
    if setting.candidates == 1:
        return arms
    return arms | {
        "LPL": lpl(setting, rule="long_tail"),
        "logit adjustment": of_loss(setting, "logit_adjustment:1", "logit_adjustment:0.5"),
        "LDAM": of_loss(setting, "ldam:2:1", "ldam:0.5:1"),
    }


def _find(setting: Setting, first_seed: int, lab: Lab) -> Finding:
    arms = train(setting, choose(setting, candidates(setting), lab), first_seed, lab)
    panels = [class_panel(setting, {k: arms[k] for k in ("plain", "LPG", RENORMALISED, BALANCED)})]
    if setting.name == "ratio 100":
        kinds = {"LPG": {"rule": "long_tail"}, RENORMALISED: {"rule": "long_tail", "renormalize": True}}
        panels.append(sweep(setting, arms["plain"].config, kinds, first_seed, lab))
    return Finding(table(setting, arms), panels, _checks(setting, arms), _reading(setting, arms))


def _checks(setting: Setting, arms: Arms) -> list[Check]:
    ours, reference = part(arms["LPG"], "tail"), part(arms["plain"], "tail")
    return [
        above(f"{setting.name}: LPG above plain training", arms["LPG"], arms["plain"]),
        above(f"{setting.name}: renormalised LPG above plain training", arms[RENORMALISED], arms["plain"]),
        Check(f"{setting.name}: on the tail too", below(reference, ours), f"{show(ours - reference)} points"),
        no_worse(f"{setting.name}: LPG no worse than {BALANCED} less a point", arms["LPG"], arms[BALANCED], 1.0),
    ]


def _reading(setting: Setting, arms: Arms) -> str:
    moved = {name: show(part(arms["LPG"], name) - part(arms["plain"], name)) for name in ("head", "medium", "tail")}
    said = ", ".join(f"{name} {value}" for name, value in moved.items())
    return (
        f"{setting.name}: {order(arms)}. LPG moves the accuracy of {said} points. With the strengths tried, its "
        "weights of two classes differ by at most 9 times, class-balanced ones by up to the ratio of the counts. "
        f"Chosen: {chosen(arms)}."
    )
