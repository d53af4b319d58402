"""Gradient regularisation by forward differences on CIFAR-10, WRN-28-10 (Karakida et al.; ICML 2023, 2210.02720).

    python -m experiments train --preset f_gr --data-dir DATA --seeds 5

Hardware: meant for one or more accelerators; time not measured here. Expected score: not measured here; the numbers of
the paper's table are not known here. In it the forward difference is better than the backward one and the exact
gradient, especially with a large step.

From the paper's description: learning rate 0.1 on a cosine, momentum 0.9, batch 128, weight decay 1e-4, crop and flip;
strength up to 0.1, step from 0.01 to 0.5, best of the grid. Our choice: strength 0.1 at step 0.05, which later work
quotes as the best step, and 200 epochs, because the paper's number of epochs is not known here.
"""

from experiments.config.schema import Config

CONFIG = Config(
    dataset="cifar10",
    model="wrn28_10",
    norm="batch",
    augment="crop_flip",
    method="gradient_regularization",
    method_options=(("strength", "0.1"), ("step", "0.05"), ("scheme", "forward")),
    epochs=200,
    batch=128,
    lr="cosine:0.1:0.0",
    momentum=0.9,
    weight_decay=1e-4,
)
