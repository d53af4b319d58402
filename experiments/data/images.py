"""Images kept as PNG or JPEG files and decoded one at a time."""

import dataclasses
import io
from typing import Protocol

import numpy as np
from PIL import Image, UnidentifiedImageError

from experiments.config.errors import UsageError


class Files(Protocol):
    """The bytes of each file, by its number."""

    def __getitem__(self, number: int, /) -> bytes: ...


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Files that look like an array of images; slices of it are encoded still.

    Attributes:
      files: the files.
      numbers: int [n], the file of each image.
      size: height, width and channels of every image.
      resize: whether images of other sizes are cut and scaled to it, or refused.
      key: a name that no other files have, by which decoded images are kept; empty if they are not.
    """

    files: Files
    numbers: np.ndarray
    size: tuple[int, int, int]
    resize: bool = False
    key: str = ""
    dtype = np.dtype(np.uint8)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape of the array of all images."""
        return (len(self.numbers), *self.size)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: np.ndarray | slice) -> "Encoded":
        return dataclasses.replace(self, numbers=self.numbers[index])

    def decode(self, position: int, draw: np.random.Generator | None = None) -> np.ndarray:
        """One image; where images are resized, a random cut by `draw`, or without one the middle."""
        number = int(self.numbers[position])
        try:
            image = Image.open(io.BytesIO(self.files[number])).convert("RGB" if self.size[2] == 3 else "L")
        except (UnidentifiedImageError, OSError) as error:
            raise UsageError(f"image {number} cannot be decoded ({error}); fetch the file again") from error
        height, width, _ = self.size
        if self.resize:
            image = _middle(image, height, width) if draw is None else _random_cut(image, height, width, draw)
        if image.size != (width, height):
            raise UsageError(f"image {number} has {image.height} x {image.width} pixels, expected {height} x {width}")
        return np.asarray(image).reshape(self.size)

    def decode_all(self) -> np.ndarray:
        """All images in memory."""
        images = np.empty(self.shape, np.uint8)
        for i in range(len(self)):
            images[i] = self.decode(i)
        return images


def encoded(files: Files, count: int, key: str = "") -> Encoded:
    """The first `count` files, all of the size that the first one has."""
    first = Image.open(io.BytesIO(files[0]))
    channels = 3 if len(first.getbands()) > 1 else 1
    return Encoded(files, np.arange(count), (first.size[1], first.size[0], channels), key=key)


def _middle(image: Image.Image, height: int, width: int) -> Image.Image:
    """The middle seven eighths of the shorter side, scaled."""
    side = round(min(image.size) * 7 / 8)
    left, top = (image.size[0] - side) // 2, (image.size[1] - side) // 2
    return image.resize((width, height), Image.Resampling.BILINEAR, (left, top, left + side, top + side))


def _random_cut(image: Image.Image, height: int, width: int, draw: np.random.Generator) -> Image.Image:
    """8 to 100 % of the area in a frame from 3:4 to 4:3, scaled; after ten frames that do not fit, the middle."""
    for _ in range(10):
        area = image.size[0] * image.size[1] * draw.uniform(0.08, 1)
        aspect = np.exp(draw.uniform(np.log(3 / 4), np.log(4 / 3)))
        w, h = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if 0 < w <= image.size[0] and 0 < h <= image.size[1]:
            left, top = draw.integers(0, image.size[0] - w + 1), draw.integers(0, image.size[1] - h + 1)
            return image.resize((width, height), Image.Resampling.BILINEAR, (left, top, left + w, top + h))
    return _middle(image, height, width)
