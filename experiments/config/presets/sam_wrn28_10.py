"""SAM on CIFAR-10, WRN-28-10 (Foret, Kleiner, Mobahi, Neyshabur; ICLR 2021, arXiv 2010.01412).

    python -m experiments train --preset sam_wrn28_10 --data-dir DATA --seeds 5

Hardware: meant for one or more accelerators; time not measured here. Expected score: not measured here. A user's run of
the authors' code gave 2.96 % error, and 3.5 % for SGD (google-research/sam, issue 8).

From the authors' code (google-research/sam): 200 epochs, learning rate 0.1 on a cosine, momentum 0.9, L2 coefficient
1e-3, radius 0.05, crop and flip. Not used here: L2 inside the loss, where it affects the perturbation; gradients
clipped to norm 5; a separate perturbation on every device, which is `--parallel shard_map` here. Batch: 256, as in work
based on that code (zhaoyang-0204/gnp); theirs is not known here.
"""

from experiments.config.schema import Config

CONFIG = Config(
    dataset="cifar10",
    model="wrn28_10",
    norm="batch",
    augment="crop_flip",
    method="sam",
    method_options=(("radius", "0.05"),),
    epochs=200,
    batch=256,
    lr="cosine:0.1:0.0",
    momentum=0.9,
    weight_decay=1e-3,
)
