"""The tasks: small real images, clean, mislabelled and long-tailed; and the methods that take part.

Most use an MLP, which a core trains about a thousand times in half an hour; one a ResNet, one a vision transformer with
AdamW.
"""

import dataclasses
from typing import Literal

import pugd_optax.methods
from experiments.claims.setting import Setting, Variant, rates
from experiments.claims.variants import method
from experiments.config.schema import Config
from experiments.training.experiment import prepare

Scale = Literal["smoke", "full"]
PLAIN = "none"
OPTIONS = {"pegr": {"strength": 0.01}}
"""Arguments for methods that have no default."""
UNKNOWN_SHARE = 0.5
"""The assumed fraction of active steps of gates that depend on gradients."""
_BASE = Config(model="mlp", batch=50, epochs=40, devices=1, tensorboard=False, checkpoint_every=0)
_DIGITS = dataclasses.replace(_BASE, dataset="digits", train_size=350, val_size=150)
_FASHION = dataclasses.replace(_BASE, dataset="fashion_mnist", train_size=1000, val_size=1000)
_TASKS = {
    "clean": _FASHION,
    "noisy digits": dataclasses.replace(_DIGITS, noise="symmetric:0.4"),
    "mistaken for another": dataclasses.replace(_FASHION, dataset="mnist", noise="asymmetric:0.4"),
    "long tail": dataclasses.replace(_FASHION, train_size=5000, imbalance="exp:50"),
    "noisy digits, ResNet-8": dataclasses.replace(_DIGITS, model="resnet8", noise="symmetric:0.2"),
    "clean digits, ViT": dataclasses.replace(
        _DIGITS, model="vit_micro", optimizer="adamw", weight_decay=0.01, epochs=80
    ),
}
_RATES = {"sgd": rates(0.01, 0.03, 0.1, 0.3, 1.0), "adamw": rates(0.0003, 0.001, 0.003, 0.01, 0.03)}


def tasks(scale: Scale, data: bool) -> tuple[Setting, ...]:
    """At full scale the tasks without data files, and the others if there are files; at smoke scale a tiny one."""
    if scale == "smoke":
        tiny = dataclasses.replace(_DIGITS, epochs=2, train_size=100, val_size=100, noise="symmetric:0.4")
        return (Setting("few digits", tiny, (rates(0.1),), most_seeds=2, tiny=True),)
    made = (Setting(k, v, (_RATES[v.optimizer],), choosing_seeds=2, most_seeds=5) for k, v in _TASKS.items())
    return tuple(task for task in made if data or task.base.dataset == "digits")


def contestants(task: Setting) -> dict[str, Variant]:
    """Plain training and every method with its defaults, for as many epochs as the budget of plain training allows.

    Methods that do not fit the data, such as methods for long tails on balanced data, do not take part.
    """
    names = (PLAIN, "sam", "pugd") if task.tiny else (PLAIN, *pugd_optax.methods.__all__)
    found = {
        name: within_budget(method(task.base, name, **OPTIONS.get(name, {})))
        for name in names
        if name not in _unfit(task)
    }
    return {name: Variant(config) for name, config in found.items()}


def _unfit(task: Setting) -> set[str]:
    """`sam_on` perturbs normalisation layers, which the MLP lacks; `imb_sam` needs classes with few examples."""
    found = {"sam_on": task.base.model == "mlp", "imb_sam": task.base.imbalance == "none"}
    return {name for name, unfit in found.items() if unfit}


def within_budget(config: Config) -> Config:
    """The configuration with fewer epochs, so that its gradient evaluations equal those of plain training."""
    optimizer = prepare(config).optimizer
    idle, active = optimizer.cost
    share = UNKNOWN_SHARE if optimizer.plan is None else float(optimizer.plan.mean())
    return dataclasses.replace(config, epochs=max(1, round(config.epochs / (idle + share * (active - idle)))))
