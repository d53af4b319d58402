"""Models for ghost norms: Flax networks and functions, each as a `losses_fn` and its parameters."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn, nnx

RANDOM = np.random.default_rng(0)
BATCH, CLASSES = 4, 3
LABELS = RANDOM.integers(0, CLASSES, BATCH)
VECTORS = RANDOM.normal(size=(BATCH, 6))
IMAGES = RANDOM.normal(size=(BATCH, 8, 8, 3))
TOKENS = RANDOM.integers(0, 7, (BATCH, 6))
cross_entropy = optax.softmax_cross_entropy_with_integer_labels


class Dense(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Dense(5, use_bias=False)(nn.gelu(nn.LayerNorm()(nn.Dense(7)(x))))
        return nn.Dense(CLASSES)(x * self.param("gain", nn.initializers.ones, ()))


class Residual(nn.Module):
    """A network with strides, dilation, groups, a transposed convolution and pooling."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.GroupNorm(2)(nn.Conv(4, (3, 3), use_bias=False)(x)))
        x = x + nn.Conv(4, (3, 2), kernel_dilation=(1, 2), feature_group_count=2)(x)
        x = nn.max_pool(nn.relu(nn.Conv(6, (3, 3), strides=2)(x)), (2, 2))
        x = nn.tanh(nn.ConvTranspose(4, (3, 3), strides=(2, 2))(x))
        return nn.Dense(CLASSES)(jnp.mean(x, axis=(1, 2)))


