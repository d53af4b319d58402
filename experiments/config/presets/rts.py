"""RTS-PUGD on CIFAR-10, ResNet-18: the radius falls on a quarter cosine, PUGD starts when the gradients calm down.

    python -m experiments train --preset rts --data-dir DATA --seeds 3

Hardware: made for one accelerator; minutes: not measured here.
Score to expect: not measured here. The author's files (eeyzs1/CV_RTS, one seed, best epoch on the test set, UPANet, 400
epochs) say SGD 93.10, PUGD 93.53, best radius schedule 94.19, best scale 93.99, radius and scale together 93.75; all
three knobs together were not run.

From those files: radius 2 to 0.01 (the curves behind the best run are those of this schedule), learning rate 0.1 on a
cosine, momentum 0.9, weight decay 5e-4, batch 500, 400 epochs; the trigger on the variance of the gradient norm over 10
batches, below a fifth of its variance in the first tenth. Scale 1. Ours: ResNet-18 for their UPANet, crop and flip for
their rotation and flip, and the data shuffled, which theirs are not.
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
