"""On CIFAR-10 with clean labels PUGD and SAM end above SGD.

**Statement.** Tseng, Liu, Lee and Zeng, *Perturbed Gradients Updating within Unit Space for Deep Learning*, IJCNN 2022,
https://arxiv.org/abs/2110.00199, and Foret, Kleiner, Mobahi and Neyshabur, *Sharpness-Aware Minimization*, ICLR 2021,
https://arxiv.org/abs/2010.01412: a better test accuracy on CIFAR-10 than SGD's, with larger networks and 200 epochs.

**Setting.** CIFAR-10 (images compressed by JPEG), the preset `fast_cifar10`: whitened patches and six convolutions, ten
epochs, batch 256, flips and crops; a run trains on 24 000 images, half of the 50 000 without 1000 for validation; at
full scale on 4500, for five epochs. SGD, SGD with twice the epochs, SAM, ASAM, PUGD, RTS-PUGD with the library's
defaults.

**Hyperparameters.** Learning rate (its peak) and, at full scale, weight decay of each variant, and its radius. At
paper scale one run of each point, and a grid that is extended at most once.

**Success criteria.** By test accuracy after the last epoch, SAM and PUGD are each above SGD with as many epochs. Also
tested: so are ASAM and RTS-PUGD, and all are above SGD with as many gradient evaluations.
"""

from experiments.claims.conditions import Condition
from experiments.claims.real.settings import perturbed, settings
from experiments.claims.rts.settings import LONGER
from experiments.claims.study import Outcome, Study, above_sgd, courses, rows

PAPER, OURS = ("SAM", "PUGD"), ("ASAM", "RTS")


def _conditions(outcome: Outcome) -> list[Condition]:
    ours, everyone = outcome.among(OURS), outcome.among((*PAPER, *OURS))
    return [
        *(outcome.above(f"{label} above SGD, equal epochs", label, "SGD") for label in PAPER),
        *(outcome.above(f"{label} above SGD, equal epochs", label, "SGD", "extra") for label in ours),
        *(outcome.above(f"{label} above SGD, equal gradients", label, LONGER, "extra") for label in everyone),
    ]


STUDY = Study(settings("CIFAR-10"), perturbed, _conditions, courses, above_sgd, lambda outcome: rows(outcome, "SGD"))
