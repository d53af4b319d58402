"""A two-layer network."""

import jax
import jax.numpy as jnp
from flax import nnx


class MLP(nnx.Module):
    """Two hidden layers of 128 on the flattened image, no normalisation."""

    def __init__(self, *, channels: int, num_classes: int, image_size: int, norm, dtype, rngs: nnx.Rngs):
        del norm
        self.hidden = nnx.Linear(image_size * image_size * channels, 128, dtype=dtype, rngs=rngs)
        self.second = nnx.Linear(128, 128, dtype=dtype, rngs=rngs)
        self.head = nnx.Linear(128, num_classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits of images."""
        x = nnx.relu(self.hidden(x.reshape(x.shape[0], -1)))
        return self.head(nnx.relu(self.second(x)).astype(jnp.float32))
