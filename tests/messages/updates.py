"""Calls of `update` and the drop-in functions with missing or mismatched arguments."""

# Wrong calls are the subject here.
# pyright: reportArgumentType=false, reportCallIssue=false

import jax
import jax.numpy as jnp
import optax

from pugd_optax import check, methods, per_example, schedules, timing, value_and_grad
from pugd_optax.ascents import scale_by_abs_params
from tests.messages.given import LABELS, LOGITS, W, X, step
from tests.raises import Case

summed = lambda p, x: jnp.sum(p["a"] * x)
plain = value_and_grad(summed, methods.sam())

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
        lambda: step(methods.sam(), *[W | {"b": jnp.array(3)}] * 2, grad_fn=lambda p: p),
        "params['b']",
        "int32",
        "Fix: leave it out of params",
    ),
    *(
        Case(lambda tx=tx: tx.init(W | {"b": jnp.array(3)}), "params['b']", "int32", "Fix: leave it out of params")
        for tx in (methods.anti_pgd(), methods.perturbed_gradient_descent())
    ),
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
        lambda: step(methods.sam(), grad_fn=lambda p: p, ascent_grad_fn=lambda p: (0.0, p)),
        "the result of ascent_grad_fn",
        "no ['a']",
        "Fix: return gradients alone, ascent_grad_fn=lambda p:",
    ),
    Case(
        lambda: step(methods.sam(), grad_fn=lambda p: p, ascent_grad_fn=lambda w, x: w),
        "ascent_grad_fn",
        "(w, x)",
        "Fix: ascent_grad_fn=lambda p: ascent_grad_fn(p, batch)",
    ),
    Case(
        lambda: step(methods.sam(), value_fn=lambda p, x, y: jnp.sum(p["a"] * x), y=0),
        "value_fn",
        "(p, x, y)",
        "Fix: value_fn=lambda p: loss_fn(p, batch)",
    ),
    Case(
        lambda: step(optax.flatten(methods.sam()), grad_fn=jax.grad(lambda p: jnp.sum(p["a"] ** 2))),
        "grad_fn",
        "one vector of 3 numbers, as optax.flatten makes it",
        "Fix: the method in front, optax.chain(pugd_optax.sam(), optax.flatten(optimizer))",
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
    Case(lambda: step(methods.sam(), grad_fn=W), "grad_fn", "a dict", "Fix: grad_fn=lambda p: jax.grad(loss_fn)("),
    Case(lambda: step(methods.sam(), value_fn=1.0), "value_fn", "a float", "Fix: value_fn=lambda p: loss_fn(p, batch)"),
    Case(lambda: plain(W, W["a"]), "state", "no .step, .active, .radius", "Fix: pass it second"),
    Case(lambda: plain(plain.init(W), W, W["a"]), "state", "no .step", "with state = vg.init(...)"),
    Case(lambda: jax.jit(plain)(W, optax.sgd(0.1).init(W), W["a"]), "state", "no .step", "Fix: pass it second"),
    Case(
        lambda: plain(W, plain.init(W), W["a"], extra_args={"active": False}),
        "extra_args",
        "'active'",
        "Fix: active=False, an argument of its own",
    ),
    Case(
        lambda: plain(W, plain.init(W), W["a"], extra_args={"grad_fn": jax.grad(summed)}),
        "extra_args",
        "'grad_fn'",
        "Fix: leave it out",
    ),
    Case(
        lambda: value_and_grad(summed, methods.sam(), groups=2)(W, plain.init(W), x=W["a"]),
        "groups",
        "2",
        "Fix: pass the batch by position",
    ),
    Case(
        lambda: value_and_grad(summed, methods.sam(), second_batch=0.5)(W, plain.init(W), x=W["a"]),
        "second_batch",
        "0.5",
        "Fix: pass the batch by position",
    ),
    Case(lambda: value_and_grad(summed, methods.sam), "tx", "function sam", "Fix: call the method, pugd_optax.sam("),
    Case(lambda: check(methods.sam, summed, W, 1.0), "tx", "function sam", "Fix: call the method"),
    Case(lambda: value_and_grad(methods.sam(), summed), "tx", "function <lambda>", "Fix: call the method"),
    Case(
        lambda: step(optax.inject_hyperparams(methods.sam)(0.1, mask=lambda params: params), grad_fn=lambda p: p),
        "mask",
        "no ['a'], ['b'], which params has",
        "Fix: mask=lambda params: jax.tree.map(lambda w: w.ndim > 1, params); static_args=('mask',) in inject_",
    ),
    Case(
        lambda: per_example.ghost(lambda p: abs(X @ p["w"]), {"w": jnp.ones(3, jnp.complex64)}),
        "params['w']",
        "complex64",
        "Fix: keep real and imaginary parts",
    ),
]
