"""A batch: positions of examples on the device, or images from the host."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class HostBatch(NamedTuple):
    """A batch with images from the host, used in place of positions in `Data`."""

    images: Any
    labels: Any


class Data(NamedTuple):
    """Examples on the device: images uint8 [n, h, w, c], labels [n]; mean and standard deviation of the channels."""

    images: jax.Array
    labels: jax.Array
    mean: jax.Array
    std: jax.Array

    def normalised(self, images: jax.Array) -> jax.Array:
        """Images as floats of mean 0 and standard deviation 1."""
        return (images.astype(jnp.float32) - self.mean) / self.std

    def batch(self, indices: Any) -> tuple[jax.Array, jax.Array]:
        """Images and labels at these positions, or those of a `HostBatch`."""
        return tuple(indices) if isinstance(indices, HostBatch) else (self.images[indices], self.labels[indices])

    def apart_from(self, feed: Any) -> "Data":
        """The data for a program that reads `feed`: labels that are fed need no others, whose number is compiled in."""
        return self._replace(labels=feed.labels[:0]) if isinstance(feed, HostBatch) else self


Augment = Callable[[jax.Array, Data, Any], tuple[jax.Array, jax.Array]]
"""`(key, data, indices) -> (images, labels)`: normalised images; labels [batch], or soft labels [batch, classes]."""
