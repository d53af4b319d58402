r"""Losses that Optax lacks, for long-tailed data and for noisy labels.

They take logits and integer labels and return one number per example without reduction, as in `optax.losses`. For focal
loss use Optax's: `optax.sigmoid_focal_loss(logits, jax.nn.one_hot(labels, classes), alpha=0.25, gamma=2.0).sum(-1)`;
for label smoothing `optax.smooth_labels`. All of these are losses of logits, so `pugd_optax.lpg` takes their mean as
`logit_loss`.

A label out of range raises an error. Under jit it cannot be checked: there it makes the loss and the gradient NaN, so
that it is noticed. For padding, use an existing class and remove its losses afterwards: `jnp.where(real, gce(logits,
jnp.where(real, labels, 0)), 0)`.
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
