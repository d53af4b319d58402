"""On CIFAR-10 with the labels given by people, SAM and LPG end above SGD.

**Statement.** SAM (https://arxiv.org/abs/2010.01412) is robust to wrong labels; the abstract of LPG,
https://arxiv.org/abs/2605.29494, claims consistent gains under noisy labels.

**Setting.** As `real.clean`, with the worst of three labels given by people, CIFAR-10N
(https://arxiv.org/abs/2110.12088), about 40 % wrong; validation and test images have clean labels. In addition to the
methods there: LPG with offsets from confusions, generalised cross-entropy, and SGD whose test accuracy is that of its
best epoch on validation images.

**Hyperparameters.** Learning rate (its peak) and, at full scale, weight decay of each variant, and its radius, bound
or q.

**Success criteria.** By test accuracy after the last epoch, SAM and LPG are each above SGD. Also tested: PUGD is above
SGD, LPG is within one point of generalised cross-entropy, and SAM, PUGD and LPG are above SGD stopped early.
"""

from experiments.claims.conditions import Condition
from experiments.claims.lpg.common import bounded, of_loss
from experiments.claims.lpg.noisy import GCE
from experiments.claims.real.settings import perturbed, settings
from experiments.claims.rts.settings import STOPPED
from experiments.claims.setting import Setting, Variant
from experiments.claims.study import Outcome, Study, above_sgd, courses, rows


def variants(setting: Setting) -> dict[str, Variant]:
    """The perturbed gradients, LPG, generalised cross-entropy, and SGD stopped early."""
    base = setting.base
    return perturbed(setting) | {
        "LPG": bounded(base),
        GCE: of_loss(base, "gce:{:g}", "q", 0.3, 0.5, 0.7, below=1.0),
        STOPPED: Variant(base, stopped=True),
    }


def _conditions(outcome: Outcome) -> list[Condition]:
    ours = ("SAM", "PUGD", "LPG")
    return [
        *(outcome.above(f"{label} above SGD", label, "SGD") for label in ("SAM", "LPG")),
        outcome.above("PUGD above SGD", "PUGD", "SGD", "extra"),
        outcome.within(f"LPG within one point of {GCE}", "LPG", GCE, "extra"),
        *(outcome.above(f"{label} above SGD, stopped early", label, STOPPED, "extra") for label in ours),
    ]


SETTINGS = settings("CIFAR-10N", few="asymmetric:0.4", noise="human:worse")
STUDY = Study(SETTINGS, variants, _conditions, courses, above_sgd, lambda outcome: rows(outcome, "SGD"))
