"""Batches from the device, or read on the host ahead of the step if the data does not fit on the device.

Training and evaluation read from a `Source`: `data` is on the device, and `read` turns blocks of positions [steps,
rows] into the inputs of the step. Data that fits is read by positions. Other data has no images on the device; threads
(Grain) decode the next blocks while the step works on the current one. The examples of a batch are the same either way
and depend only on the positions, so a run can continue from any block, and each process reads its own rows.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import grain
import jax
import numpy as np

from experiments.data import Encoded, Examples
from experiments.data.batch import Data, HostBatch

SAMPLE = 2000


class Source(NamedTuple):
    """Examples ready for reading.

    Attributes:
      data: labels, mean and standard deviation of the channels, and all images or none.
      read: `(blocks, draw) -> feeds`; random crops of images, if any, are determined by the numbers `draw`.
    """

    data: Data
    read: Callable[..., Iterator[Any]]


def source(examples: Examples, scale: tuple[np.ndarray, np.ndarray], streamed: bool) -> Source:
    """The examples, streamed or as arrays; `scale` is mean and standard deviation of the channels."""
    if streamed:
        none = np.zeros((0, *examples.images.shape[1:]), np.uint8)
        read = lambda blocks, draw=(): stream(examples, blocks, draw)
        return Source(Data(*map(jax.device_put, (none, examples.labels, *scale))), read)
    return Source(Data(*map(jax.device_put, (examples.images, examples.labels, *scale))), resident)


def held_out(examples: Examples, scale: tuple[np.ndarray, np.ndarray], streamed: bool) -> Source:
    """The examples for evaluation; images come from the host, so that data of any size uses the same program."""
    if streamed:
        return source(examples, scale, streamed)

    def read(blocks: Iterable[np.ndarray], draw: tuple[int, ...] = ()) -> Iterator[HostBatch]:
        del draw
        return (HostBatch(examples.images[block], examples.labels[block]) for block in blocks)

    return source(examples, scale, streamed=True)._replace(read=read)


def resident(blocks: Iterable[np.ndarray], draw: tuple[int, ...] = ()) -> Iterator[np.ndarray]:
    """The positions, unchanged."""
    del draw
    return iter(blocks)


def stream(examples: Examples, blocks: Iterable[np.ndarray], draw: tuple[int, ...] = ()) -> Iterator[HostBatch]:
    """Images and labels at these positions, in the shape of each block, read ahead.

    Args:
      examples: in memory or encoded.
      blocks: positions, such as [steps, rows].
      draw: numbers that, together with the file, determine random crops; without them crops are central.
    """

    def load(positions: np.ndarray) -> HostBatch:
        flat = positions.reshape(-1)
        images = _decoded(examples.images, flat, draw).reshape(*positions.shape, *examples.images.shape[1:])
        return HostBatch(images, examples.labels[positions])

    threads = min(16, os.cpu_count() or 1)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    return iter(grain.MapDataset.source(list(blocks)).map(load).to_iter_dataset(options))


def channels(images: np.ndarray | Encoded) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel, [1, 1, 1, channels]; for encoded images, those of a sample.

    The standard deviation of a constant channel, such as an opaque alpha, is replaced by 255.
    """
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
    std = np.where(std == 0, 255, std)  # a crop pads with zeros, which are not the constant
    return mean.astype(np.float32)[None, None, None], std.astype(np.float32)[None, None, None] + np.float32(1e-6)


def _decoded(images: np.ndarray | Encoded, positions: np.ndarray, draw: tuple[int, ...]) -> np.ndarray:
    if isinstance(images, np.ndarray):
        return images[positions]
    drawn = [np.random.default_rng([*draw, int(images.numbers[i])]) if draw else None for i in positions]
    return np.stack([images.decode(int(i), rng) for i, rng in zip(positions, drawn, strict=True)])
