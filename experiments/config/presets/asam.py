"""ASAM on CIFAR-10, WRN-28-10 (Kwon, Kim, Park, Choi; ICML 2021, arXiv 2102.11600).

    python -m experiments train --preset asam --data-dir DATA --seeds 3

Hardware: meant for one or more accelerators; time not measured here. Expected score: not measured here. Its first
author reports 2.37 % error on the smaller WRN-16-8, radius 0.5, in the authors' code (davda54/sam, issue 37).

From the authors' code (SamsungLabs/ASAM): 200 epochs, batch 128, learning rate 0.1 on a cosine, momentum 0.9, weight
decay 5e-4, labels smoothed by 0.1, radius 0.5 (CIFAR-100: 1.0), eta 0.01. They scale only parameters named "weight";
here the biases are scaled too, which according to the same issue increases the best radius to 2.
"""

from experiments.config.schema import Config

CONFIG = Config(
    dataset="cifar10",
    model="wrn28_10",
    norm="batch",
    augment="crop_flip",
    method="asam",
    method_options=(("radius", "0.5"), ("eta", "0.01")),
    loss="cross_entropy:0.1",
    epochs=200,
    batch=128,
    lr="cosine:0.1:0.0",
    momentum=0.9,
    weight_decay=5e-4,
)
