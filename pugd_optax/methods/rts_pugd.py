"""RTS-PUGD: PUGD with schedules for radius, timing and scale."""

import math

import optax

from pugd_optax._checks import check_count
from pugd_optax._typing import Mask
from pugd_optax.combines import Scale
from pugd_optax.methods.pugd import Idle, pugd
from pugd_optax.schedules import Radius, quarter_wave
from pugd_optax.timing import When, after


def rts_pugd(
    total_steps: int,
    *,
    radius: Radius | None = None,
    scale: Scale | None = None,
    when: When = None,
    idle: Idle = "raw",
    mask: Mask | None = None,
    report: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""PUGD under Radius-Timing-Scale control: three schedules of one step counter.

    $$\epsilon_t = r(t)\,\frac{|w| \odot g}{\| |w| \odot g \|}, \qquad
      u_t = \begin{cases} \dfrac{s(t)\,g + g^*}{\| s(t)\,g + g^* \|} & \text{if } \mathrm{when}(t) \\ g &
      \text{otherwise} \end{cases}$$

    Gradient evaluations per step: 1 + the fraction of active steps. All three schedules count every step, active or
    not.

    Args:
      total_steps: $T \ge 1$, the length of training in steps.
      radius: $r(t)$, a number or a schedule. Default: `quarter_wave("sin", pi / 2, 0, T)`, which rises from 0 with a
        mean of 1, PUGD's constant.
      scale: $s(t)$: a number, a schedule, `"norm_ratio"` or `"cosine"`. Default: 1, PUGD's.
      when: the gate (see `pugd_optax.timing`). Default: `timing.after(T // 10)`.
      idle: the output of inactive steps: `"raw"`, $g$ itself, as in the author's code, `"unit"` or `"reuse"`.
      mask: the parameters to perturb, a tree of bools or a function of the parameters. Default: all.
      report: also store norms, cosine and distance of active steps in the state (see `pugd_optax.reevaluate`).

    Returns:
      An `optax.GradientTransformationExtraArgs`; `update` needs `params` and `grad_fn` (or `value_fn`), see
      `pugd_optax.reevaluate`. Evaluate the gate beforehand and pass `active=` as a Python bool to compile two steps,
      one with and one without the second gradient.

    Raises:
      ValueError, TypeError: if an argument is out of its range.

    Example:
      >>> import optax, pugd_optax
      >>> tx = optax.chain(pugd_optax.rts_pugd(total_steps=10), optax.sgd(optax.cosine_decay_schedule(0.3, 10)))

    References:
      Radius-Timing-Scale in PUGD Optimization; a later draft, Sui, When and How Much to Perturb? Decoding
      Radius-Timing-Scale (RTS) in PUGD Optimization, and code by its author: https://github.com/eeyzs1/CV_RTS

    Notes:
      The paper gives no combined setting; the defaults are ours, chosen on validation data: 500 handwritten digits, a
      fifth of the labels wrong, ResNet-8, 20 epochs, 8 seeds (`python -m experiments train --dataset digits
      --train-size 500 --val-size 400 --noise symmetric:0.2 --seeds 8 --first-seed 100 --method ...`). Validation
      accuracy of the last epoch against PUGD's, paired by seed, in points with 95 % intervals: these defaults -0.3 +-
      1.0, the same from T / 4 on -0.7 +- 0.8, from the first step +0.3 +- 0.6; the paper's falling half cosine from T
      / 4 on -1.4 +- 0.8.
    """
    check_count("total_steps", total_steps, low=1)
    return pugd(
        radius=quarter_wave("sin", math.pi / 2, 0.0, total_steps) if radius is None else radius,
        scale=1.0 if scale is None else scale,
        when=after(total_steps // 10) if when is None else when,
        idle=idle,
        mask=mask,
        report=report,
    )
