"""CIFAR-10N and CIFAR-100N: labels given by people, assigned to images by their row in the original release.

References:
  Wei, Zhu, Cheng, Liu, Niu and Liu, Learning with Noisy Labels Revisited: A Study Using Real-World Human Annotations,
  ICLR 2022, https://arxiv.org/abs/2110.12088
"""

from pathlib import Path

import numpy as np

from experiments.config.errors import UsageError, pick
from experiments.data import Examples
from experiments.data.examples import as_labels
from experiments.data.sources.files import Folder, read_npz

FILES = {"cifar10": "cifar10n.npz", "cifar100": "cifar100n.npz"}
CLASSES = {"cifar10": 10, "cifar100": 100}
CHOICES = {
    "cifar10": {
        "aggre": "aggre_label",
        "random1": "random_label1",
        "random2": "random_label2",
        "random3": "random_label3",
        "worse": "worse_label",
    },
    "cifar100": {"noisy": "noisy_label"},
}


def human_labels(train: Examples, which: str, family: str, data_dir: Path | None, checksum: bool = True) -> np.ndarray:
    """The labels given by people to these training examples, int32 [n].

    Args:
      train: examples with clean labels and their rows.
      which: `aggre` (majority of three), `random1`, `random2`, `random3` (one each) or `worse` (a wrong one if there is
        any) for CIFAR-10; `noisy` for CIFAR-100.
      family: `cifar10` or `cifar100`.
      data_dir: contains `cifar-n/cifar10n.npz` or `cifar-n/cifar100n.npz`.
      checksum: whether files that differ from the published ones are refused.

    Raises:
      UsageError: if there are no such labels, or the clean labels in the file differ from those of the examples.
    """
    if train.rows is None or family not in FILES:
        raise UsageError(f"--noise human:{which}: people labelled CIFAR-10 and CIFAR-100, not this data set")
    name, folder = pick("human labels", which, CHOICES[family]), Folder(data_dir, checksum)
    path = folder.find("cifar-n", FILES[family])
    folder.verify(FILES[family], path)
    arrays = read_npz(path, ("clean_label", name))
    clean, given = (as_labels(f"{path}: {key}", arrays[key], CLASSES[family]) for key in ("clean_label", name))
    if train.rows.max() >= min(len(clean), len(given)):
        raise UsageError(
            f"{path}: labels of {min(len(clean), len(given))} images, but the data has row {train.rows.max()}"
        )
    wrong = np.flatnonzero(clean[train.rows] != train.labels)
    if len(wrong):
        row = train.rows[wrong[0]]
        raise UsageError(f"{path}: {len(wrong)} clean labels are not those of the data, the first at row {row}")
    return given[train.rows]
