"""The convolution with the fast gradient equals JAX's in value and in both gradients."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P

from experiments.models import convolution
from experiments.models.convolution import conv_general_dilated
from pugd_optax import per_example

LAYOUT = ("NHWC", "HWIO", "NHWC")
CASES = [  # strides, padding, dilation, size of the kernel; more than nine taps are computed without the product
    ((1, 1), "SAME", (1, 1), 3),
    ((2, 2), "SAME", (1, 1), 3),
    ((1, 2), "VALID", (2, 1), 3),
    ((3, 2), ((2, 1), (0, 3)), (1, 2), 3),
    ((1, 1), ((4, 0), (3, 5)), (2, 2), 2),
    ((2, 1), "SAME", (1, 1), 1),
    ((1, 1), "SAME", (1, 1), 5),
    ((2, 3), "VALID", (1, 2), 4),
]


def arrays(size, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 2)
    return jax.random.normal(keys[0], (2, 9, 8, 3), dtype), jax.random.normal(keys[1], (size, size, 3, 4), dtype)


@pytest.mark.parametrize(("strides", "padding", "dilation", "size"), CASES)
def test_equals_jax_for_strides_paddings_and_dilations(strides, padding, dilation, size):
    x, w = arrays(size)

    def total(conv, x, w):
        y = conv(x, w, strides, padding, None, dilation, LAYOUT)
        return jnp.sum(jnp.sin(y) * y) / y.size, y

    found, expected = (
        jax.jit(jax.grad(lambda x, w, conv=conv: total(conv, x, w), (0, 1), has_aux=True))(x, w)
        for conv in (conv_general_dilated, lax.conv_general_dilated)
    )
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(("image", "strides", "size"), [((2, 2), (1, 1), 3), ((4, 4), (2, 2), 3), ((1, 3), (1, 2), 5)])
def test_results_smaller_than_the_kernel(image, strides, size, dtype):
    keys = jax.random.split(jax.random.key(0), 2)
    x, w = jax.random.normal(keys[0], (2, *image, 3), dtype), jax.random.normal(keys[1], (size, size, 3, 4), dtype)
    y = lambda conv, x, w: conv(x, w, strides, "SAME", None, None, LAYOUT).astype(jnp.float32)
    grads = jax.jit(
        jax.grad(lambda conv, x, w: jnp.mean(jnp.sin(y(conv, x, w)) * y(conv, x, w)), (1, 2)), static_argnums=0
    )
    assert "convolution" not in grads.lower(conv_general_dilated, x, w).as_text()
    close = {"rtol": 1e-5, "atol": 2e-6} if dtype == jnp.float32 else {"rtol": 0.05, "atol": 0.05}
    for found, expected in zip(
        *(grads(f, x, w) for f in (conv_general_dilated, lax.conv_general_dilated)), strict=True
    ):
        assert found.dtype == dtype
        np.testing.assert_allclose(found.astype(jnp.float32), expected.astype(jnp.float32), **close)


def test_what_is_large_is_computed_once():
    x, w = jnp.ones((2, 129, 128, 2)), jnp.ones((3, 3, 2, 2))
    grad = jax.grad(lambda w, x: jnp.sum(conv_general_dilated(x, w, (1, 1), "SAME", None, None, LAYOUT) ** 2))
    assert "cond" in str(jax.make_jaxpr(grad)(w, x))
    assert "cond" not in str(jax.make_jaxpr(grad)(w, x[:1, :, :100]))


def gradient(conv, x, w):
    """Return the gradients with respect to `x` and `w` of a loss whose derivative differs between positions."""
    y = lambda x, w: conv(x, w, (1, 1), "SAME", None, None, LAYOUT)
    return jax.grad(lambda x, w: jnp.mean(jnp.sin(y(x, w)) * y(x, w)), (0, 1))(x, w)


def sharded(f, x, w):
    """Return the gradient with respect to `x`, one example on each of two devices, and the kernel, replicated."""
    mesh = Mesh(np.array(jax.devices()[:2]), ("data",))
    one = lambda x, w: (gradient(f, x, w)[0], jax.lax.pmean(jax.lax.pcast(w, "data", to="varying"), "data"))
    return jax.shard_map(one, mesh=mesh, in_specs=(P("data"), P()), out_specs=(P("data"), P()))(x, w)


TRANSFORMED = {
    "remat": lambda f, x, w: gradient(jax.checkpoint(f, static_argnums=(2, 3, 4, 5, 6)), x, w),
    "vmap": lambda f, x, w: jax.vmap(lambda w: gradient(f, x, w))(jnp.stack([w, -w])),
    "jvp": lambda f, x, w: jax.jvp(lambda x, w: f(x, w, (2, 1), "SAME", None, None, LAYOUT), (x, w), (x + 1, w - 1)),
    "forward over reverse": lambda f, x, w: jax.jvp(lambda x, w: gradient(f, x, w), (x, w), (x + 1, w - 1)),
    "reverse over reverse": lambda f, x, w: jax.grad(lambda w: jnp.sum(gradient(f, x, w)[1] ** 2))(w),
    "shard_map": sharded,
}


@pytest.mark.parametrize("name", TRANSFORMED)
def test_transformations(name):
    x, w = arrays(3)
    found, expected = (
        jax.jit(lambda x, w, f=f: TRANSFORMED[name](f, x, w))(x, w)
        for f in (conv_general_dilated, lax.conv_general_dilated)
    )
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize(("strides", "padding", "dilation"), [case[:3] for case in CASES[1:4]])
def test_strided_convolutions_of_many_channels(strides, padding, dilation, monkeypatch):
    """Strided axes without dilation are divided into phases, but not if there are more than `THIN` channels."""
    x, w = arrays(3)

    def grad(conv):
        total = lambda x: jnp.mean(jnp.sin(conv(x, w, strides, padding, None, dilation, LAYOUT)))
        return jax.jit(jax.grad(total))

    divided = grad(conv_general_dilated).lower(x).as_text()
    monkeypatch.setattr(convolution, "THIN", 2)
    whole = grad(conv_general_dilated)
    assert divided.count("stablehlo.convolution") > 2
    assert whole.lower(x).as_text().count("stablehlo.convolution") == 2
    chex.assert_trees_all_close(whole(x), grad(lax.conv_general_dilated)(x), rtol=1e-5, atol=1e-6)


@pytest.fixture
def groups(monkeypatch):
    """Lower the limit, so that small inputs are computed in groups of images, too."""
    monkeypatch.setattr(convolution, "AT_A_TIME", 900)


def many(dtype=jnp.float32):
    """Return images that make several groups for each device, and a kernel."""
    x, w = arrays(3, dtype)
    count = 8 * jax.device_count()
    return jax.random.normal(jax.random.key(2), (count, *x.shape[1:]), dtype), w


@pytest.mark.parametrize(("strides", "padding", "dilation", "size"), [case for case in CASES if case[3] <= 3])
def test_groups_of_images(strides, padding, dilation, size, groups):
    (x, _), (_, w) = many(), arrays(size)

    def total(conv, w):
        y = conv(x, w, strides, padding, None, dilation, LAYOUT)
        return jnp.sum(jnp.sin(y) * y) / y.size

    found, expected = (
        jax.jit(jax.grad(lambda w, conv=conv: total(conv, w)))
        for conv in (conv_general_dilated, lax.conv_general_dilated)
    )
    assert "while" in found.lower(w).as_text()
    chex.assert_trees_all_close(found(w), expected(w), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", TRANSFORMED)
def test_transformations_of_groups(name, groups):
    x, w = many()
    found, expected = (
        jax.jit(lambda x, w, f=f: TRANSFORMED[name](f, x, w))(x, w)
        for f in (conv_general_dilated, lax.conv_general_dilated)
    )
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-5)


def test_many_images_are_computed_in_a_loop_that_keeps_no_columns():
    count = 64 * jax.device_count()
    x, w = jnp.ones((count, 64, 64, 2)), jnp.ones((3, 3, 2, 2))
    grad = jax.jit(jax.grad(lambda w, x: jnp.sum(conv_general_dilated(x, w, (1, 1), "SAME", None, None, LAYOUT) ** 2)))
    few = grad.lower(w, x[: 4 * jax.device_count()]).as_text()
    many = grad.lower(w, x).as_text()
    assert "while" in many
    assert "while" not in few
    assert f"{count * 64 * 64}x6xf32" not in many, "columns of all images"


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_devices_exchange_the_gradient_once(kind, groups):
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(kind,))
    (x, w), on = many(), lambda a, *axes: jax.device_put(a, NamedSharding(mesh, P(*axes)))
    compiled = jax.jit(gradient, static_argnums=0).lower(conv_general_dilated, on(x, "data"), on(w)).compile()
    assert len(re.findall(r" all-reduce(?:-start)?\(", compiled.as_text())) == 1
    assert not re.search(r" (all-gather|all-to-all|collective-permute)(-start)?\(", compiled.as_text())
    expected = jax.jit(gradient, static_argnums=0)(lax.conv_general_dilated, x, w)
    chex.assert_trees_all_close(compiled(on(x, "data"), on(w)), expected, rtol=1e-5, atol=2e-6)


def test_float64(x64):
    x, w = arrays(3, jnp.float64)
    found, expected = (
        jax.jit(gradient, static_argnums=0)(f, x, w) for f in (conv_general_dilated, lax.conv_general_dilated)
    )
    chex.assert_trees_all_close(found, expected, rtol=1e-12, atol=1e-12)


def test_accelerators_have_their_own(monkeypatch):
    x, w = arrays(3)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    text = str(jax.make_jaxpr(lambda x, w: conv_general_dilated(x, w, (1, 1), "SAME", None, None, LAYOUT))(x, w))
    assert "custom_jvp_call" not in text


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_equals_jax_in_half_precision(dtype):
    (x, w), (strides, padding, dilation) = arrays(3, dtype), ((2, 1), "SAME", (1, 2))
    total = lambda conv: lambda x, w: jnp.sum(conv(x, w, strides, padding, None, dilation, LAYOUT).astype(jnp.float32))
    found, expected = (jax.grad(total(conv), (0, 1))(x, w) for conv in (conv_general_dilated, lax.conv_general_dilated))
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype == dtype
        np.testing.assert_allclose(ours.astype(jnp.float32), theirs.astype(jnp.float32), rtol=0.02, atol=0.1)


def test_float32_results_of_half_precision_arguments():
    x, w = arrays(3, jnp.bfloat16)

    def total(conv, x, w):
        return jnp.sum(conv(x, w, (1, 1), "SAME", None, None, LAYOUT, preferred_element_type=jnp.float32) ** 2)

    found, expected = (
        jax.grad(lambda w, conv=conv: total(conv, x, w))(w) for conv in (conv_general_dilated, lax.conv_general_dilated)
    )
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(jnp.float32), expected.astype(jnp.float32), rtol=0.05, atol=1)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"strides": 2},
        {"strides": (1, 3), "padding": "VALID"},
        {"padding": ((2, 0), (1, 3))},
        {"padding": 1},
        {"padding": "CIRCULAR"},
        {"padding": "REFLECT", "strides": 2},
        {"kernel_dilation": 2},
        {"input_dilation": 2, "padding": 1},
        {"feature_group_count": 3},
        {"use_bias": False, "dtype": jnp.bfloat16},
    ],
    ids=str,
)
def test_flax_convolution_takes_it(settings):
    make = lambda **kwargs: nnx.Conv(3, 6, (3, 3), rngs=nnx.Rngs(0), **settings, **kwargs)
    x, _ = arrays(3)
    loss = lambda model, x: jnp.sum(model(x).astype(jnp.float32) ** 2)
    grad = nnx.value_and_grad(loss, argnums=(0, 1))
    plain, fast = grad(make(), x), grad(make(conv_general_dilated=conv_general_dilated), x)
    tolerance = 0.03 if "dtype" in settings else 1e-3
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * max(1, np.abs(b).max()))
    jax.tree.map(close, fast, plain)


@pytest.mark.parametrize("loop", ["scan", "cond"])
def test_the_same_inside_a_loop_and_a_branch(loop):
    x, w = arrays(3)
    grad = lambda w: jax.grad(lambda w: jnp.sum(conv_general_dilated(x, w, (2, 2), "SAME", None, None, LAYOUT) ** 2))(w)
    inside = {
        "scan": lambda w: lax.scan(lambda w, _: (w - 1e-3 * grad(w), None), w, None, length=2)[0],
        "cond": lambda w: lax.cond(jnp.sum(w) < jnp.inf, grad, jnp.zeros_like, w),
    }
    first = w - 1e-3 * grad(w)
    expected = {"scan": first - 1e-3 * grad(first), "cond": grad(w)}
    np.testing.assert_allclose(jax.jit(inside[loop])(w), expected[loop], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [3, 5])
def test_gradients_in_a_branch_are_all_in_the_fast_layout(size):
    x, w = arrays(size)
    x = jnp.tile(x, (1, 2, 2, 1))  # so that the result has more positions than the kernel has taps
    grad = jax.grad(lambda w: jnp.sum(conv_general_dilated(x, w, (2, 2), "SAME", None, None, LAYOUT) ** 2))
    text = str(jax.make_jaxpr(lambda w, p: lax.cond(p, grad, jnp.zeros_like, w))(w, True))
    specs = set(re.findall(r"(\w+)_spec=\(([\d, ]+)\)", text))
    assert specs == {("lhs", "0, 3, 1, 2"), ("rhs", "3, 2, 0, 1"), ("out", "0, 3, 1, 2")}


def test_a_batch_without_fitting_divisor_is_computed_at_once():
    """A loop of 131 single small images would take longer than one product."""
    x, w = jnp.ones((131 * jax.device_count(), 8, 8, 16)), jnp.ones((3, 3, 16, 16))
    grad = jax.jit(jax.grad(lambda w: jnp.sum(conv_general_dilated(x, w, (1, 1), "SAME", None, None, LAYOUT) ** 2)))
    assert "while" not in grad.lower(w).as_text()


@pytest.mark.parametrize("pixels", [9, 2])
def test_ghost_norms_follow_the_convolution(pixels):
    """Its derivative rule is JAX's, also where the result is smaller than the kernel and a product computes it."""
    x, w = arrays(3)
    x = x[:, :pixels, :pixels]

    def losses(w, x=x):
        return jnp.sum(jnp.sin(conv_general_dilated(x, w, (1, 1), "SAME", None, None, LAYOUT)), (1, 2, 3))

    grads = jax.vmap(lambda x: jax.grad(lambda w: losses(w, x[None])[0])(w))(x)
    expected = jnp.sqrt(jnp.sum(grads**2, (1, 2, 3, 4)))
    norms = per_example.norms(losses, w)
    chex.assert_trees_all_close(norms, expected, rtol=1e-5)
