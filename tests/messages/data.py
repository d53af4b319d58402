"""Labels, masks, counts and losses that do not fit the logits or each other."""

# Wrong calls are the subject here.
# pyright: reportArgumentType=false, reportCallIssue=false

import jax
import jax.numpy as jnp

import pugd_optax
from pugd_optax import diagnostics, logits, losses
from tests.messages.given import LABELS, LOGITS, edited, observe
from tests.raises import Case

DATA = [
    Case(lambda: observe(logits=LOGITS.astype(int)), "logits", "int32", "Fix: logits.astype(jnp.float32)"),
    Case(lambda: observe(logits=jnp.zeros((4, 5))), "logits", "(4, 5)", "Fix: num_classes=5"),
    Case(lambda: observe(logits=LOGITS[0]), "logits", "(3,)", "Fix: logits[None]"),
    Case(lambda: losses.gce(LOGITS[0, 0], 0), "logits", "()", "Fix: logits with an axis of classes"),
    Case(lambda: observe(logits=(LOGITS, {})), "logits", "tuple", "[0] of (logits, aux)"),
    Case(lambda: observe(labels=[0, 1, 2, 0]), "labels", "list", "Fix: jnp.asarray(labels)"),
    Case(lambda: losses.gce(LOGITS, [0, 1, 2, 0]), "labels", "list", "Fix: jnp.asarray(labels)"),
    Case(lambda: losses.gce(LOGITS, LABELS > 0), "labels", "bool", "Fix: labels.argmax(-1)"),
    Case(lambda: observe(labels=LABELS[:2]), "labels", "(2,)", "Fix: labels.argmax(-1)"),
    Case(lambda: observe(labels=LABELS + 1), "labels", "[1, 3]", "Fix: a model of 4 classes"),
    Case(lambda: observe(labels=LOGITS.astype(int)), "labels", "(4, 3)", "Fix: labels.argmax(-1)"),
    Case(lambda: observe(labels=jnp.zeros(4)), "labels", "(4,)", "Fix: labels.astype(jnp.int32)"),
    Case(lambda: observe(labels=LOGITS + 2.0), "labels", "[2, 2]", "Fix: divide each row by its sum"),
    Case(
        lambda: jax.jit(lambda n: losses.class_balanced_weights(n))(jnp.ones(3)),
        "counts",
        "traced",
        "Fix: a NumPy array",
    ),
    Case(lambda: observe(where=jnp.ones(4)), "where", "float32", "Fix: where != 0"),
    Case(lambda: observe(where=jnp.ones(3, bool)), "where", "(3,)", "Fix: True for rows that count"),
    Case(lambda: logits.offsets(a=jnp.ones((3, 2))), "a", "(3, 2)", "Fix: one row for each label"),
    Case(lambda: logits.offsets(a=LABELS), "a", "int32", "Fix: a.astype(jnp.float32)"),
    Case(lambda: logits.offsets(a=jnp.full(3, -jnp.inf)), "a", "inf", "Fix: -20 in place of -inf"),
    Case(lambda: logits.offsets(b=jnp.ones((3, 3))), "b", "holds 1", "Fix: b - jnp.diagonal(b)[:, None]"),
    Case(lambda: edited(logits.offsets(b=jnp.zeros((2, 2)))), "b", "(2, 2)", "Fix: a row and a column for each class"),
    Case(lambda: edited(jnp.zeros(2)), "strength", "(2,)", "Fix: pugd_optax.classes.strength("),
    Case(lambda: edited(logits.offsets(), logits.additive), "edit", "additive", "Fix: leave edit out"),
    Case(lambda: losses.weighted_mean(jnp.ones(4), jnp.ones(3)), "weights", "(3,)", "Fix: weights[labels]"),
    Case(
        lambda: losses.forward_correction(LOGITS, LABELS, jnp.ones(3)), "transitions", "(3,)", "Fix: one row for each"
    ),
    Case(lambda: losses.forward_correction(LOGITS, LABELS, jnp.eye(3) * 2), "transitions", "[2.0", "Fix: t / t.sum(1"),
    Case(
        lambda: diagnostics.class_bound(
            0.1, [1, 2, 3], jnp.zeros(2), rate_sum=1.0, jacobian=1.0, radius=1.0, num_params=3
        ),
        "strength",
        "(2,)",
        'Fix: the "strength" in the state of lpg',
    ),
    Case(lambda: losses.adjust_logits(LOGITS, [1, 2]), "counts", "(2,)", "expected (3,)"),
    Case(lambda: losses.adjust_logits(LOGITS, [1, 2, 0]), "counts", "[1.0, 2.0, 0.0]", "Fix: leave classes"),
    Case(lambda: pugd_optax.flood(jnp.square, 0.1)(jnp.ones(3)), "flood: loss_fn", "(3,)", "Fix: loss.mean()"),
    Case(lambda: pugd_optax.iflood(jnp.sum, 0.1)(jnp.ones(3)), "iflood: loss_fn", "a scalar", "Fix: leave out"),
]
