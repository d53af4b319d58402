r"""Per-example gradients: their norms, the mean of their squared norms by three evaluators, and micro-batches.

`losses_fn(params)` returns the loss of each example, [batch], bound to one batch and one random key.
`norms(losses_fn, params)` is all that is needed to clip or to weight examples. An evaluator is a function

    losses, squares = evaluator(losses_fn, params, step)

with `losses` [batch] and `squares`, whose mean is $\frac1n \sum_i \|g_i\|^2$ with $g_i = \nabla \ell_i$, exactly or
in expectation. All three can be differentiated; `pugd_optax.pegr` adds half of this mean to the loss:

- `reference` computes every $g_i$ separately, for small models;
- `ghost` is exact and stores no per-example gradients;
- `signs` is unbiased for any architecture.

The mean is $\|g\|^2 + \mathrm{tr}\,\mathrm{Cov}(g_i)$: the penalty of gradient regularisation plus the variance.
"""

import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from pugd_optax._checks import check_count, check_floating
from pugd_optax._norms import vdot, widen
from pugd_optax._parts import varying_like
from pugd_optax._signed_square import signed_square
from pugd_optax._typing import LossesFn as LossesFn
from pugd_optax.noise import check_key, key_at

Evaluator = Callable[..., tuple[jax.Array, jax.Array]]
"""`(losses_fn, params, step) -> (losses, squares)`."""


def norms(losses_fn: LossesFn, params: optax.Params) -> jax.Array:
    r"""The exact gradient norm of each example, without computing the per-example gradients.

    $$\|g_i\|, \qquad g_i = \nabla \ell_i$$

    It costs about as much as one gradient of the mean loss, for any batch size. `ghost` says how, and for which models.

    Args:
      losses_fn: `params -> losses` [batch].
      params: parameters; real.

    Returns:
      Norms [batch], float32 or better.

    Raises:
      ValueError, TypeError: as `ghost` does.

    Example:
      Differentially private training with Optax: every gradient is clipped to the norm C, and noise is added to the
      mean. The mean of the clipped gradients is the gradient of a weighted mean of the losses.

      >>> import jax, jax.numpy as jnp, optax
      >>> x, y = jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([1.0, 1.0])
      >>> losses_fn = lambda w: 0.5 * (x @ w - y) ** 2
      >>> C, noise_multiplier = 5.0, 1.1
      >>> def clipped_gradient(w):
      ...     weights = jnp.minimum(1.0, C / norms(losses_fn, w))
      ...     return jax.grad(lambda w: jnp.mean(weights * losses_fn(w)))(w)
      >>> w = jnp.array([1.0, 1.0])
      >>> print(norms(losses_fn, w), clipped_gradient(w))
      [ 4.472136 30.      ] [2.5 4. ]
      >>> variance = (C * noise_multiplier / len(x)) ** 2
      >>> tx = optax.chain(optax.add_noise(variance, 0.0, jax.random.key(0)), optax.sgd(0.1))
      >>> updates, state = tx.update(clipped_gradient(w), tx.init(w))

    References:
      Abadi et al., Deep Learning with Differential Privacy, CCS 2016, https://arxiv.org/abs/1607.00133

    Notes:
      Norms of the mean gradients of groups: `norms(micro_batches(losses_fn, group_size), params)`.

      Inside `shard_map` every device computes those of its own examples.

      Products have JAX's default precision, on GPUs and TPUs about three digits: clipping that must not exceed its
      bound needs `jax.default_matmul_precision("highest")`.

      The privacy guarantee of a run follows from the noise multiplier, the sampling rate and the number of steps; it
      needs a privacy accountant, which this package does not have.
    """
    return jnp.sqrt(jnp.maximum(ghost(losses_fn, params)[1], 0))  # rounding may make the square of a 0 negative


