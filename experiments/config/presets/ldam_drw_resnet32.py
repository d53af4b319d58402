"""LDAM with deferred re-weighting on long-tailed CIFAR-10, ResNet-32 (Cao, Wei, Gaidon, Arechiga, Ma; NeurIPS 2019).

    python -m experiments train --preset ldam_drw_resnet32 --data-dir DATA --seeds 3

Hardware: one accelerator; time not measured here. Expected score: not measured here. The paper: 22.97 % error at ratio
100; in the tables of Logit Perturbation (AAAI 2022): 21.88 %.

From the authors' code (kaidic/LDAM-DRW): classes of 5000 down to 50 images, 200 epochs, batch 128, learning rate 0.1
after five epochs of warm-up, divided by 100 at epoch 160 and again at epoch 180, momentum 0.9, weight decay 2e-4,
margins up to 0.5, class-balanced weights from epoch 160 on, beta 0.9999. Not used here: they normalise the last layer
and multiply the logits by 30. Here the last layer is plain, so the logits are not scaled. They divide the weighted
losses by the sum of the weights, this trainer by the number of examples, so from epoch 160 on the gradient is 5.8 times
smaller here.
"""

from experiments.config.schema import Config

CONFIG = Config(
    dataset="cifar10",
    model="resnet32",
    norm="batch",
    augment="crop_flip",
    imbalance="exp:100",
    loss="ldam:0.5:1.0",
    reweight="drw:0.8:0.9999",
    epochs=200,
    batch=128,
    lr="drops:0.1:0.01:0.8:0.9:warmup=0.025",
    momentum=0.9,
    weight_decay=2e-4,
)
