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


def coins(step: int, size: int) -> np.ndarray:
    """The mask of `esam` with its default key: True for the parameters that move, all tensors concatenated."""
    chunk = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), step), 0)
    return np.asarray(jax.random.uniform(chunk, (size,), np.float32)) < 0.6


def test_esam_with_its_selection(x64):
    """The second gradient is that of the half of the examples whose loss rose most."""
    names = run("ESAM with its selection")
    grad, p = gradient_of(names), names["params"]
    unravel, state, w = ravel_pytree(p)[1], names["tx"].init(p), flat(p)
    losses = jax.jit(lambda w: names["losses_fn"](unravel(w), names["x"], names["y"]))
    slopes = jax.jit(jax.jacrev(losses))
    for t in range(STEPS):
        p, state = names["step"](p, state)
        above = w + 0.05 / 0.6 * coins(t, w.size) * unit(grad(w))
        raised = np.argsort(np.asarray(losses(above) - losses(w)))[4:]
        w = w - 0.1 * np.asarray(slopes(above))[raised].mean(0)
        np.testing.assert_allclose(flat(p), w, rtol=1e-6)


def test_ascent_in_the_spectral_norm(x64):
    """The ascent is the polar factor of g, computed here from the square root of g g^T, which has rank 2."""
    names = run("Ascent in the spectral norm")
    grad, p = gradient_of(names), names["params"]
    w, state = flat(p), names["tx"].init(p)
    for _ in range(STEPS):
        p, state = names["step"](p, state)
        g = grad(w)[4:].reshape(3, 4)
        size, basis = np.linalg.eigh(g @ g.T)
        assert size[0] < 1e-9 * size[1]
        factor = basis[:, 1:] @ np.diag(size[1:] ** -0.5) @ basis[:, 1:].T @ g
        w = w - 0.1 * grad(w + 0.02 * np.r_[np.zeros(4), factor.ravel()])
        np.testing.assert_allclose(flat(p), w, rtol=1e-9)


def test_flat_lora(x64):
    """Noise on the frozen matrix, scaled by the row norms of the sum, and Adam on the adapters, written by hand."""
    names = run("Flat-LoRA")
    slope, p = jax.jit(jax.grad(names["adapted"])), names["lora"]
    state, moments = names["tx"].init(p), dict.fromkeys("BA", (0.0, 0.0))
    at = {k: np.asarray(v) for k, v in p.items()}
    for t in range(STEPS):
        p, state = names["step"](p, state)
        draw = np.asarray(jax.random.normal(jax.random.fold_in(jax.random.key(0), t), (4, 3)))
        rows = np.linalg.norm(at["W"] + at["B"] @ at["A"], axis=1, keepdims=True)
        g = slope(at | {"W": at["W"] + 0.05 * rows / np.sqrt(3) * draw})
        for k in "BA":
            mean, square = moments[k]
            mean, square = 0.9 * mean + 0.1 * g[k], 0.999 * square + 0.001 * g[k] ** 2
            moments[k] = mean, square
            unbiased = mean / (1 - 0.9 ** (t + 1)), square / (1 - 0.999 ** (t + 1))
            at[k] = at[k] - 0.05 * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)
        for k in at:
            np.testing.assert_allclose(p[k], at[k], rtol=1e-6, atol=1e-12)
