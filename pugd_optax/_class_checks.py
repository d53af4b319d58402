"""Checks for classification: logits, labels and class counts; and labels as class membership."""

from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from pugd_optax._checks import check_number


def check_class_axis(logits: jax.Array) -> int:
    """Refuse logits that are not real numbers with the classes on the last axis; return the number of classes."""
    _check_array("logits", logits, "jnp.asarray(logits), or [0] of (logits, aux)")
    if not jnp.issubdtype(logits.dtype, jnp.floating):
        raise TypeError(
            f"logits have the dtype {logits.dtype}: expected real floating-point numbers. "
            "Fix: logits.astype(jnp.float32)."
        )
    if not logits.ndim:
        raise ValueError("logits have the shape (): expected (..., classes). Fix: logits with an axis of classes.")
    return logits.shape[-1]


def check_logits(logits: jax.Array, num_classes: int) -> None:
    """Refuse logits that are not those of a batch, with `num_classes` on the last axis."""
    found = check_class_axis(logits)
    if logits.ndim < 2 or found != num_classes:
        remedy = f"num_classes={found}" if found != num_classes else "logits[None] for a single example"
        raise ValueError(
            f"logits have the shape {logits.shape}: expected (examples, ..., {num_classes}). "
            f"Fix: {remedy}, or logits with the classes on the last axis."
        )


def check_indices(labels: Any, logits: jax.Array) -> jax.Array:
    """Refuse labels other than integers in [0, classes), one per row of logits; traced ones by shape and dtype only."""
    _check_array("labels", labels, "jnp.asarray(labels)")
    dtype, shape, num_classes = jnp.result_type(labels), np.shape(labels), logits.shape[-1]
    if not jnp.issubdtype(dtype, jnp.integer):
        raise TypeError(
            f"labels have the dtype {dtype}: expected integer class indices. Fix: labels.argmax(-1) for one-hot rows."
        )
    if shape != logits.shape[:-1]:
        raise ValueError(
            f"labels have the shape {shape}: expected {logits.shape[:-1]}, one class index for each row of the logits. "
            "Fix: labels.argmax(-1) for one-hot rows."
        )
    if _is_readable(labels) and np.size(labels):
        low, high = int(np.asarray(labels).min()), int(np.asarray(labels).max())
        if low < 0 or high >= num_classes:
            raise ValueError(
                f"labels lie in [{low}, {high}]: expected [0, {num_classes - 1}], the classes of the logits. "
                f"Fix: a model of {high + 1} classes, or labels counted from 0."
            )
    # A number of classes such as 256 would overflow in comparisons with 8-bit labels.
    return jnp.asarray(labels) if dtype.itemsize >= 4 else jnp.asarray(labels, jnp.int32)


def membership(labels: Any, logits: jax.Array, where: Any = None) -> jax.Array:
    """The share of each class in each row, (..., classes) float32: one-hot for indices, soft labels unchanged.

    A row that `where` excludes belongs to no class, whatever its label. Neither does a row whose index is out of range
    under jit, where values cannot be checked.
    """
    _check_array("labels", labels, "jnp.asarray(labels)")
    if where is None:
        return _shares(labels, logits)
    rows = check_where(where, logits)
    if np.shape(labels) in (logits.shape, logits.shape[:-1]):
        count = rows[..., None] if np.ndim(labels) == logits.ndim else rows
        labels = jnp.where(count, labels, jnp.zeros((), jnp.result_type(labels)))
    return jnp.where(rows[..., None], _shares(labels, logits), 0)


def check_where(where: Any, logits: jax.Array) -> jax.Array:
    """Refuse a mask of rows that is not one bool for each row of the logits."""
    _check_array("where", where, "jnp.asarray(where)")
    if not jnp.issubdtype(jnp.result_type(where), jnp.bool_):
        raise TypeError(f"where has the dtype {jnp.result_type(where)}: expected bool. Fix: where != 0.")
    if np.shape(where) != logits.shape[:-1]:
        raise ValueError(
            f"where has the shape {np.shape(where)}: expected {logits.shape[:-1]}, one bool for each row of the "
            "logits. Fix: True for rows that count, False for padding."
        )
    return jnp.asarray(where)


