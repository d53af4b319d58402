"""Arguments of methods, parts and diagnostics that are out of range or of the wrong type."""

# Wrong calls are the subject here.
# pyright: reportArgumentType=false, reportCallIssue=false

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pugd_optax import check, classes, diagnostics, losses, methods, schedules, timing
from pugd_optax.ascents import dual_norm, normalize
from pugd_optax.functional import value_and_grad
from pugd_optax.reevaluate import reevaluate
from tests.messages.given import LABELS, LOGITS, SIX, bound, curve, given_logits, grouped, step
from tests.raises import Case

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
    Case(
        lambda: grouped(jnp.ones(2), grouped.init(()), jnp.ones((5, 2))),
        "groups",
        "2",
        "Fix: a number that divides the batch",
    ),
    Case(
        lambda: given_logits(methods.lpg(3), groups=2),
        "logits_fn",
        "groups=2",
        "Fix: leave groups=2 out",
    ),
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
    Case(lambda: classes.confusion(9, bound=0), "bound", "0", "expected a number above 0"),
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
    Case(lambda: timing.bernoulli(0), "p", "0", "Fix: a number above 0, or when=False"),
    Case(lambda: timing.low_variance(ratio=0), "ratio", "0", "the gate can never be active"),
    Case(lambda: timing.bernoulli(np.float32(0)), "p", "0", "the gate can never be active"),
    Case(lambda: methods.rst(0.0), "probability", "0", "the gate can never be active"),
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
