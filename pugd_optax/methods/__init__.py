"""One paper, one file, one public function."""

import sys

from pugd_optax._argument_names import answer_other_names
from pugd_optax.methods.ae_sam import ae_sam as ae_sam
from pugd_optax.methods.amp import amp as amp
from pugd_optax.methods.anti_pgd import anti_pgd as anti_pgd
from pugd_optax.methods.asam import asam as asam
from pugd_optax.methods.esam import esam as esam
from pugd_optax.methods.fisher_sam import fisher_sam as fisher_sam
from pugd_optax.methods.focal_sam import focal_sam as focal_sam
from pugd_optax.methods.friendly_sam import friendly_sam as friendly_sam
from pugd_optax.methods.functional_sam import functional_sam as functional_sam
from pugd_optax.methods.gnp import gnp as gnp
from pugd_optax.methods.gradient_regularization import gradient_regularization as gradient_regularization
from pugd_optax.methods.gsam import gsam as gsam
from pugd_optax.methods.imb_sam import imb_sam as imb_sam
from pugd_optax.methods.layerwise_noise import layerwise_noise as layerwise_noise
from pugd_optax.methods.le_sam import le_sam as le_sam
from pugd_optax.methods.looksam import looksam as looksam
from pugd_optax.methods.lpg import lpg as lpg
from pugd_optax.methods.lpl import lpl as lpl
from pugd_optax.methods.momentum_sam import momentum_sam as momentum_sam
from pugd_optax.methods.multi_step_sam import multi_step_sam as multi_step_sam
from pugd_optax.methods.noise_injection import noise_injection as noise_injection
from pugd_optax.methods.nso import nso as nso
from pugd_optax.methods.pegr import pegr as pegr
from pugd_optax.methods.perturbed_gradient_descent import perturbed_gradient_descent as perturbed_gradient_descent
from pugd_optax.methods.pugd import pugd as pugd
from pugd_optax.methods.rst import rst as rst
from pugd_optax.methods.rts_pugd import rts_pugd as rts_pugd
from pugd_optax.methods.sam import sam as sam
from pugd_optax.methods.sam_on import sam_on as sam_on
from pugd_optax.methods.stable_sam import stable_sam as stable_sam
from pugd_optax.methods.unified_sam import unified_sam as unified_sam
from pugd_optax.methods.vasso import vasso as vasso
from pugd_optax.methods.wsam import wsam as wsam
from pugd_optax.methods.zsharp import zsharp as zsharp

__all__ = [
    "ae_sam",
    "amp",
    "anti_pgd",
    "asam",
    "esam",
    "fisher_sam",
    "focal_sam",
    "friendly_sam",
    "functional_sam",
    "gnp",
    "gradient_regularization",
    "gsam",
    "imb_sam",
    "layerwise_noise",
    "le_sam",
    "looksam",
    "lpg",
    "lpl",
    "momentum_sam",
    "multi_step_sam",
    "noise_injection",
    "nso",
    "pegr",
    "perturbed_gradient_descent",
    "pugd",
    "rst",
    "rts_pugd",
    "sam",
    "sam_on",
    "stable_sam",
    "unified_sam",
    "vasso",
    "wsam",
    "zsharp",
]

for _name in __all__:  # in their own files as well, so that they can be pickled
    globals()[_name] = answer_other_names(globals()[_name])
    setattr(sys.modules[f"{__name__}.{_name}"], _name, globals()[_name])
