"""What is settled about the CPU before JAX starts: how many devices it is, and whether freed memory is kept."""

import contextlib
import os
from collections.abc import Sequence

import jax

from experiments.config.schema import Config
from experiments.runs.memory import keep_freed
from experiments.training.side_by_side import cores

FLAG = "xla_force_host_platform_device_count"
SMALL = {"digits": 64, "mnist": 784, "fashion_mnist": 784}
"""Data sets of small images, and the numbers in one; those of the others have 3072 or more."""
LARGE = 2**17
"""Numbers in the images of a batch; the temporary arrays of such a step may well have 32 MB."""


def settle(configs: Sequence[Config]) -> None:
    """Make the CPU as many devices as these experiments take: see `devices`. A started JAX stays as it is."""
    if any(config.batch * SMALL.get(config.parts.dataset.name, 3072) >= LARGE for config in configs):
        keep_freed()
    if FLAG not in os.environ.get("XLA_FLAGS", ""):
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", devices(configs, cores()))


def devices(configs: Sequence[Config], count: int) -> int:
    """As many as are asked for; by default, for a single run under `--parallel jit`, one for each of `count` cores.

    Several runs go on side by side, each on one device. A batch that the cores do not divide takes fewer of them.

    Example:
      >>> devices([Config(batch=128)], 4), devices([Config(batch=50)], 4), devices([Config(seeds=3)], 4)
      (4, 2, 1)
    """
    asked = [config.devices for config in configs if config.devices]
    first = configs[0]
    if asked or first.distributed or first.parallel != "jit" or sum(config.seeds for config in configs) > 1:
        return max(asked, default=1)
    return max(n for n in range(1, count + 1) if first.batch % (n * first.accumulate) == 0 or n == 1)