class SmallViT(nn.Module):
    """A vision transformer with class and position tokens, attention and a gated MLP."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(8, (4, 4), strides=4, padding="VALID")(x).reshape(len(x), -1, 8)
        token = self.param("token", nn.initializers.normal(), (1, 1, 8))
        x = jnp.concatenate([jnp.tile(token, (len(x), 1, 1)), x], axis=1)
        x = x + self.param("position", nn.initializers.normal(), (1, 5, 8))
        x = x + nn.MultiHeadDotProductAttention(2)(nn.LayerNorm()(x))
        y = nn.RMSNorm()(x)
        x = x + nn.Dense(8)(nn.silu(nn.Dense(12)(y)) * nn.Dense(12)(y))
        return nn.Dense(CLASSES)(x[:, 0])


class Language(nn.Module):
    """A causal language model whose output layer is the embedding; its loss is the mean over the tokens."""

    @nn.compact
    def __call__(self, tokens):
        embed = nn.Embed(7, 8)
        x = embed(tokens) + self.param("position", nn.initializers.normal(), (9, 8))[None, : tokens.shape[1]]
        x = x + nn.MultiHeadDotProductAttention(2)(nn.LayerNorm()(x), mask=nn.make_causal_mask(tokens))
        return embed.attend(x)


class Recurrent(nn.Module):
    """One checkpointed layer that is applied three times."""

    @nn.compact
    def __call__(self, x):
        layer = nn.remat(nn.Dense)(6)
        for _ in range(3):
            x = nn.tanh(layer(x))
        return nn.Dense(CLASSES)(x)


def linen(model, x, labels=LABELS):
    """The losses of a Linen model, and its parameters, perturbed away from their initial zeros and ones."""
    params = perturb(jax.eval_shape(model.init, jax.random.key(0), x))

    def losses_fn(params):
        losses = cross_entropy(model.apply(params, x), labels)
        return losses.reshape(BATCH, -1).mean(axis=1)

    return losses_fn, params


def perturb(params):
    """Random parameters of these shapes: vectors, such as scales, near one; others of the size of an initialisation."""
    random = np.random.default_rng(1)
    draw = lambda shape: random.normal(size=shape) * 0.3 + (len(shape) < 2)
    return jax.tree.map(lambda w: jnp.asarray(draw(w.shape), jnp.result_type(float)), params)


def apart(build):
    """The graph, parameters and rest of an NNX model, without running its initialisers, which would compile each op."""
    graph, params, rest = nnx.split(nnx.eval_shape(build), nnx.Param, ...)
    is_key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    blank = lambda x: jax.random.key(0) if is_key(x) else jnp.zeros(x.shape, x.dtype)
    return graph, perturb(params), jax.tree.map(blank, rest)


class NNXNet(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.norm = nnx.GroupNorm(4, num_groups=2, rngs=rngs)
        self.attend = nnx.MultiHeadAttention(2, 4, decode=False, rngs=rngs)
        self.head = nnx.Linear(4, CLASSES, rngs=rngs)

    def __call__(self, x):
        x = nnx.avg_pool(nnx.relu(self.norm(self.conv(x))), (4, 4), (4, 4)).reshape(len(x), -1, 4)
        return self.head(jnp.mean(self.attend(x), axis=1))


def nnx_net():
    graph, params, rest = apart(lambda: NNXNet(nnx.Rngs(0)))
    return lambda p: cross_entropy(nnx.merge(graph, p, rest, copy=True)(jnp.asarray(IMAGES)), LABELS), params


def one_example_at_a_time():
    """`vmap` over a loss of one example, with a dense layer of three axes, a scale and its own powers of layout."""
    params = perturb({"a": np.zeros((6, 2, 5)), "b": np.zeros((5, 2, CLASSES)), "s": np.zeros(CLASSES)})

    def loss(params, x, y):
        h = jnp.tanh(jnp.einsum("i,iho->ho", x, params["a"]))
        return cross_entropy(jnp.einsum("ho,ohc->c", h, 0.5 * params["b"]) * (1 + params["s"]), y)

    return lambda p: jax.vmap(loss, in_axes=(None, 0, 0))(p, jnp.asarray(VECTORS), LABELS), params


def merged_axes():
    """Batch and positions merged into one axis, as is common in language-model losses."""
    params = perturb({"w": np.zeros((6, 7)), "b": np.zeros(7)})
    x = jnp.asarray(RANDOM.normal(size=(BATCH, 5, 6)))
    labels = RANDOM.integers(0, 7, BATCH * 5)

    def losses_fn(p):
        return cross_entropy(x.reshape(-1, 6) @ p["w"] + p["b"][None, :], labels).reshape(BATCH, 5).sum(axis=1)

    return losses_fn, params


class Block(nn.Module):
    """A block of a transformer, as the body of a scan over layers."""

    @nn.compact
    def __call__(self, x, _):
        x = x + nn.MultiHeadDotProductAttention(2)(nn.LayerNorm()(x), mask=nn.make_causal_mask(x[..., 0]))
        return x + nn.Dense(8)(nn.gelu(nn.Dense(12)(nn.RMSNorm()(x)))), None


class ScannedLanguage(nn.Module):
    """A language model with its checkpointed layers in one scan."""

    @nn.compact
    def __call__(self, tokens):
        embed = nn.Embed(7, 8)
        over_layers = partial(nn.scan, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
        x, _ = over_layers(nn.remat(Block, prevent_cse=False))()(embed(tokens), None)
        return embed.attend(x)


class ScannedNNX(nnx.Module):
    """`nnx.scan` over layers, the same scale in every layer."""

    def __init__(self, rngs):
        self.inlet, self.outlet = nnx.Linear(6, 5, rngs=rngs), nnx.Linear(5, CLASSES, rngs=rngs)
        build = nnx.vmap(lambda keys: nnx.Linear(5, 5, rngs=nnx.Rngs(keys)), in_axes=0, out_axes=0)
        self.layers = build(jax.random.split(jax.random.key(1), 3))
        self.scale = nnx.Param(jnp.ones((1, 5)))

    def __call__(self, x):
        step = nnx.scan(
            lambda x, layer: nnx.tanh(layer(x) * self.scale[...]), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry
        )
        return self.outlet(step(self.inlet(x), self.layers))


class Swin(nn.Module):
    """Attention with a relative-position bias, read from its table by constant indices, and a learnt temperature."""

    @nn.compact
    def __call__(self, x):
        x = x.reshape(len(x), -1, 6)
        where = np.arange(x.shape[1])
        table = self.param("bias", nn.initializers.normal(), (2 * len(where) - 1, 2))
        bias = table[where[:, None] - where[None] + len(where) - 1].transpose(2, 0, 1)[None]
        q, k, v = jnp.split(nn.DenseGeneral((2, 9), use_bias=False)(x), 3, axis=-1)
        logit_scale = jnp.exp(self.param("logit_scale", nn.initializers.zeros, (1, 2, 1, 1)))
        weights = nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) * logit_scale + bias)
        return nn.Dense(CLASSES)(jnp.einsum("bhqk,bkhd->bhd", weights, v).reshape(len(x), -1))


class Normalized(nn.Module):
    """Weight normalisation of a dense layer, of a convolution and of a group of it."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.WeightNorm(nn.Conv(4, (3, 3)))(x))
        x = nn.relu(nn.WeightNorm(nn.Conv(4, (3, 3), strides=2, feature_group_count=2, use_bias=False))(x))
        return nn.WeightNorm(nn.Dense(CLASSES))(x.reshape(len(x), -1))


SERIES = RANDOM.normal(size=(BATCH, 5, 6))


class Series(nn.Module):
    """A network that scans over time."""

    cell: Any

    @nn.compact
    def __call__(self, x):
        return nn.Dense(CLASSES)(nn.RNN(self.cell)(x)[:, -1])