def ghost(losses_fn: LossesFn, params: optax.Params, step: jax.typing.ArrayLike = 0) -> tuple[jax.Array, jax.Array]:
    r"""Exact squared gradient norms of the examples, from one forward and one backward pass.

    $$\|g_i\|^2 = \sum_{\text{layers}} \Big\| \sum_t a_{it} d_{it}^\top \Big\|^2$$

    where $a_{it}$ is the input of a layer at position $t$ and $d_{it}$ the gradient of $\ell_i$ with respect to its
    output. The model need not be changed, in any framework: `losses_fn` is traced, and its parameters are followed to
    the products, convolutions, lookups and broadcasts in which they are combined with data, also inside `lax.scan` over
    layers or time. For a parameter used more than once, such as tied embeddings, cross terms are included.

    No array has the size batch x parameters. If a function of parameters is combined with the data, such as a
    normalised kernel, the exponential of a scale or a table read by constant indices, or if one parameter is used in
    several forms, the gradients of these parameters are computed explicitly, for as many examples at a time as fit into
    the memory of the activations. This is exact as well, at a few times the cost of that layer.

    Args:
      losses_fn: `params -> losses` [batch].
      params: parameters; real.
      step: not used.

    Returns:
      Losses and squared norms, both [batch].

    Raises:
      ValueError: if a parameter is combined with the data by another primitive, or if it is not known along which axis
        of a value the examples are (the error names both); if examples are coupled, as by BatchNorm; if the losses are
        not a vector.
      TypeError: if a parameter is complex or an integer.

    Example:
      >>> import jax.numpy as jnp
      >>> x, y = jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([1.0, 1.0])
      >>> losses_fn = lambda w: 0.5 * (x @ w - y) ** 2
      >>> losses, squares = ghost(losses_fn, jnp.array([1.0, 1.0]))
      >>> squares.tolist()
      [20.0, 900.0]

    References:
      Goodfellow, Efficient Per-Example Gradient Computations, https://arxiv.org/abs/1510.01799

      Bu, Mao and Xu, Scalable and Efficient Training of Large Convolutional Neural Networks with Differential Privacy,
      NeurIPS 2022, https://arxiv.org/abs/2205.10683

    Notes:
      Select the entry of the label with `jnp.take_along_axis` or a loss of Optax: with `logits[jnp.arange(n), labels]`
      it is unknown which entries belong to which example. The same is true of `lax.map` over the examples; use
      `jax.vmap`.

      `jax.checkpoint` inside `losses_fn` has no effect here.

      A function of a parameter and the data that has its own `jax.custom_vjp` or `jax.custom_jvp` is refused, unless it
      is a product such as a convolution, which is differentiated by JAX's rules.
    """
    # Imported here, because jax.extend takes longer to import than all of this package.
    from pugd_optax._ghost.norms import tapped_norms

    del step
    traced, losses = jax.make_jaxpr(losses_fn, return_shape=True)(params)
    if _batch_of(losses, params) == 1:
        return reference(losses_fn, params)
    local = _local(params, traced.out_avals[0])  # in JAX 0.7, `losses` does not say over which axes it varies
    same = all(map(operator.is_, jax.tree.leaves(local), jax.tree.leaves(params)))
    return tapped_norms(traced if same else jax.make_jaxpr(losses_fn)(local), local)


def signs(key: jax.Array | int) -> Evaluator:
    r"""An unbiased estimator of the mean squared gradient norm for any architecture, from one backward pass.

    $$\mathbb{E}_s \Big\| \nabla \sum_i s_i \ell_i \Big\|^2 = \sum_i \|g_i\|^2, \qquad s_i = \pm 1 \text{ fair coins}$$

    The error of the mean of $k$ draws falls as $1/\sqrt{k}$.

    Args:
      key: a PRNG key or an integer seed. The signs of step t are drawn from `fold_in(key, t)`.

    Returns:
      An evaluator whose `squares` is one number: the estimate of the mean.

    Raises:
      TypeError: if `key` is neither a key nor a whole number.

    Example:
      >>> import jax.numpy as jnp
      >>> losses_fn = lambda w: jnp.array([3.0, 4.0]) * w
      >>> sorted({float(signs(0)(losses_fn, jnp.float32(1.0), step)[1]) for step in range(8)})
      [0.5, 24.5]
    """
    check_key(key)

    def evaluate(
        losses_fn: LossesFn, params: optax.Params, step: jax.typing.ArrayLike = 0
    ) -> tuple[jax.Array, jax.Array]:
        shape, params = _uncoupled(losses_fn, params)
        coins = varying_like(jax.random.rademacher(key_at(key, step), shape.shape), shape)
        losses, square = signed_square(losses_fn, params, coins)  # pyright: ignore[reportGeneralTypeIssues]
        return losses, square / len(losses)

    return evaluate


def reference(losses_fn: LossesFn, params: optax.Params, step: jax.typing.ArrayLike = 0) -> tuple[jax.Array, jax.Array]:
    r"""Exact squared gradient norms from one backward pass for each example: `batch` times the work and the memory.

    Args:
      losses_fn: `params -> losses` [batch].
      params: parameters; real.
      step: not used.

    Returns:
      Losses and squared norms, both [batch].

    Example:
      >>> import jax.numpy as jnp
      >>> losses, squares = reference(lambda w: jnp.array([3.0, 4.0]) * w, jnp.float32(1.0))
      >>> squares.tolist()
      [9.0, 16.0]
    """
    del step
    losses, pull = jax.vjp(losses_fn, _uncoupled(losses_fn, params)[1])
    square = lambda one_hot: (lambda g: vdot(g, g))(pull(one_hot)[0])
    return losses, jax.vmap(square)(varying_like(jnp.eye(len(losses), dtype=losses.dtype), losses))


