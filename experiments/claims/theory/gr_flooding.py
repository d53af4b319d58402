"""Flooding is gradient regularisation by finite differences.

**Statement.** Karakida, Takase, Hayase and Osawa, *Understanding Gradient Regularization in Deep Learning*, ICML 2023,
https://arxiv.org/abs/2210.02720: flooding (Ishida et al., ICML 2020, https://arxiv.org/abs/2002.08709) performs it
implicitly: once the loss is at the flood level, a step up and a step down together are a step along the difference of
two gradients.

**Setting, identity.** An ascent and a descent step of size h land at w - h^2 (grad L(w + h g) - g) / h, the quotient of
`gradient_regularization` at step h; in float64, on an MLP, for h from 1e-4 to 1.

**Setting, run.** A spiral of two classes, 100 examples, 5 % of the labels flipped; MLP 2-64-64-2 with tanh, full-batch
gradient descent at learning rate 0.1, 20000 steps, flood level 0.3. Measured are the squared gradient norm of the loss
and the largest eigenvalue of its Hessian. Two controls at equal loss: gradient descent that stops at the level, at the
same rate (its steps overshoot there, which makes its gradient large), and at a fifth of it (slow).

**Hyperparameters.** Learning rate and level were fixed in advance. After a short run on other seeds the length was
halved, for time, and the criteria use logarithms, because the gradient at the level spreads over decades. The slow
control and the criterion on the curvature were added after the first table, which compared flooding with its own
beginning alone; the criterion after a look at two other seeds. No test error is used.

**Success criteria.** The identity holds to 12 digits; at the level the direction alternates in more than 80 % of the
steps; the squared gradient norm at the end is below that when the level was reached. Also tested: it is below the
slow control's, and the largest curvature below that of both controls. In paired logarithms; of interest is a factor
of two.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.claims.claim import Finding, Line, Panel, Rows, Scale
from experiments.claims.conditions import Condition, above, exact
from experiments.claims.theory.descent import over_seeds
from experiments.report.stats import show
from pugd_optax import flood, gradient_regularization
from pugd_optax.diagnostics import hessian_eigenvalues

EXAMPLES, LEVEL, RATE, HIDDEN = 100, 0.3, 0.1, 64


class Size(NamedTuple):
    """How large the experiment is."""

    sizes: tuple[float, ...]
    steps: int
    every: int
    seeds: int


SIZES: dict[Scale, Size] = {
    "smoke": Size((0.01, 1.0), 6000, 100, 2),
    "full": Size((1e-4, 1e-3, 1e-2, 0.1, 1.0), 20000, 200, 5),
}


class Variant(NamedTuple):
    """One way to descend: its rate, whether it is flooded or else halts at the level, its share of the steps."""

    rate: float
    flooded: bool
    share: float


FLOODING, HALTED, SLOW = "flooding", "gradient descent, stopped", "slow gradient descent, stopped"
VARIANTS = {
    FLOODING: Variant(RATE, True, 1.0),
    HALTED: Variant(RATE, False, 0.25),
    SLOW: Variant(RATE / 5, False, 1.0),
}


class Trace(NamedTuple):
    """Loss and squared gradient norm over a run, and the sign of each step; means over stretches of steps."""

    loss: jax.Array
    square: jax.Array
    alternates: jax.Array


def run(scale: Scale, first_seed: int = 200) -> Finding:
    """The identity over step sizes, then flooding against gradient descent."""
    size = SIZES[scale]
    with jax.enable_x64(True):
        apart = over_seeds(lambda key: _identity(key, size.sizes), first_seed, size.seeds)
        found = {
            name: over_seeds(lambda key: _train(key, variant, size), first_seed, size.seeds)
            for name, variant in VARIANTS.items()
        }
    traces = {name: trace for name, (trace, _) in found.items()}
    flooded = traces[FLOODING]
    reached = np.array([_reached(loss) for loss in flooded.loss])
    rows: Rows = {f"identity, step {h:g}": {"difference": list(apart[:, i])} for i, h in enumerate(size.sizes)}
    for name, trace in traces.items():
        rows[name] = {
            "loss at the end": list(trace.loss[:, -1]),
            "squared gradient, end": list(trace.square[:, -1]),
            "largest curvature": list(found[name][1]),
        }
    rows[FLOODING]["squared gradient, level reached"] = [
        float(s[r]) if r < len(s) else np.nan for s, r in zip(flooded.square, reached, strict=True)
    ]
    rows[FLOODING]["steps that alternate"] = [
        float(np.mean(a[r:])) if r < len(a) else np.nan for a, r in zip(flooded.alternates, reached, strict=True)
    ]
    return Finding(rows, _panels(traces, size, apart), _conditions(rows, apart), _reading(rows))


def _identity(key: jax.Array, sizes: tuple[float, ...]) -> jax.Array:
    """Largest difference between an up-down pair of flooding and the regulariser's quotient, for each step size."""
    losses_fn, w = _problem(key)
    loss_fn = lambda w: jnp.mean(losses_fn(w))
    grad_fn, up, down = jax.grad(loss_fn), jax.grad(flood(loss_fn, 1e3)), jax.grad(flood(loss_fn, 0.0))
    move = lambda w, h, g: jax.tree.map(lambda a, b: a - h * b, w, g)

    def apart(h: float) -> jax.Array:
        method, g = gradient_regularization(1.0, h), grad_fn(w)
        u, _ = method.update(g, method.init(w), w, grad_fn=grad_fn)
        quotient = jax.tree.map(jnp.subtract, u, g)
        above = move(w, h, up(w))
        pair, step = move(above, h, down(above)), move(w, h**2, quotient)
        return optax.tree.norm(optax.tree.sub(pair, step), ord=jnp.inf)

    return jnp.stack([apart(h) for h in sizes])


