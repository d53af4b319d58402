"""Gradient regularisation by a finite difference costs less than by double backpropagation.

**Statement.** Karakida, Takase, Hayase and Osawa, *Understanding Gradient Regularization in Deep Learning*, ICML 2023,
https://arxiv.org/abs/2210.02720: for L layers 6 L matrix products against 9 L, where plain SGD has 3 L; on a GPU and a
ResNet less than half of the time.

**Setting.** One training step with SGD and momentum, compiled: MLPs 784-w-w-w-10 with GELU at batch 128, w swept, and a
ResNet-8 with GroupNorm at batch 64. FLOPs are the compiler's (`cost_analysis`), of whole steps; times are medians of
steps in alternating order, as ratios to SGD repeat by repeat. Exact: a Hessian-vector product. Double backpropagation:
the squared norm of the gradient, differentiated. Forward and central: two and three gradients.

**Hyperparameters.** None: there is no quality to measure, and strength and step do not change the cost.

**Success criteria.** On every network: FLOPs of double backpropagation above 1.25 times those of the forward scheme (by
the paper's count 1.5); its time above that of the forward scheme, and on the ResNet more than twice. Of interest: 5 %
of the time.
"""

from typing import NamedTuple

import numpy as np

import pugd_optax
from experiments.bench import clock
from experiments.bench.candidates import ours, plain
from experiments.bench.problems import Problem, image_model, mlp
from experiments.claims.claim import Finding, Line, Panel, Rows, Scale
from experiments.claims.conditions import Condition, above, exact
from pugd_optax.per_example import reference

FORWARD, DOUBLE = "forward", "double backpropagation"
SAVING, MARGIN = 1.25, 0.05
CALLS = 3
"""Steps timed together."""


class Size(NamedTuple):
    """How large the experiment is."""

    widths: tuple[int, ...]
    resnet: bool
    repeats: int


SIZES: dict[Scale, Size] = {"smoke": Size((64,), False, 3), "full": Size((64, 128, 256, 512), True, 15)}


def run(scale: Scale, first_seed: int = 200) -> Finding:
    """Compile and time every scheme on every network; repeats stand for seeds, so the first seed changes nothing."""
    del first_seed
    size = SIZES[scale]
    problems = {f"MLP {width}": mlp(width, 128) for width in size.widths}
    problems |= {"ResNet-8": image_model("resnet8", 64)} if size.resnet else {}
    rows: Rows = {}
    for name, problem in problems.items():
        rows |= {f"{name}, {scheme}": row for scheme, row in measure(problem, size.repeats).items()}
    swept = [f"MLP {width}" for width in size.widths]
    widths = [float(width) for width in size.widths]
    lines = {what: _lines(rows, swept, widths, what) for what in ("FLOPs", "time")}
    for name, products in COUNTS.items():
        lines["FLOPs"].append(Line(f"{name}, counted", widths, [[_count(width, *products)] for width in size.widths]))
    panels = [Panel("MLP at batch 128", "width", f"{what} of a step / SGD", lines[what], "x") for what in lines]
    return Finding(rows, panels, _conditions(rows, list(problems)), _reading(rows, list(problems)))


COUNTS = {FORWARD: (4, 6), DOUBLE: (4, 9)}
"""Matrix products of the first and of every other layer; SGD has 2 and 3."""


def _count(width: int, first: int, other: int) -> float:
    """Products of an MLP 784-w-w-w-10 over those of SGD, each weighted by its size."""
    inputs, rest = 784 * width, 2 * width**2 + 10 * width
    return (first * inputs + other * rest) / (2 * inputs + 3 * rest)


def measure(problem: Problem, repeats: int) -> dict[str, dict[str, list[float]]]:
    """FLOPs and times of every scheme, over those of SGD."""
    batch = len(problem.labels)
    regularized = lambda scheme: lambda: pugd_optax.gradient_regularization(0.01, 0.01, scheme)
    makers = {
        "SGD": plain,
        FORWARD: ours(regularized("forward")),
        "central": ours(regularized("central")),
        "exact": ours(regularized("exact")),
        # The whole batch as one group of PEGR: the squared norm of the gradient, differentiated.
        DOUBLE: ours(lambda: pugd_optax.pegr(0.01, reference, group_size=batch)),
    }
    steps = {name: clock.compile_step(make, problem) for name, make in makers.items()}
    runs = {name: clock.runner(step, problem, CALLS) for name, step in steps.items()}
    seconds = {name: total / CALLS for name, total in clock.interleave(runs, repeats).items()}
    return {
        name: {
            "FLOPs": [steps[name].flops / steps["SGD"].flops],
            "time": list(seconds[name] / seconds["SGD"]),
            "milliseconds": [1e3 * float(np.median(seconds[name]))],
        }
        for name in makers
    }


def _lines(rows: Rows, swept: list[str], widths: list[float], column: str) -> list[Line]:
    schemes = (FORWARD, "central", "exact", DOUBLE)
    # FLOPs have one value, not a theory's: the same one twice.
    values = lambda row: row[column] if len(row[column]) > 1 else row[column] * 2
    return [Line(scheme, widths, [values(rows[f"{name}, {scheme}"]) for name in swept]) for scheme in schemes]


def _conditions(rows: Rows, networks: list[str]) -> list[Condition]:
    """Double backpropagation over the forward scheme: operations, which are counted, and times in logarithms."""
    found: list[Condition] = []
    for name in networks:
        forward, double = (rows[f"{name}, {scheme}"] for scheme in (FORWARD, DOUBLE))
        times = np.log(double["time"]) - np.log(forward["time"])
        flops = double["FLOPs"][0] / forward["FLOPs"][0]
        found += [
            exact(f"{name}: FLOPs of double backpropagation, in those of the forward scheme", flops, SAVING),
            above(f"{name}: the forward scheme takes less time", times, margin=MARGIN, unit="in logarithms"),
        ]
        if name == "ResNet-8":
            half = f"{name}: the forward scheme takes less than half of the time"
            found.append(above(half, times, least=np.log(2), margin=0.0, unit="in logarithms"))
    return found


def _said(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in values.items())


def _reading(rows: Rows, networks: list[str]) -> str:
    exact = {name: float(np.median(rows[f"{name}, exact"]["time"])) for name in networks}
    forward = {name: float(np.median(rows[f"{name}, {FORWARD}"]["time"])) for name in networks}
    return (
        f"In SGD steps the forward scheme takes, in the median, {_said(forward)}, and the exact gradient by a "
        f"Hessian-vector product {_said(exact)}. The paper counts 6 products a layer against 9; no gradient flows to "
        "the inputs, so that the first layer takes 4 of either; where it is most of the network, little is saved."
    )
