"""The ascents of SAM and ASAM, along a gradient or along the output of another transformation."""

from typing import Any

import optax

from pugd_optax.ascents import normalize, scale_by_abs_params


def unit_ascent(adaptive: bool, of: optax.GradientTransformation | None = None) -> Any:
    r"""$d / \|d\|$, or $T^2 \odot d / \|T \odot d\|$ with $T = |w|$; d is the gradient, or the output of `of`."""
    if not isinstance(adaptive, bool):
        raise TypeError(f"adaptive={adaptive!r}: expected a bool. Fix: adaptive=True.")
    if not adaptive:
        return normalize(of)
    scale = scale_by_abs_params()
    along = scale if of is None else optax.chain(of, scale)
    return optax.chain(normalize(along), scale)