def micro_batches(losses_fn: LossesFn, group_size: int) -> LossesFn:
    r"""The mean losses of groups of consecutive examples, used in place of examples.

    For independent examples their gradients have the mean squared norm $\|g\|^2 + \mathrm{tr}\,\mathrm{Cov}(g_i) / b$:
    size $b = 1$ leaves the losses as they are, and one group of the whole batch is gradient regularisation.

    Args:
      losses_fn: `params -> losses` [batch].
      group_size: $b \ge 1$; divides the batch.

    Returns:
      `params -> losses` [batch / b].

    Raises:
      ValueError: if the batch is not divisible by `group_size`.

    Example:
      >>> import jax.numpy as jnp
      >>> micro_batches(lambda w: jnp.array([1.0, 3.0, 5.0, 7.0]) * w, 2)(1.0).tolist()
      [2.0, 6.0]
    """
    check_count("group_size", group_size, low=1)

    def grouped(params: optax.Params) -> jax.Array:
        losses = losses_fn(params)
        if losses.ndim != 1 or len(losses) % group_size:
            raise ValueError(
                f"group_size={group_size}: losses_fn returns losses of the shape {losses.shape}, which do not split "
                f"into groups of {group_size}. Fix: a divisor of the batch size."
            )
        return jnp.mean(losses.reshape(-1, group_size), axis=1)

    return grouped if group_size > 1 else losses_fn


def regularized(
    losses_fn: LossesFn, strength: jax.typing.ArrayLike, penalty: Evaluator = ghost, step: jax.typing.ArrayLike = 0
) -> LossesFn:
    r"""The objective of `pugd_optax.pegr` as a function of the parameters, loss and penalty in one evaluation.

    $$L + \frac{\lambda}{2} \frac1n \sum_i \|g_i\|^2$$

    Args:
      losses_fn: `params -> losses` [batch].
      strength: $\lambda$.
      penalty: the evaluator.
      step: the step count, for evaluators that draw.

    Returns:
      `params -> scalar`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> objective = regularized(lambda w: 0.5 * (jnp.array([1.0, 2.0]) * w) ** 2, 0.1)
      >>> print(jax.grad(objective)(jnp.float32(1.0)))
      3.35
    """

    def objective(params: optax.Params) -> jax.Array:
        losses, squares = penalty(losses_fn, params, step)
        square = jnp.mean(squares)
        return jnp.mean(widen(losses)).astype(square.dtype) + 0.5 * jnp.asarray(strength, square.dtype) * square

    return objective


def _uncoupled(losses_fn: LossesFn, params: optax.Params) -> tuple[Any, optax.Params]:
    """Shape and dtype of the losses, after a check that examples are not coupled, and the parameters of one device."""
    from pugd_optax._ghost.batch import check_uncoupled  # see `ghost`

    losses = jax.eval_shape(losses_fn, params)
    batch, params = _batch_of(losses, params), _local(params, losses)
    check_uncoupled(losses_fn, params, batch)
    return losses, params


def _local(params: optax.Params, losses: Any) -> optax.Params:
    """The parameters as those of one device, if its losses are its own: shared ones have gradients of all devices."""
    return jax.tree.map(lambda w: varying_like(w, losses), params)


def _batch_of(losses: Any, params: optax.Params) -> int:
    """The number of losses, after a check of the shapes and dtypes of losses and parameters."""
    for path, w in jax.tree_util.tree_leaves_with_path(params):
        if jnp.iscomplexobj(w):
            raise TypeError(
                f"params{jax.tree_util.keystr(path)} is {w.dtype}: per-example gradient norms are defined for real "
                "parameters. Fix: keep real and imaginary parts as two parameters."
            )
    check_floating(params)
    one_vector = isinstance(losses, jax.ShapeDtypeStruct) and losses.ndim == 1
    if not one_vector or not losses.size or not jnp.issubdtype(losses.dtype, jnp.floating):
        raise ValueError(
            f"losses_fn returned {losses}: expected one real loss for each example, a vector [batch]. Fix: leave the "
            "mean over the batch to the penalty, losses_fn=lambda p: "
            "optax.softmax_cross_entropy_with_integer_labels(model(p, x), y)."
        )
    return losses.shape[0]
