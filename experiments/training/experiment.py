"""An experiment: everything its seeds share, prepared and checked before anything is written."""

import dataclasses
import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from experiments import data
from experiments.config.errors import UsageError, first_line
from experiments.config.schema import Config
from experiments.data.augment import pipeline
from experiments.data.pipeline import Source, channels, held_out, source
from experiments.data.split import class_counts, split
from experiments.models.functional import Network, network
from experiments.runs.state import State, initial
from experiments.training import parallel
from experiments.training.chunks import Chunk, chunks
from experiments.training.gate_plan import reevaluations
from experiments.training.objective import criterion
from experiments.training.optimizer import Optimizer, build
from experiments.training.step import make_step


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One experiment, ready to train any number of seeds; further seeds need no new compilation.

    `start` is `(params, model_state, seed) -> state`, compiled. Whoever compiles the step holds the lock `compiling`.
    Both may be of an experiment that differs in numbers which the step reads from its state: see `Optimizer.data`.
    """

    config: Config
    dataset: data.Dataset
    network: Network
    optimizer: Optimizer
    steps_per_epoch: int
    layout: parallel.Layout
    step: parallel.Program
    start: Callable[[Any, Any, int], State]
    compiling: threading.Lock = dataclasses.field(default_factory=threading.Lock, compare=False)

    def chunks(self, epoch: int) -> list[Chunk]:
        """The calls of the step in this epoch; epochs count from 1."""
        plan, last = self.optimizer.plan, epoch * self.steps_per_epoch
        plan = None if plan is None else plan[last - self.steps_per_epoch : last]
        return chunks(plan, self.steps_per_epoch, steps_per_call(self.config, self.steps_per_epoch))

    @property
    def programs(self) -> list[tuple[int, bool | None]]:
        """The programs of the run: the number of steps per call and `active`."""
        epochs: Any = [0]  # all of them are alike
        if self.optimizer.plan is not None:
            epochs = np.sort(np.unique(self.optimizer.plan.reshape(-1, self.steps_per_epoch), True, axis=0)[1])
        return list(dict.fromkeys(chunk.program for i in epochs for chunk in self.chunks(int(i) + 1)))

    def begin(self, seed: int) -> State:
        """The state before the first step, on every device."""
        return self.place(self.optimizer.own(self.start(*self.network.init(seed), seed)))

    def source(self, examples: data.Examples, scale: tuple[np.ndarray, np.ndarray]) -> Source:
        """The examples ready for reading: on every device, or streamed."""
        found = source(examples, scale, data.streamed(self.dataset, self.config.stream))
        return found._replace(data=self.place(found.data))

    def held_out(self, examples: data.Examples, scale: tuple[np.ndarray, np.ndarray]) -> Source:
        """Examples for evaluation; one program works for any number of examples."""
        found = held_out(examples, scale, data.streamed(self.dataset, self.config.stream))
        return found._replace(data=self.place(found.data))

    def place(self, tree: Any) -> Any:
        """The arrays, replicated on every device of the experiment."""
        return parallel.everywhere(self.layout.mesh, tree)


load = functools.cache(data.load)

OF_RUNS = (
    *("preset", "label", "out", "resume", "seeds", "first_seed", "noise", "data_dir", "checksum"),
    *("checkpoint_every", "checkpoint_minutes", "tensorboard", "tracker", "sharpness", "jobs"),
    "seeds_at_once",
)
"""Settings that do not affect programs: experiments that differ only in these share compiled programs."""
KEPT = 64
_known: dict[tuple[Any, ...], Experiment] = {}


def prepare(config: Config) -> Experiment:
    """Prepare and check an experiment; every error in the settings is raised here, before anything is written.

    Raises:
      UsageError: if a setting is wrong.
    """
    try:
        return _prepare(config)
    except (UsageError, MemoryError):
        raise
    except (ValueError, TypeError) as error:  # the library's own checks: one line that names the argument
        raise UsageError(f"{config.title}: {first_line(error)}") from error
    except (ArithmeticError, AttributeError, LookupError) as error:  # of a schedule that was handed words for numbers
        raise UsageError(f"{config.title}: {type(error).__name__}: {first_line(error)}") from error


def _prepare(config: Config) -> Experiment:
    dataset = load(config.parts.dataset, config.data_dir, config.checksum, config.stream)
    train = split(config, dataset, config.first_seed).train
    height, width, _ = train.images.shape[1:]
    if config.cutout > max(height, width):
        raise UsageError(f"--cutout {config.cutout}: larger than the images, {height} x {width} pixels")
    if config.batch > len(train.labels):
        raise UsageError(f"--batch {config.batch}: larger than the {len(train.labels)} training examples")
    net = network(config.model, train.images.shape[1:], dataset.num_classes, config.norm, config.dtype)
    key = _key(config, net, OF_RUNS)
    found = _known.get(key)
    if found is None or found.dataset is not dataset:
        layout = parallel.layout(config.parallel, config.batch, config.devices, config.accumulate)
        optimizer = _optimizer(config, dataset, len(train.labels) // config.batch, layout)
        of_step = _key(config, net, (*OF_RUNS, *optimizer.data))
        twin = _known.get(of_step)
        if twin is None or twin.dataset is not dataset:
            twin = _made(config, dataset, net, train, layout, optimizer)
        found = _known[of_step] = _known[key] = dataclasses.replace(twin, optimizer=optimizer)
        while len(_known) > KEPT:
            _known.pop(next(iter(_known)))
    return dataclasses.replace(found, config=config)


def _key(config: Config, net: Network, free: Sequence[str]) -> tuple[Any, ...]:
    """A key that is equal for experiments that share compiled programs; settings named in `free` may differ."""
    return net, *(
        (field.name, getattr(config, field.name)) for field in dataclasses.fields(config) if field.name not in free
    )


def _optimizer(config: Config, dataset: data.Dataset, steps_per_epoch: int, layout: parallel.Layout) -> Optimizer:
    if config.epochs * steps_per_epoch >= 2**31:
        raise UsageError(f"--epochs {config.epochs}: {config.epochs * steps_per_epoch} steps, expected less than 2**31")
    return build(
        config,
        steps_per_epoch=steps_per_epoch,
        num_classes=dataset.num_classes,
        counts=class_counts(config, dataset),
        axis_name=layout.axis_name,
    )


def _made(
    config: Config,
    dataset: data.Dataset,
    net: Network,
    train: data.Examples,
    layout: parallel.Layout,
    optimizer: Optimizer,
) -> Experiment:
    """The experiment, its step traced."""
    steps_per_epoch = len(train.labels) // config.batch
    make = functools.partial(_step, config, dataset, net, optimizer, layout, config.epochs * steps_per_epoch)
    step = layout.compiled(make(microbatches=config.accumulate))
    start = jax.jit(functools.partial(initial, optimizer.tx))
    experiment = Experiment(config, dataset, net, optimizer, steps_per_epoch, layout, step, start)
    if config.accumulate > 1:  # a method cannot look into the loop over microbatches for what couples the examples
        _trace(experiment, layout.compiled(make(microbatches=1)).trace, train)
    _trace(experiment, step.trace, train)
    return experiment


def _step(
    config: Config,
    dataset: data.Dataset,
    net: Network,
    made: Optimizer,
    layout: parallel.Layout,
    steps: int,
    *,
    microbatches: int,
) -> parallel.StepFunction:
    """The pure step of a run of `steps` steps, its batch in `microbatches` parts."""
    parts, geometry = config.parts, dataset.augment if config.augment == "auto" else config.augment
    return make_step(
        net.graphdef,
        made.method,
        made.base,
        pipeline(geometry, config.cutout, config.mixup, dataset.num_classes),
        criterion(parts.loss, parts.reweight, parts.flooding, class_counts(config, dataset), steps),
        second=made.second,
        skip_nonfinite=config.on_nan == "skip",
        microbatches=microbatches,
        average=layout.average,
    )


def _trace(experiment: Experiment, step: parallel.StepFunction, train: data.Examples) -> None:
    """Trace a step to raise errors of the method for this model; nothing is computed.

    The shapes are those of the run, which can then reuse the trace.
    """
    few = experiment.source(train.take(slice(2)), channels(train.images[:2]))
    on = functools.partial(_shapes, experiment.layout.mesh)
    data, count = on(few.data), len(train.labels)
    longer = lambda x: x.update(shape=(count, *x.shape[1:])) if len(x) else x
    data = data._replace(images=longer(data.images), labels=longer(data.labels))
    state = jax.eval_shape(lambda: initial(experiment.optimizer.tx, *experiment.network.init(0), seed=0))
    if experiment.layout.axis_name and any(jax.tree.leaves(found.gate) for found in reevaluations(state.opt_state)):
        raise UsageError(
            f"--parallel {experiment.layout.mode}: a gate would decide anew on every device; use --parallel jit"
        )
    for steps, active in experiment.programs:
        feed = next(few.read([np.zeros((steps, experiment.config.batch), np.int32)]))
        key, zero = jax.random.key(0), np.float32(0)
        jax.eval_shape(functools.partial(step, active=active), on(state), data, on(feed), key, zero)


def _shapes(mesh: jax.sharding.Mesh, tree: Any) -> Any:
    """The shapes of arrays that are replicated on every device."""
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), tree)


def steps_per_call(config: Config, steps_per_epoch: int) -> int:
    """The number requested; by default about 10, but 1 on CPU, where loops are slow, except for an MLP.

    A step of an MLP is as short as a call. About 10 is a divisor of the steps per epoch if one lies between 5 and 32,
    so that one program serves all calls.
    """
    if config.steps_per_call:
        return config.steps_per_call
    if jax.default_backend() == "cpu" and config.model != "mlp":
        return 1
    divisors = (n for n in range(5, 33) if steps_per_epoch % n == 0)
    return min(divisors, key=lambda n: max(n / 10, 10 / n), default=10)
