"""Every error of the library, read as a user would: it names the argument, its value and the fix.

A new `raise` in the package needs a case here. Which case meets which `raise` is read off the traceback.
"""

# Wrong calls are the subject here.
# pyright: reportArgumentType=false, reportCallIssue=false

import functools
import importlib
import sys
from unittest import mock

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

import pugd_optax
from pugd_optax import check, classes, diagnostics, logits, losses, methods, per_example, schedules, timing
from pugd_optax.ascents import dual_norm, normalize, scale_by_abs_params
from pugd_optax.functional import value_and_grad
from pugd_optax.reevaluate import reevaluate
from tests.raises import Case, meet, sites

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


def bound(risk=0.1, radius=0.1, **given):
    return diagnostics.pac_bayes_bound(risk, W, W, radius, 100, samples=10, **given)


def curve(method=methods.sam, batches=(SIX,), **given):
    return diagnostics.radius_curve(method, lambda w, x: jnp.sum(w * x), SIX, batches, **given)


SIGNS = "Fix: penalty=pugd_optax.per_example.signs(key)"

ARGUMENTS = [
    Case(lambda: methods.gsam(adaptive=1), "adaptive", "1", "Fix: adaptive=True"),
    Case(lambda: methods.sam("big"), "radius", "'big'", "expected a number or a schedule"),
    Case(
        lambda: methods.sam(optax.sgd(0.1)), "radius", "an optimizer", "optax.chain(pugd_optax.sam(), optax.sgd(0.1))"
    ),
    Case(lambda: methods.sam(-1.0), "radius", "-1.0", "expected one finite number >= 0"),
    Case(lambda: jax.jit(lambda n: methods.amp(steps=n))(2), "steps", "traced", "Fix: optax.inject_hyperparams("),
    Case(lambda: methods.looksam(every=2.5), "every", "2.5", "expected a whole number"),
    Case(lambda: methods.looksam(every=0), "every", "0", "expected a whole number >= 1"),
    Case(lambda: methods.noise_injection(0.1, key="a"), "key", "'a'", "Fix: key=jax.random.key(0)"),
    Case(lambda: methods.pugd(idle="zero"), "idle", "'zero'", "expected 'unit', 'raw' or 'reuse'"),
    Case(lambda: methods.pugd(scale="ratio"), "scale", "'ratio'", "one of ['cosine', 'norm_ratio']"),
    Case(lambda: methods.sam(when=3), "when", "3", "Fix: when=pugd_optax.timing.after(1000)"),
    Case(lambda: methods.sam(when=timing.low_variance), "when", "timing.low_variance", "low_variance(...)"),
    Case(lambda: methods.layerwise_noise(0.1, 0, order="up"), "order", "'up'", "expected 'cyclic' or 'random'"),
    Case(lambda: methods.gradient_regularization(0.1, 0.1, "fwd"), "scheme", "'fwd'", "expected one of forward"),
    Case(lambda: methods.gradient_regularization(0.1, 0), "step", "0", "Fix: step=0.05"),
    Case(lambda: methods.esam(beta=0), "beta", "0", "Fix: beta in (0, 1]"),
    Case(
        lambda: check(optax.chain(optax.sgd(0.1), methods.sam()), lambda w: jnp.sum(w**2), jnp.ones(2)),
        "tx",
        "cosine -1.00",
        "Fix: optax.chain(",
    ),
    Case(lambda: step(methods.sam(), actve=True), "extra argument", "'actve'", "Fix: active="),
    Case(lambda: step(methods.anti_pgd(), jnp.ones(2, "bfloat16"), None), "params", "None", "Fix: tx.update("),
    Case(lambda: value_and_grad(jnp.sum, methods.sam(), perturb="all"), "perturb", "'all'", "'local' or 'global'"),
    Case(lambda: value_and_grad(jnp.sum, methods.sam(), second_batch=0), "second_batch", "0", "Fix: a share"),
    Case(lambda: value_and_grad(jnp.sum, methods.sam(), aux_reduce="max"), "aux_reduce", "'max'", "'mean', 'sum'"),
    Case(lambda: grouped(jnp.ones(2), (), jnp.ones((5, 2))), "groups", "2", "Fix: a number that divides the batch"),
    Case(lambda: reevaluate(normalize), "ascent", "function normalize", "Fix: pugd_optax.normalize()"),
    Case(lambda: reevaluate(normalize(), idle="unit"), "idle", "'unit'", "expected a function g -> u"),
    Case(lambda: reevaluate(normalize(), "replace"), "combine", "'replace'", "Fix: pugd_optax.mix(0.5, 0.5)"),
    Case(lambda: schedules.quarter_wave("tan", 1.0, 0.1, 9), "kind", "'tan'", "expected one of cos, sin, icos, isin"),
    Case(lambda: schedules.quarter_wave("icos", 1.0, 0.0, 9), "min", "0", "Fix: min=1/3"),
    Case(lambda: schedules.target_rise(0), "target", "0", "Fix: target=0.1"),
    Case(lambda: schedules.target_cosine(low=0), "low", "0", "Fix: low=1e-3"),
    Case(lambda: dual_norm("2"), "p", "'2'", "Fix: p=2"),
    Case(lambda: dual_norm(0.5), "p", "0.5", "Fix: p=1"),
    Case(lambda: methods.imb_sam([9, 8], eta=5), "eta", "5", "Fix: eta=9"),
    Case(lambda: classes.balanced("soft"), "direction", "'soft'", "expected 'hard' or 'easy'"),
    Case(lambda: classes.confusion(9, bound=0), "bound", "0", "Fix: bound=3.0"),
    Case(lambda: classes.confusion(9, window=0.2), "window", "0.2", "Fix: window=(0.05, 0.2)"),
    Case(lambda: classes.confusion(4), "window", "none of the 4 steps", "Fix: window=(0.05, 0.2) and total_steps="),
    Case(lambda: methods.lpg(3, 0.3, rule=classes.prior([1, 2, 3])), "eps", "0.3", "Fix: leave eps out"),
    Case(lambda: methods.lpl(3, rule=classes.prior([1, 2, 3])), "rule", "offsets", "Fix: pugd_optax.lpg(num_classes"),
    Case(lambda: losses.class_balanced_weights([1, 2], beta=1), "beta", "1", "Fix: beta=0.9999"),
    Case(lambda: losses.ldam(LOGITS, LABELS, [1, 2, 3], scale=0), "scale", "0", "expected a number above 0"),
    Case(lambda: bound(radius=0.0), "radius", "0", "Fix: radius=[0.1, 0.3, 1]"),
    Case(lambda: bound(risk=1.5), "risk", "1.5", "Fix: an error rate"),
    Case(lambda: bound(radius=[0.1, 0.2]), "risk", "(2,)", "Fix: one risk for every radius"),
    Case(lambda: bound(confidence=0), "confidence", "0", "Fix: confidence=0.99"),
    Case(lambda: diagnostics.average_sharpness(jnp.sum, SIX, samples=7), "samples", "7", "Fix: samples=8"),
    Case(lambda: curve(methods.sam()), "method", "GradientTransformation", "Fix: pugd_optax.sam"),
    Case(lambda: curve(lambda r: optax.clip(r)), "method", "radius=0.005", "Fix: a method that perturbs"),
    Case(lambda: curve(batches=[]), "batches", "empty", "Fix: batches=[batch]"),
    Case(lambda: curve(radii=[-1.0]), "radii", "-1.0", "Fix: radii=(0.05, 0.2, 1.0)"),
    Case(lambda: timing.between(4, 4), "stop", "4", "Fix: stop=5"),
    Case(lambda: timing.tail(0.1, 0.1, 10), "schedule", "0.1", "Fix: timing.after(step)"),
    Case(lambda: timing.tail(optax.constant_schedule(0.1), 0.25, 10), "share", "0.25", "Fix: share=0.1 of a schedule"),
    Case(lambda: timing.generalization_gap(10), "warmup", "10", "Fix: warmup=100 or more"),
    Case(
        lambda: diagnostics.hessian_eigenvalues(lambda w: jnp.sum(w**2), jnp.ones(2), k=3, steps=3),
        "k",
        "3",
        "no more than 2",
    ),
    Case(
        lambda: diagnostics.hessian_trace(lambda w: jnp.sum(abs(w)), jnp.ones(2, jnp.complex64), 0),
        "params",
        "complex64",
        "Fix: real and imaginary parts",
    ),
]