def _train(key: jax.Array, variant: Variant, size: Size) -> tuple[Trace, jax.Array]:
    """The trace, and the largest eigenvalue of the Hessian at the end."""
    losses_fn, start = _problem(key)
    loss_fn = lambda w: jnp.mean(losses_fn(w))
    objective = flood(loss_fn, LEVEL) if variant.flooded else loss_fn

    def step(carry, _):
        w, before = carry
        loss, g = jax.value_and_grad(loss_fn)(w)
        up = variant.flooded & (loss < LEVEL)
        rate = jnp.where((loss < LEVEL) & (not variant.flooded), 0, variant.rate)
        w = jax.tree.map(lambda a, b: a - rate * b, w, jax.grad(objective)(w))
        return (w, up), Trace(loss, optax.tree.norm(g, squared=True), (up != before).astype(float))

    def stretch(carry, _):
        carry, trace = jax.lax.scan(step, carry, length=size.every)
        return carry, jax.tree.map(jnp.mean, trace)

    (w, _), trace = jax.lax.scan(
        stretch, (start, jnp.zeros((), bool)), length=round(variant.share * size.steps) // size.every
    )
    return trace, hessian_eigenvalues(loss_fn, w, 1)[0]


def _problem(key: jax.Array):
    """Losses of the spiral's examples as a function of the weights, and a start."""
    keys = jax.random.split(key, 6)
    label = jnp.arange(EXAMPLES) % 2
    t = jax.random.uniform(keys[0], (EXAMPLES,), maxval=4 * jnp.pi)
    angle = t + jnp.pi * label
    x = jnp.stack([t * jnp.cos(angle), t * jnp.sin(angle)], axis=1) + jax.random.normal(keys[1], (EXAMPLES, 2))
    flips = jax.random.permutation(keys[2], jnp.arange(EXAMPLES) < 0.05 * EXAMPLES)
    label = jnp.where(flips, 1 - label, label)
    shapes = [(2, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, 2)]
    start = [
        (jax.random.normal(k, shape) / np.sqrt(shape[0]), jnp.zeros(shape[1]))
        for k, shape in zip(keys[3:], shapes, strict=True)
    ]

    def losses_fn(w):
        h = x / 6
        for a, b in w[:-1]:
            h = jnp.tanh(h @ a + b[None, :])
        logits = h @ w[-1][0] + w[-1][1][None, :]
        return optax.softmax_cross_entropy_with_integer_labels(logits, label)

    return losses_fn, start


def _reached(loss: np.ndarray) -> int:
    """First stretch of steps whose mean loss is at the level."""
    at = np.flatnonzero(loss <= 1.02 * LEVEL)
    return int(at[0]) if len(at) else len(loss)


def _panels(traces: dict[str, Trace], size: Size, apart: np.ndarray) -> list[Panel]:
    steps = list(size.every * (0.5 + np.arange(size.steps // size.every)))
    line = lambda name, values: Line(name, steps[: values.shape[1] : 2], [list(v) for v in values.T[::2]])
    identity = Line("flooding's pair - regulariser's step", list(size.sizes), [list(v) for v in apart.T])
    return [
        Panel("Identity in float64", "step size", "largest difference", [identity], "x"),
        Panel("Spiral, level 0.3", "step", "loss", [line(name, t.loss) for name, t in traces.items()]),
        Panel(
            "Spiral, level 0.3", "step", "squared gradient norm", [line(n, t.square) for n, t in traces.items()], "y"
        ),
    ]


def _conditions(rows: Rows, apart: np.ndarray) -> list[Condition]:
    flooded, slow = rows[FLOODING], rows[SLOW]
    first, last = (np.log(flooded[f"squared gradient, {when}"]) for when in ("level reached", "end"))
    logarithm = functools.partial(above, margin=np.log(2), unit="in logarithms")
    control = np.log(slow["squared gradient, end"])
    curvature = {name: np.log(rows[name]["largest curvature"]) for name in VARIANTS}
    return [
        exact("digits to which the identity holds", -np.log10(apart.max()), 12),
        above("steps that alternate at the level", flooded["steps that alternate"], least=0.8, margin=0.0),
        logarithm("the squared gradient norm falls at the level", first, last),
        logarithm("squared gradient norm below slow gradient descent's at equal loss", control, last, kind="extra"),
        *(
            logarithm(f"largest curvature below that of {name}", curvature[name], curvature[FLOODING], kind="extra")
            for name in (SLOW, HALTED)
        ),
    ]


def _reading(rows: Rows) -> str:
    said = lambda column: ", ".join(f"{name} {show(rows[name][column])}" for name in VARIANTS)
    return (
        f"At the end, all at the level: squared gradient norm {said('squared gradient, end')}; largest curvature "
        f"{said('largest curvature')}. At the full rate gradient descent overshoots at the level, which makes its "
        "gradient large; what flooding adds is its difference from slow gradient descent."
    )
