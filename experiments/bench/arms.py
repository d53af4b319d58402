"""Ways to spend less than two gradients on a perturbed step, each as a step with numbers to be chosen."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import pugd_optax
from pugd_optax import schedules

Second = Callable[..., Callable[[Any], Any]]
"""`(losses, params, images, labels) -> grad_fn`, the gradient function of the second evaluation."""


class Arm(NamedTuple):
    """A method, when it evaluates again, on what, and the four settings it may choose from.

    Attributes:
      method: `(strength, steps) -> transformation`; the strength is traced.
      strengths: what that number may be; every arm has the same count.
      plan: `steps -> bool [steps]`, the active steps.
      second: the second gradient.
      epochs: passes, as a multiple of those of the others.
    """

    method: Callable[[Any, int], optax.GradientTransformation]
    strengths: tuple[float, float]
    plan: Callable[[int], np.ndarray] = lambda steps: np.ones(steps, bool)
    second: Second = lambda losses, params, *batch: jax.grad(lambda p: losses(p, *batch).mean())
    epochs: int = 1


def first_part(share: float) -> Second:
    """The second gradient on the first examples of the batch; batches are drawn at random, so on any."""

    def second(losses, params, images, labels):
        kept = round(share * len(labels))
        return jax.grad(lambda p: losses(p, images[:kept], labels[:kept]).mean())

    return second


def most_raised(share: float) -> Second:
    """The second gradient on those examples whose loss the perturbation raises most, ESAM's selection."""

    def second(losses, params, images, labels):
        def gradient(moved):
            raised = losses(moved, images, labels) - losses(params, images, labels)
            kept = jax.lax.top_k(raised, round(share * len(labels)))[1]
            return jax.grad(lambda p: losses(p, images[kept], labels[kept]).mean())(moved)

        return gradient

    return second


def late(duty: float) -> Callable[[int], np.ndarray]:
    """Active at the end of training, for that share of it."""
    return lambda steps: np.arange(steps) >= round((1 - duty) * steps)


def every(k: int) -> Callable[[int], np.ndarray]:
    """Active on every k-th step."""
    return lambda steps: np.arange(steps) % k == 0


def _rts(strength: Any, steps: int) -> optax.GradientTransformation:
    rise = schedules.quarter_wave("sin", jnp.pi / 2, 0.0, steps)
    return pugd_optax.rts_pugd(steps, radius=lambda t: strength * rise(t))


def _decay(strength: Any, steps: int) -> optax.GradientTransformation:
    del steps
    return optax.add_decayed_weights(strength)


ARMS: dict[str, Arm] = {
    "SGD": Arm(_decay, (0.0, 5e-3)),
    "SGD, twice the epochs": Arm(_decay, (0.0, 5e-3), epochs=2),
    "SAM": Arm(lambda r, _: pugd_optax.sam(r), (0.05, 0.2)),
    "PUGD": Arm(lambda r, _: pugd_optax.pugd(r), (1.0, 2.0)),
    "momentum SAM": Arm(lambda r, _: pugd_optax.momentum_sam(r), (0.1, 0.3)),
    "LookSAM, every 5th": Arm(lambda a, _: pugd_optax.looksam(0.1, a), (0.1, 0.4), every(5)),
    "ESAM, half the batch": Arm(lambda r, _: pugd_optax.esam(r), (0.02, 0.05), second=most_raised(0.5)),
    "PUGD, quarter batch": Arm(lambda r, _: pugd_optax.pugd(r), (1.0, 2.0), second=first_part(0.25)),
    "PUGD, reused 4 of 5": Arm(lambda r, _: pugd_optax.pugd(r, idle="reuse"), (1.0, 2.0), every(5)),
    "RTS, duty 0.1": Arm(_rts, (1.0, 2.0), late(0.1)),
    "RTS, duty 0.25": Arm(_rts, (1.0, 2.0), late(0.25)),
    "RTS, duty 0.5": Arm(_rts, (1.0, 2.0), late(0.5)),
}
