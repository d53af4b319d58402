"""LPG plugs into other losses and methods and improves each.

**Paper.** The abstract of LPG, https://arxiv.org/abs/2605.29494: it can be plugged into existing methods for consistent
gains. Our LPG is a derivation from that abstract, and none of the paper's figures is claimed for it.

**Setting.** As the first of `lpg.longtail`: Fashion-MNIST thinned out exponentially, largest class 100 times the
smallest (about 2500 images), perceptron, 30 epochs, batch 128, cosine learning rate; the test set is balanced. Hosts:
cross-entropy, LDAM (margins up to 2 logits), logit adjustment, SAM at radius 0.05, PUGD at radius 1; each alone and
with LPG by `long_tail`, whose edit is around the host's loss and, for SAM and PUGD, on both of their gradients. LPG
adds no gradient evaluation.

**Chosen.** Each arm's learning rate among two and one knob of its own among two (weight decay alone, strength with
LPG), by accuracy on 2000 balanced and clean validation images, one seed of its own. The settings were fixed beforehand.

**Decides.** For each of the five hosts: with LPG the test accuracy is above that without.
"""

import dataclasses

from experiments.claims.claim import Check, Finding, Line, Panel
from experiments.claims.lpg.arms import CIFAR10, FASHION, PARTS, SMOKE, Arms, chosen, lpg, part, plain, table
from experiments.claims.study import Lab, Scale, Setting, above, accuracy, across, choose, method, train
from experiments.config.schema import Config
from experiments.report.stats import below, show

_TAIL = dataclasses.replace(FASHION, train_size=10_000, imbalance="exp:100")
SETTINGS: dict[Scale, tuple[Setting, ...]] = {
    "smoke": (
        Setting(
            "long-tailed digits",
            dataclasses.replace(SMOKE, imbalance="exp:10"),
            seeds=2,
            choosing_seeds=1,
            candidates=1,
        ),
    ),
    "full": (Setting("hosts, ratio 100", _TAIL, seeds=6, choosing_seeds=1, candidates=4),),
    "paper": (
        Setting(
            "CIFAR-10, ratio 100",
            dataclasses.replace(CIFAR10, imbalance="exp:100"),
            seeds=3,
            choosing_seeds=1,
            candidates=2,
        ),
    ),
}
WITH = " + LPG"
LOSSES = {"cross-entropy": "cross_entropy", "LDAM": "ldam:2:1", "logit adjustment": "logit_adjustment:1"}
METHODS = {"SAM": ("sam", 0.05), "PUGD": ("pugd", 1.0)}


def run(scale: Scale, first_seed: int, lab: Lab) -> Finding:
    """Every host alone and with LPG."""
    return across(SETTINGS[scale], lambda setting: _find(setting, first_seed, lab), lab)


def candidates(setting: Setting) -> dict[str, list[Config]]:
    """What each arm chooses among: a host, then the same with LPG; two hosts where nothing is chosen."""
    arms: dict[str, list[Config]] = {}
    hosts = slice(1 if setting.candidates == 1 else None)
    for host, loss in list(LOSSES.items())[hosts]:
        config = dataclasses.replace(setting.base, loss=loss)
        arms |= {host: plain(setting, config), host + WITH: lpg(setting, config, rule="long_tail")}
    for host, (name, radius) in list(METHODS.items())[hosts]:
        alone = plain(setting, method(setting.base, name, radius=radius))
        arms |= {host: alone, host + WITH: lpg(setting, rule="long_tail", inner=f"{name}:{radius}")}
    return arms


def _find(setting: Setting, first_seed: int, lab: Lab) -> Finding:
    arms = train(setting, choose(setting, candidates(setting), lab), first_seed, lab)
    rows = table(setting, arms, "cross-entropy")
    return Finding(rows, [_panel(setting, arms)], _checks(setting, arms), _reading(setting, arms))


def _pairs(arms: Arms) -> dict[str, tuple[str, str]]:
    return {host: (host, host + WITH) for host in arms if not host.endswith(WITH)}


def _panel(setting: Setting, arms: Arms) -> Panel:
    """What LPG adds to each host on head, medium and tail."""
    lines = [
        Line(f"{host}, {name}", [0.0], [list(part(arms[with_], name) - part(arms[alone], name))])
        for host, (alone, with_) in _pairs(arms).items()
        for name in PARTS
    ]
    return Panel(f"{setting.name}: what LPG adds", "test accuracy, points", "", lines, kind="points")


def _checks(setting: Setting, arms: Arms) -> list[Check]:
    return [
        above(f"{setting.name}: {host} with LPG above {host}", arms[with_], arms[alone])
        for host, (alone, with_) in _pairs(arms).items()
    ]


def _reading(setting: Setting, arms: Arms) -> str:
    gains = {host: accuracy(arms[with_]) - accuracy(arms[alone]) for host, (alone, with_) in _pairs(arms).items()}
    said = ", ".join(f"{host} {show(gain)}" for host, gain in gains.items())
    return f"{setting.name}: LPG adds to {said} points.{_idle(arms)} Chosen: {chosen(arms)}."


def _idle(arms: Arms) -> str:
    """Where LPG adds nothing: what the host itself had moved, and what LPG moves then."""
    said = ""
    for host, (alone, with_) in _pairs(arms).items():
        if below(accuracy(arms[alone]), accuracy(arms[with_])):
            continue
        own, then = (
            ", ".join(f"{name} {show(part(arms[a], name) - part(arms[b], name))}" for name in ("head", "tail"))
            for a, b in ((alone, "cross-entropy"), (with_, alone))
        )
        said += f" Without a gain, {host}: against cross-entropy it moves {own} by itself, and LPG moves {then} more."
    return said