UPDATES = [
    Case(lambda: step(methods.sam()), "grad_fn", "needs", "Fix: tx.update(grads, state, params, grad_fn="),
    Case(lambda: step(methods.sam(), params=None), "params", "None", "Fix: tx.update(grads, state, params"),
    Case(lambda: scale_by_abs_params().update(W, ()), "params", "None", "Fix: tx.update(grads, state, params"),
    Case(
        lambda: step(optax.masked(methods.sam(), {"a": True, "b": False}), grad_fn=lambda p: p),
        "grads",
        "MaskedNode",
        "Fix: put it in front",
    ),
    Case(lambda: step(methods.sam(), grads={"a": W["a"]}), "grads", "no ['b']", "Fix: pass the gradient"),
    Case(
        lambda: step(methods.sam(), grad_fn=lambda p: p | {"a": jnp.ones(3)}),
        "the result of grad_fn['a']",
        "(3,)",
        "Fix: return gradients alone",
    ),
    Case(
        lambda: step(methods.sam(), grad_fn=lambda params, step: params),  # as optax.contrib.sam's opaque mode has it
        "grad_fn",
        "(params, step)",
        "Fix: grad_fn=lambda p: jax.grad(loss_fn)(p, batch)",
    ),
    Case(
        lambda: jax.jit(lambda w: step(methods.sam(), params=w, grad_fn=jax.grad(lambda w, x: jnp.sum(w["a"] * x))))(W),
        "grad_fn",
        "(w, x)",
        "Fix: grad_fn=lambda p: jax.grad(loss_fn)(p, batch)",
    ),
    Case(
        lambda: step(methods.sam(), value_fn=lambda p, x, y: jnp.sum(p["a"] * x), y=0),
        "value_fn",
        "(p, x, y)",
        "Fix: value_fn=lambda p: loss_fn(p, batch)",
    ),
    Case(
        lambda: step(methods.sam(when=lambda step: timing.after(step)), grad_fn=lambda p: p),
        "when",
        "function <lambda>",
        "Fix: when=pugd_optax.timing.after(1000)",
    ),
    Case(
        lambda: step(methods.sam(mask={"a": True}), grad_fn=lambda p: p),
        "mask",
        "no ['b'], which params has",
        "Fix: mask=lambda params:",
    ),
    Case(
        lambda: step(methods.layerwise_noise(0.1, 0, mask={"a": False, "b": False}), grad_fn=lambda p: p),
        "mask",
        "no tensor",
        "Fix: mask=None",
    ),
    Case(lambda: step(methods.sam_on(), grad_fn=lambda p: p), "sam_on", "among a, b", "Fix: say which to perturb"),
    Case(
        lambda: step(methods.sam(when=timing.generalization_gap()), grad_fn=lambda p: p),
        "train_loss",
        "val_loss",
        "Fix: tx.update(grads, state, params",
    ),
    Case(
        lambda: step(methods.sam(schedules.target_rise()), grad_fn=lambda p: p),
        "value",
        "None",
        "Fix: tx.update(grads, state, params, grad_fn=grad_fn, value=loss)",
    ),
    Case(lambda: step(methods.functional_sam()), "logits_fn", "None", "Fix: tx.update(grads, state, params, logits"),
    Case(
        lambda: step(methods.focal_sam([3, 2]), logits_fn=lambda p: LOGITS, logit_loss=jnp.mean),
        "labels",
        "None",
        "Fix: tx.update(grads, state, params, logits_fn=",
    ),
    Case(lambda: step(methods.lpg(3), labels=LABELS), "logits_fn", "None", "Fix: tx.update(grads, state, params"),
    Case(lambda: step(methods.pegr(0.1)), "losses_fn", "needs", "Fix: tx.update(grads, state, params, losses_fn="),
    Case(
        lambda: step(methods.pegr(0.1), losses_fn=lambda p: p["b"]),
        "losses_fn",
        "shape=()",
        "Fix: leave the mean over the batch to the penalty",
    ),
    Case(
        lambda: step(methods.pegr(0.1, group_size=3), losses_fn=lambda p: X @ p["a"][:1].repeat(3)),
        "group_size",
        "3",
        "Fix: a divisor of the batch size",
    ),
    Case(
        lambda: per_example.ghost(lambda p: abs(X @ p["w"]), {"w": jnp.ones(3, jnp.complex64)}),
        "params['w']",
        "complex64",
        "Fix: keep real and imaginary parts",
    ),
]

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

