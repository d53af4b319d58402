"""Layer-wise noise before the gradient on CIFAR-10, ResNet-18 (Orvieto, Raj, Kersting, Bach; AISTATS 2023).

    python -m experiments train --preset noise_injection_resnet18 --data-dir DATA --seeds 3

Hardware: meant for one accelerator; time not measured here. Expected score: not measured here; the authors' repository
contains no results. Compare with `--method none`.

From the authors' code (aorvieto/noise_injection_overparam, main.py): noise of standard deviation 0.03 on one parameter
tensor per step, in turn; 50 epochs, batch 128, learning rate 0.01 on a cosine, momentum 0.9, weight decay 5e-4, crop
and flip. They use the running statistics of the perturbed pass, this trainer those of the unperturbed one.
"""

from experiments.config.schema import Config

CONFIG = Config(
    dataset="cifar10",
    model="resnet18",
    norm="batch",
    augment="crop_flip",
    method="layerwise_noise",
    method_options=(("sigma", "0.03"),),
    epochs=50,
    batch=128,
    lr="cosine:0.01:0.0",
    momentum=0.9,
    weight_decay=5e-4,
)
