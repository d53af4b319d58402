"""Focal-SAM against its formula."""

import jax
import numpy as np
import pytest

from pugd_optax import focal_sam
from tests.logit_problem import ahead, assert_follows, cotangent, logits, pull_back


@pytest.mark.parametrize(("gamma", "strength"), [(1.0, 0.5), (2.0, 1.5), (0.0, 1.0)])
def test_formula(gamma, strength):
    counts = np.array([30, 20, 10])

    def rule(w, x, labels):
        weight = (strength * (1 - counts / 60) ** gamma)[labels][:, None]
        part = lambda v: pull_back(v, x, weight * cotangent(logits(v, x), labels))
        rest = pull_back(w, x, (1 - weight) * cotangent(logits(w, x), labels))
        return jax.tree.map(np.add, rest, part(ahead(w, 0.3, part(w))))

    assert_follows(focal_sam(counts, 0.3, gamma, strength), rule)
