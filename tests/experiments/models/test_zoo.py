"""Sizes of the models against the papers, and what they compute."""

import os
import subprocess
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from flax import nnx

from experiments.config.errors import UsageError
from experiments.models import fast
from experiments.models.convolution import conv_general_dilated
from experiments.models.functional import network
from experiments.models.zoo import MODELS, constructor
from tests.tiers import slow_but

ROOT = Path(__file__).parents[3]


def size(name: str, **settings) -> int:
    make = constructor(name, **({"image_shape": (32, 32, 3), "num_classes": 10, "norm": "batch"} | settings))
    return sum(x.size for x in jax.tree.leaves(nnx.state(nnx.eval_shape(lambda: make(nnx.Rngs(0))), nnx.Param)))


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("resnet20", 0.27),
        ("resnet32", 0.46),
        ("resnet56", 0.85),
        ("resnet18", 11.17),
        ("resnet34", 21.28),
        ("resnet50", 23.52),
        ("wrn28_10", 36.48),
        ("vit_tiny", 5.36),
        ("vit_small", 21.34),
    ],
)
def test_parameters_are_those_of_the_papers(name, millions):
    assert size(name) / 1e6 == pytest.approx(millions, abs=0.005)


@pytest.mark.parametrize(
    ("name", "millions"),
    [("resnet18", 11.690), ("resnet34", 21.798), ("resnet50", 25.557), ("vit_tiny", 5.717), ("vit_small", 22.050)],
)
def test_parameters_are_those_of_the_papers_on_imagenet(name, millions):
    assert size(name, image_shape=(224, 224, 3), num_classes=1000) / 1e6 == pytest.approx(millions, abs=0.0006)


@pytest.mark.parametrize("name", ["mlp", "vit_micro", "vit_tiny", "vit_small"])
def test_images_that_must_be_square(name):
    with pytest.raises(UsageError, match=f"--model {name}: requires square images, not 9 x 8; choose a ResNet"):
        constructor(name, image_shape=(9, 8, 1), num_classes=3)


@pytest.mark.parametrize("name", ["resnet8", "resnet18", "wrn28_10"])
def test_images_that_need_not_be_square(name):
    make = constructor(name, image_shape=(9, 8, 1), num_classes=3)
    assert jax.eval_shape(lambda: make(nnx.Rngs(0))(jnp.zeros((2, 9, 8, 1)))).shape == (2, 3)


def test_large_images_are_halved_twice_before_the_first_block():
    make = constructor("resnet8", image_shape=(128, 128, 3), num_classes=10)
    text = str(jax.make_jaxpr(lambda x: make(nnx.Rngs(0))(x))(jnp.zeros((1, 128, 128, 3))))
    assert "f32[1,8,8,64]" in text
    assert "f32[1,32,32,64]" not in text


def test_resnet18_by_hand():
    convs = 3 * 64 * 9 + 64 * 64 * 9 * 4
    for i, o in ((64, 128), (128, 256), (256, 512)):
        convs += i * o * 9 + 3 * o * o * 9 + i * o
    norms = 2 * (64 + 4 * 64 + sum(5 * o for o in (128, 256, 512)))
    assert size("resnet18") == convs + norms + 512 * 10 + 10


@pytest.mark.parametrize("norm", ["group", "batch"])
@pytest.mark.parametrize("name", slow_but(("fast", "mlp", "resnet8", "vit_tiny"), sorted(MODELS)))
def test_every_model_maps_images_to_float32_logits(name, norm):
    make = constructor(name, image_shape=(16, 16, 1), num_classes=7, norm=norm, dtype="bfloat16")
    model = nnx.eval_shape(lambda: make(nnx.Rngs(0)))
    logits = nnx.eval_shape(lambda m: m(jnp.zeros((2, 16, 16, 1))), model)
    assert logits.shape == (2, 7)
    assert logits.dtype == jnp.float32
    assert {x.dtype for x in jax.tree.leaves(nnx.state(model, nnx.Param))} == {jnp.dtype("float32")}


def test_bfloat16_is_the_type_of_the_computation():
    convolutions = {}
    for dtype in ("float32", "bfloat16"):
        make = constructor("resnet8", image_shape=(16, 16, 1), num_classes=3, dtype=dtype)
        text = str(jax.make_jaxpr(lambda x, make=make: make(nnx.Rngs(0))(x))(jnp.zeros((2, 16, 16, 1))))
        convolutions[dtype] = [line for line in text.splitlines() if "conv_general_dilated[" in line]
    assert all("f32[" in line for line in convolutions["float32"])
    assert all("bf16[" in line for line in convolutions["bfloat16"])
    assert len(convolutions["bfloat16"]) == 7


