r"""Gaussian noise in the shape of the parameters, reproducible from a key and the step."""

import itertools
import math
from collections.abc import Callable
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pugd_optax._norms import times

Sampler = Callable[[jax.Array, tuple[int, ...], Any], jax.Array]
"""`(key, shape, dtype) -> random numbers`."""


def gaussian(key: jax.Array | int = 0) -> optax.GradientTransformationExtraArgs:
    r"""Standard normal noise on every parameter, $\epsilon \sim \mathcal{N}(0, I)$; the gradient is not used.

    Args:
      key: a PRNG key or an integer seed. The noise of step t is drawn from `fold_in(key, t)`, so the state is only the
        step count, and a resumed run draws the same noise. Two noise methods in one chain need different keys: with the
        same key they draw the same numbers.

    Returns:
      A stateless ascent.

    Raises:
      TypeError: if `key` is neither a key nor a whole number.

    Example:
      >>> import jax.numpy as jnp
      >>> tx, g = gaussian(key=0), {"w": jnp.zeros(10_000)}
      >>> eps, _ = tx.update(g, tx.init(g), g, step=3)
      >>> print(f"{eps['w'].std():.1f}")
      1.0
    """
    check_key(key)

    def update(updates, state, params=None, *, step: Any = 0, **extra_args: Any):
        del params, extra_args
        return draw(key, step, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def draw(
    key: jax.Array | int, step: jax.typing.ArrayLike, like: optax.Updates, sampler: Sampler = jax.random.normal
) -> optax.Updates:
    """The random numbers of one step in the shapes and dtypes of `like`, standard normal ones by default.

    They are taken from one buffer in float32 or better, which has the size of the tree on every device.
    """
    leaves, structure = jax.tree.flatten(like)
    ends = list(itertools.accumulate((_parts(x) for x in leaves), initial=0))
    buffer = numbers(key_at(key, step), chunks(ends[-1]), ends[-1], real_dtype(leaves), sampler)
    return jax.tree.unflatten(structure, [taken(buffer, start, x) for start, x in zip(ends, leaves, strict=False)])


def chunks(count: int) -> int:
    """The number of chunks that hold as many random numbers; it fits into int32 where the count may not."""
    return -(-count // _CHUNK)


def numbers(
    key: jax.Array, rounds: jax.typing.ArrayLike, capacity: int, dtype: Any, sampler: Sampler = jax.random.normal
) -> jax.Array:
    """A buffer of at least `capacity` random numbers, of which the first `rounds` chunks are drawn; the rest may be 0.

    They are drawn in chunks, one after the other: one generator per tensor would take longer to compile than the
    network.
    """
    chunk = min(_CHUNK, capacity)
    if chunk == capacity:
        return sampler(jax.random.fold_in(key, 0), (capacity,), dtype)
    fill = lambda k, buffer: buffer.at[k].set(sampler(jax.random.fold_in(key, k), (chunk,), dtype))
    buffer = jnp.zeros((chunks(capacity), chunk), dtype)
    return jax.lax.fori_loop(0, rounds, fill, buffer).ravel()


def taken(buffer: jax.Array, start: int, like: jax.Array) -> jax.Array:
    """Numbers from the buffer in the shape and dtype of an array; complex numbers have unit variance in total."""
    part = lambda start: jax.lax.slice_in_dim(buffer, start, start + like.size).reshape(like.shape)
    if jnp.iscomplexobj(like):
        pair = jax.lax.complex(part(start), part(start + like.size))
        return _split_as(like, (pair * math.sqrt(0.5)).astype(like.dtype))
    return _split_as(like, part(start).astype(like.dtype))


def _split_as(like: jax.Array, x: jax.Array) -> jax.Array:
    """`x` with the sharding of `like` on a mesh with explicit axes; elsewhere the compiler chooses the sharding."""
    sharding = getattr(jax.typeof(like), "sharding", None) if isinstance(like, jax.Array) else None
    explicit = sharding is not None and any(axis is not None for axis in sharding.spec)
    return jax.sharding.reshard(x, sharding) if explicit else x


def real_dtype(leaves: list[jax.Array]) -> Any:
    """float64 if any leaf is float64, otherwise float32."""
    return jnp.float64 if any(jnp.finfo(x.dtype).bits == 64 for x in leaves) else jnp.float32


def _parts(x: jax.Array) -> int:
    return math.prod(x.shape) * (2 if jnp.iscomplexobj(x) else 1)


def shift(
    sigma: optax.ScalarOrSchedule, key: jax.Array | int, step: jax.typing.ArrayLike, like: optax.Updates
) -> optax.Updates:
    r"""The noise of one step, $\sigma_t \xi_t$, in float32 or better."""
    scale = jnp.asarray(sigma(step) if callable(sigma) else sigma)
    return jax.tree.map(lambda x: times(scale, x), draw(key, step, like))


def key_at(key: jax.Array | int, step: jax.typing.ArrayLike) -> jax.Array:
    """The key of one step."""
    return jax.random.fold_in(as_key(key), step)


def as_key(key: jax.Array | int) -> jax.Array:
    """A typed PRNG key from a typed key, from raw key words, or from an integer, traced or not.

    Example:
      >>> as_key(7).shape
      ()
    """
    check_key(key)
    if _is_typed(key):
        return key
    if _is_raw(key):
        return jax.random.wrap_key_data(jnp.asarray(key), impl=_RAW[key.size])
    return jax.random.key(key)


def check_key(key: jax.Array | int) -> None:
    """Refuse what is not one key. Nothing is computed: a method may be built before `jax.distributed.initialize()`."""
    array = isinstance(key, jax.Array | np.ndarray)
    whole = isinstance(key, int | np.integer) or (array and jnp.issubdtype(key.dtype, jnp.integer))
    number = whole and not isinstance(key, bool) and not np.ndim(key)
    if not (number or _is_typed(key) or _is_raw(key)):
        raise TypeError(f"key={key!r}: expected one PRNG key or a whole number. Fix: key=jax.random.key(0).")


def _is_typed(key: Any) -> TypeGuard[jax.Array]:
    return isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and not key.shape


def _is_raw(key: Any) -> TypeGuard[jax.Array | np.ndarray]:
    return isinstance(key, jax.Array | np.ndarray) and key.dtype == jnp.uint32 and key.ndim == 1 and key.size in _RAW


_RAW = {2: "threefry2x32", 4: "rbg"}
"""The generator that a raw key with this many words belongs to."""

_CHUNK = 2**16
"""How many numbers are drawn at a time."""
