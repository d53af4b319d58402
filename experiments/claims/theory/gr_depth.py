"""In wide and deep networks the forward difference takes about two thirds of the operations of double backpropagation.

**Statement.** Karakida, Takase, Hayase and Osawa, *Understanding Gradient Regularization in Deep Learning*, ICML 2023,
https://arxiv.org/abs/2210.02720: for L layers 6 L matrix products against 9 L, where plain SGD has 3 L. No gradient
flows to the inputs, so that the first layer takes 4 products of either; the count is met where the other layers are
most of the network.

**Setting.** One training step with SGD and momentum, compiled: MLPs with GELU on 784 inputs at batch 128, of 6 and of 8
hidden layers of 1024. FLOPs are the compiler's (`cost_analysis`), of whole steps; times are medians of steps in
alternating order, as ratios to SGD repeat by repeat. `gr.cost` has the shallow and narrow networks and a ResNet.

**Hyperparameters.** None: there is no quality to measure, and strength and step do not change the cost.

**Success criteria.** Paper, on both networks: FLOPs of double backpropagation above 1.4 times those of the forward
scheme (by the count 1.5), and its time above 1.25 times (logarithms; of interest from 5 % more).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench.problems import Problem
from experiments.claims.claim import Finding, Line, Panel, Rows, Scale
from experiments.claims.conditions import Condition, above, exact
from experiments.claims.theory.gr_cost import DOUBLE, FORWARD, MARGIN, measure
from experiments.report.stats import show

SAVING, FASTER, BATCH, INPUTS = 1.4, 1.25, 128, 784


class Shape(NamedTuple):
    """Hidden layers of an MLP."""

    depth: int
    width: int

    @property
    def title(self) -> str:
        """Its name in the table."""
        return f"MLP {self.depth} x {self.width}"

    @property
    def counted(self) -> float:
        """Products of double backpropagation over those of the forward scheme, each weighted by its size."""
        first, rest = INPUTS * self.width, (self.depth - 1) * self.width**2 + 10 * self.width
        return (4 * first + 9 * rest) / (4 * first + 6 * rest)


class Size(NamedTuple):
    """How large the experiment is."""

    shapes: tuple[Shape, ...]
    repeats: int


SIZES: dict[Scale, Size] = {
    "smoke": Size((Shape(6, 64),), 2),
    "full": Size((Shape(6, 1024), Shape(8, 1024)), 8),
}


def run(scale: Scale, first_seed: int = 200) -> Finding:
    """Compile and time every scheme on every network; repeats stand for seeds, so the first seed changes nothing."""
    del first_seed
    size = SIZES[scale]
    rows: Rows = {}
    for shape in size.shapes:
        rows |= {f"{shape.title}, {name}": row for name, row in measure(_mlp(shape), size.repeats).items()}
    points = [Line(name, [0.0], [row["time"]]) for name, row in rows.items()]
    panels = [Panel("One step, batch 128", "time / SGD", "", points, kind="points")]
    return Finding(rows, panels, _conditions(rows, size), _reading(rows, size))


def _mlp(shape: Shape) -> Problem:
    """Random inputs and weights of the real shapes."""
    sizes = [INPUTS, *[shape.width] * shape.depth, 10]
    *keys, input_key, label_key = jax.random.split(jax.random.key(0), len(sizes) + 1)
    pairs = zip(keys, sizes[:-1], sizes[1:], strict=True)
    params = [(jax.random.normal(key, (a, b)) * np.float32(np.sqrt(2 / a)), jnp.zeros(b)) for key, a, b in pairs]

    def logits_fn(params, x: jax.Array) -> jax.Array:
        for kernel, bias in params[:-1]:
            x = jax.nn.gelu(x @ kernel + bias[None])
        return x @ params[-1][0] + params[-1][1][None]

    inputs, labels = jax.random.normal(input_key, (BATCH, INPUTS)), jax.random.randint(label_key, (BATCH,), 0, 10)
    return Problem(shape.title, params, logits_fn, inputs, labels)


def _flops(rows: Rows, shape: Shape) -> float:
    return rows[f"{shape.title}, {DOUBLE}"]["FLOPs"][0] / rows[f"{shape.title}, {FORWARD}"]["FLOPs"][0]


def _time(rows: Rows, shape: Shape) -> np.ndarray:
    double, forward = (np.array(rows[f"{shape.title}, {scheme}"]["time"]) for scheme in (DOUBLE, FORWARD))
    return double / forward


def _conditions(rows: Rows, size: Size) -> list[Condition]:
    conditions = []
    for shape in size.shapes:
        slower = f"{shape.title}: double backpropagation takes {FASTER} times as long"
        times = np.log(_time(rows, shape))
        conditions += [
            exact(
                f"{shape.title}: FLOPs of double backpropagation over the forward scheme", _flops(rows, shape), SAVING
            ),
            above(slower, times, margin=MARGIN, least=np.log(FASTER), unit="in logarithms"),
        ]
    return conditions


def _reading(rows: Rows, size: Size) -> str:
    said = [
        f"{shape.title}: FLOPs {_flops(rows, shape):.2f} times, counted {shape.counted:.2f}; time "
        f"{show(_time(rows, shape))} times"
        for shape in size.shapes
    ]
    return f"Double backpropagation over the forward scheme, {'; '.join(said)}."
