"""PEGR penalises the variance of what is learned, and so the memorisation of noise.

**Statement.** Meng, Cao and Zou, *Per-Example Gradient Regularization Improves Learning Signals from Noisy Data*,
https://arxiv.org/abs/2303.17940: PEGR penalises the variance of pattern learning, which suppresses the memorisation of
the training data's noise. The abstract does not define that variance; the two measures below are ours.

**Setting.** The data and the network of `pegr.signal` at |mu| = 4: 20 examples of two patches in R^1000, a two-layer
CNN with cubed ReLU, full-batch gradient descent at learning rate 0.1, 1000 steps. A filter of class j is its start plus
j gamma mu / |mu|^2 + sum_i rho_i xi_i / |xi_i|^2; gamma is the coefficient of the signal, rho_i those of the noise.
Measured over the training: the variance of gamma over filters, the variance of rho over filters and examples, and the
variance of the gradient over examples, tr Cov(g_i) = mean |g_i|^2 - |g|^2, which is what the penalty holds besides that
of the whole batch. PEGR: strength 0.03. Control without the variance: whole-batch regularisation, exact, strength 0.1.

**Hyperparameters.** None was chosen here: strengths are those of `pegr.signal`.

**Success criteria.** Natural logarithms of ratios, paired by seed; of interest is a factor of 2. Paper: at the end the
variance of the noise's coefficients is below gradient descent's; so is, at its highest over the training, the variance
of the gradient. Extra: the variance of the noise's coefficients is below that of whole-batch regularisation; the
signal's largest coefficient is above gradient descent's.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import pugd_optax
from experiments.claims.claim import Finding, Line, Panel, Rows, Scale
from experiments.claims.conditions import Condition, above
from experiments.claims.theory import two_patches
from experiments.claims.theory.descent import over_seeds
from experiments.report.stats import show

MU, EVERY, MARGIN = 4.0, 20, float(np.log(2))
DESCENT, PEGR, BATCH = "gradient descent", "PEGR 0.03", "whole-batch GR 0.1"
STRENGTHS = {DESCENT: 0.0, PEGR: 0.03}
"""Of PEGR's penalty; at 0 it is gradient descent, in the same program."""


class Size(NamedTuple):
    """How large the experiment is."""

    dimension: int
    control: bool
    seeds: int


SIZES: dict[Scale, Size] = {"smoke": Size(100, False, 2), "full": Size(1000, True, 20)}


class Watched(NamedTuple):
    """What is measured of the network on the way."""

    signal: jax.Array
    signal_variance: jax.Array
    noise: jax.Array
    noise_variance: jax.Array
    gradient_variance: jax.Array


def run(scale: Scale, first_seed: int = 200) -> Finding:
    """Train with every method on the same examples."""
    size = SIZES[scale]
    solve = lambda make, given: over_seeds(lambda key: _train(make, given, key, size), first_seed, size.seeds)
    both = solve(pugd_optax.pegr, jnp.array(list(STRENGTHS.values())))
    found = {name: jax.tree.map(lambda x, i=i: x[:, i], both) for i, name in enumerate(STRENGTHS)}
    if size.control:
        exact = functools.partial(pugd_optax.gradient_regularization, scheme="exact")
        found[BATCH] = jax.tree.map(lambda x: x[:, 0], solve(exact, jnp.array([0.1])))
    rows: Rows = {name: _columns(watched) for name, watched in found.items()}
    return Finding(rows, _panels(found), _conditions(rows), _reading(rows))


def _train(make: Callable[..., Any], strengths: jax.Array, key: jax.Array, size: Size) -> Watched:
    """What is measured on the way, [strengths, records]."""
    data_key, start_key = jax.random.split(key)
    x, y = two_patches.examples(data_key, two_patches.EXAMPLES, MU, size.dimension)
    start = two_patches.start(start_key, size.dimension)
    watch = lambda w: _watch(w, start, x, y)
    return jax.lax.map(lambda s: two_patches.train(make(s), start, x, y, watch=watch, every=EVERY)[1], strengths)


def _watch(w: jax.Array, start: jax.Array, x: jax.Array, y: jax.Array) -> Watched:
    gamma = two_patches.signal(w - start, MU)
    xi = x[:, 1]
    # The noise patches are not quite orthogonal to each other: coefficients by least squares.
    rho = jnp.linalg.solve(xi @ xi.T, jnp.einsum("nd,jrd->njr", xi, w - start).reshape(len(xi), -1))
    rho = rho * jnp.sum(xi**2, axis=1)[:, None]
    gradients = jax.jacrev(lambda w: two_patches.losses(w, x, y))(w)
    apart = jnp.sum((gradients - jnp.mean(gradients, axis=0)[None]) ** 2) / len(xi)
    apart = jnp.where(jnp.all(jnp.isfinite(w)), apart, jnp.nan)  # behind a ReLU of NaN the gradient is 0
    return Watched(jnp.max(gamma), jnp.mean(jnp.var(gamma, axis=1)), jnp.max(jnp.abs(rho)), jnp.var(rho), apart)


def _columns(watched: Watched) -> dict[str, list[float]]:
    """Values at the end, and the highest variance of the gradient."""
    last = {name.replace("_", " "): list(values[:, -1]) for name, values in watched._asdict().items()}
    return {**last, "gradient variance": list(watched.gradient_variance.max(axis=1))}


def _panels(found: dict[str, Watched]) -> list[Panel]:
    steps = [float(EVERY * (i + 1)) for i in range(found[DESCENT].signal.shape[1])]
    titles = {
        "noise_variance": "Variance of the noise's coefficients",
        "signal_variance": "Variance of the signal's coefficients",
        "gradient_variance": "Variance of the gradient over examples",
    }
    return [
        Panel(
            title,
            "step",
            "variance",
            [Line(name, steps, [list(v) for v in getattr(watched, what).T]) for name, watched in found.items()],
            "y",
        )
        for what, title in titles.items()
    ]


def _conditions(rows: Rows) -> list[Condition]:
    log = lambda name, column: np.log(rows[name][column])
    conditions = [
        above(
            "noise: variance of the coefficients at the end below gradient descent's",
            log(DESCENT, "noise variance"),
            log(PEGR, "noise variance"),
            margin=MARGIN,
        ),
        above(
            "highest variance of the gradient below gradient descent's",
            log(DESCENT, "gradient variance"),
            log(PEGR, "gradient variance"),
            margin=MARGIN,
        ),
        above(
            "signal: largest coefficient above gradient descent's",
            log(PEGR, "signal"),
            log(DESCENT, "signal"),
            margin=MARGIN,
            kind="extra",
        ),
    ]
    if BATCH in rows:
        less = "noise: variance of the coefficients at the end below that of whole-batch regularisation"
        apart = log(BATCH, "noise variance"), log(PEGR, "noise variance")
        conditions.append(above(less, *apart, margin=MARGIN, kind="extra"))
    return conditions


def _reading(rows: Rows) -> str:
    said = lambda column: ", ".join(f"{name} {show(rows[name][column])}" for name in rows)
    return (
        f"Largest coefficient at the end: of the noise {said('noise')}; of the signal {said('signal')}. Variance of "
        f"the coefficients of the signal over filters {said('signal variance')}."
    )