def test_a_network_is_made_once_and_its_arrays_by_seed():
    settings = ("mlp", (4, 4, 1), 3, "group", "float32")
    assert network(*settings) is network(*settings)
    (first, _), (again, _), (other, _) = (network(*settings).init(seed) for seed in (0, 0, 1))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), first, again))
    assert not jnp.array_equal(first["hidden"]["kernel"], other["hidden"]["kernel"])


@pytest.mark.parametrize("name", ["resnet8", "wrn28_10", "vit_tiny", "fast"])
def test_every_convolution_is_the_one_with_the_fast_gradient(name):
    model = nnx.eval_shape(lambda: constructor(name, image_shape=(32, 32, 3), num_classes=3)(nnx.Rngs(0)))
    found = [part.conv_general_dilated for _, part in nnx.iter_modules(model) if isinstance(part, nnx.Conv)]
    assert set(found) == {conv_general_dilated}


@pytest.mark.parametrize("channels", [1, 3])
def test_patches_of_images_with_these_spreads_become_white(channels):
    filters = fast.patches(channels).reshape(4 * channels, 4 * channels)
    spread = 1 / np.linalg.norm(filters, axis=0)
    patterns = filters * spread  # orthonormal; filtering the patch (patterns * spread) @ z gives z
    np.testing.assert_allclose(patterns.T @ patterns, np.eye(4 * channels), atol=1e-6)
    np.testing.assert_allclose(filters.T @ (patterns * spread), np.eye(4 * channels), atol=1e-6)
    np.testing.assert_allclose(np.sort(spread), np.sort(np.ravel(fast.SPREADS[:channels])), rtol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_whitened_features_are_both_signs_of_the_axes_after_gelu(channels):
    x = np.random.default_rng(0).normal(size=(2, 5, 4, channels))
    padded = np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
    taps = [[padded[:, i : i + 5, j : j + 4] for j in range(2)] for i in range(2)]
    axes = np.einsum("ijnhwc,ijck->nhwk", taps, fast.patches(channels))
    expected = np.concatenate([a * scipy.special.ndtr(a) for a in (axes, -axes)], -1)
    np.testing.assert_allclose(fast.whitened(jnp.asarray(x, jnp.float32)), expected, atol=1e-3)  # gelu is approximated


ONEDNN = "--xla_cpu_experimental_onednn_custom_call=true --xla_cpu_experimental_ynn_fusion_type=-individual_convolution"
COMPUTED = """
import sys, jax, jax.numpy as jnp, numpy as np
from flax import nnx
from experiments.models.functional import network

network = network(sys.argv[1], (32, 32, 3), 10, "batch", "float32")
params, state = network.init(0)

def loss(params, images):
    model = nnx.merge(network.graphdef, params, state)
    model.train()
    return jnp.square(model(images)).mean()

images = jax.random.normal(jax.random.key(1), (32, 32, 32, 3))
slopes = jax.tree.leaves(jax.jit(jax.value_and_grad(loss))(params, images))
np.save(sys.argv[2], np.concatenate([np.ravel(slope) / (1e-6 + np.abs(slope).max()) for slope in slopes]))
"""


@pytest.mark.slow
@pytest.mark.skipif(jax.__version_info__ < (0, 11), reason="XLA did not have these flags")
@pytest.mark.parametrize("name", ["fast", "resnet8", "vit_micro"])
def test_the_flags_for_onednn_change_nothing_but_the_last_digits(name, tmp_path):
    """XLA gives a GELU after a convolution to all that read the convolution, so nothing may read both."""
    found = []
    for flags in ("", ONEDNN):
        path = tmp_path / f"{bool(flags)}.npy"
        environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
        subprocess.run([sys.executable, "-c", COMPUTED, name, path], env=environment, check=True, cwd=ROOT)
        found.append(np.load(path))
    np.testing.assert_allclose(*found, atol=1e-3)


@pytest.mark.parametrize("size", [8, 7])
def test_halving_is_maximum_pooling_and_its_gradient(size):
    x = jax.random.normal(jax.random.key(0), (2, size, 6, 3))
    pooled = lambda x: nnx.max_pool(x, (2, 2), (2, 2))
    total = lambda f: jax.jit(jax.value_and_grad(lambda x: jnp.sum(jnp.sin(f(x)))))(x)
    chex.assert_trees_all_close(total(fast.halved), total(pooled), rtol=1e-7)


def test_unknown_models_and_norms():
    with pytest.raises(UsageError, match="did you mean 'resnet8'"):
        constructor("restnet8", image_shape=(8, 8, 1), num_classes=10)


def test_an_image_that_cannot_be_halved_three_times_is_refused_by_name():
    with pytest.raises(UsageError, match=r"--model fast: .*at least 8 x 8 pixels, not 7 x 9"):
        constructor("fast", image_shape=(7, 9, 3), num_classes=10)
