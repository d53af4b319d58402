"""Small problems: one with a float64 NumPy gradient for reference tests, one with every extra argument of the field.

The first is two-label logistic regression with a quartic penalty. A rule of a paper is written on flat float64 vectors
(`b`, then `w`), with the NumPy gradient below, and compared with what a transformation returns on the same path.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

BATCHES, EXAMPLES, INPUTS, LABELS = 8, 6, 3, 2
B, W = slice(0, LABELS), slice(LABELS, LABELS + INPUTS * LABELS)
_random = np.random.default_rng(0)
X = _random.normal(size=(BATCHES, EXAMPLES, INPUTS))
Y = np.sign(_random.normal(size=(BATCHES, EXAMPLES, LABELS)) + 0.3)
START = _random.normal(size=LABELS + INPUTS * LABELS)

Rule = Callable[[int, np.ndarray, Callable[[np.ndarray], np.ndarray]], np.ndarray]
"""`(t, w, grad) -> u`: the formula of a paper, with `grad` bound to the batch of step t."""


def gradient(flat: np.ndarray, t: int) -> np.ndarray:
    """The gradient of `loss`, written by hand in float64 NumPy."""
    b, w = flat[B], flat[W].reshape(INPUTS, LABELS)
    x, y = X[t % BATCHES], Y[t % BATCHES]
    residual = -y / (1 + np.exp(y * (x @ w + b))) / EXAMPLES
    return np.concatenate([residual.sum(0), (x.T @ residual + 0.05 * w**3).ravel()])


def loss(params: Any, batch: Any) -> jax.Array:
    """The same problem for JAX."""
    x, y = batch
    margin = y * (x @ params["w"] + params["b"][None, :])
    return jnp.sum(jnp.logaddexp(0.0, -margin)) / len(x) + 0.0125 * jnp.sum(params["w"] ** 4)


def start(dtype: Any = None) -> dict[str, jax.Array]:
    return {"b": jnp.asarray(START[B], dtype), "w": jnp.asarray(START[W].reshape(INPUTS, LABELS), dtype)}


def batch(t: int) -> tuple[jax.Array, jax.Array]:
    return jnp.asarray(X[t % BATCHES]), jnp.asarray(Y[t % BATCHES])


def path(tx: optax.GradientTransformation, *, steps: int = 6, lr: float = 0.25, **extra: Any) -> tuple[np.ndarray, Any]:
    """The outputs of `tx` along `w <- w - lr u` in float64, with one batch per step, and the last state."""
    tx = optax.with_extra_args_support(tx)
    with jax.enable_x64(True):

        @jax.jit
        def step(params, state, batch):
            grad_fn = lambda p: jax.grad(loss)(p, batch)
            u, state = tx.update(grad_fn(params), state, params, grad_fn=grad_fn, **extra)
            return jax.tree.map(lambda w, x: w - lr * x, params, u), state, ravel_pytree(u)[0]

        params, outputs = start(), []
        state = tx.init(params)
        for t in range(steps):
            params, state, u = step(params, state, batch(t))
            outputs.append(np.asarray(u))
    return np.stack(outputs), state


def reference_path(rule: Rule, *, steps: int = 6, lr: float = 0.25) -> np.ndarray:
    """The outputs of a NumPy rule along the same path."""
    w, outputs = START.copy(), []
    for t in range(steps):
        outputs.append(rule(t, w, lambda v, t=t: gradient(v, t)))
        w = w - lr * outputs[-1]
    return np.stack(outputs)


def assert_follows(tx: optax.GradientTransformation, rule: Rule, *, rtol: float = 1e-9, **path_args: Any) -> None:
    """Checks that `tx` gives the outputs of the rule at every step."""
    np.testing.assert_allclose(path(tx, **path_args)[0], reference_path(rule, **path_args), rtol=rtol, atol=1e-12)


def assert_same(tx: optax.GradientTransformation, other: optax.GradientTransformation, *, rtol: float = 1e-9) -> None:
    """Checks that two transformations give the same outputs at every step."""
    np.testing.assert_allclose(path(tx)[0], path(other)[0], rtol=rtol, atol=1e-12)


def unit(v: np.ndarray) -> np.ndarray:
    return v / np.linalg.norm(v)


# A classifier that serves grad_fn, value_fn, logits_fn, losses_fn and labels at once. `scale` multiplies the loss:
# 0 gives zero gradients everywhere, nan and inf give broken ones.

CLASSES = 3


def classifier(dtype: Any = jnp.float32) -> dict[str, Any]:
    random = np.random.default_rng(1)
    dense = {"kernel": random.normal(size=(4, CLASSES)), "bias": random.normal(size=CLASSES)}
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), {"dense": dense, "gain": np.asarray(1.5)})


def examples(scale: float = 1.0, seed: int = 2) -> dict[str, jax.Array]:
    random = np.random.default_rng(seed)
    return {
        "x": jnp.asarray(random.normal(size=(6, 4)), jnp.float32),
        "labels": jnp.asarray(random.integers(0, CLASSES, 6), jnp.int32),
        "scale": jnp.float32(scale),
    }


def extra_args(data: dict[str, jax.Array]) -> dict[str, Any]:
    """All extra arguments that the methods may need, bound to one batch."""

    def logits_fn(params):
        dense, gain = jax.tree.map(lambda w: w.astype(jnp.promote_types(w.dtype, jnp.float32)), tuple(params.values()))
        x = data["x"].astype(gain.dtype)
        return gain * (x @ dense["kernel"] + dense["bias"][None, :])

    def losses_fn(params):
        logits = logits_fn(params)
        log_p = jax.nn.log_softmax(logits)
        picked = jnp.take_along_axis(log_p, data["labels"][:, None], axis=1)[:, 0]
        return -picked * data["scale"].astype(logits.dtype)

    value_fn = lambda params: jnp.mean(losses_fn(params))
    return {
        "grad_fn": jax.grad(value_fn),
        "value_fn": value_fn,
        "logits_fn": logits_fn,
        "losses_fn": losses_fn,
        "labels": data["labels"],
    }
