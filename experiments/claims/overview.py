"""The table of all statements of the papers: verdict, where each was tested, and how certain the verdict is."""

import collections
from typing import NamedTuple

from experiments.claims import catalog
from experiments.claims.claim import Saved
from experiments.claims.conditions import Result, judge, verdict
from experiments.report.tables import markdown_table


class Untested(NamedTuple):
    """A statement without a claim: what a test would require, and why it is not done here."""

    statement: str
    takes: str
    why: str


HOURS = {"real.noisy": 7, "real.regularizers": 7}
"""Hours on two CPU cores of claims on CIFAR-10 at paper scale, without the runs that their ledgers hold: the number of
gradients times 0.25 s."""
SEVERAL: dict[Result, str] = {"holds": "hold", "does not hold": "do not", "undecided": "undecided"}
"""The results of several success criteria; that of a single one is its name."""
UNTESTED = (
    Untested(
        "RTS: 3.2 % on CIFAR-10, CIFAR-100 and Tiny ImageNet, networks of the ResNet family, 100 to 400 epochs.",
        "`claims rts.all --scale paper`: CIFAR-10 and Tiny ImageNet, ResNet-18, 200 epochs, five seeds",
        "days on CPU cores; needs an accelerator",
    ),
    Untested(
        "PUGD: 99.13 % on CIFAR-10, 93.95 % on CIFAR-100, 91.02 and 90.74 % on Tiny ImageNet, with pretrained vision "
        "transformers.",
        "ViT and DeiT with ImageNet weights, fine-tuned at 224 x 224",
        "needs the weights and an accelerator",
    ),
    Untested(
        "SAM: 1 to 2 points on ImageNet with ResNet-50 to 152, growing with the length of training.",
        "ImageNet, 100 to 400 epochs",
        "needs an accelerator for days",
    ),
    Untested(
        "LPG: the tables of its paper, balanced, long-tailed and noisy.",
        "its text beyond the abstract, from which the library's form was derived",
        "the paper could not be read",
    ),
    Untested(
        "Noise on one layer per step generalises better: ResNet-18 on CIFAR-10, VGG and MLP-Mixer.",
        "`train --preset noise_injection_resnet18 --method layerwise_noise`; `noise.real` is a small stand-in",
        "needs an accelerator",
    ),
    Untested(
        "Forward differences generalise better than backward ones and double backpropagation: WideResNet-28-10.",
        "`train --model wrn28_10 --method gradient_regularization`; `gr.general` is a small stand-in",
        "needs an accelerator",
    ),
)


def overview(found: list[Saved]) -> str:
    """The number of each verdict, and a row for every statement, tested or not."""
    verdicts = collections.Counter(verdict(s.finding.conditions) for s in found)
    tally = ", ".join(f"{name} {count}" for name, count in verdicts.most_common())
    names = [saved.name for saved in found]
    cells = [["statement of the paper", "verdict", "where", "how sure"]]
    cells += [_tested(saved) for saved in found]
    cells += [_waiting(name) for name in catalog.claims() if name not in names]
    cells += [[x.statement, "not tested here", x.takes, x.why] for x in UNTESTED]
    head = f"Verdicts on {len(found)} claims: {tally}. The last column counts the conditions of kind *paper*."
    return f"{head}\n\n{markdown_table(cells, numbers=False)}\n"


def seeds(saved: Saved) -> str:
    """The number of seeds behind the rows of a finding, the fewest and the most."""
    counts = [max(len(values) for values in row.values()) for row in saved.finding.rows.values()]
    fewest, most = min(counts), max(counts)
    return f"{most} seed{'s' if most > 1 else ''}" if fewest == most else f"{fewest} to {most} seeds"


def _tested(saved: Saved) -> list[str]:
    judged = [x for x in judge(saved.finding.conditions) if x.condition.kind == "paper"]
    results = collections.Counter(x.result for x in judged)
    words = {result: result if results[result] == 1 else several for result, several in SEVERAL.items()}
    sure = ", ".join(f"{results[result]} {word}" for result, word in words.items() if results[result])
    where = f"[`{saved.name}`](#{saved.name.replace('.', '')}): {catalog.setting(saved.name)}"
    how = f"{seeds(saved)}: {sure}"
    return [catalog.statement(saved.name), verdict(saved.finding.conditions), where, how]


def _waiting(name: str) -> list[str]:
    takes = f" --scale paper`; about {HOURS[name]} hours on two CPU cores" if name in HOURS else "`"
    command = f"`python -m experiments claims {name}{takes}"
    return [catalog.statement(name), "not run yet", f"`{name}`: {catalog.setting(name)}", command]
