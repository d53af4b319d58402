"""RTS-PUGD on CIFAR-10, ResNet-18: the radius falls on a quarter cosine, PUGD starts when the gradient norm is steady.

    python -m experiments train --preset rts --data-dir DATA --seeds 3

Hardware: meant for one accelerator; time not measured here. Expected score: not measured here. The author's files
(eeyzs1/CV_RTS, one seed, best epoch on the test set, UPANet, 400 epochs) report SGD 93.10, PUGD 93.53, best radius
schedule 94.19, best scale 93.99, radius and scale together 93.75; all three together were not run.

From those files: radius 2 to 0.01 (the curves behind the best run are those of this schedule), learning rate 0.1 on a
cosine, momentum 0.9, weight decay 5e-4, batch 500, 400 epochs; the trigger on the variance of the gradient norm over 10
batches, below a fifth of its variance in the first tenth. Scale 1. Our choice: ResNet-18 instead of their UPANet, crop
and flip instead of their rotation and flip, and shuffled data, which theirs is not.
"""

from experiments.config.schema import Config

CONFIG = Config(
    dataset="cifar10",
    model="resnet18",
    norm="batch",
    augment="crop_flip",
    method="rts_pugd",
    method_options=(("radius", "quarter:cos:2.0:0.01"), ("when", "low_variance:window=10"), ("scale", "1.0")),
    epochs=400,
    batch=500,
    lr="cosine:0.1:0.0",
    momentum=0.9,
    weight_decay=5e-4,
)
