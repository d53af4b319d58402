"""On CIFAR-10 with a long tail LPG ends above plain training, on the tail too.

**Statement.** The abstract of LPG, https://arxiv.org/abs/2605.29494: perturbing logit gradients by class improves
long-tailed learning.

**Setting.** As `real.clean`, subsampled exponentially, the largest class 100 times the smallest; about 2400 and 24
images at paper scale, so that ten epochs are 220 steps; a balanced test set. Plain training, LPG by offsets (`prior`)
and by one number per class (`long_tail`), class-balanced weights, logit adjustment, LPL, LDAM, ImbSAM and Focal SAM.
Logit adjustment and LDAM, which are losses of their own, have no label smoothing, all others have that of the preset.

**Hyperparameters.** Learning rate (its peak) and, at full scale, weight decay of each variant, and its own
hyperparameter. At paper scale one run of each point, and a grid that is extended at most once.

**Success criteria.** By test accuracy after the last epoch, the two forms of LPG are each above plain training, and so
is the first on the tail. Also tested: the first is above each of its rivals.

**Observations.** At paper scale both LPG with offsets and logit adjustment chose tau 1 and the same learning rate.
Their gradients differ only in the label smoothing, so this explains the points between them.
"""

from experiments.claims.claim import Panel
from experiments.claims.conditions import Condition, above
from experiments.claims.lpg.common import class_panel, lpg, order, part, table
from experiments.claims.lpg.longtail import BALANCED, rivals
from experiments.claims.real.settings import settings
from experiments.claims.setting import Setting, Variant, option
from experiments.claims.study import MARGIN, Outcome, Study
from experiments.claims.variants import method

OFFSETS, SCALARS = "LPG, offsets", "LPG, one number a class"


def variants(setting: Setting) -> dict[str, Variant]:
    """Plain training, LPG in two forms, and its rivals."""
    base = setting.base
    prior = option("rule", 0.5, 1.0, 2.0, name="tau", template="prior:{:g}")
    found = {
        "plain": Variant(base),
        OFFSETS: Variant(method(base, "lpg"), (prior,)),
        SCALARS: lpg(base, rule="long_tail"),
    }
    others = rivals(base)
    return found | ({BALANCED: others[BALANCED]} if setting.tiny else others)


def _conditions(outcome: Outcome) -> list[Condition]:
    tail, plain = part(outcome[OFFSETS], "tail"), part(outcome["plain"], "tail")
    others = [label for label in outcome.variants if label not in ("plain", OFFSETS, SCALARS)]
    return [
        *(outcome.above(f"{label}, above plain training", label, "plain") for label in (OFFSETS, SCALARS)),
        above(outcome.named(f"{OFFSETS}, on the tail too"), tail, plain, margin=MARGIN, unit="points"),
        *(outcome.above(f"{OFFSETS}, above {label}", OFFSETS, label, "extra") for label in others),
    ]


def _panels(outcome: Outcome) -> list[Panel]:
    return [class_panel(outcome, "plain", OFFSETS, SCALARS, BALANCED)]


STUDY = Study(
    settings("CIFAR-10-LT", imbalance="exp:100"), variants, _conditions, _panels, lambda o: f"{order(o)}.", table
)
