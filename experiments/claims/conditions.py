"""Success criteria: effects judged by intervals, corrected for their number, and the verdict that follows.

A condition states that an effect is above `least`. Effects that exceed it by less than the margin of interest do not
matter; the margin is stated before the runs. With the interval of the effect a condition

    holds           if the interval lies above `least`,
    does not hold   if it reaches below `least` and lies below `least` + margin,
    undecided       if it contains both.

The levels of the intervals are Holm's over the conditions of one kind in a claim, so that a claim with no true effect
finds one of that kind with a probability of at most 5 %. The p-value is that of the result: if it holds, of an effect
of at most `least`; if it does not hold, of an effect of at least `least` + margin; if undecided, the smaller of the
two. An exact value has an interval of width 0. Seeds at which a run diverged are left out; if this is more than a tenth
of the seeds, the condition is undecided.

References:
  Holm, *A Simple Sequentially Rejective Multiple Test Procedure*, Scandinavian Journal of Statistics 6, 1979.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.05
DIVERGED = 0.1
"""The share of seeds that may be missing because a run diverged; above it a condition is undecided."""
Kind = Literal["paper", "extra"]
Result = Literal["holds", "does not hold", "undecided"]


class Condition(NamedTuple):
    """The statement that an effect is above `least`.

    Attributes:
      kind: "paper" for what the paper states, "extra" for further questions, which never change a verdict.
      statement: in words.
      estimate: the effect, a mean over seeds.
      error: its standard error; 0 for an exact value, NaN for a single seed.
      freedom: degrees of freedom.
      least: what the effect must exceed.
      margin: the smallest excess over `least` that is of interest; 0 if `least` itself is that value.
      unit: the unit of the effect.
      diverged: number of seeds at which a run diverged, and of all seeds; () if none did.
    """

    kind: Kind
    statement: str
    estimate: float
    error: float
    freedom: int
    least: float
    margin: float
    unit: str = ""
    diverged: Sequence[int] = ()


class Judged(NamedTuple):
    """A condition, its result, the p-value of the result after Holm, and half its interval's width at Holm's level."""

    condition: Condition
    result: Result
    p: float
    half: float

    @property
    def numbers(self) -> str:
        """The interval and what it is compared with, in words."""
        _, _, estimate, error, freedom, least, margin, unit, diverged = self.condition
        enough = least + margin
        asked = f"above {least:.3g}"
        if margin:
            asked += f", of interest from {enough:.3g}" if enough else ", 0 is no loss"
        if not np.isfinite(estimate):
            return f"{diverged[0]} of {diverged[1]} seeds diverged; asked: {asked}" if diverged else f"asked: {asked}"
        about = "" if error == 0 else f" ± {self.half:.2g}" if np.isfinite(error) else " (no interval)"
        small = ", less than is of interest" if enough else ", a loss"
        small = small if self.result == "holds" and estimate + self.half < enough else ""
        gone = f"; {diverged[0]} of {diverged[1]} seeds diverged" if diverged else ""
        digits = 3 if error or freedom else 4
        return f"{estimate:.{digits}g}{about}{unit and ' ' + unit}{small}; asked: {asked}; {self._sure}{gone}"

    @property
    def _sure(self) -> str:
        """The p-value in words."""
        if self.condition.error == 0:
            return "the same at every seed" if self.condition.freedom else "exact"
        return f"p = {self.p:.2g}" if self.p >= 0.001 else "p < 0.001"


def above(
    statement: str, a: Any, b: Any = 0.0, *, margin: float, least: float = 0.0, kind: Kind = "paper", unit: str = ""
) -> Condition:
    """`a` is above `b`: a paired difference over seeds that exceeds `least`.

    Example:
      >>> condition = above("longer legs", [5.0, 6.1, 7.2, 8.1], [4.0, 5.0, 6.0, 7.0], margin=0.5)
      >>> judge([condition])[0].result
      'holds'
    """
    with np.errstate(invalid="ignore"):
        effect = np.asarray(a, float) - np.asarray(b, float)
    known = effect[np.isfinite(effect)]
    diverged = () if known.size == effect.size else (effect.size - known.size, effect.size)
    if known.size < (1 - DIVERGED) * effect.size:
        known = np.array([np.nan])
    error = known.std(ddof=1) / np.sqrt(known.size) if known.size > 1 else np.nan
    return Condition(kind, statement, float(known.mean()), float(error), known.size - 1, least, margin, unit, diverged)


def within(statement: str, a: Any, b: Any, *, margin: float, kind: Kind = "paper", unit: str = "") -> Condition:
    """`a` loses less than the margin against `b`: the paired difference exceeds -margin."""
    return above(statement, a, b, margin=margin, least=-margin, kind=kind, unit=unit)


def close(statement: str, values: Any, target: float, *, tolerance: float, kind: Kind = "paper") -> Condition:
    """The mean of the values is within a tolerance of the target; the effect is the remaining tolerance."""
    found = above(statement, values, target, margin=0.0, kind=kind)
    return found._replace(estimate=tolerance - abs(found.estimate), unit="of the tolerance left")


def exact(statement: str, value: float, least: float = 0.0, *, kind: Kind = "paper", unit: str = "") -> Condition:
    """An exact value, computed and not sampled, is above `least`; undecided if it is not finite."""
    return Condition(kind, statement, float(value), 0.0 if np.isfinite(value) else np.nan, 0, least, 0.0, unit)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given.

    Example:
      >>> holm([0.01, 0.04, 0.03, 0.005])
      [0.03, 0.06, 0.06, 0.02]
    """
    order = np.argsort(p, kind="stable")
    steps = np.asarray(p, float)[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted.tolist()


def judge(conditions: Sequence[Condition]) -> list[Judged]:
    """The result of every condition; conditions of the two kinds are corrected separately."""
    families = {kind: iter(_family([c for c in conditions if c.kind == kind])) for kind in ("paper", "extra")}
    return [next(families[condition.kind]) for condition in conditions]


def _family(conditions: Sequence[Condition]) -> list[Judged]:
    """Conditions that are corrected together."""
    holds = [_p(c.estimate - c.least, c) for c in conditions]
    pairs = zip(conditions, holds, strict=True)
    fails = [_p(c.least + c.margin - c.estimate, c) if c.error else 1 - p for c, p in pairs]
    smaller = [min(pair) for pair in zip(holds, fails, strict=True)]
    adjusted = holm(smaller)
    decided = sum(p <= LEVEL for p in adjusted)
    ranks = np.argsort(np.argsort(smaller, kind="stable"))
    levels = LEVEL / np.maximum(len(conditions) - np.minimum(ranks, decided), 1)
    found = zip(conditions, holds, adjusted, levels, strict=True)
    return [_judged(condition, p, adjusted, level) for condition, p, adjusted, level in found]


def _judged(condition: Condition, holds: float, p: float, level: float) -> Judged:
    """The result of a condition, from its own p-value of holding, Holm's of any result, and its level."""
    result: Result = "undecided" if p > LEVEL else "holds" if holds <= level else "does not hold"
    if result == "holds":  # the other test, of less than is of interest, may have the smaller p-value
        p = max(p, min(1.0, holds * LEVEL / level))
    half = stats.t.ppf(1 - level / 2, condition.freedom) * condition.error if condition.error else 0.0
    return Judged(condition, result, float(p), float(half))


def _p(distance: float, condition: Condition) -> float:
    """Two-sided p-value of an effect at this distance on the required side; 1 if there is no interval."""
    if condition.error == 0:
        return 0.0 if distance > 0 else 1.0
    p = 2 * float(stats.t.sf(distance / condition.error, condition.freedom))
    return min(1.0, p) if np.isfinite(p) else 1.0


def verdict(conditions: Sequence[Condition]) -> str:
    """The verdict that follows from the paper's conditions."""
    results = [judged.result for judged in judge(conditions) if judged.condition.kind == "paper"]
    if "holds" in results:
        return "holds here" if set(results) == {"holds"} else "holds partly"
    return "does not hold here" if results and set(results) == {"does not hold"} else "undecided here"
