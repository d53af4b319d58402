"""A small decoder-only transformer for sequences of tokens."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.models.vit import EncoderBlock


class GPT(nnx.Module):
    """Pre-norm transformer that predicts the next token; learned positions, head not tied to the embedding."""

    def __init__(
        self, vocabulary: int, context: int, width: int, depth: int, heads: int, *, dtype: Any = None, rngs: nnx.Rngs
    ):
        self.tokens = nnx.Embed(vocabulary, width, dtype=dtype, rngs=rngs)
        self.positions = nnx.Param(0.02 * jax.random.normal(rngs.params(), (context, width)))
        self.blocks = nnx.List([EncoderBlock(width, heads, dtype, rngs) for _ in range(depth)])
        self.norm = nnx.LayerNorm(width, dtype=dtype, rngs=rngs)
        self.head = nnx.Linear(width, vocabulary, use_bias=False, dtype=dtype, rngs=rngs)

    def __call__(self, ids: jax.Array) -> jax.Array:
        """Token ids [n, length] to float32 logits [n, length, vocabulary]; position t sees the tokens up to t."""
        length = ids.shape[1]
        x = self.tokens(ids)
        x = x + self.positions[:length][None].astype(x.dtype)
        causal = jnp.tril(jnp.ones((1, 1, length, length), bool))
        for block in self.blocks:
            x = block(x, causal)
        return self.head(self.norm(x)).astype(jnp.float32)
