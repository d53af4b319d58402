"""PUGD, and RTS the more, make training stable.

**Statement.** *Radius-Timing-Scale in PUGD Optimization*; draft, code and runs of its author at
https://github.com/eeyzs1/CV_RTS: the abstract claims a more stable training. It does not say in what.

**Setting.** As `rts.early`: SGD, PUGD and RTS-PUGD with the library's defaults, the runs of `rts.all`. Instability is
taken in four ways, each one number per seed: how far the test accuracy of a seed is from the median of all (Brown and
Forsythe's measure of spread); the standard deviation of the validation accuracy over the last quarter of the epochs;
its largest fall from one epoch to the next after the first quarter; and, on the choosing seeds, the mean loss of
validation accuracy one step of the grid below and above the chosen learning rate, unless a run diverged there.

**Hyperparameters.** Learning rate and weight decay of each variant.

**Success criteria.** In each setting: PUGD's test accuracy varies less over seeds than SGD's, and so does RTS's. Also
tested: they do in each of the three other ways. Of interest is half a point.
"""

import numpy as np

from experiments.claims.claim import Panel, Rows
from experiments.claims.conditions import Condition, above
from experiments.claims.rts.settings import SETTINGS
from experiments.claims.setting import Setting, Variant
from experiments.claims.study import Outcome, Study, rows
from experiments.claims.variants import method
from experiments.report.stats import show

PLAIN, CALMER = "SGD", ("PUGD", "RTS")
HALF_A_POINT = 0.5


def variants(setting: Setting) -> dict[str, Variant]:
    """SGD, PUGD, and RTS with the library's defaults."""
    base = setting.base
    return {PLAIN: Variant(base), "PUGD": Variant(method(base, "pugd")), "RTS": Variant(method(base, "rts_pugd"))}


def over_seeds(outcome: Outcome, label: str) -> np.ndarray:
    """Distance of each seed's test accuracy from their median, in points, [seeds]."""
    accuracy = outcome[label].accuracy
    return np.abs(accuracy - np.nanmedian(accuracy))


def over_epochs(outcome: Outcome, label: str) -> np.ndarray:
    """Standard deviation of the validation accuracy over the last quarter of the epochs, in points, [seeds]."""
    curve = 100 * outcome[label].metric("val_accuracy")
    return curve[-max(2, len(curve) // 4) :].std(axis=0)


def largest_fall(outcome: Outcome, label: str) -> np.ndarray:
    """The largest fall of the validation accuracy between epochs after the first quarter, in points, [seeds]."""
    curve = 100 * outcome[label].metric("val_accuracy")
    return np.maximum(-np.diff(curve[len(curve) // 4 :], axis=0), 0).max(axis=0)


def off_the_rate(outcome: Outcome, label: str) -> np.ndarray:
    """Validation accuracy lost, on average, by the neighbours of the chosen learning rate, in points.

    Empty without a neighbour or if one diverged: to leave out what diverged would count it as no loss.
    """
    choice = outcome.choices[label]
    rates = choice.tried["rate"]
    at = rates.index(choice.chosen["rate"])
    near = [choice.by_rate[i] for i in (at - 1, at + 1) if 0 <= i < len(choice.by_rate)]
    if not near or not all(near):
        return np.array([])
    return np.mean([np.subtract(choice.validation, other) for other in near], axis=0)


WAYS = {
    "spread over the last epochs": over_epochs,
    "largest fall": largest_fall,
    "loss beside the chosen rate": off_the_rate,
}


def _conditions(outcome: Outcome) -> list[Condition]:
    def less(name, way, label, kind) -> Condition:
        statement = outcome.named(f"{name}: {label}'s is smaller")
        return above(statement, way(outcome, PLAIN), way(outcome, label), margin=HALF_A_POINT, kind=kind, unit="points")

    asked = [(*way, label) for way in WAYS.items() for label in CALMER]
    return [
        *(less("spread over seeds", over_seeds, label, "paper") for label in CALMER),
        *(
            less(name, way, label, "extra")
            for name, way, label in asked
            if way(outcome, PLAIN).size and way(outcome, label).size
        ),
    ]


def _table(outcome: Outcome) -> Rows:
    made = rows(outcome, PLAIN)
    for label, row in zip(outcome.variants, made.values(), strict=True):
        ways = {"spread over seeds": over_seeds} | WAYS
        row |= {name: list(way(outcome, label)) for name, way in ways.items() if way(outcome, label).size}
    return made


def _panels(outcome: Outcome) -> list[Panel]:
    return [outcome.curves("", outcome.variants)]


def _summary(outcome: Outcome) -> str:
    spread = ", ".join(
        f"{label} {np.nanstd(variant.accuracy, ddof=1):.2g}" for label, variant in outcome.variants.items()
    )
    fall = ", ".join(f"{label} {show(largest_fall(outcome, label))}" for label in outcome.variants)
    return f"standard deviation of the test accuracy over seeds, in points: {spread}; largest fall: {fall}."


STUDY = Study(SETTINGS, variants, _conditions, _panels, _summary, _table)
