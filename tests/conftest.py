"""Eight CPU devices, strict ranks, a compilation cache, hypothesis without deadlines, rare garbage collections."""

import ctypes
import gc
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import chex
import hypothesis
import jax
import pytest

chex.set_n_cpu_devices(8)

if not hasattr(jax, "enable_x64"):  # JAX before 0.8
    from jax.experimental import enable_x64

    jax.enable_x64 = enable_x64
    jax.set_mesh = jax.sharding.use_mesh
    jax.lax.pcast = lambda x, axis_name, *, to: jax.lax.pvary(x, axis_name)

CACHE = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".cache" / "jax"))
KEPT = {"JAX_COMPILATION_CACHE_DIR": CACHE, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
"""Environment variables that give another process the same cache."""

QUICKLY: dict[str, Any] = {"xla_backend_optimization_level": 0}
"""Compiler options that cut compile time to a third, for tests that check values only."""
if jax.__version_info__ < (0, 11):  # later versions do not have this option
    QUICKLY["xla_cpu_use_fusion_emitters"] = False
if os.environ.get("PUGD_COMPILE") == "quickly":  # `make test`: all programs
    options = QUICKLY | {"xla_cpu_parallel_codegen_split_count": 1}
    flags = [f"--{name}={str(value).lower()}" for name, value in options.items()]
    os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *flags])

MUCH = 1_500_000_000
"""The bytes of resident memory above which a process drops its compiled programs."""

jax.config.update("jax_compilation_cache_dir", CACHE)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_numpy_rank_promotion", "raise")

gc.set_threshold(50_000)  # tracing makes many small objects: at Python's 700, a fifth of the time goes into looking

hypothesis.settings.register_profile("local", deadline=None, max_examples=30)
hypothesis.settings.register_profile("ci", deadline=None, max_examples=30, derandomize=True)
hypothesis.settings.register_profile("quick", deadline=None, max_examples=10)
_PROFILE = "ci" if os.environ.get("CI") else "quick" if os.environ.get("PUGD_COMPILE") else "local"
hypothesis.settings.load_profile(_PROFILE)


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items):
    """What a module compiles is compiled by one worker; slow tests are spread over all of them.

    Modules are handed out first, those of many tests before those of few, and single tests in the end: slow ones fill
    the time for which a worker would wait for the other. What they compile in common, the cache on disk hands on; a
    module that builds more than programs has a group of its own, slow tests included.
    """
    for item in items:
        if not any(item.get_closest_marker(name) for name in ("xdist_group", "slow")):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
    yield
    for item in items:  # pytest 9.2 reads the name elsewhere than pytest-xdist 3.8 writes the group (its issue 1386)
        grouped = vars(item).get("_nodeid")
        if grouped is not None and grouped != item.nodeid:
            item._id = type(item._id).parse(grouped)


def resident() -> int:
    """The resident memory of this process in bytes; 0 if the system does not report it."""
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if pages.exists() else 0


@pytest.fixture(scope="module", autouse=True)
def _little_memory():
    """Drops the compiled programs of a finished module if memory use is high; the cache on disk keeps them."""
    yield
    if resident() > MUCH:
        jax.clear_caches()
        gc.collect()
        getattr(ctypes.CDLL(None), "malloc_trim", int)(0)  # of glibc: freed memory goes back to the system


@pytest.fixture
def strict_dtypes():
    """Disables implicit dtype promotion. Not autouse, as Optax's schedules and Adam's bias correction rely on it."""
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture
def x64():
    """Enables float64 for one test."""
    with jax.enable_x64(True):
        yield
