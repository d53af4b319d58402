"""Sharpness during training: the largest eigenvalue of the Hessian of the loss on some training examples."""

import functools
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx

from experiments.data.batch import Data
from experiments.data.pipeline import Source
from pugd_optax import diagnostics

EXAMPLES = 256
STEPS = 20
"""Hessian-vector products, each about two gradients on these examples."""


def sharpness(graphdef: nnx.GraphDef, params: Any, model_state: Any, examples: Source) -> float:
    r"""$\lambda_{\max}(\nabla^2 L)$ by Lanczos, on the first training examples, not augmented, in evaluation mode."""
    count = min(EXAMPLES, len(examples.data.labels))
    feed = next(iter(examples.read([np.arange(count)])))
    return float(_leading(graphdef, params, model_state, examples.data.apart_from(feed), feed))


@functools.partial(jax.jit, static_argnums=0)
def _leading(graphdef: nnx.GraphDef, params: Any, model_state: Any, data: Data, feed: Any) -> jax.Array:
    images, labels = data.batch(feed)

    def loss_fn(params: Any) -> jax.Array:
        model = nnx.merge(graphdef, params, model_state)
        model.eval()
        logits = model(data.normalised(images))
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    return diagnostics.hessian_eigenvalues(loss_fn, params, k=1, steps=STEPS)[0]
