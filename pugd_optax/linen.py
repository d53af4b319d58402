"""Flax Linen: a `TrainState` that passes `grad_fn` on. `pugd_optax.linen` imports Flax when it is first used."""

import dataclasses
import difflib
import functools
from typing import Any, Self

import optax

from pugd_optax._checks import EXTRA_ARGS, LOGIT_ARGS

try:
    from flax.training import train_state
except ModuleNotFoundError as error:
    raise ImportError("pugd_optax.linen needs Flax. Fix: pip install 'pugd_optax[flax]'.") from error


class TrainState(train_state.TrainState):
    r"""`flax.training.train_state.TrainState` whose `apply_gradients` passes `grad_fn` on to the transformation.

    $$w \leftarrow w + \mathrm{tx.update}(g, s, w;\ \text{grad\_fn})$$

    It is a drop-in replacement with the same fields and the same `create(apply_fn=, params=, tx=)`; subclass it in the
    same way for `batch_stats` or a random key. `apply_gradients(*, grads, **kwargs)` replaces the fields named in
    `kwargs` and passes the other keywords (`grad_fn`, `value_fn`, `active`, extra arguments of the base optimizer) to
    `tx.update`. A keyword that is nearly the name of a field is refused.

    Example:
      >>> import jax, jax.numpy as jnp, optax, pugd_optax
      >>> from flax import linen as nn
      >>> model, x = nn.Dense(1), jnp.linspace(-1.0, 1.0, 8)[:, None]
      >>> tx = optax.chain(pugd_optax.sam(radius=0.05), optax.sgd(0.2))
      >>> params = model.init(jax.random.key(0), x)["params"]
      >>> state = pugd_optax.linen.TrainState.create(apply_fn=model.apply, params=params, tx=tx)
      >>> @jax.jit
      ... def step(state, x):
      ...     loss_fn = lambda p: jnp.mean((state.apply_fn({"params": p}, x) - 2 * x) ** 2)
      ...     loss, grads = jax.value_and_grad(loss_fn)(state.params)
      ...     return state.apply_gradients(grads=grads, grad_fn=jax.grad(loss_fn)), loss
      >>> for _ in range(30):
      ...     state, loss = step(state, x)
      >>> print(f"{state.params['kernel'][0, 0]:.1f}")
      2.0

    References:
      Flax, https://flax.readthedocs.io/en/latest/api_reference/flax.training.html
    """

    def apply_gradients(self, *, grads: Any, **kwargs: Any) -> Self:
        """The state after one step; keywords that are not fields go to `tx.update`."""
        fields = {field.name for field in dataclasses.fields(self)}
        extra_args = {name: value for name, value in kwargs.items() if name not in fields}
        _check_names(extra_args, fields)
        update = functools.partial(optax.with_extra_args_support(self.tx).update, **extra_args)
        bound = self.replace(tx=optax.GradientTransformation(self.tx.init, update))
        replaced = {name: value for name, value in kwargs.items() if name in fields}
        return super(TrainState, bound).apply_gradients(grads=grads, **replaced).replace(tx=self.tx)


def _check_names(names: Any, fields: set[str]) -> None:
    for name in names:
        if name not in _EXTRA_ARGS and (near := difflib.get_close_matches(name, fields, 1, 0.7)):
            raise TypeError(f"{name}= is not a field of the TrainState, which has {near[0]}. Fix: {near[0]}=.")


_EXTRA_ARGS = {*EXTRA_ARGS, *LOGIT_ARGS, "losses_fn", "value", "grad", "train_loss", "val_loss", "val_accuracy"}
"""Extra arguments of this package and Optax, which a field may resemble."""
