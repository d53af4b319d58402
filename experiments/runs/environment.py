"""Versions, commit and machine of a run."""

import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax

TRACKED = (":/", ":(top,exclude)experiments/results")
PACKAGES = ("pugd_optax", "jax", "jaxlib", "optax", "flax", "numpy", "scikit-learn", "torch")


def environment() -> dict[str, Any]:
    """Versions, commit, machine, and the flags of the compiler."""
    device = jax.devices()[0]
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "commit": _commit(),
        "platform": platform.platform(),
        "device": f"{len(jax.devices())} x {device.device_kind} ({device.platform})",
        "cores": os.cpu_count(),
        "xla_flags": os.environ.get("XLA_FLAGS"),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit, marked as dirty if files that may affect a run differ from it; result files do not count."""
    commit = _git("rev-parse", "HEAD")
    changed = commit and _git("status", "--porcelain", "--untracked-files=no", "--", *TRACKED)
    return f"{commit}-dirty" if changed else commit


def _git(*arguments: str) -> str | None:
    try:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
