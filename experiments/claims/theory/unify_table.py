"""Every method is the gradient plus a perturbation: g + delta.

**Statement.** The abstract of LPG, https://arxiv.org/abs/2605.29494: noise, clipping, adversarial and sharpness-aware
training, augmentation by logits and the rest are one rule, g becomes g + delta; they differ in where delta comes from.

**Setting.** MLP 64-32-10 on handwritten digits after 200 steps of full-batch gradient descent at learning rate 0.5; one
batch of 128 training examples. What `diagnostics.delta_report` reports, for every method of the package at its default
settings (noise of standard deviation 0.01, gradient regularisation 0.1, PEGR 0.01; SAM-ON on the biases), and for
clipping to half of the norm, flooding at twice the loss and gradient noise of 1e-3. Methods with memory show their
first step. Gradient evaluations are those by `grad_fn`, counted on the first network; methods that differentiate the
logits or the losses of the examples themselves cost more. Then the radius of six methods is swept.

**Hyperparameters.** Nothing was tuned; ReLU was replaced by GELU after a short run on other seeds, because at small
radii the kinks of ReLU made delta jump.

**Success criteria.** For every method delta is finite. Also tested, for every method: u points along the gradient
(cosine above 0 in every seed), and delta is the shorter one, |delta| < |g|; at small radii delta is proportional to the
radius (slope of the logarithms within 0.1 of 1).

**Observations.** Whatever u is, delta can be defined as u - g, so that the paper's sentence can only fail where a
method gives no finite number. What is worth knowing is in the table: how long delta is, and where u points.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import pugd_optax
from experiments.claims.claim import Finding, Line, Panel, Rows, Scale
from experiments.claims.conditions import Condition, close, exact
from experiments.claims.theory import digits
from experiments.claims.theory.descent import descend, over_seeds
from experiments.report.stats import interval
from pugd_optax import methods
from pugd_optax.combines import cosine
from pugd_optax.diagnostics import delta_report

GIVEN: dict[str, Any] = {"total_steps": 200, "num_classes": 10, "strength": 0.01, "sigma": 0.01, "key": 0}
GIVEN["counts"] = np.repeat([40, 10], 5)
"""What methods ask for; counts as if half of the classes were a tail, for those that treat it apart."""
CHOSEN: dict[str, dict[str, Any]] = {"sam_on": {"mask": lambda w: jax.tree.map(lambda x: x.ndim == 1, w)}}
"""The network has no normalisation layers: SAM-ON perturbs its biases."""
RADII = tuple(float(f"{radius:.1g}") for radius in np.geomspace(1e-3, 1, 7))
SWEPT: dict[str, Callable[[Any], optax.GradientTransformation]] = {
    "sam": lambda radius: pugd_optax.sam(radius),
    "asam": lambda radius: pugd_optax.asam(radius),
    "gnp": lambda radius: pugd_optax.gnp(radius),
    "pugd": lambda radius: pugd_optax.reevaluate(
        pugd_optax.normalize(pugd_optax.scale_by_abs_params()), pugd_optax.replace, radius=radius
    ),
    "noise_injection": lambda radius: pugd_optax.noise_injection(radius / np.sqrt(2410)),
    "anti_pgd": lambda radius: pugd_optax.anti_pgd(radius),
}


class Size(NamedTuple):
    """How large the experiment is."""

    methods: tuple[str, ...]
    swept: tuple[str, ...]
    seeds: int


SIZES: dict[Scale, Size] = {
    "smoke": Size(("sam", "pugd"), ("sam", "pugd"), 1),
    "full": Size(tuple(methods.__all__), tuple(SWEPT), 5),
}


def run(scale: Scale, first_seed: int = 200) -> Finding:
    """A table of every method on the same trained networks, and the sweep of the radius."""
    size, data = SIZES[scale], digits.load()
    batch = tuple(part[:128] for part in data.train)
    networks = over_seeds(functools.partial(_trained, data), first_seed, size.seeds)
    found = {name: _report(tx, networks, batch) for name, tx in _methods(size, networks, batch).items()}
    rows: Rows = dict(sorted(found.items(), key=lambda item: interval(item[1]["|delta| / |g|"]).mean))
    swept = {name: _sweep(SWEPT[name], networks, batch) for name in size.swept}
    points = lambda column: [Line(name, [0.0], [row[column]]) for name, row in rows.items()]
    lines = [Line(name, list(RADII), [list(v) for v in values.T]) for name, values in swept.items()]
    panels = [
        Panel("How long delta is", "|delta| / |g|", "", points("|delta| / |g|"), kind="points"),
        Panel("Where u points", "cosine of u and g", "", points("cosine"), kind="points"),
        Panel("Delta grows with the radius", "radius", "|delta| / |g|", lines, "xy"),
    ]
    return Finding(rows, panels, _conditions(rows, swept), _reading(rows))


def _trained(data: digits.Digits, key: jax.Array) -> Any:
    return descend(optax.sgd(0.5), lambda w: digits.losses(w, *data.train), digits.start(key), 200)[0]


def _methods(size: Size, networks: Any, batch: Any) -> dict[str, optax.GradientTransformation]:
    """By name; what refers to the loss or the length of the gradient takes the mean over the networks."""
    loss_fn = lambda w: jnp.mean(digits.losses(w, *batch))
    lengths = lambda w: (loss_fn(w), optax.tree.norm(jax.grad(loss_fn)(w)))
    level, length = (float(jnp.mean(x)) for x in jax.jit(jax.vmap(lengths))(networks))
    others = {
        "optax.clip_by_global_norm": optax.clip_by_global_norm(length / 2),
        "optax.add_noise": optax.add_noise(1e-6, 0.0, 0),
        "flood": _of_loss(lambda losses_fn: pugd_optax.flood(lambda w: jnp.mean(losses_fn(w)), 2 * level)),
        "iflood": _of_loss(lambda losses_fn: pugd_optax.iflood(losses_fn, level)),
        "soft_ad": _of_loss(lambda losses_fn: pugd_optax.soft_ad(losses_fn, level)),
    }
    return {name: _default(name) for name in size.methods} | others


def _default(name: str) -> optax.GradientTransformation:
    method = getattr(pugd_optax, name)
    needed = [k for k, p in inspect.signature(method).parameters.items() if p.default is p.empty]
    return method(**{k: GIVEN[k] for k in needed}, **CHOSEN.get(name, {}))


def _of_loss(transform: Callable[..., Callable[[Any], jax.Array]]) -> optax.GradientTransformationExtraArgs:
    """A method that edits the loss, as one that edits the gradient."""

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any):
        del updates
        return jax.grad(transform(extra_args["losses_fn"]))(params), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def _report(tx: optax.GradientTransformation, networks: Any, batch: Any) -> dict[str, list[float]]:
    """Length of delta and cosine on every network; gradient evaluations, counted on the first."""
    x, y = batch
    losses_fn = lambda w: digits.losses(w, x, y)
    loss_fn = lambda w: jnp.mean(losses_fn(w))
    more = {"losses_fn": losses_fn, "logits_fn": lambda w: digits.logits(w, x), "labels": jnp.asarray(y)}
    grad_fn, method = jax.grad(loss_fn), optax.with_extra_args_support(tx)

    @jax.jit
    def measure(params: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
        g = grad_fn(params)
        u, _ = method.update(g, method.init(params), params, grad_fn=grad_fn, **more)
        apart = optax.tree.norm(optax.tree.sub(u, g))
        return apart, apart / optax.tree.norm(g), cosine(g, u)

    each = [jax.tree.map(lambda x, i=i: jnp.asarray(x[i]), networks) for i in range(len(networks[0][0]))]
    found = np.array([measure(params) for params in each], float).T
    row = dict(zip(("|delta|", "|delta| / |g|", "cosine"), map(list, found), strict=True))
    # Methods that edit the loss or the logits take their gradients past the counter.
    evaluations = delta_report(tx, loss_fn, each[0], **more).gradient_evaluations
    return row | ({"gradients": [float(evaluations)]} if evaluations else {})


def _sweep(make: Callable[[Any], optax.GradientTransformation], networks: Any, batch: Any) -> np.ndarray:
    """Length of delta over that of the gradient, [seeds, radii]."""
    grad_fn = jax.grad(lambda w: jnp.mean(digits.losses(w, *batch)))

    def relative(params: Any, radius: jax.Array) -> jax.Array:
        tx, g = optax.with_extra_args_support(make(radius)), grad_fn(params)
        u, _ = tx.update(g, tx.init(params), params, grad_fn=grad_fn)
        return optax.tree.norm(optax.tree.sub(u, g)) / optax.tree.norm(g)

    over_radii = jax.vmap(relative, in_axes=(None, 0))
    return np.asarray(jax.jit(jax.vmap(over_radii, in_axes=(0, None)))(networks, jnp.array(RADII)))


def _conditions(rows: Rows, swept: dict[str, np.ndarray]) -> list[Condition]:
    finite = sum(bool(np.isfinite(row["|delta|"]).all()) for row in rows.values())
    slopes = {name: np.log(values[:, 2] / values[:, 0]) / np.log(RADII[2] / RADII[0]) for name, values in swept.items()}
    towards = sum(min(row["cosine"]) > 0 for row in rows.values())
    shorter = sum(interval(row["|delta| / |g|"]).mean < 1 for row in rows.values())
    most = len(rows) - 1
    return [
        exact(f"methods whose delta is finite, of {len(rows)}", finite, most),
        exact(
            f"methods whose u points along the gradient on every network, of {len(rows)}", towards, most, kind="extra"
        ),
        exact(f"methods whose delta is shorter than the gradient, of {len(rows)}", shorter, most, kind="extra"),
        *(
            close(f"{name}: slope of |delta| over a small radius", values, 1.0, tolerance=0.1, kind="extra")
            for name, values in slopes.items()
        ),
    ]


def _reading(rows: Rows) -> str:
    straight = [name for name, row in rows.items() if interval(row["cosine"]).mean > 0.99]
    return (
        f"Flooding below its level reverses g. {len(straight)} of {len(rows)} methods change the direction by less "
        "than 8 degrees (cosine above 0.99) at their "
        "defaults; methods that return unit vectors differ from g in length above all, so their delta is no small one."
    )
