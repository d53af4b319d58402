"""Small inputs and calls that many cases share."""

# Wrong calls are the subject here.
# pyright: reportArgumentType=false, reportCallIssue=false

import jax
import jax.numpy as jnp

from pugd_optax import classes, diagnostics, logits, methods, per_example
from pugd_optax.functional import value_and_grad

W = {"a": jnp.array([3.0, -4.0]), "b": jnp.array(0.5)}
LOGITS, LABELS = jnp.zeros((4, 3)), jnp.array([0, 1, 2, 0])
X, ONE, SIX = jnp.arange(12.0).reshape(4, 3), jnp.ones((1, 1, 5)), jnp.arange(6.0)


def step(tx, grads=W, params=W, **extra):
    return tx.update(grads, tx.init(W), params, **extra)


def observe(logits=LOGITS, labels=LABELS, where=None):
    return classes.observe(classes.init(3), logits, labels, where=where)


def edited(strength, edit=None):
    return jax.grad(lambda u: logits.perturb(u, LABELS, strength, edit).sum())(LOGITS)


def ghost(losses_fn, w):
    return per_example.ghost(lambda p: losses_fn(p["w"]), {"w": jnp.asarray(w)})


grouped = value_and_grad(lambda w, x: jnp.sum(x @ w), methods.sam(), groups=2)


def given_logits(tx, **options):
    vg = value_and_grad(lambda w, x: jnp.sum(x @ w), tx, **options)
    return vg(X[0], vg.init(X[0]), X, extra_args={"logits_fn": lambda w: LOGITS + jnp.sum(w), "labels": LABELS})


def bound(risk=0.1, radius=0.1, **given):
    return diagnostics.pac_bayes_bound(risk, W, W, radius, 100, samples=10, **given)


def curve(method=methods.sam, batches=(SIX,), **given):
    return diagnostics.radius_curve(method, lambda w, x: jnp.sum(w * x), SIX, batches, **given)


SIGNS = "Fix: penalty=pugd_optax.per_example.signs(key)"
