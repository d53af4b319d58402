"""Unified SAM against its formula and its two limiting cases."""

from typing import Any

import numpy as np
import optax
import pytest

from pugd_optax import reevaluate, sam, unified_sam
from tests.problems import assert_follows, assert_same


def at(x: Any, t: int) -> float:
    return float(x(t) if callable(x) else x)


@pytest.mark.parametrize(("radius", "lam"), [(0.1, 0.5), (0.4, 0.9), (0.3, lambda t: 1 / (t + 1))])
def test_formula(radius, lam):
    def rule(t, w, grad):
        g, share = grad(w), at(lam, t)
        return grad(w + radius * (1 - share + share / np.linalg.norm(g)) * g)

    assert_follows(unified_sam(radius, lam), rule, rtol=1e-6 if callable(lam) else 1e-9)


def test_the_ends_are_sam_and_unnormalised_sam():
    assert_same(unified_sam(0.2, 1.0), sam(0.2))
    assert_same(unified_sam(0.2, 0.0), reevaluate(optax.identity(), radius=0.2))
