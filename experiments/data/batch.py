"""A batch: where its examples lie, on the device or fed from the host."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Fed(NamedTuple):
    """A batch that comes from the host with its images, in place of positions in `Data`."""

    images: Any
    labels: Any


class Data(NamedTuple):
    """Examples on the device: images uint8 [n, h, w, c], labels [n]; mean and deviation of the channels."""

    images: jax.Array
    labels: jax.Array
    mean: jax.Array
    std: jax.Array

    def normalised(self, images: jax.Array) -> jax.Array:
        """Images as floats of mean 0 and deviation 1."""
        return (images.astype(jnp.float32) - self.mean) / self.std

    def batch(self, chosen: Any) -> tuple[jax.Array, jax.Array]:
        """Images and labels at these positions, or those that were fed."""
        return tuple(chosen) if isinstance(chosen, Fed) else (self.images[chosen], self.labels[chosen])


Augment = Callable[[jax.Array, Data, Any], tuple[jax.Array, jax.Array]]
"""`(key, data, chosen) -> (images, labels)`: normalised images; labels [batch], or soft ones [batch, classes]."""
