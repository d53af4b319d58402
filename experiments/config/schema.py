"""The settings of one experiment."""

import dataclasses
import functools
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import tyro

from experiments.config.errors import UsageError
from experiments.config.specs import Spec, dotted, spec, value

Options = tuple[tuple[str, str], ...]
ELSEWHERE = (
    *("preset", "seeds", "first_seed", "out", "resume", "data_dir"),
    *("checkpoint_every", "checkpoint_minutes", "tensorboard", "tracker", "sharpness"),
    *("devices", "distributed", "jobs", "seeds_at_once"),
)
"""Settings that do not affect the result, except for the rounding of sums over devices and of a program over seeds;
`devices` does affect it if each device perturbs by itself."""


MOST_SEEDS = 10_000


class Parts(NamedTuple):
    """The textual options of a `Config` after parsing; see `config.specs`."""

    lr: Any
    method: Spec
    second_batch: Any
    optimizer: Spec
    loss: Spec
    reweight: Spec
    flooding: Spec
    dataset: Spec
    noise: Spec
    imbalance: Spec


@dataclasses.dataclass(frozen=True)
class Config:
    """Train one model with one method, once for each seed.

    Options of the method and of the optimizer have the names of their arguments: --method.radius cosine:2.0:0.0,
    --method.when after:0.5, --method.mask matrices, --optimizer.nesterov true. A number can be replaced by a schedule,
    name:argument:argument; for a step, 0.5 means half of training and 100 means step 100.
    """

    preset: str = "none"
    """Start from the recipe of a paper; `presets` lists them. Other options override it."""
    method: str = "none"
    """Name of a method, or none for plain training."""
    second_batch: str = "1"
    """Examples of the batch used for the second gradient: a share such as 0.25, every fourth example (above 0.5 the
    first ones), or raised:0.5, those whose losses the perturbation increases most (ESAM's selection)."""
    dataset: str = "digits"
    """Name of a data set. The digits are part of scikit-learn; all others are files in --data-dir: npz:FILE for your
    own data, tfds:NAME for data prepared by TensorFlow Datasets."""
    model: str = "resnet8"
    """Name of a network."""
    epochs: int = 20
    """Passes over the training examples."""
    batch: int = 50
    """Examples per step; a smaller last batch of an epoch is skipped."""
    seeds: int = 1
    """Number of runs; each draws its own split, label noise, initial weights and order."""
    first_seed: int = 0
    """Seed of the first run; the following runs use the next integers."""

    lr: str = "cosine:0.1:0.0"
    """Learning rate: a number or a schedule."""
    optimizer: str = "sgd"
    """Base optimizer: a name in optax or optax.contrib (sgd, adamw, lion, muon, ...)."""
    momentum: float = 0.9
    """Momentum in [0, 1), for optimizers that have one."""
    weight_decay: float = 5e-4
    """Weight decay: the optimizer's own if it has one (adamw), otherwise added to the gradient after the method."""
    loss: str = "cross_entropy"
    """Loss of an example, with arguments such as ldam:0.5:30. Losses for long tails use the class counts of the
    training examples."""
    reweight: str = "none"
    """Class weights, from the first step on or deferred: drw:0.8 starts at 80 % of training."""
    flooding: str = "none"
    """Keep the loss of the batch (flood) or of every example (the others) above a level."""

    train_size: int | None = None
    """Training examples. Default: all but the validation examples."""
    val_size: int | None = None
    """Validation examples, taken from the training data, labels clean. Default: a tenth."""
    half: Literal["both", "first", "second"] = "both"
    """Use only one half of the training data, which is split once for all seeds, so that settings chosen on the first
    half can be judged on the second."""
    noise: str = "none"
    """Wrong training labels: a share of flipped labels, such as symmetric:0.2, or labels given by people, human:worse
    (CIFAR-10N), human:noisy (CIFAR-100N)."""
    imbalance: str = "none"
    """Long tail of the training classes, by the ratio of the largest to the smallest class, such as exp:100."""
    augment: Literal["auto", "none", "crop", "flip", "crop_flip", "crop2_flip"] = "auto"
    """Random crop after padding by 4 pixels (crop2: 2), and left-right flip. Default: that of the data set."""
    cutout: int = 0
    """Side of the square that is erased in every training image, in pixels; 0 for none."""
    mixup: float = 0.0
    """Mixup of the training batch, lambda drawn from Beta(mixup, mixup); 0 for none."""
    data_dir: Path | None = None
    """Folder of the data files. Default: the environment variable PUGD_DATA_DIR."""
    checksum: bool = True
    """Refuse data files that differ from the published ones."""
    stream: Literal["auto", "on", "off"] = "auto"
    """Read batches on the host, ahead of the step, instead of keeping all images on the device. auto: above 4 GB."""

    norm: Literal["group", "batch"] = "group"
    """Normalisation layers of the ResNets."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the computation; parameters are always float32."""

    parallel: Literal["jit", "pmap", "shard_map"] = "jit"
    """How devices share a batch. jit: the perturbation is that of the whole batch. shard_map and pmap: each device
    perturbs with the gradient of its own examples (m-sharpness), and one all-reduce per step takes the mean."""
    devices: int | None = None
    """Number of devices. Default: all; on a CPU one per core for a single run under jit, otherwise one."""
    distributed: bool = False
    """Train together with the other processes of this job: SLURM, Kubernetes, TPU pods, or by JAX_COORDINATOR_ADDRESS,
    JAX_NUM_PROCESSES and JAX_PROCESS_ID."""
    accumulate: int = 1
    """Number of microbatches that pass through the model one after the other, to save memory; gradient and perturbation
    are those of the whole batch."""
    jobs: int | None = None
    """Number of runs side by side, each on one device; runs on several devices go one by one, whatever is asked here.
    Default: one per core of a CPU, on accelerators one. There several take turns: one computes while the others compile
    or load."""
    seeds_at_once: int = 1
    """Number of seeds that one compiled program trains together on one device, each with its own data and state. For
    methods whose gate is known in advance; results are those of the seeds alone, up to rounding."""
    steps_per_call: int | None = None
    """Steps in one compiled call. Default: 1 on CPU; on accelerators and for an MLP 10, or a divisor of the steps per
    epoch near it."""

    on_nan: Literal["stop", "skip"] = "stop"
    """If a loss, a gradient or a parameter is not finite: stop the run, or skip the step and continue."""
    checkpoint_every: int = 10
    """Epochs between checkpoints; 0 for a checkpoint only when the run is stopped by a signal."""
    checkpoint_minutes: float = 10.0
    """Minutes of training after which a checkpoint is also saved within an epoch (unless --checkpoint-every is 0)."""
    tensorboard: bool = True
    """Also write the numbers of every epoch, the settings and the result for TensorBoard, next to metrics.jsonl."""
    tracker: Literal["none", "wandb", "trackio", "mlflow"] = "none"
    """Also send them to a tracker whose package is installed; it is configured as described in its documentation."""
    sharpness: int = 0
    """Epochs between measurements of the largest eigenvalue of the Hessian, on 256 training examples; 0 for none. Each
    costs about 50 gradients on these examples."""

    out: Path | None = None
    """Run folder. Default: runs/<time>-<dataset>-<model>-<method>."""
    resume: bool = False
    """Continue in a run folder: complete seeds are not run again, others continue from their last checkpoint."""
    label: str = ""
    """Name of the row in tables. Default: the method and its options."""

    method_options: Annotated[Options, tyro.conf.Suppress] = ()
    optimizer_options: Annotated[Options, tyro.conf.Suppress] = ()

    def __post_init__(self):
        """Refuse invalid values."""
        sizes = ("epochs", "batch", "train_size", "val_size", "accumulate", "steps_per_call")
        for name in (*sizes, "seeds", "devices", "jobs", "seeds_at_once"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise UsageError(f"{_flag(name)} {count}: expected at least 1")
        if self.seeds > MOST_SEEDS:
            raise UsageError(f"--seeds {self.seeds}: expected at most {MOST_SEEDS}")
        if not 0 <= self.first_seed <= 2**31 - self.seeds:
            raise UsageError(f"--first-seed {self.first_seed}: expected a whole number from 0 to 2**31 - {self.seeds}")
        if self.checkpoint_every < 0:
            raise UsageError(f"--checkpoint-every {self.checkpoint_every}: expected a number of epochs, or 0")
        if self.sharpness < 0:
            raise UsageError(f"--sharpness {self.sharpness}: expected a number of epochs, or 0")
        if not self.checkpoint_minutes > 0:
            raise UsageError(f"--checkpoint-minutes {self.checkpoint_minutes}: expected a number > 0")
        if self.distributed and self.out is None:
            raise UsageError("--distributed: name a folder that every process sees, --out FOLDER")
        if self.label and not (self.label.isprintable() and any(map(str.isalnum, self.label))):
            raise UsageError(f"--label {self.label!r}: expected printable characters, a letter or a digit among them")
        if not 0 <= self.momentum < 1:
            raise UsageError(f"--momentum {self.momentum}: expected a number in [0, 1)")
        if not 0 <= self.weight_decay < float("inf"):
            raise UsageError(f"--weight-decay {self.weight_decay}: expected a number >= 0")

    @functools.cached_property
    def parts(self) -> Parts:
        """The textual options after parsing."""
        named = ("loss", "reweight", "flooding", "dataset", "noise", "imbalance")
        return Parts(
            lr=value(self.lr, "--lr"),
            method=dotted("--method", self.method, self.method_options),
            second_batch=value(self.second_batch, "--second-batch"),
            optimizer=dotted("--optimizer", self.optimizer, self.optimizer_options),
            **{name: spec(getattr(self, name), _flag(name)) for name in named},
        )

    @property
    def title(self) -> str:
        """The label, or the method with its options."""
        options = ", ".join(f"{k}={v}" for k, v in self.method_options)
        return self.label or (f"{self.method}({options})" if options else self.method)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
