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
    """Pad every image [h, w, c] of the batch with 4 pixels of zeros on each side and crop it to its size at random."""

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
    """Set a square in every normalised image to zero, the mean colour; its centre can be at any pixel.

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
    r"""Mix the batch with its reverse, $\lambda x_i + (1 - \lambda)\, x_{B-1-i}$, with one $\lambda$ per batch.

    Args:
      key: random key.
      images: [batch, ...].
      labels: [batch] class indices.
      alpha: $\lambda$ is drawn from Beta(alpha, alpha); above 0.
      num_classes: C.

    Returns:
      Mixed images, and labels [batch, C] mixed in the same way.

    References:
      Zhang, Cisse, Dauphin and Lopez-Paz, mixup: Beyond Empirical Risk Minimization, ICLR 2018,
      https://arxiv.org/abs/1710.09412
    """
    # Drawn by quantiles: rejection sampling from Beta, as in jax.random, takes seconds to compile.
    grid = np.linspace(0, 1, 4097)
    quantiles = scipy.special.betaincinv(alpha, alpha, grid)
    share = jnp.interp(jax.random.uniform(key), jnp.float32(grid), jnp.float32(quantiles)).astype(images.dtype)
    mix = lambda x: share * x + (1 - share) * x[::-1]
    return mix(images), mix(jax.nn.one_hot(labels, num_classes, dtype=images.dtype))


def pipeline(geometry: str, cutout_size: int, mixup_alpha: float, num_classes: int) -> Augment:
    """The augmentation of training batches; a size or alpha of 0 disables that part."""
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
