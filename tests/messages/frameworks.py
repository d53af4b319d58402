"""Wrong calls of the modules for Flax and Equinox."""

# Wrong calls are the subject here.
# pyright: reportArgumentType=false, reportCallIssue=false

import importlib
import sys
from unittest import mock

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from flax import nnx

import pugd_optax
from pugd_optax import methods
from tests.messages.given import W, X, step
from tests.raises import Case


def install(door, framework):
    """Imports a module of the package as if the framework it needs were not installed."""
    with mock.patch.dict(sys.modules, {framework: None}):
        sys.modules.pop(f"pugd_optax.{door}", None)
        importlib.import_module(f"pugd_optax.{door}")


def in_chain(grad_fn):
    """A step of `nnx.Optimizer` on a model with dropout; `grad_fn` takes `(params, rngs, graphdef, rest)`."""
    model, rngs = nnx.Sequential(nnx.Dropout(0.5), nnx.Linear(3, 1, rngs=nnx.Rngs(0))), nnx.Rngs(1)
    optimizer = nnx.Optimizer(model, optax.chain(methods.sam(), optax.sgd(0.1)), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, rngs):
        graphdef, _, rest = nnx.split(model, nnx.Param, ...)
        grads = nnx.grad(nnx_loss)(model, rngs)
        optimizer.update(model, grads, grad_fn=lambda params: grad_fn(params, rngs, graphdef, rest))

    step(model, optimizer, rngs)


def nnx_step(loss_fn, *args, **options):
    vg = pugd_optax.nnx.value_and_grad(loss_fn, methods.sam(), **options)
    vg(OWN_DROPOUT, vg.init(OWN_DROPOUT), *args)


def nnx_loss(model, rngs):
    return jnp.sum(model(X, rngs=rngs))


def train_state(**given):
    state = pugd_optax.linen.TrainState.create(apply_fn=None, params=W, tx=methods.sam())
    state.apply_gradients(grads=W, **given)


DROPOUT, RNGS = nnx.Sequential(nnx.Dropout(0.5), nnx.Linear(3, 1, rngs=nnx.Rngs(0))), nnx.Rngs(1)
OWN_DROPOUT = nnx.Sequential(nnx.Dropout(0.5, rngs=nnx.Rngs(1)), nnx.Linear(3, 1, rngs=nnx.Rngs(0)))
MLP = eqx.nn.MLP(3, 1, 4, 1, key=jax.random.key(0))
MLP_PARAMS = eqx.filter(MLP, eqx.is_inexact_array)

FRAMEWORKS = [
    Case(lambda: install("nnx", "flax"), "pugd_optax.nnx", "needs Flax", "Fix: pip install 'pugd_optax[flax]'"),
    Case(lambda: install("linen", "flax.training"), "pugd_optax.linen", "needs Flax", "Fix: pip install"),
    Case(lambda: install("equinox", "equinox"), "pugd_optax.equinox", "needs Equinox", "pugd_optax[equinox]"),
    Case(lambda: methods.sam(rho=0.1), "sam", "rho=0.1", "Fix: pugd_optax.sam(radius=0.1)"),
    Case(lambda: pugd_optax.gibberish, "pugd_optax", "'gibberish'", "no attribute"),
    Case(lambda: pugd_optax.nnx.value_and_grad(nnx_loss, methods.sam(), argnums=1), "argnums", "1", "Fix: loss_fn("),
    Case(
        lambda: in_chain(lambda p, rngs, graphdef, rest: nnx.grad(lambda model: nnx_loss(model, None))(p)),
        "grad_fn",
        "'State' object is not callable",
        "Fix: loss, grads, state = pugd_optax.nnx.value_and_grad(loss_fn, tx)(model, state, *args)",
    ),
    Case(
        lambda: in_chain(lambda p, rngs, graphdef, rest: nnx.grad(nnx_loss)(nnx.merge(graphdef, p, rest), rngs)),
        "grad_fn",
        "random counters",
        "Fix: loss, grads, state = pugd_optax.nnx.value_and_grad(loss_fn, tx)(model, state, *args)",
    ),
    Case(
        lambda: step(methods.sam(), MLP_PARAMS, MLP_PARAMS, grad_fn=lambda m: eqx.filter_grad(lambda m: m(X[0]))(m)),
        "grad_fn",
        "'NoneType' object is not callable",
        "Fix: loss, grads, state = pugd_optax.equinox.filter_value_and_grad(loss_fn, tx)(model, state, *args)",
    ),
    Case(lambda: step(methods.sam(), MLP_PARAMS, MLP), "grads", ".activation", "eqx.partition(model, eqx.is_inexact"),
    Case(lambda: step(methods.sam(), MLP_PARAMS, MLP_PARAMS), "grad_fn", "needs", "eqx.combine(p, static)"),
    Case(
        lambda: pugd_optax.value_and_grad(nnx_loss, methods.sam()).init(nnx.Linear(3, 1, rngs=nnx.Rngs(0))),
        "params",
        "Linear of flax.nnx",
        "Fix: loss, grads, state = pugd_optax.nnx.value_and_grad(loss_fn, tx)(model, state, *args)",
    ),
    Case(
        lambda: (vg := pugd_optax.nnx.value_and_grad(lambda m: nnx_loss(m, RNGS), methods.sam()))(
            DROPOUT, vg.init(DROPOUT)
        ),
        "loss_fn",
        "random counters",
        "Fix: pass its module to loss_fn among *args",
    ),
    Case(
        lambda: nnx_step(lambda model: nnx_loss(model, None), argnums=nnx.DiffState(0, nnx.LoRAParam)),
        "argnums",
        "Sequential",
        "Fix: argnums=nnx.DiffState(0, nnx.Param)",
    ),
    Case(
        lambda: nnx_step(lambda model, spread: nnx_loss(model, None), nnx.metrics.Welford(), groups=2),
        "Welford",
        "groups=2",
        "Fix: update it outside of loss_fn",
    ),
    Case(
        lambda: pugd_optax.check(methods.sam(), lambda model: jnp.sum(jax.vmap(model)(X)), MLP),
        "params",
        "MLP of equinox",
        "Fix: params, static = eqx.partition(model, eqx.is_inexact_array); pugd_optax.check(tx, lambda p,",
    ),
    Case(
        lambda: pugd_optax.check(methods.sam(), lambda model: nnx_loss(model, None), OWN_DROPOUT),
        "params",
        "Sequential of flax.nnx",
        "Fix: graphdef, params, rest = nnx.split(model, nnx.Param, ...); pugd_optax.check(tx, lambda p, *args: loss_fn",
    ),
    Case(lambda: train_state(), "grad_fn", "needs", "pugd_optax.linen.TrainState"),
    Case(lambda: train_state(grad_fn=lambda p: p, parms=W), "parms", "not a field", "Fix: params="),
]
