"""The recipes of "Methods in a few lines", run from the page, against the formulas of their papers in NumPy."""

import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

PAGE = (Path(__file__).parents[1] / "docs" / "pages" / "recipes.md").read_text()
SECTIONS = re.split(r"^## ", PAGE, flags=re.MULTILINE)
STEPS = 5


def run(title: str) -> dict[str, Any]:
    """The names that the beginning of the page and one section define."""
    names: dict[str, Any] = {}
    (section,) = [text for text in SECTIONS if text.startswith(title)]
    for text in (SECTIONS[0], section):
        lines = re.findall(r"^(?:>>>|\.\.\.) ?(.*)$", text, flags=re.MULTILINE)
        exec("\n".join(lines), names)
    return names


def flat(tree: Any) -> np.ndarray:
    return np.asarray(ravel_pytree(tree)[0])


def gradient_of(names: dict[str, Any]):
    unravel = ravel_pytree(names["params"])[1]
    slope = jax.jit(names["grad_fn"])
    return lambda w: flat(slope(unravel(w)))


def unit(v: np.ndarray) -> np.ndarray:
    return v / np.linalg.norm(v)


def test_decoupled_wsam(x64):
    names = run("WSAM, decoupled")
    grad, params = gradient_of(names), names["params"]
    p, state, beside = params, names["base"].init(params), names["sharpness"].init(params)
    w = flat(params)
    mean, square = np.zeros_like(w), np.zeros_like(w)
    for t in range(1, STEPS + 1):
        p, state, beside = names["step"](p, state, beside)
        g = grad(w)
        mean, square = 0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g**2
        adam = (mean / (1 - 0.9**t)) / (np.sqrt(square / (1 - 0.999**t)) + 1e-8)
        sharpness = 0.8 / 0.2 * (grad(w + 0.05 * unit(g)) - g)
        w = w - 0.05 * (adam + 1e-4 * w + sharpness)
        np.testing.assert_allclose(flat(p), w, rtol=1e-6)


def test_momentum_sam_on_the_buffer_of_the_optimizer(x64):
    names = run("Momentum SAM")
    grad, p = gradient_of(names), names["params"]
    w, state = flat(p), names["tx"].init(p)
    buffer = np.zeros_like(w)
    for _ in range(STEPS):
        p, state = names["step"](p, state)
        moved = w - 0.3 * unit(buffer) if buffer.any() else w
        buffer = 0.9 * buffer + grad(moved) + 1e-4 * w
        w = w - 0.05 * buffer
        np.testing.assert_allclose(flat(p), w, rtol=1e-9)


@pytest.mark.parametrize("sign", [1, -1])
def test_eigen_sam(sign, x64):
    names = run("Eigen-SAM")
    grad, p = gradient_of(names), names["params"]
    unravel = ravel_pytree(p)[1]
    w, v = flat(p), sign * unit(np.cos(np.arange(float(flat(p).size))))
    g = grad(w)
    sideways = v - (v @ unit(g)) * unit(g)
    eps = 0.05 * (unit(g) + 0.2 * np.sign(v @ g) * sideways)
    after, _ = names["descend"](p, names["tx"].init(p), unravel(v))
    np.testing.assert_allclose(flat(after), w - 0.1 * grad(w + eps), rtol=1e-9)
