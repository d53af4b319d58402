"""The passes of a batch through the network as functions of the parameters, which a method may request."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import optax
from flax import nnx

from experiments.config.errors import UsageError
from experiments.training.microbatches import Losses, split
from experiments.training.objective import Criterion
from experiments.training.second_batch import SecondBatch


@dataclasses.dataclass(frozen=True)
class Passes:
    """A batch, the model state before the step, and the objective.

    Microbatches pass through the model one after the other, and the pass is repeated for the gradient, so that only the
    activations of one microbatch are in memory. Losses and perturbations use all logits of the batch.
    """

    graphdef: nnx.GraphDef
    model_state: Any
    images: jax.Array
    labels: jax.Array
    step: jax.Array
    criterion: Criterion
    microbatches: int = 1

    def forward(self, params: optax.Params) -> tuple[jax.Array, Any]:
        """The logits, and the model state after the pass."""
        if self.microbatches == 1:
            after, logits = self._once(params, self.model_state, self.images)
            return logits, after
        once = jax.checkpoint(functools.partial(self._once, params), prevent_cse=False)
        after, logits = jax.lax.scan(once, self.model_state, split(self.images, self.microbatches))
        return logits.swapaxes(0, 1).reshape(len(self.images), -1), after

    def _once(self, params: optax.Params, model_state: Any, images: jax.Array) -> tuple[Any, jax.Array]:
        model = nnx.merge(self.graphdef, params, model_state)
        model.train()
        logits = model(images)
        return jax.lax.stop_gradient(nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Param)))), logits

    def logits(self, params: optax.Params) -> jax.Array:
        """Only the logits."""
        return self.forward(params)[0]

    def losses_of(self, logits: jax.Array) -> jax.Array:
        """The loss of each example, [batch]."""
        return self.criterion.losses(logits, self.labels, self.step)

    def loss_of(self, logits: jax.Array) -> jax.Array:
        """The objective."""
        return self.criterion.mean(logits, self.labels, self.step)

    @property
    def losses(self) -> Callable[[optax.Params], jax.Array]:
        """The loss of each example as a function of the parameters, also for each microbatch separately."""
        whole = lambda params: self.losses_of(self.logits(params))
        if self.microbatches == 1:
            return whole
        parts = split(self.images, self.microbatches), split(self.labels, self.microbatches)
        return Losses(whole, lambda params, part: self._of(*part).losses(params), parts)

    def _of(self, images: jax.Array, labels: jax.Array) -> "Passes":
        """The losses of one microbatch."""
        return dataclasses.replace(self, images=images, labels=labels, microbatches=1)

    def second(self, params: optax.Params, which: SecondBatch | None, logits: jax.Array) -> optax.Updates:
        """The second gradient on its share of the batch; `logits` are those of the first pass."""
        increases = lambda: self.losses(params) - self.losses_of(logits)
        rows = slice(None) if which is None else which.rows(len(self.images), increases)
        some = dataclasses.replace(self, images=self.images[rows], labels=self.labels[rows])
        size = len(some.images)
        if size % self.microbatches:
            raise UsageError(f"--accumulate {self.microbatches}: does not divide the {size} of --second-batch")
        return jax.grad(lambda p: some.loss_of(some.logits(p)))(params)
