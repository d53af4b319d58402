"""Vision transformers."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.models.convolution import conv_general_dilated


class EncoderBlock(nnx.Module):
    """Pre-norm transformer block: self-attention, then a two-layer MLP of four times the width."""

    def __init__(self, width: int, heads: int, dtype: Any, rngs: nnx.Rngs):
        self.norm1, self.norm2 = (nnx.LayerNorm(width, dtype=dtype, rngs=rngs) for _ in range(2))
        self.attention = nnx.MultiHeadAttention(heads, width, decode=False, dtype=dtype, rngs=rngs)
        self.up = nnx.Linear(width, 4 * width, dtype=dtype, rngs=rngs)
        self.down = nnx.Linear(4 * width, width, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Tokens [n, length, width] to tokens; `mask`, [1, 1, length, length], says which positions attend to which."""
        x = x + self.attention(self.norm1(x), mask=mask)
        return x + self.down(nnx.gelu(self.up(self.norm2(x))))


class ViT(nnx.Module):
    """Vision transformer: patches of 16 pixels, or `side` by `side` if small; learned positions, mean over patches."""

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        side: int = 8,
        *,
        channels: int,
        num_classes: int,
        image_size: int,
        norm,
        dtype,
        rngs,
    ):
        del norm
        patch = min(16, max(1, image_size // side))
        settings = {"padding": "VALID", "conv_general_dilated": conv_general_dilated}
        self.patches = nnx.Conv(channels, width, (patch, patch), patch, **settings, dtype=dtype, rngs=rngs)
        positions = 0.02 * jax.random.normal(rngs.params(), (1, (image_size // patch) ** 2, width))
        self.positions = nnx.Param(positions)
        self.blocks = nnx.List([EncoderBlock(width, heads, dtype, rngs) for _ in range(depth)])
        self.norm = nnx.LayerNorm(width, dtype=dtype, rngs=rngs)
        self.head = nnx.Linear(width, num_classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits of images."""
        x = self.patches(x)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        x = x + self.positions[...].astype(x.dtype)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1).astype(jnp.float32))
