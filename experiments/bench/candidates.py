"""The timed steps, `step(params, state, inputs, labels) -> (params, state)`, and the steps they are compared with."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

import pugd_optax
from experiments.bench.problems import Kind, Problem
from pugd_optax import timing


class Comparison(NamedTuple):
    """A step, the step that its time is divided by, and the ratio it must not exceed (None: only shown).

    `few_operations` and `tiny` are the ratios for problems of that kind, if they differ.
    """

    name: str
    against: str
    bar: float | None = None
    few_operations: float | None = None
    tiny: float | None = None

    def bar_on(self, kind: Kind) -> float | None:
        """The ratio that applies to a problem of this kind."""
        return {"few operations": self.few_operations, "tiny": self.tiny}.get(kind) or self.bar


def plain(problem: Problem):
    """One gradient and the base update."""
    tx = problem.base()

    def step(params, state, inputs, labels):
        updates, state = tx.update(jax.grad(problem.loss)(params, inputs, labels), state, params)
        return optax.apply_updates(params, updates), state

    return step, tx.init


def two_gradients(problem: Problem):
    """The lower bound, by hand: two gradients, the second at another point so that it cannot be shared, one update."""
    tx = problem.base()

    def step(params, state, inputs, labels):
        g = jax.grad(problem.loss)(params, inputs, labels)
        moved = jax.tree.map(lambda w, x: w + 1e-3 * x, params, g)
        updates, state = tx.update(jax.grad(problem.loss)(moved, inputs, labels), state, params)
        return optax.apply_updates(params, updates), state

    return step, tx.init


def peer_sam(problem: Problem):
    """`optax.contrib.sam` with both gradients in one update (opaque mode)."""
    ascent = optax.chain(optax.contrib.normalize(), optax.sgd(0.05))
    tx = optax.contrib.sam(problem.base(), ascent, opaque_mode=True)

    def step(params, state, inputs, labels):
        grad_fn = lambda p, _: jax.grad(problem.loss)(p, inputs, labels)
        updates, state = tx.update(grad_fn(params, 0), state, params, grad_fn=grad_fn)
        return optax.apply_updates(params, updates), state

    return step, tx.init


def peer_sam_transparent(problem: Problem):
    """`optax.contrib.sam` in its default mode: two calls of the training step make one real step."""
    ascent = optax.chain(optax.contrib.normalize(), optax.sgd(0.05))
    tx = optax.contrib.sam(problem.base(), ascent)

    def step(params, state, inputs, labels):
        for _ in range(2):
            updates, state = tx.update(jax.grad(problem.loss)(params, inputs, labels), state, params)
            params = optax.apply_updates(params, updates)
        return params, state

    return step, lambda params: jax.tree.map(lambda x: x.copy(), tx.init(params))


def ours(method: Callable[[], optax.GradientTransformation], **extra: Any):
    """A chain of one of our methods and the base optimizer; `extra` is passed to its update."""

    def make(problem: Problem):
        tx = optax.chain(method(), problem.base())

        def step(params, state, inputs, labels):
            grad_fn = lambda p: jax.grad(problem.loss)(p, inputs, labels)
            updates, state = tx.update(
                grad_fn(params),
                state,
                params,
                grad_fn=grad_fn,
                losses_fn=lambda p: problem.losses(p, inputs, labels),
                logits_fn=lambda p: problem.logits_fn(p, inputs),
                labels=labels,
                **extra,
            )
            return optax.apply_updates(params, updates), state

        return step, tx.init

    return make


def class_perturbed(problem: Problem):
    """LPG, with its forward pass shared with the loss that a training loop logs."""
    tx = optax.chain(pugd_optax.lpg(problem.classes), problem.base())

    def step(params, state, inputs, labels):
        logits, pullback = jax.vjp(lambda p: problem.logits_fn(p, inputs), params)
        logit_loss = lambda z: optax.softmax_cross_entropy_with_integer_labels(z, labels).mean()
        (grads,) = pullback(jax.grad(logit_loss)(logits))
        updates, state = tx.update(
            grads,
            state,
            params,
            logits_fn=lambda p: problem.logits_fn(p, inputs),
            logits_vjp=(logits, pullback),
            logit_loss=logit_loss,
            labels=labels,
        )
        return optax.apply_updates(params, updates), state

    return step, tx.init


Make = Callable[[Problem], tuple[Callable[..., Any], Callable[[Any], Any]]]
never = timing.after(10**9)
STEPS: dict[str, Make] = {
    "SGD": plain,
    "two gradients": two_gradients,
    "contrib.sam": peer_sam,
    "contrib.sam, default": peer_sam_transparent,
    "pugd": ours(pugd_optax.pugd),
    "sam": ours(pugd_optax.sam),
    "sam, report": ours(lambda: pugd_optax.sam(report=True)),
    "asam": ours(pugd_optax.asam),
    "pugd, active=False": ours(lambda: pugd_optax.pugd(idle="raw"), active=False),
    "pugd, gate closed": ours(lambda: pugd_optax.pugd(idle="raw", when=never)),
    "momentum_sam": ours(pugd_optax.momentum_sam),
    "noise_injection": ours(lambda: pugd_optax.noise_injection(0.01, 0)),
    "lpg": class_perturbed,
    "forward GR": ours(lambda: pugd_optax.gradient_regularization(0.1, 0.1)),
    "exact GR": ours(lambda: pugd_optax.gradient_regularization(0.1, 0.1, "exact")),
    "pegr, ghost norms": ours(lambda: pugd_optax.pegr(0.01)),
    "pegr, random signs": ours(lambda: pugd_optax.pegr(0.01, pugd_optax.per_example.signs(0))),
}
COMPARISONS = [
    Comparison("two gradients", "SGD"),
    Comparison("contrib.sam", "two gradients"),
    Comparison("contrib.sam, default", "two gradients"),
    Comparison("pugd", "two gradients", 1.03, few_operations=1.09, tiny=1.15),
    Comparison("sam", "two gradients", 1.03, few_operations=1.02, tiny=1.05),
    Comparison("asam", "two gradients", 1.03, few_operations=1.09, tiny=1.15),
    Comparison("sam", "contrib.sam", 1.00),
    Comparison("sam, report", "two gradients"),
    Comparison("pugd, active=False", "SGD", 1.01),
    Comparison("pugd, gate closed", "SGD", 1.03),
    Comparison("momentum_sam", "SGD"),
    Comparison("noise_injection", "SGD"),
    Comparison("lpg", "SGD", 1.03),
    Comparison("forward GR", "SGD", 2.05),
    Comparison("exact GR", "SGD", 3.2),
    Comparison("pegr, ghost norms", "SGD", 3.0),
    Comparison("pegr, random signs", "SGD", 3.2),
]
