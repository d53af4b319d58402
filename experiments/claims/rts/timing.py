"""PUGD in part of the training costs less and loses nothing.

**Paper.** *Radius-Timing-Scale in PUGD Optimization*; draft, code and runs of its author at
https://github.com/eeyzs1/CV_RTS: plain SGD at the start and PUGD from a trigger on is as good as PUGD throughout. The
triggers there fire between a tenth and a third of the training; one seed, 100 epochs.

**Setting.** As `rts.early`. PUGD in a share ("duty") of the steps, plain SGD in the others, as the author does it: in
the last steps (late), and as controls of equal cost in the first steps (early) or at random (each step by the same
coin for all seeds). Two triggers with their defaults: steady gradient norm, generalisation gap.

**Chosen.** Nothing: the learning rate is 0.1, the author's, for all arms. PUGD's of `rts.early` was
meant at first, but SGD, which takes the other steps, chooses another; changed before any run of this claim. A point of
accuracy as margin was fixed beforehand.

**Decides.** In each setting, by test accuracy after the last epoch: late PUGD in half of the steps loses less than a
point against PUGD throughout, and so does each trigger; late is above random, and above early, at half the steps.

**Seen.** On the digits late, early and random PUGD at half the steps keep 5.3 to 5.7 of PUGD's 6.7 points over SGD:
when it is on matters little, how often does. Both triggers fire early there, for 86 % of the steps, and keep 6.5. On
the clean images PUGD and SGD end alike at this rate, so that there is nothing to lose. Six seeds are too few to show a
loss below one point on the digits. The trigger on the gap never fired in a first run, whose trainer gave it a
validation loss of 0 before the first was measured.
"""

from collections.abc import Mapping

from experiments.claims.claim import Check, Finding, Line, Panel
from experiments.claims.rts.settings import settings
from experiments.claims.study import (
    Lab,
    Scale,
    Setting,
    Trained,
    above,
    accuracy,
    across,
    cost,
    curves,
    method,
    no_worse,
    rows,
    train,
)
from experiments.config.schema import Config
from experiments.report.stats import show

ALWAYS, NEVER, MARGIN = "PUGD", "SGD", 1.0
TRIGGERS = {"steady norm": "low_variance", "gap": "generalization_gap"}
PLANS = ("late", "early", "random")


def run(scale: Scale, first_seed: int, lab: Lab) -> Finding:
    """Every plan and trigger; at smoke scale half of the steps alone."""
    return across(settings(scale, lab), lambda setting: _find(setting, first_seed, lab), lab)


def timed(pugd: Config, duties: tuple[float, ...]) -> dict[str, Config]:
    """PUGD throughout, never, in part of the steps, and from a trigger on."""
    gates = {f"late {duty}": f"after:{1 - duty:.3g}" for duty in duties}
    gates |= {"early 0.5": "between:0:0.5", "random 0.5": "bernoulli:0.5"}
    arms = {label: method(pugd, "pugd", when=gate, idle="raw") for label, gate in (gates | TRIGGERS).items()}
    return {ALWAYS: pugd, NEVER: method(pugd, "none")} | arms


def _find(setting: Setting, first_seed: int, lab: Lab) -> Finding:
    duties = (0.5, 0.75, 0.25, 0.1)[: 1 if setting.candidates == 1 else None]
    arms = train(setting, timed(method(setting.base, "pugd"), duties), first_seed, lab)
    half = {label: arms[label] for label in (ALWAYS, NEVER, *(f"{plan} 0.5" for plan in PLANS))}
    panels = [
        _by_cost(setting, arms),
        Panel(f"{setting.name}: half of the steps", "epoch", "validation accuracy, %", curves(half)),
    ]
    return Finding(rows(setting, arms, ALWAYS), panels, _checks(setting, arms), _reading(setting, arms))


def _by_cost(setting: Setting, arms: Mapping[str, Trained]) -> Panel:
    """Lines from SGD to PUGD by way of each plan; a trigger is a point."""
    planned = {plan: [label for label in arms if label.split()[0] == plan] for plan in PLANS}
    groups = {plan: [NEVER, *labels, ALWAYS] for plan, labels in planned.items()}
    lines = []
    for name, labels in (groups | {trigger: [trigger] for trigger in TRIGGERS}).items():
        points = sorted((float(cost(arms[label], setting).mean()), list(accuracy(arms[label]))) for label in labels)
        lines.append(Line(name, [x for x, _ in points], [y for _, y in points]))
    return Panel(setting.name, "gradient evaluations, in SGD's", "test accuracy, %", lines)


def _checks(setting: Setting, arms: Mapping[str, Trained]) -> list[Check]:
    late = arms["late 0.5"]
    cheap = ["late 0.5", *TRIGGERS]
    return [
        *(
            no_worse(f"{setting.name}: {label} loses less than a point against PUGD", arms[label], arms[ALWAYS], MARGIN)
            for label in cheap
        ),
        *(above(f"{setting.name}: late 0.5 above {plan} 0.5", late, arms[f"{plan} 0.5"]) for plan in PLANS[1:]),
    ]


def _reading(setting: Setting, arms: Mapping[str, Trained]) -> str:
    gain = accuracy(arms[ALWAYS]) - accuracy(arms[NEVER])
    kept = [f"{label} {show(accuracy(arms[label]) - accuracy(arms[NEVER]))}" for label in arms if label.endswith("0.5")]
    fired = [f"{label} {show(cost(arms[label], setting) - 1)}" for label in TRIGGERS]
    return (
        f"{setting.name}: points above SGD: PUGD {show(gain)}, {', '.join(kept)}. "
        f"Share of steps after the triggers: {', '.join(fired)}."
    )
