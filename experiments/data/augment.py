"""From positions to a batch, inside jit: gather, crop, flip, normalise, cut out, mix."""

import functools
from collections.abc import Callable
from typing import Any

import dm_pix as pix
import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from experiments.config.errors import UsageError
from experiments.data.batch import Augment, Data

PADDING = 4


def none(key: jax.Array, images: jax.Array) -> jax.Array:
    """The images themselves."""
    del key
    return images


def crop(key: jax.Array, images: jax.Array, padding: int = PADDING) -> jax.Array:
    """Pad every image [h, w, c] of the batch with zeros by 4 pixels a side and cut its own size out of it."""

    def one(key: jax.Array, image: jax.Array) -> jax.Array:
        height, width, _ = image.shape
        padded = pix.pad_to_size(image, height + 2 * padding, width + 2 * padding)
        return jnp.asarray(pix.random_crop(key, padded, image.shape))

    return jnp.asarray(jax.vmap(one)(jax.random.split(key, len(images)), images))


def flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """Flip every other image left to right, at random."""
    return jnp.asarray(jax.vmap(pix.random_flip_left_right)(jax.random.split(key, len(images)), images))


def crop_flip(key: jax.Array, images: jax.Array, padding: int = PADDING) -> jax.Array:
    """`crop`, then `flip`."""
    for_crop, for_flip = jax.random.split(key)
    return flip(for_flip, crop(for_crop, images, padding))


GEOMETRIES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "none": none,
    "crop": crop,
    "flip": flip,
    "crop_flip": crop_flip,
    "crop2_flip": functools.partial(crop_flip, padding=2),
}


def cutout(key: jax.Array, images: jax.Array, size: int) -> jax.Array:
    """Put zeros, the mean colour, into a square of every normalised image, its centre at any pixel.

    References:
      DeVries and Taylor, Improved Regularization of Convolutional Neural Networks with Cutout, 2017,
      https://arxiv.org/abs/1708.04552
    """
    count, height, width, _ = images.shape
    top, left = (
        jax.random.randint(k, (count, 1), 0, extent) - size // 2
        for k, extent in zip(jax.random.split(key), (height, width), strict=True)
    )
    inside = lambda start, extent: (jnp.arange(extent)[None] >= start) & (jnp.arange(extent)[None] < start + size)
    square = inside(top, height)[:, :, None] & inside(left, width)[:, None, :]
    return jnp.where(square[..., None], jnp.zeros((), images.dtype), images)


def mixup(
    key: jax.Array, images: jax.Array, labels: jax.Array, alpha: float, num_classes: int
) -> tuple[jax.Array, jax.Array]:
    r"""Mix the batch with itself read backwards, $\lambda x_i + (1 - \lambda)\, x_{B-1-i}$, one $\lambda$ a batch.

    Args:
      key: random key.
      images: [batch, ...].
      labels: [batch] class indices.
      alpha: $\lambda$ is drawn from Beta(alpha, alpha); above 0.
      num_classes: C.

    Returns:
      Mixed images, and labels [batch, C] mixed likewise.

    References:
      Zhang, Cisse, Dauphin and Lopez-Paz, mixup: Beyond Empirical Risk Minimization, ICLR 2018,
      https://arxiv.org/abs/1710.09412
    """
    # By its quantiles: drawing from Beta by rejection, as jax.random does, takes seconds to compile.
    grid = np.linspace(0, 1, 4097)
    quantiles = scipy.special.betaincinv(alpha, alpha, grid)
    share = jnp.interp(jax.random.uniform(key), jnp.float32(grid), jnp.float32(quantiles)).astype(images.dtype)
    mix = lambda x: share * x + (1 - share) * x[::-1]
    return mix(images), mix(jax.nn.one_hot(labels, num_classes, dtype=images.dtype))


def pipeline(geometry: str, cutout_size: int, mixup_alpha: float, num_classes: int) -> Augment:
    """The augmentation of training batches; a size or an alpha of 0 leaves that part out."""
    if cutout_size < 0 or not 0 <= mixup_alpha < float("inf"):
        raise UsageError(f"--cutout {cutout_size}, --mixup {mixup_alpha}: expected numbers >= 0")
    move = GEOMETRIES[geometry]

    def augment(key: jax.Array, data: Data, indices: Any) -> tuple[jax.Array, jax.Array]:
        images, labels = data.batch(indices)
        for_move, for_cutout, for_mixup = jax.random.split(key, 3)
        images = data.normalised(move(for_move, images))
        if cutout_size:
            images = cutout(for_cutout, images, cutout_size)
        if mixup_alpha:
            return mixup(for_mixup, images, labels, mixup_alpha, num_classes)
        return images, labels

    return augment
