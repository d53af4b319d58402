"""Images stored as PNG or JPEG files and decoded one at a time."""

import contextlib
import dataclasses
import io
import warnings
from collections.abc import Iterator
from typing import Protocol

import numpy as np
from PIL import Image

from experiments.config.errors import UsageError, first_line


class Files(Protocol):
    """The bytes of each file, by number."""

    def __getitem__(self, number: int, /) -> bytes: ...


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Files that behave like an array of images; slices stay encoded.

    Attributes:
      files: the files.
      numbers: int [n], the file number of each image.
      size: height, width and channels of every image.
      resize: whether images of other sizes are cropped and scaled to this size, or refused.
      where: the file or folder of the images, for messages.
      key: a unique name under which decoded images are cached; empty if they are not cached.
    """

    files: Files
    numbers: np.ndarray
    size: tuple[int, int, int]
    resize: bool = False
    where: str = ""
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
        """One image; if images are resized, a random crop given by `draw`, or the central crop without it."""
        number, (height, width, channels) = int(self.numbers[position]), self.size
        with _decoding(self.where, number):
            image = Image.open(io.BytesIO(self.files[number]))
            if image.size != (width, height) and not self.resize:  # before a large image is decoded
                raise ValueError(f"{image.height} x {image.width} pixels, expected {height} x {width}")
            image = image.convert("RGB" if channels == 3 else "L")
        if self.resize:
            image = _middle(image, height, width) if draw is None else _random_cut(image, height, width, draw)
        return np.asarray(image).reshape(self.size)

    def decode_all(self) -> np.ndarray:
        """All images in memory."""
        images = np.empty(self.shape, np.uint8)
        for i in range(len(self)):
            images[i] = self.decode(i)
        return images


def encoded(files: Files, count: int, where: str, key: str = "") -> Encoded:
    """The first `count` files, all with the size of the first one."""
    with _decoding(where, 0):
        first = Image.open(io.BytesIO(files[0]))
    channels = 3 if len(first.getbands()) > 1 else 1
    return Encoded(files, np.arange(count), (first.size[1], first.size[0], channels), where=where, key=key)


@contextlib.contextmanager
def _decoding(where: str, number: int) -> Iterator[None]:
    try:
        with warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning):
            yield
    except Exception as error:  # Pillow raises a dozen kinds of errors for a damaged file
        reason = first_line(error).partition("<_io")[0].strip()
        raise UsageError(f"{where}: image {number} cannot be decoded ({reason}); fetch it again") from error


def _middle(image: Image.Image, height: int, width: int) -> Image.Image:
    """The central square of seven eighths of the shorter side, scaled."""
    side = round(min(image.size) * 7 / 8)
    left, top = (image.size[0] - side) // 2, (image.size[1] - side) // 2
    return image.resize((width, height), Image.Resampling.BILINEAR, (left, top, left + side, top + side))


def _random_cut(image: Image.Image, height: int, width: int, draw: np.random.Generator) -> Image.Image:
    """A random crop of 8 to 100 % of the area, aspect ratio 3:4 to 4:3, scaled; after ten misfits the central crop."""
    for _ in range(10):
        area = image.size[0] * image.size[1] * draw.uniform(0.08, 1)
        aspect = np.exp(draw.uniform(np.log(3 / 4), np.log(4 / 3)))
        w, h = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if 0 < w <= image.size[0] and 0 < h <= image.size[1]:
            left, top = draw.integers(0, image.size[0] - w + 1), draw.integers(0, image.size[1] - h + 1)
            return image.resize((width, height), Image.Resampling.BILINEAR, (left, top, left + w, top + h))
    return _middle(image, height, width)
