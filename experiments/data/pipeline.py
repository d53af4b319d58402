"""Batches read on the host ahead of the step, for data that does not fit on the device; and whichever way data comes.

A `Source` is what training and evaluation read from: `data` lies on the device, `read` turns blocks of positions
[steps, rows] into what the step takes. Data that fits is read by its positions. Other data has no images on the device;
threads of grain decode the blocks that come next while the step works on this one. Which examples make a batch is the
same either way, and follows from the positions alone: a run goes on from any block, and a process reads its own rows.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import grain
import jax.numpy as jnp
import numpy as np

from experiments.data import Encoded, Examples
from experiments.data.batch import Data, HostBatch

SAMPLE = 2000


class Source(NamedTuple):
    """Examples ready to be read.

    Attributes:
      data: labels, mean and standard deviation of the channels, and the images or none of them.
      read: `(blocks, draw) -> feeds`; random cuts of images, where there are any, follow from the numbers `draw`.
    """

    data: Data
    read: Callable[..., Iterator[Any]]


def source(examples: Examples, scale: tuple[np.ndarray, np.ndarray], streamed: bool) -> Source:
    """The examples, streamed or, as arrays, whole; `scale` is mean and standard deviation of the channels."""
    if streamed:
        none = np.zeros((0, *examples.images.shape[1:]), np.uint8)
        read = lambda blocks, draw=(): stream(examples, blocks, draw)
        return Source(Data(*map(jnp.asarray, (none, examples.labels, *scale))), read)
    return Source(Data(*map(jnp.asarray, (examples.images, examples.labels, *scale))), resident)


def held_out(examples: Examples, scale: tuple[np.ndarray, np.ndarray], streamed: bool) -> Source:
    """The examples for evaluation: their images come from the host, so that sets of any size share a program."""
    if streamed:
        return source(examples, scale, streamed)

    def read(blocks: Iterable[np.ndarray], draw: tuple[int, ...] = ()) -> Iterator[HostBatch]:
        del draw
        return (HostBatch(examples.images[block], examples.labels[block]) for block in blocks)

    return source(examples, scale, streamed=True)._replace(read=read)


def resident(blocks: Iterable[np.ndarray], draw: tuple[int, ...] = ()) -> Iterator[np.ndarray]:
    """The positions themselves."""
    del draw
    return iter(blocks)


def stream(examples: Examples, blocks: Iterable[np.ndarray], draw: tuple[int, ...] = ()) -> Iterator[HostBatch]:
    """Images and labels at these positions, in the shape of each block, read ahead.

    Args:
      examples: in memory or encoded.
      blocks: positions, such as [steps, rows].
      draw: numbers that random cuts follow from, together with the file; without them images are cut in the middle.
    """

    def load(positions: np.ndarray) -> HostBatch:
        flat = positions.reshape(-1)
        images = _decoded(examples.images, flat, draw).reshape(*positions.shape, *examples.images.shape[1:])
        return HostBatch(images, examples.labels[positions])

    threads = min(16, os.cpu_count() or 1)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    return iter(grain.MapDataset.source(list(blocks)).map(load).to_iter_dataset(options))


def channels(images: np.ndarray | Encoded) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel, [1, 1, 1, channels]; of encoded images from a sample."""
    if isinstance(images, Encoded):
        drawn = np.random.default_rng(0).permutation(len(images))[:SAMPLE]
        images = _decoded(images, drawn, ())
    counts = np.zeros((images.shape[-1], 256), np.int64)
    for start in range(0, len(images), SAMPLE):  # a histogram: images as floats would be eight times as large
        for c, channel in enumerate(np.moveaxis(images[start : start + SAMPLE], -1, 0)):
            counts[c] += np.bincount(channel.ravel(), minlength=256)
    share, level = counts / counts.sum(1, keepdims=True), np.arange(256)
    mean = (share * level).sum(1)
    std = np.sqrt((share * (level - mean[:, None]) ** 2).sum(1))
    return mean.astype(np.float32)[None, None, None], std.astype(np.float32)[None, None, None] + np.float32(1e-6)


def _decoded(images: np.ndarray | Encoded, positions: np.ndarray, draw: tuple[int, ...]) -> np.ndarray:
    if isinstance(images, np.ndarray):
        return images[positions]
    drawn = [np.random.default_rng([*draw, int(images.numbers[i])]) if draw else None for i in positions]
    return np.stack([images.decode(int(i), rng) for i, rng in zip(positions, drawn, strict=True)])
