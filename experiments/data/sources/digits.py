"""The handwritten digits of scikit-learn."""

import numpy as np

from experiments.data.examples import Dataset, Examples
from experiments.data.sources.files import Folder


def digits(folder: Folder) -> Dataset:
    """1797 digits of 8x8 pixels and 17 grey levels; 1000 for training and 797 for testing, a fixed random split."""
    from sklearn.datasets import load_digits

    del folder
    pixels, labels = load_digits(return_X_y=True)
    images = (np.asarray(pixels) * 15).astype(np.uint8).reshape(-1, 8, 8, 1)
    order = np.random.default_rng(0).permutation(len(images))
    examples = Examples(images, np.asarray(labels).astype(np.int32)).take(order)
    return Dataset(examples.take(slice(1000)), examples.take(slice(1000, None)), 10, "none", "mnist")
