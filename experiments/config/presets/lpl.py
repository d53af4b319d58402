"""Learning to perturb logits on balanced CIFAR-10, WRN-28-10 (Logit Perturbation, AAAI 2022; arXiv 2209.05668).

    python -m experiments train --preset lpl --data-dir DATA --seeds 3

Hardware: meant for one or more accelerators; time not measured here. Expected score: not measured here. The paper
reports 3.37 ± 0.04 % error, and 3.82 ± 0.15 % for cross-entropy, at the best epoch on the test set.

From the authors' slides and code (limengyang1992/lpl): 240 epochs, batch 128, learning rate 0.1 on a cosine, Nesterov
momentum 0.9, weight decay 5e-4, 40 steps of 0.01 in the logits, and up to a tenth more depending on the confidence of
the class. Not used here: dropout 0.3, crops padded by reflection, and mistakes in their code (each step is made twice
there, so the bound was about 0.8).
"""

from experiments.config.schema import Config

CONFIG = Config(
    dataset="cifar10",
    model="wrn28_10",
    norm="batch",
    augment="crop_flip",
    method="lpl",
    method_options=(("eps", "0.4"), ("d_eps", "0.04"), ("step_size", "0.01")),
    optimizer_options=(("nesterov", "true"),),
    epochs=240,
    batch=128,
    lr="cosine:0.1:0.0",
    momentum=0.9,
    weight_decay=5e-4,
)
