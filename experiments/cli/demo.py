"""The demo: does a perturbed gradient beat the plain gradient on real images, and at what cost?

Handwritten digits (8x8 pixels, part of scikit-learn): 500 training examples with a fifth of the labels wrong, on
request also with clean labels. ResNet-8 with GroupNorm, batch 50, 20 epochs, cosine learning rate from 0.1, momentum
0.9, weight decay 5e-4. The control with twice the epochs stretches the schedule to its length. As many runs as there
are cores run side by side.
"""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from experiments.config.schema import Config
from experiments.report import tables
from experiments.runs import run_dir
from experiments.training import sweep

BASE = Config(
    model="resnet8", epochs=20, batch=50, train_size=500, val_size=400, seeds=3, devices=1, checkpoint_every=0
)
METHODS = (
    dataclasses.replace(BASE, label="SGD", method="none"),
    dataclasses.replace(BASE, label="SGD, twice the epochs", method="none", epochs=40),
    dataclasses.replace(BASE, label="SAM", method="sam", method_options=(("radius", "0.05"),)),
    dataclasses.replace(BASE, label="PUGD", method="pugd"),
    dataclasses.replace(BASE, label="RTS-PUGD", method="rts_pugd"),
)
NOISY = {"noisy-labels": "symmetric:0.2"}
CLEAN = {"clean-labels": "none"}


@dataclasses.dataclass(frozen=True)
class Options:
    """Train SGD, SAM, PUGD and RTS-PUGD on handwritten digits; print the table and draw the curves."""

    seeds: Annotated[int, tyro.conf.arg(help="Runs of each method.")] = 3
    epochs: Annotated[int, tyro.conf.arg(help="Passes over the training examples.")] = 20
    clean: Annotated[bool, tyro.conf.arg(help="Also with clean labels, which takes twice as long.")] = False
    out: Annotated[Path, tyro.conf.arg(help="Folder of the runs; what is there is replaced.")] = Path("runs/demo")


def main(options: Options, console: Console) -> None:
    """Run the job, then report from its folder."""
    jobs = []
    for setting, noise in (NOISY | CLEAN if options.clean else NOISY).items():
        for config in METHODS:
            epochs = options.epochs * config.epochs // BASE.epochs
            config = dataclasses.replace(config, noise=noise, seeds=options.seeds, epochs=epochs)
            jobs.append((options.out / setting, config))
    for setting in NOISY | CLEAN:  # also what this demo does not train again: the report reads the whole folder
        for config in METHODS:
            run_dir.remove(options.out / setting, config)
    sweep.run(jobs, console)
    tables.show(options.out, console)
