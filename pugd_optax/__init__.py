"""Methods that perturb gradients, each as one composable Optax transformation."""

import importlib
import typing

from pugd_optax import (
    classes as classes,
    diagnostics as diagnostics,
    logits as logits,
    losses as losses,
    per_example as per_example,
    schedules as schedules,
    timing as timing,
)
from pugd_optax.ascents import (
    normalize as normalize,
    projected_ascent as projected_ascent,
    restrict as restrict,
    scale_by_abs_params as scale_by_abs_params,
)
from pugd_optax.checking import check as check
from pugd_optax.combines import decompose as decompose, mix as mix, replace as replace, unit_sum as unit_sum
from pugd_optax.dual_norm import dual_norm as dual_norm
from pugd_optax.flooding import flood as flood, iflood as iflood, soft_ad as soft_ad
from pugd_optax.functional import value_and_grad as value_and_grad
from pugd_optax.methods import *  # noqa: F403
from pugd_optax.methods import __all__ as _methods
from pugd_optax.noise import gaussian as gaussian
from pugd_optax.reevaluate import ReevaluateState as ReevaluateState, reevaluate as reevaluate

__version__ = "0.1.0"

__all__ = [
    "ReevaluateState",
    "check",
    "classes",
    "decompose",
    "diagnostics",
    "dual_norm",
    "per_example",
    "flood",
    "gaussian",
    "iflood",
    "logits",
    "losses",
    "mix",
    "normalize",
    "projected_ascent",
    "reevaluate",
    "replace",
    "restrict",
    "scale_by_abs_params",
    "schedules",
    "soft_ad",
    "timing",
    "unit_sum",
    "value_and_grad",
    *_methods,
]

_FRONT_DOORS = ("equinox", "linen", "nnx")
"""Modules that need a framework; each is imported when it is first used."""

if typing.TYPE_CHECKING:
    from pugd_optax import equinox as equinox, linen as linen, nnx as nnx
else:

    def __getattr__(name: str) -> typing.Any:
        if name in _FRONT_DOORS:
            return importlib.import_module(f"{__name__}.{name}")
        meant = f"; did you mean {name.lower()!r}?" if name.lower() in __all__ else ""
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{meant}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *_FRONT_DOORS})