GHOST = [
    Case(
        lambda: ghost(lambda w: (lambda losses: losses / losses.mean())(jnp.sum((X @ w) ** 2, axis=1)), jnp.eye(3)),
        "losses_fn",
        "couples the examples",
        "Fix: use LayerNorm",
    ),
    Case(
        lambda: ghost(lambda w: jnp.sum(jax.lax.pad(X, w, [(0, 0, 0), (1, 0, 0)]), axis=1), 1.0),
        "params['w']",
        "primitive pad",
        SIGNS,
    ),
    Case(
        lambda: ghost(lambda w: (lambda h: jnp.sum(h, axis=0) + jnp.sum(h, axis=1))(jnp.full((4, 4), w)), 1.0),
        "params['w']",
        "that all examples share",
        SIGNS,
    ),
    Case(
        lambda: ghost(lambda w: jax.lax.map(lambda row: jnp.sum(row**2), X @ w), jnp.eye(3)),
        "params['w']",
        "the batch axis",
        SIGNS,
    ),
    Case(
        lambda: ghost(lambda w: jnp.sum(jax.lax.conv(ONE, w, (1,), "VALID"), axis=(0, 2)), jnp.ones((4, 1, 2))),
        "params['w']",
        "is lost behind the primitive conv_general_dilated",
        SIGNS,
    ),
    Case(
        lambda: ghost(lambda w: w[LABELS, LABELS] ** 2, jnp.eye(3)),
        "params['w']",
        "a gather that is no lookup of rows",
        SIGNS,
    ),
    Case(lambda: ghost(lambda z: jnp.sum(z**2, axis=1), jnp.ones((4, 3))), "params['w']", "an entry for every", SIGNS),
]


