"""PUGD on CIFAR-10, ResNet-18: perturbed unit gradients (Tseng, Liu, Lee, Zeng; arXiv 2110.00199).

    python -m experiments train --preset pugd --data-dir DATA --seeds 3

Hardware: meant for one accelerator; time not measured here. Expected score: not measured here. The paper's results for
training from scratch are not available here; its entries on the leaderboards are fine-tuned vision transformers
(CIFAR-10 99.13 %, CIFAR-100 93.95 %), a different setting.

From the authors' script (hanktseng131415go/PUGD, main.py): learning rate 0.1 on a cosine, momentum 0.9, weight decay
5e-4 after the method, batch 100, crop and flip; radius 1, fixed. Our choice: ResNet-18 instead of their UPANet, and 200
epochs, because the script's default of 10 is a demonstration and the paper's number is not known here. They update the
running statistics of BatchNorm in both passes, this trainer only in the first.
"""

from experiments.config.schema import Config

CONFIG = Config(
    dataset="cifar10",
    model="resnet18",
    norm="batch",
    augment="crop_flip",
    method="pugd",
    epochs=200,
    batch=100,
    lr="cosine:0.1:0.0",
    momentum=0.9,
    weight_decay=5e-4,
)