def _shares(labels: Any, logits: jax.Array) -> jax.Array:
    if not jnp.issubdtype(jnp.result_type(labels), jnp.floating):
        if np.shape(labels) == logits.shape:
            raise ValueError(
                f"labels have the shape {np.shape(labels)} of the logits and the dtype {jnp.result_type(labels)}: "
                "expected integer class indices of one axis less, or soft labels in floating point. "
                "Fix: labels.argmax(-1), or labels.astype(jnp.float32)."
            )
        return jax.nn.one_hot(check_indices(labels, logits), logits.shape[-1], dtype=jnp.float32)
    if np.shape(labels) != logits.shape:
        raise ValueError(
            f"labels have the shape {np.shape(labels)} and the dtype {jnp.result_type(labels)}: expected soft labels "
            f"of the shape {logits.shape}, or integer class indices. Fix: labels.astype(jnp.int32) for indices."
        )
    if _is_readable(labels) and not np.all((np.asarray(labels) >= 0) & (np.asarray(labels) <= 1)):
        raise ValueError(
            f"labels lie in [{np.min(labels):g}, {np.max(labels):g}]: expected soft labels in [0, 1], the shares of "
            "the classes in an example. Fix: divide each row by its sum, or labels.astype(jnp.int32) for indices."
        )
    return jnp.asarray(labels).astype(jnp.float32)


def check_counts(counts: Any, num_classes: int | None = None) -> np.ndarray:
    """Class counts as float64, each above 0; they are known before training, so never traced."""
    if isinstance(counts, jax.core.Tracer):
        raise TypeError(
            "counts are traced: expected the class counts of the training set as plain numbers. "
            "Fix: a NumPy array from outside jit."
        )
    n = np.asarray(counts, np.float64)
    if n.ndim != 1 or (num_classes is not None and len(n) != num_classes):
        raise ValueError(
            f"counts have the shape {n.shape}: expected ({num_classes or 'classes'},), one for each class."
        )
    if not np.all(np.isfinite(n) & (n > 0)):
        raise ValueError(
            f"counts={n.tolist()}: expected numbers above 0. Fix: leave classes without an example out of the "
            "model, or give them the count 1."
        )
    return n


def check_transitions(transitions: Any, num_classes: int) -> None:
    """Refuse anything but probabilities in rows that sum to 1. Traced arrays are checked by shape only."""
    if np.shape(transitions) != (num_classes, num_classes):
        raise ValueError(
            f"transitions have the shape {np.shape(transitions)}: expected {(num_classes, num_classes)}, row k the "
            "class and column c its label. Fix: one row for each class of the logits."
        )
    if not _is_readable(transitions):
        return
    t = np.asarray(transitions, np.float64)
    if not (np.all(t >= 0) and np.allclose(t.sum(1), 1, atol=1e-3)):
        raise ValueError(
            f"transitions hold entries down to {t.min():g} and rows that sum to {t.sum(1).round(3).tolist()}: expected "
            "probabilities, rows that sum to 1. Fix: t / t.sum(1, keepdims=True), or its transpose."
        )


def check_positive(name: str, value: Any) -> None:
    """Refuse a constant that is not a finite number above 0. Traced arrays are not checked."""
    check_number(name, value, low=0)
    if _is_readable(value) and value == 0:
        raise ValueError(f"{name}={value}: expected a number above 0.")


def _check_array(name: str, x: Any, remedy: str) -> None:
    if not hasattr(x, "dtype") and not isinstance(x, int | float):
        raise TypeError(f"{name} are a {type(x).__name__}: expected one array. Fix: {remedy}.")


def _is_readable(x: Any) -> bool:
    return not isinstance(x, jax.core.Tracer) and (not isinstance(x, jax.Array) or x.is_fully_addressable)
