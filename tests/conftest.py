"""Eight CPU devices, strict ranks, a compilation cache, and hypothesis without deadlines."""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import chex
import hypothesis
import jax
import pytest

chex.set_n_cpu_devices(8)

if not hasattr(jax, "enable_x64"):  # JAX before 0.8
    from jax.experimental import enable_x64

    jax.enable_x64 = enable_x64

CACHE = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".cache" / "jax"))
KEPT = {"JAX_COMPILATION_CACHE_DIR": CACHE, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1"}
"""The same cache, for the environment of another process."""

jax.config.update("jax_compilation_cache_dir", CACHE)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
jax.config.update("jax_numpy_rank_promotion", "raise")

hypothesis.settings.register_profile("local", deadline=None, max_examples=30)
hypothesis.settings.register_profile("ci", deadline=None, max_examples=30, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture
def strict_dtypes():
    """No implicit dtype promotion. Not for all tests: Optax's schedules and Adam's bias correction rely on it."""
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture
def x64():
    """Float64 for one test."""
    with jax.enable_x64(True):
        yield
