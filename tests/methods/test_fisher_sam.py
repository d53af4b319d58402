"""Fisher SAM against its formula."""

import numpy as np
import pytest

from pugd_optax import fisher_sam, sam
from tests.problems import assert_follows, assert_same


@pytest.mark.parametrize(("radius", "eta"), [(0.1, 0.2), (0.5, 30.0)])
def test_formula(radius, eta):
    def rule(t, w, grad):
        g = grad(w)
        natural = g / (1 + eta * g**2)
        return grad(w + radius * natural / np.sqrt(g @ natural))

    assert_follows(fisher_sam(radius, eta), rule)


def test_without_information_it_is_sam():
    assert_same(fisher_sam(0.2, 0.0), sam(0.2))
