"""PUGD in part of the training costs less and loses less than a point.

**Statement.** *Radius-Timing-Scale in PUGD Optimization*; draft, code and runs of its author at
https://github.com/eeyzs1/CV_RTS: plain SGD at the start and PUGD from a trigger on is as good as PUGD throughout. The
triggers there fire between a tenth and a third of the training; one seed, 100 epochs.

**Setting.** As `rts.early`. PUGD in a fraction of the steps (the active fraction), plain SGD in the others, as the
author does it: in the last steps (late) and, as controls of equal cost, in the first steps (early) or at random (each
step by the same coin for all seeds). Two triggers with their defaults: steady gradient norm, generalisation gap.

**Hyperparameters.** Learning rate and weight decay of each variant.

**Success criteria.** In each setting, by test accuracy after the last epoch: late PUGD in half of the steps is within
one point of PUGD throughout, and so is each trigger. Also tested: late is above random, and above early, at half of
them.

**Observations.** On Fashion-MNIST PUGD throughout is not above SGD, so that there is nothing to lose.
"""

from experiments.claims.claim import Line, Panel
from experiments.claims.conditions import Condition
from experiments.claims.rts.settings import SETTINGS
from experiments.claims.setting import Setting, Variant
from experiments.claims.study import Outcome, Study, cost, rows
from experiments.claims.variants import method
from experiments.report.stats import interval, show

ALWAYS, NEVER = "PUGD", "SGD"
TRIGGERS = {"steady norm": "low_variance", "gap": "generalization_gap"}
PLANS = ("late", "early", "random")


def variants(setting: Setting) -> dict[str, Variant]:
    """PUGD throughout, never, in part of the steps, and from a trigger on; at smoke scale half of the steps alone."""
    pugd = method(setting.base, "pugd")
    fractions = (0.5,) if setting.tiny else (0.5, 0.75, 0.25, 0.1)
    gates = {f"late {fraction}": f"after:{1 - fraction:.3g}" for fraction in fractions}
    gates |= {"early 0.5": "between:0:0.5", "random 0.5": "bernoulli:0.5"}
    gated = {label: method(pugd, "pugd", when=gate, idle="raw") for label, gate in (gates | TRIGGERS).items()}
    return {label: Variant(config) for label, config in {ALWAYS: pugd, NEVER: method(pugd, "none"), **gated}.items()}


def _conditions(outcome: Outcome) -> list[Condition]:
    cheap = ("late 0.5", *TRIGGERS)
    return [
        *(outcome.within(f"{label} within one point of PUGD", label, ALWAYS) for label in cheap),
        *(outcome.above(f"late 0.5 above {plan} 0.5", "late 0.5", f"{plan} 0.5", "extra") for plan in PLANS[1:]),
    ]


def _panels(outcome: Outcome) -> list[Panel]:
    half = outcome.only(ALWAYS, NEVER, *(f"{plan} 0.5" for plan in PLANS))
    return [_by_cost(outcome), outcome.curves("half of the steps", half)]


def _by_cost(outcome: Outcome) -> Panel:
    """Lines from SGD to PUGD by way of each plan; a trigger is a point."""
    planned = {plan: [label for label in outcome.variants if label.split()[0] == plan] for plan in PLANS}
    groups = {plan: [NEVER, *labels, ALWAYS] for plan, labels in planned.items()}
    lines = []
    for name, labels in (groups | {trigger: [trigger] for trigger in TRIGGERS}).items():
        variants = [outcome[label] for label in labels]
        points = sorted((interval(cost(v, outcome.setting)).mean, list(v.accuracy)) for v in variants)
        lines.append(Line(name, [x for x, _ in points], [y for _, y in points]))
    return Panel(outcome.setting.name, "gradient evaluations, in SGD's", "test accuracy, %", lines)


def _summary(outcome: Outcome) -> str:
    above_sgd = {label: variant.accuracy - outcome[NEVER].accuracy for label, variant in outcome.variants.items()}
    half = ", ".join(f"{label} {show(gain)}" for label, gain in above_sgd.items() if label.endswith("0.5"))
    fired = ", ".join(f"{label} {show(cost(outcome[label], outcome.setting) - 1)}" for label in TRIGGERS)
    return f"points above SGD: PUGD {show(above_sgd[ALWAYS])}, {half}. Active fraction of the triggers: {fired}."


STUDY = Study(SETTINGS, variants, _conditions, _panels, _summary, lambda outcome: rows(outcome, ALWAYS))
