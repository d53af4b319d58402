"""Gradient-norm penalty on CIFAR-10, WRN-28-10 (Zhao, Zhang, Hu; ICML 2022, arXiv 2202.03599).

    python -m experiments train --preset gnp --data-dir DATA --seeds 3

Hardware: meant for one or more accelerators; time not measured here. Expected score: not measured here. A third-party
summary gives 2.52 % error, against 2.78 % for an unnamed baseline, presumably SAM.

From the authors' code (zhaoyang-0204/gnp): r 0.1, alpha 0.8, 200 epochs, batch 256, learning rate 0.1 on a cosine,
momentum 0.9, L2 coefficient 1e-3. Not used here: L2 is inside their loss, where it affects the perturbation, their
gradients are clipped to norm 5, and by default the first gradient is normalised before mixing; here the formula of the
paper is used.
"""

from experiments.config.schema import Config

CONFIG = Config(
    dataset="cifar10",
    model="wrn28_10",
    norm="batch",
    augment="crop_flip",
    method="gnp",
    method_options=(("radius", "0.1"), ("alpha", "0.8")),
    epochs=200,
    batch=256,
    lr="cosine:0.1:0.0",
    momentum=0.9,
    weight_decay=1e-3,
)