def install(door, framework):
    """Import a front door where its framework is not installed."""
    with mock.patch.dict(sys.modules, {framework: None}):
        sys.modules.pop(f"pugd_optax.{door}", None)
        importlib.import_module(f"pugd_optax.{door}")


def in_chain(grad_fn):
    """A step by `nnx.Optimizer` with dropout, `grad_fn(params, rngs, graphdef, rest)`."""
    model, rngs = nnx.Sequential(nnx.Dropout(0.5), nnx.Linear(3, 1, rngs=nnx.Rngs(0))), nnx.Rngs(1)
    optimizer = nnx.Optimizer(model, optax.chain(methods.sam(), optax.sgd(0.1)), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, rngs):
        graphdef, _, rest = nnx.split(model, nnx.Param, ...)
        grads = nnx.grad(nnx_loss)(model, rngs)
        optimizer.update(model, grads, grad_fn=lambda params: grad_fn(params, rngs, graphdef, rest))

    step(model, optimizer, rngs)


def nnx_loss(model, rngs):
    return jnp.sum(model(X, rngs=rngs))


def train_state(**given):
    state = pugd_optax.linen.TrainState.create(apply_fn=None, params=W, tx=methods.sam())
    state.apply_gradients(grads=W, **given)


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
    Case(lambda: train_state(), "grad_fn", "needs", "pugd_optax.linen.TrainState"),
    Case(lambda: train_state(grad_fn=lambda p: p, parms=W), "parms", "no field", "Fix: params="),
]


CASES = ARGUMENTS + UPDATES + DATA + GHOST + FRAMEWORKS


@functools.cache
def place(case):
    return meet(case, (ValueError, TypeError, ImportError, AttributeError))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.argument}-{case.value}")
def test_message_names_argument_value_and_mend(case):
    assert place(case).path.startswith("pugd_optax")


def test_every_raise_is_read():
    read = {place(case) for case in CASES}
    assert [str(site) for site in sites("pugd_optax") if site not in read] == []
