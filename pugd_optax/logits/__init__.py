r"""Logits with an edited backward pass: the forward value is unchanged, the gradient is changed by class.

Two kinds of edit act on $g_i$, the gradient of the loss with respect to the logits $u_i$ of example i:

- one number per class, the signed relative bound $t_c = s_c \epsilon_c$: `multiplicative` or `additive`;
- two offsets per class, `offsets(a, b)`: a closed form for perturbations of cross-entropy's gradient, which includes
  logit adjustment, LDAM, LPL and bounded targets.

Both are relative, so a loss that sums instead of averaging, or that is scaled by a thousand, is edited in the same way.
There are three forms of the same thing: `perturb` goes between a model and any loss and works in reverse mode;
`linear_surrogate` changes the loss instead and also works in forward mode; `pugd_optax.lpg` is the Optax
transformation.
"""

from pugd_optax.logits.edits import (
    Edit as Edit,
    additive as additive,
    multiplicative as multiplicative,
    renormalize as renormalize,
)
from pugd_optax.logits.offsets import Offsets as Offsets, largest_pull as largest_pull, offsets as offsets
from pugd_optax.logits.perturb import (
    LogitLoss as LogitLoss,
    Strength as Strength,
    linear_surrogate as linear_surrogate,
    perturb as perturb,
)

__all__ = [
    "Edit",
    "LogitLoss",
    "Offsets",
    "Strength",
    "additive",
    "largest_pull",
    "linear_surrogate",
    "multiplicative",
    "offsets",
    "perturb",
    "renormalize",
]
