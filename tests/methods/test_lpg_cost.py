"""The cost of a step of LPG: one gradient alone, and the cost of the inner method with one."""

import itertools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pugd_optax
from pugd_optax.logits import additive, multiplicative

random = np.random.default_rng(7)


def mlp(sizes=(64, 128, 128, 10)):
    weights = [jnp.asarray(random.normal(size=s) / 8, jnp.float32) for s in itertools.pairwise(sizes)]

    def logits_fn(params, x):
        for w in params[:-1]:
            x = jax.nn.relu(x @ w)
        return x @ params[-1]

    return weights, logits_fn, jnp.asarray(random.normal(size=(32, sizes[0])), jnp.float32), jnp.arange(32) % 10


def flops(tx, *, logs_loss=True):
    """The FLOPs of a training step that passes the raw gradient and all extra arguments, and may return the loss."""
    params, model, x, y = mlp()

    def step(params, state, x, y):
        logits_fn = lambda p: model(p, x)
        loss_fn = lambda p: optax.softmax_cross_entropy_with_integer_labels(logits_fn(p), y).mean()
        loss, grads = jax.value_and_grad(loss_fn)(params)
        extra = {"grad_fn": jax.grad(loss_fn), "logits_fn": logits_fn, "labels": y}
        updates, state = optax.with_extra_args_support(tx).update(grads, state, params, **extra)
        return optax.apply_updates(params, updates), state, loss if logs_loss else None

    cost: Any = jax.jit(step).lower(params, tx.init(params), x, y).compile().cost_analysis()
    return cost["flops"]


@pytest.mark.parametrize("edit", [multiplicative, additive])
@pytest.mark.parametrize("logs_loss", [True, False])
def test_a_step_costs_one_gradient(edit, logs_loss):
    sgd = optax.sgd(0.1, momentum=0.9)
    plain = flops(sgd, logs_loss=logs_loss)
    assert flops(optax.chain(pugd_optax.lpg(10, edit=edit), sgd), logs_loss=logs_loss) <= 1.03 * plain


def normalized_mlp(params, x):
    """The logits and a statistic of the hidden units. XLA does not merge two forward passes through these norms."""
    for w in params[:-1]:
        h = x @ w
        x = jax.nn.relu(h * jax.lax.rsqrt((h * h).mean(-1, keepdims=True) + 1e-5))
    return x @ params[-1], x.mean(0)


@pytest.mark.parametrize("inner", [optax.identity(), pugd_optax.pugd()])
def test_a_shared_forward_pass_costs_one_gradient_with_normalisation_layers(inner):
    """With `logits_vjp`, one forward pass serves the loss, the statistics and the edited gradient."""
    params, _, x, y = mlp()
    inner = optax.with_extra_args_support(inner)
    logits_fn = lambda p: normalized_mlp(p, x)[0]
    cross_entropy = lambda u: optax.softmax_cross_entropy_with_integer_labels(u, y).mean()

    def compiled(tx):
        def step(params, state):
            logits, pullback, stats = jax.vjp(lambda p: normalized_mlp(p, x), params, has_aux=True)
            loss, g = jax.value_and_grad(cross_entropy)(logits)
            grad_fn = jax.grad(lambda p: cross_entropy(logits_fn(p)))
            extra = {"grad_fn": grad_fn, "logits_fn": logits_fn, "labels": y, "logits_vjp": (logits, pullback)}
            return *tx.update(pullback(g)[0], state, params, **extra), loss, stats

        return jax.jit(step).lower(params, tx.init(params)).compile()

    def flops(step: Any) -> float:
        return step.cost_analysis()["flops"]

    tx = pugd_optax.lpg(10, eps=0.5, inner=inner)
    assert flops(compiled(tx)) <= 1.03 * flops(compiled(inner))
    update = jax.jit(lambda p: tx.update(p, tx.init(p), p, logits_fn=logits_fn, labels=y))
    shared, separate = compiled(tx)(params, tx.init(params))[0], update(params)[0]
    chex.assert_trees_all_close(shared, separate, rtol=1e-3, atol=1e-6)


def test_a_step_with_an_inner_method_costs_what_that_method_costs():
    sgd = optax.sgd(0.1)
    alone = flops(optax.chain(pugd_optax.pugd(), sgd))
    assert flops(optax.chain(pugd_optax.lpg(10, inner=pugd_optax.pugd()), sgd)) <= 1.03 * alone
