"""Layer-wise noise injection: the gradient at a point where one tensor is randomly perturbed."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from pugd_optax._checks import check_number
from pugd_optax._masks import resolve_mask
from pugd_optax._typing import Mask
from pugd_optax.combines import replace
from pugd_optax.noise import check_key, chunks, key_at, numbers, real_dtype, taken
from pugd_optax.reevaluate import reevaluate
from pugd_optax.timing import When


def layerwise_noise(
    sigma: optax.ScalarOrSchedule = 0.03,
    key: jax.Array | int = 0,
    order: Literal["cyclic", "random"] = "cyclic",
    *,
    when: When = None,
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Layer-wise noise injection: perturb one parameter tensor per step and take the gradient there.

    $$\epsilon^{(i)} = \sigma\,\xi \;\text{ for } i = t \bmod M, \quad 0 \text{ otherwise}, \qquad
      u = \nabla L(w + \epsilon)$$

    with $\xi \sim \mathcal{N}(0, I)$ and $M$ tensors: each kernel, each bias and each gain is one tensor. Averaged over
    a cycle it regularises by $\frac{\sigma^2}{2M} \operatorname{tr} H$. Only one layer is noisy at a time, so noise of
    two layers is never multiplied and the variance stays bounded as the width grows. **One** gradient evaluation per
    step, as in `pugd_optax.noise_injection`.

    Args:
      sigma: $\sigma \ge 0$ (0.03 for a ResNet-18 in the authors' code), the standard deviation on each perturbed
        parameter; a number or a schedule. `noise_injection` adds the same total noise per cycle at $\sigma / \sqrt{M}$.
      key: a PRNG key or an integer seed; the noise of step t is drawn from `fold_in(key, t)`. Two noise methods in one
        chain need different keys: with the same key they draw the same numbers.
      order: `"cyclic"`, in the order of `jax.tree.leaves`, or `"random"`, independently at each step.
      when: the gate (see `pugd_optax.timing`). Default: every step. On other steps $g$ is passed on unchanged. The
        cycle counts every step, so a gate of period M would always perturb the same tensor; use `"random"` then.
      mask: the tensors to perturb in turn, a tree of bools or a function of the parameters. Default: all.

    Returns:
      An `optax.GradientTransformationExtraArgs`; `update` needs `params` and `grad_fn` (or `value_fn`), see
      `pugd_optax.reevaluate`. `grads` only gives the tree structure. The radius in its state is $\sigma$.

    Raises:
      ValueError, TypeError: if an argument is out of its range, or `mask` selects nothing.

    Example:
      >>> import jax, jax.numpy as jnp, optax, pugd_optax
      >>> loss = lambda w: jnp.sum(w["a"] ** 2) + jnp.sum(w["b"] ** 2)
      >>> tx = pugd_optax.layerwise_noise(sigma=0.1, key=0)
      >>> w = {"a": jnp.ones(2), "b": jnp.ones(2)}
      >>> state, moved = tx.init(w), []
      >>> for _ in range(4):
      ...     u, state = tx.update(w, state, w, grad_fn=jax.grad(loss))
      ...     moved.append([name for name in w if (u[name] != 2 * w[name]).any()])
      >>> moved
      [['a'], ['b'], ['a'], ['b']]

    References:
      Orvieto, Raj, Kersting and Bach, Explicit Regularization in Overparametrized Models via Noise Injection, AISTATS
      2023, https://arxiv.org/abs/2206.04613
    """
    if order not in ("cyclic", "random"):
        raise ValueError(f"order={order!r}: expected 'cyclic' or 'random'.")
    check_number("sigma", sigma, low=0, schedule=True)
    check_key(key)
    ascent = _one_tensor(key, order == "random", mask)
    return reevaluate(ascent, replace, radius=sigma, when=when)


def _one_tensor(key: jax.Array | int, at_random: bool, mask: Mask | None) -> optax.GradientTransformationExtraArgs:
    def update(updates, state, params=None, *, step: Any = 0, **extra_args: Any):
        del extra_args
        selected = resolve_mask(mask, updates if params is None else params)
        leaves, structure = jax.tree.flatten(updates)
        rounds = [i for i, on in enumerate(jax.tree.leaves(selected)) if on]
        if leaves and not rounds:
            raise ValueError("mask selects no tensor to perturb. Fix: mask=None for all of them.")
        if not leaves:
            return updates, state
        turn_key, noise_key = jax.random.split(key_at(key, step))
        turn = jax.random.randint(turn_key, (), 0, len(rounds)) if at_random else step % len(rounds)
        chosen = jnp.asarray(rounds)[turn]
        sizes = [leaves[i].size * (2 if jnp.iscomplexobj(leaves[i]) else 1) for i in rounds]
        rounds_of = jnp.asarray([chunks(size) for size in sizes])
        noise = numbers(noise_key, rounds_of[turn], max(sizes), real_dtype(leaves))
        perturbed = lambda i, x: jax.lax.select_n(chosen == i, jnp.zeros_like(x), taken(noise, 0, x))
        eps = [perturbed(i, x) if i in rounds else jnp.zeros_like(x) for i, x in enumerate(leaves)]
        return jax.tree.unflatten(structure, eps), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
