"""Gradient regularization: descend the loss and its squared gradient norm."""

import functools
from typing import Literal, get_args

import jax.numpy as jnp
import optax

from pugd_optax._checks import check_number
from pugd_optax._norms import safe_ratio
from pugd_optax._typing import GradFn, Mask
from pugd_optax.ascents import restrict
from pugd_optax.combines import mix
from pugd_optax.evaluations import evaluate_by, hessian_vector_product, two_sided_difference
from pugd_optax.reevaluate import reevaluate
from pugd_optax.timing import When

Scheme = Literal["forward", "backward", "central", "exact"]


def gradient_regularization(
    strength: optax.ScalarOrSchedule = 0.1,
    step: optax.ScalarOrSchedule = 0.05,
    scheme: Scheme = "forward",
    *,
    when: When = None,
    mask: Mask | None = None,
    report: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""The gradient of $L + \frac{\gamma}{2} \|\nabla L\|^2$, by finite differences along $g$ or exactly.

    | scheme | $u$ | error | evaluations |
    |---|---|---|---|
    | `forward` | $g + \frac{\gamma}{h} \big(\nabla L(w + h g) - g\big)$ | $O(h)$ | 2 |
    | `backward` | $g + \frac{\gamma}{h} \big(g - \nabla L(w - h g)\big)$ | $O(h)$ | 2 |
    | `central` | $g + \frac{\gamma}{2h} \big(\nabla L(w + h g) - \nabla L(w - h g)\big)$ | $O(h^2)$ | 3 |
    | `exact` | $g + \gamma H g$ | 0 | 1 and a Hessian-vector product |

    At $\gamma = h$ the forward scheme is SAM with an unnormalised ascent, $u = \nabla L(w + h g)$. To penalise the norm
    itself, $L + \lambda \|\nabla L\|$, use `pugd_optax.gnp(radius=r, alpha=lambda / r)`: there the finite difference
    has the fixed length $r$, here the length $h \|g\|$.

    Args:
      strength: $\gamma \ge 0$ (the paper tries 0.0001 to 0.1); a number or a schedule, for example a warm-up
        `optax.linear_schedule(0.0, 0.1, transition_steps=1000)`.
      step: $h > 0$ (the paper tries 0.01 to 0.5 and finds large forward steps best); a number or a schedule. Where a
        schedule is 0, there is no penalty. Not used by `exact`.
      scheme: `"forward"`, `"backward"`, `"central"` or `"exact"`.
      when: the gate (see `pugd_optax.timing`). Default: every step. On other steps $g$ is passed on unchanged.
      mask: the parameters to perturb, a tree of bools or a function of the parameters. The penalty is then the squared
        gradient norm of these only, but its gradient affects all parameters. Default: all.
      report: also store norms, cosine and distance of active steps in the state (see `pugd_optax.reevaluate`).

    Returns:
      An `optax.GradientTransformationExtraArgs`; `update` needs `params` and `grad_fn` (or `value_fn`), see
      `pugd_optax.reevaluate`. In its state the radius is $h$ (0 for `exact`). With `central` or `exact`, $g^*$ is half
      the difference of the two sides or $H g$.

    Raises:
      ValueError, TypeError: if an argument is out of its range.

    Example:
      >>> import optax, pugd_optax
      >>> tx = optax.chain(pugd_optax.gradient_regularization(strength=0.1), optax.sgd(0.1))

    References:
      Karakida, Takase, Hayase and Osawa, Understanding Gradient Regularization in Deep Learning: Efficient
      Finite-Difference Computation and Implicit Bias, ICML 2023, https://arxiv.org/abs/2210.02720

    Notes:
      Put clipping after this, not before: if $g$ was clipped, the difference contains a component along $g$ that is
      $\frac{\gamma}{h}$ times the part that was cut off. With adaptive base optimizers, a warm-up of `strength` or
      `step` keeps the penalty out of their early second moments.
    """
    if scheme not in get_args(Scheme):
        raise ValueError(f"scheme={scheme!r}: expected one of {', '.join(get_args(Scheme))}.")
    check_number("strength", strength, low=0, schedule=True)
    check_number("step", step, low=0, schedule=True)
    if isinstance(step, int | float) and step == 0:
        raise ValueError("step=0: a finite difference needs a step > 0. Fix: step=0.05, or scheme='exact'.")
    along = restrict(optax.identity(), mask)
    again = functools.partial(reevaluate, when=when, report=report)
    if scheme == "exact":
        return evaluate_by(_curvature(along), again(along, mix(1.0, strength), radius=0.0))
    weight = _quotient(strength, step)
    if scheme == "central":
        return evaluate_by(two_sided_difference, again(along, mix(1.0, weight), radius=step))
    if scheme == "backward":
        back = optax.chain(along, optax.scale(-1.0))
        return again(back, mix(_affine(1, weight), _affine(0, weight, -1)), radius=step)
    return again(along, mix(_affine(1, weight, -1), weight), radius=step)


def _curvature(along: optax.GradientTransformation):
    """$H g$ with the part of $g$ that `along` keeps; the perturbed point is not used."""

    def evaluation(gradient: GradFn, g: optax.Updates, w: optax.Params, w_star: optax.Params) -> optax.Updates:
        del w_star
        return hessian_vector_product(gradient, w, along.update(g, along.init(w), w)[0])

    return evaluation


def _quotient(strength: optax.ScalarOrSchedule, step: optax.ScalarOrSchedule) -> optax.ScalarOrSchedule:
    if isinstance(strength, int | float) and isinstance(step, int | float):
        return strength / step
    at = lambda value, t: jnp.asarray(value(t) if callable(value) else value)
    return lambda t: safe_ratio(at(strength, t), at(step, t))


def _affine(a: float, value: optax.ScalarOrSchedule, b: float = 1) -> optax.ScalarOrSchedule:
    """`a + b * value`, of a number or of a schedule."""
    return (lambda t: a + b * value(t)) if callable(value) else a + b * value
