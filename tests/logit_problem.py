"""The classifier of `tests.problems` in float64 NumPy: its logits, their pullback, and a path of steps."""

from collections.abc import Callable
from typing import Any

import chex
import jax
import numpy as np

from tests.problems import CLASSES, classifier, examples, extra_args

Tree = dict[str, Any]


def logits(w: Tree, x: np.ndarray) -> np.ndarray:
    return w["gain"] * (x @ w["dense"]["kernel"] + w["dense"]["bias"])


def cotangent(u: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The gradient of the mean cross-entropy with respect to the logits u."""
    p = np.exp(u - u.max(1, keepdims=True))
    return (p / p.sum(1, keepdims=True) - np.eye(CLASSES)[labels]) / len(labels)


def pull_back(w: Tree, x: np.ndarray, c: np.ndarray) -> Tree:
    kernel, bias = w["dense"]["kernel"], w["dense"]["bias"]
    dense = {"kernel": w["gain"] * x.T @ c, "bias": w["gain"] * c.sum(0)}
    return {"dense": dense, "gain": np.sum(c * (x @ kernel + bias))}


def ahead(w: Tree, radius: float, g: Tree) -> Tree:
    """The parameters w + radius * g / |g|."""
    length = np.sqrt(sum(np.sum(x**2) for x in jax.tree.leaves(g)))
    return jax.tree.map(lambda v, x: v + radius * x / length, w, g)


def assert_follows(tx: Any, rule: Callable[[Tree, np.ndarray, np.ndarray], Tree], *, steps: int = 3) -> None:
    """Checks that `tx` gives the outputs of `(w, x, labels) -> u`, on a new batch every step."""
    with jax.enable_x64(True):
        params = classifier("float64")
        state, w = tx.init(params), jax.tree.map(np.asarray, params)

        @jax.jit
        def step(params, state, data):
            extra = extra_args(data)
            return tx.update(extra["grad_fn"](params), state, params, **extra)

        for t in range(steps):
            data = examples(seed=t)
            u, state = step(w, state, data)
            expected = rule(w, np.asarray(data["x"], np.float64), np.asarray(data["labels"]))
            chex.assert_trees_all_close(u, expected, rtol=1e-9, atol=1e-12)
            w = jax.tree.map(lambda v, x: v - 0.2 * np.asarray(x), w, u)