def nnx_series():
    cell = lambda: nnx.GRUCell(6, CLASSES, param_dtype=jnp.result_type(float), rngs=nnx.Rngs(0))
    graph, params, rest = apart(lambda: nnx.RNN(cell(), rngs=nnx.Rngs(0)))
    return lambda p: cross_entropy(nnx.merge(graph, p, rest, copy=True)(jnp.asarray(SERIES))[:, -1], LABELS), params


def scanned_nnx():
    graph, params, rest = apart(lambda: ScannedNNX(nnx.Rngs(0)))
    return lambda p: cross_entropy(nnx.merge(graph, p, rest, copy=True)(jnp.asarray(VECTORS)), LABELS), params


def functional(run, shapes, data=VECTORS):
    """A function of parameters of these shapes and of the data, one loss for each example."""
    params = perturb({name: np.zeros(shape) for name, shape in shapes.items()})
    return lambda p: jnp.sum(run(p, jnp.asarray(data)).reshape(BATCH, -1) ** 2, axis=1), params


def nested_scans(p, x):
    """A scan over time inside a scan over layers, with stacked and shared matrices, one of them also used outside."""

    def layer(x, w):
        cell = lambda h, now: (jnp.tanh(now @ w + h @ p["all"] + p["bias"]), h * now @ p["w"][0])
        last, out = jax.lax.scan(cell, jnp.ones_like(x[0]), x)
        return out, last

    x, last = jax.lax.scan(layer, x.transpose(1, 0, 2) @ p["all"], p["w"], reverse=True)
    return jnp.einsum("tbi,lbj->bij", x, last)


def carried_parameters(p, x):
    """A scan whose carry holds a power of a matrix and a counter, from which a row of a table is read."""

    def step(carry, _):
        h, power, i = carry
        return (jnp.tanh(h @ power + p["table"][i]), power @ p["w"], i + 1), jnp.sum(power, axis=0, keepdims=True)

    (h, power, _), sums = jax.lax.scan(step, (x, p["w"], 0), length=3)
    return h @ power + jnp.sum(sums, axis=0)


def pieces(p, x):
    """Disjoint and overlapping slices of a parameter, concatenated parameters, and a repeated one."""
    for i in range(2):
        x = jnp.tanh(x @ p["stack"][i] * 0.5)
    q, k = jnp.split(x @ jnp.concatenate([p["q"], p["k"]], axis=1), 2, axis=1)
    y = x[:, :3] @ p["stack"][0, :3] + x[:, :2] @ p["stack"][1, 2:4, ::2].reshape(2, 3).repeat(2, axis=1)
    return jnp.concatenate([q * k, y, x @ jnp.broadcast_to(p["one"], (6, 4))], axis=1)


def functions_of_weights(p, x):
    """Losses in which weights enter through functions and not only through products with the data."""
    mask = np.arange(36.0).reshape(6, 6) % 3
    h = jnp.tanh(x @ (p["w"] @ p["w"].T) + (x * p["d"]) @ (p["w"] * mask)) @ (p["w"] / jnp.linalg.norm(p["w"]))
    return h + x @ jnp.diag(jnp.exp(p["d"][0])) + jnp.sum(x[:, :, None] * p["w"][None], axis=1)


CASES = {
    "dense": lambda: linen(Dense(), VECTORS),
    "residual": lambda: linen(Residual(), IMAGES),
    "vit": lambda: linen(SmallViT(), IMAGES),
    "language": lambda: linen(Language(), TOKENS, TOKENS),
    "recurrent": lambda: linen(Recurrent(), VECTORS),
    "nnx": nnx_net,
    "vmap": one_example_at_a_time,
    "merged axes": merged_axes,
    "scanned": lambda: linen(ScannedLanguage(), TOKENS, TOKENS),
    "scanned nnx": scanned_nnx,
    "swin": lambda: linen(Swin(), VECTORS.reshape(BATCH, 1, 6).repeat(4, axis=1) * RANDOM.normal(size=(1, 4, 1))),
    "weight norm": lambda: linen(Normalized(), IMAGES),
    "lstm": lambda: linen(Series(nn.OptimizedLSTMCell(4, param_dtype=jnp.result_type(float))), SERIES),
    "gru": lambda: linen(Series(nn.GRUCell(4, param_dtype=jnp.result_type(float))), SERIES),
    "nnx gru": nnx_series,
    "nested scans": lambda: functional(nested_scans, {"w": (3, 6, 6), "all": (6, 6), "bias": (1, 6)}, SERIES),
    "carried": lambda: functional(carried_parameters, {"w": (6, 6), "table": (4, 1, 6)}),
    "pieces": lambda: functional(pieces, {"stack": (2, 6, 6), "q": (6, 4), "k": (6, 4), "one": (4,)}),
    "functions": lambda: functional(functions_of_weights, {"w": (6, 6), "d": (1, 6)}),
}
