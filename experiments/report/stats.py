"""Statistics over seeds."""

from typing import Any, NamedTuple

import numpy as np
from scipy import stats


def standard_deviation(values: np.ndarray) -> np.ndarray:
    """Sample standard deviation over seeds, the first axis; 0 for a single seed."""
    return values.std(0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1:])


class Interval(NamedTuple):
    """Mean of the finite values, half the width of its 95 % confidence interval, and the number of other values."""

    mean: float
    half: float
    diverged: int = 0


def interval(values: Any) -> Interval:
    """Student's t interval of the mean.

    Example:
      >>> interval([1.0, 2.0, 3.0]).mean
      2.0
    """
    values = np.asarray(values, float)
    kept = values[np.isfinite(values)]
    if not len(kept):
        return Interval(float("nan"), 0.0, len(values))
    half = stats.t.ppf(0.975, len(kept) - 1) * kept.std(ddof=1) / np.sqrt(len(kept)) if len(kept) > 1 else 0.0
    return Interval(float(kept.mean()), float(half), len(values) - len(kept))


def below(a: Any, b: Any) -> bool:
    """Whether `a` is below `b`: the 95 % interval of the paired difference lies below 0; False for a single pair."""
    gap = interval(np.asarray(a, float) - np.asarray(b, float))
    return np.size(a) > 1 and not gap.diverged and gap.mean + gap.half < 0


def show(values: Any) -> str:
    """Mean and interval in a few characters.

    Example:
      >>> show([1.0, 2.0, 3.0])
      '2 ± 2.5'
    """
    mean, half, diverged = interval(values)
    text = "" if np.isnan(mean) else f"{mean:.3g}" + (f" ± {half:.2g}" if half > 1e-9 * abs(mean) else "")
    return " ".join(part for part in (text, f"({diverged} diverged)" if diverged else "") if part)
