"""ImbSAM against its formula and its limiting cases."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pugd_optax import imb_sam
from tests.logit_problem import ahead, assert_follows, cotangent, logits, pull_back
from tests.problems import classifier, examples, extra_args


@pytest.mark.parametrize(("counts", "eta"), [((30, 20, 10), 15), ((30, 20, 10), 30)])
def test_formula(counts, eta):
    def rule(w, x, labels):
        tail = (np.asarray(counts) < eta)[labels][:, None]
        part = lambda v: pull_back(v, x, tail * cotangent(logits(v, x), labels))
        head = pull_back(w, x, ~tail * cotangent(logits(w, x), labels))
        return jax.tree.map(np.add, head, part(ahead(w, 0.3, part(w))))

    assert_follows(imb_sam(counts, 0.3, eta), rule)


def test_all_classes_in_the_tail_is_sam():
    def sam_rule(w, x, labels):
        grad = lambda v: pull_back(v, x, cotangent(logits(v, x), labels))
        return grad(ahead(w, 0.3, grad(w)))

    assert_follows(imb_sam((30, 20, 10), 0.3, eta=31), sam_rule)


def test_doubled_tail_losses_are_those_of_the_authors_code():
    tail = np.array([False, False, True])
    data, params = examples(seed=0), classifier()
    labels, x = np.asarray(data["labels"]), np.asarray(data["x"])
    extra = extra_args(data)
    losses = optax.softmax_cross_entropy_with_integer_labels
    doubled = lambda u: (jnp.where(tail[labels], 2, 1) * losses(u, labels)).mean()
    tx = imb_sam((30, 20, 10), 0.3, eta=15)
    grads = jax.grad(lambda p: doubled(extra["logits_fn"](p)))(params)
    u, _ = tx.update(grads, tx.init(params), params, **extra | {"logit_loss": doubled})
    w = jax.tree.map(np.asarray, params)
    part = lambda v, of: pull_back(v, x, of[labels][:, None] * cotangent(logits(v, x), labels))
    moved = part(ahead(w, 0.3, part(w, tail)), tail)
    chex.assert_trees_all_close(u, jax.tree.map(lambda a, b: a + 2 * b, part(w, ~tail), moved), rtol=1e-4, atol=1e-6)


def test_a_tail_without_a_class_is_refused():
    with pytest.raises(ValueError, match=r"eta=10: no class has fewer examples.*Fix: eta=11"):
        imb_sam((30, 20, 10), eta=10)
    with pytest.raises(ValueError, match=r"eta=20: no class has fewer examples.*Fix: eta=51"):
        imb_sam((50, 50))
    imb_sam((50, 50), eta=51)
    with pytest.raises(ValueError, match=r"counts=.*above 0"):
        imb_sam((30, 0))
