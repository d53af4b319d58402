r"""Per-class state: how well each class is fitted, and rules that derive from it how far to perturb each class.

A rule is one of two kinds:

- a function `ClassState -> (sign, extent)`, two arrays over classes: the sign $s_c \in \{-1, 0, 1\}$ says which classes
  are amplified (+1, positive augmentation) and dampened (-1, negative), the extent in [0, 1] says how far; `strength`
  turns them into the signed bound $s_c \epsilon_c$. `balanced` and `long_tail` are such rules, for `pugd_optax.lpg` and
  `pugd_optax.lpl`.
- a `BatchRule`, which sees each batch and gives two offsets per class (`pugd_optax.logits.offsets`): `prior` for long
  tails, `confusion` for noisy labels, for `pugd_optax.lpg`.
"""

from pugd_optax.classes.offset_rules import (
    BatchRule as BatchRule,
    confusion as confusion,
    prior as prior,
    transitions as transitions,
)
from pugd_optax.classes.rules import (
    Rule as Rule,
    balanced as balanced,
    long_tail as long_tail,
    strength as strength,
)
from pugd_optax.classes.state import ClassState as ClassState, init as init, observe as observe

__all__ = [
    "BatchRule",
    "ClassState",
    "Rule",
    "balanced",
    "confusion",
    "init",
    "long_tail",
    "observe",
    "prior",
    "strength",
    "transitions",
]
