r"""Losses Optax lacks: for long-tailed and for noisy labels.

Losses of logits and integer labels, one number an example and no reduction, as in `optax.losses`. For focal loss
use Optax's: `optax.sigmoid_focal_loss(logits, jax.nn.one_hot(labels, classes), alpha=0.25, gamma=2.0).sum(-1)`; for
label smoothing `optax.smooth_labels`. All of these are losses of logits, so `pugd_optax.lpg` takes their mean as
`logit_loss`.

A label out of range raises where it can be read. Under jit it cannot: there it makes loss and gradient NaN, to be seen.
Padding needs a class that exists, and its losses left out after:
`jnp.where(real, gce(logits, jnp.where(real, labels, 0)), 0)`.
"""

from pugd_optax.losses.long_tail import (
    adjust_logits as adjust_logits,
    balanced_softmax as balanced_softmax,
    class_balanced_weights as class_balanced_weights,
    drw_weights as drw_weights,
    ldam as ldam,
    logit_adjustment as logit_adjustment,
    weighted_mean as weighted_mean,
)
from pugd_optax.losses.noisy_labels import (
    forward_correction as forward_correction,
    gce as gce,
    sce as sce,
)

__all__ = [
    "adjust_logits",
    "balanced_softmax",
    "class_balanced_weights",
    "drw_weights",
    "forward_correction",
    "gce",
    "ldam",
    "logit_adjustment",
    "sce",
    "weighted_mean",
]
