"""Evaluation on held-out examples."""

import functools
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

from experiments.data.batch import Data
from experiments.data.pipeline import Source
from experiments.training.parallel import AXIS


def evaluate(
    graphdef: nnx.GraphDef, params: Any, model_state: Any, source: Source, mesh: Mesh | None = None, chunk: int = 1000
) -> tuple[float, float]:
    """Mean cross-entropy and accuracy on all examples."""
    losses, correct = evaluate_each(graphdef, params, model_state, source, mesh, chunk)
    return float(losses.mean(dtype=np.float64)), float(correct.mean())


def evaluate_each(
    graphdef: nnx.GraphDef, params: Any, model_state: Any, source: Source, mesh: Mesh | None = None, chunk: int = 1000
) -> tuple[np.ndarray, np.ndarray]:
    """Cross-entropy of every example, float32 [n], and whether it is classified correctly, bool [n].

    About `chunk` examples are evaluated at a time, split over the devices of `mesh`.
    """
    count, devices = len(source.data.labels), 1 if mesh is None else mesh.size
    chunk = -(-chunk // devices) * devices
    # The last chunk, filled up with the last example, is as long as the others: one program does for all.
    positions = (np.minimum(np.arange(i, i + chunk), count - 1) for i in range(0, count, chunk))
    evaluated = lambda feed: _evaluate_chunk(graphdef, mesh, params, model_state, source.data.apart_from(feed), feed)
    parts = [jax.device_get(evaluated(feed)) for feed in source.read(positions)]
    losses, correct = (np.concatenate(part)[:count] for part in zip(*parts, strict=True))
    return losses, correct


@functools.partial(jax.jit, static_argnums=(0, 1))
def _evaluate_chunk(graphdef: nnx.GraphDef, mesh: Mesh | None, params: Any, model_state: Any, data: Data, indices: Any):
    lay = lambda tree, spec: tree if mesh is None else jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, spec))
    indices = lay(indices, P(AXIS))
    model, (images, labels) = nnx.merge(graphdef, params, model_state), data.batch(indices)
    model.eval()
    logits = model(data.normalised(images))
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return lay((losses, logits.argmax(-1) == labels), P())
