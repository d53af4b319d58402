"""Learning to perturb logits on balanced CIFAR-10, WRN-28-10 (Logit Perturbation, AAAI 2022; arXiv 2209.05668).

    python -m experiments train --preset lpl --data-dir DATA --seeds 3

Hardware: made for one accelerator, better several; minutes: not measured here.
Score to expect: not measured here. The paper: 3.37 ± 0.04 % error, cross-entropy 3.82 ± 0.15 %, the best epoch on the
test set.

From the authors' slides and code (limengyang1992/lpl): 240 epochs, batch 128, learning rate 0.1 on a cosine, Nesterov
momentum 0.9, weight decay 5e-4, steps of 0.01 in the logits, 40 of them and up to a tenth more by the class's
confidence. Theirs alone: dropout 0.3, crops padded by reflection, and slips of the code that this method does not
repeat (its steps count twice there, so that the bound was about 0.8).
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
