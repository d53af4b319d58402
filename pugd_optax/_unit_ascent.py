"""The ascent of SAM, and that of ASAM, along a gradient or along what another transformation makes of it."""

from typing import Any

import optax

from pugd_optax.ascents import normalize, scale_by_abs_params


def unit_ascent(adaptive: bool, of: optax.GradientTransformation | None = None) -> Any:
    r"""$d / \|d\|$, or $T^2 \odot d / \|T \odot d\|$ with $T = |w|$; d is the gradient, or what `of` makes of it."""
    if not isinstance(adaptive, bool):
        raise TypeError(f"adaptive={adaptive!r}: expected a bool. Fix: adaptive=True.")
    if not adaptive:
        return normalize(of)
    scale = scale_by_abs_params()
    along = scale if of is None else optax.chain(of, scale)
    return optax.chain(normalize(along), scale)
