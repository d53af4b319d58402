"""Losses, class weights and flooding as the command line spells them, against formulas in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pugd_optax
from experiments.config.errors import UsageError
from experiments.config.schema import Config
from experiments.config.specs import spec
from experiments.data.augment import pipeline
from experiments.data.batch import Data
from experiments.models.functional import network
from experiments.runs.state import initial
from experiments.training import optimizer
from experiments.training.objective import CROSS_ENTROPY, LOSSES, criterion
from experiments.training.step import make_step
from tests.tiers import FEW, slow_but

RNG = np.random.default_rng(0)
LOGITS, LABELS = RNG.normal(size=(12, 3)), np.arange(12) % 3
COUNTS = np.array([100, 30, 5])
ROWS, STEP = np.arange(12), jnp.int32(0)


def losses_of(loss: str, reweight: str = "none", flooding: str = "none", labels=LABELS, step=0, mean=False):
    made = criterion(*map(spec, (loss, reweight, flooding)), COUNTS, steps=10)
    args = jnp.asarray(LOGITS, jnp.float32), jnp.asarray(labels), jnp.int32(step)
    return np.asarray((made.mean if mean else made.losses)(*args), np.float64)


def cross_entropies(logits: np.ndarray) -> np.ndarray:
    """Return the cross-entropy of every example with every label, [examples, classes]."""
    return np.log(np.exp(logits).sum(1, keepdims=True)) - logits


PLAIN = cross_entropies(LOGITS)
MARGINS = 0.4 * (5 / COUNTS) ** 0.25
P = np.exp(-PLAIN[ROWS, LABELS])
SIGNS = np.where(np.eye(3)[LABELS] == 1, 1, -1) * LOGITS
EXPECTED = {
    "cross_entropy": PLAIN[ROWS, LABELS],
    "cross_entropy:0.1": 0.9 * PLAIN[ROWS, LABELS] + 0.1 * PLAIN.mean(1),
    "focal": ((1 / (1 + np.exp(SIGNS))) ** 2 * np.log1p(np.exp(-SIGNS))).sum(1),
    "focal:0": np.log1p(np.exp(-SIGNS)).sum(1),
    "balanced_softmax": cross_entropies(LOGITS + np.log(COUNTS))[ROWS, LABELS],
    "logit_adjustment:2": cross_entropies(LOGITS + 2 * np.log(COUNTS / COUNTS.sum()))[ROWS, LABELS],
    "ldam:0.4:2": cross_entropies(2 * (LOGITS - np.eye(3)[LABELS] * MARGINS))[ROWS, LABELS],
    "gce:0.5": (1 - P**0.5) / 0.5,
    "sce:0.2:0.5": -0.2 * np.log(P) - 0.5 * np.log(1e-4) * (1 - P),
}


@pytest.mark.parametrize("text", EXPECTED)
def test_losses_by_name(text):
    np.testing.assert_allclose(losses_of(text), EXPECTED[text], rtol=2e-5)
    assert losses_of(text, mean=True) == pytest.approx(EXPECTED[text].mean(), rel=2e-5)


def test_every_loss_of_the_library_has_a_name():
    others = {"adjust_logits", "class_balanced_weights", "drw_weights", "forward_correction", "weighted_mean"}
    public = set(pugd_optax.losses.__all__)
    assert public == (set(LOSSES) & public) | others


@pytest.mark.parametrize("text", EXPECTED)
def test_two_labels_by_their_shares(text):
    """The loss of a mixed label is the weighted mean of two losses; that of a one-hot label is the usual loss."""
    other = (LABELS + 1) % 3
    soft = 0.7 * np.eye(3)[LABELS] + 0.3 * np.eye(3)[other]
    expected = 0.7 * losses_of(text) + 0.3 * losses_of(text, labels=other)
    np.testing.assert_allclose(losses_of(text, labels=soft.astype(np.float32)), expected, rtol=2e-5)
    np.testing.assert_allclose(losses_of(text, labels=np.eye(3, dtype=np.float32)[LABELS]), losses_of(text), rtol=1e-6)


def test_weights_by_class_from_a_step_on():
    raw = (1 - 0.9) / (1 - 0.9**COUNTS)
    weights = (raw * 3 / raw.sum())[LABELS]
    np.testing.assert_allclose(losses_of("gce", "class_balanced:0.9"), weights * losses_of("gce"), rtol=1e-5)
    for step, expected in [(7, 1), (8, weights)]:
        found = losses_of("gce", "drw:0.8:0.9", step=step)
        np.testing.assert_allclose(found, expected * losses_of("gce"), rtol=1e-5)


def test_flooding_of_examples_and_of_the_batch():
    plain = losses_of("cross_entropy")
    np.testing.assert_allclose(losses_of("cross_entropy", "none", "iflood:1.5"), abs(plain - 1.5) + 1.5, rtol=1e-5)
    soft = 0.9 + 0.5 * (np.sqrt(1 + ((plain - 0.9) / 0.5) ** 2) - 1)
    np.testing.assert_allclose(losses_of("cross_entropy", "none", "soft_ad:0.9:0.5"), soft, rtol=1e-5)
    assert losses_of("cross_entropy", "none", "soft_ad:0.9:0.5", mean=True) == pytest.approx(soft.mean(), rel=1e-5)
    assert losses_of("cross_entropy", "none", "flood:5", mean=True) == pytest.approx(10 - plain.mean(), rel=1e-5)


def test_flooding_turns_the_gradient_round():
    of = lambda made: jax.grad(lambda u: made.mean(u, jnp.asarray(LABELS), STEP))(jnp.asarray(LOGITS, jnp.float32))
    plain, above, below = (
        of(criterion(spec("cross_entropy"), spec("none"), spec(t), COUNTS, 10)) for t in ("none", "flood:0", "flood:9")
    )
    np.testing.assert_allclose(above, plain, rtol=1e-6)
    np.testing.assert_allclose(below, -plain, rtol=1e-6)


def test_the_plain_criterion_is_cross_entropy():
    args = jnp.asarray(LOGITS, jnp.float32), jnp.asarray(LABELS)
    expected = optax.softmax_cross_entropy_with_integer_labels(*args)
    np.testing.assert_array_equal(CROSS_ENTROPY.losses(*args, STEP), expected)


@pytest.mark.parametrize(
    ("texts", "complaint"),
    [
        (("ldma", "none", "none"), "unknown loss 'ldma'; did you mean 'ldam'"),
        (("ldam:0.5:30:2", "none", "none"), r"too many arguments; expected ldam\[:max_margin=0.5\]\[:scale="),
        (("gce", "drv:0.8", "none"), "unknown reweighting 'drv:?.*'; did you mean 'drw'"),
        (("gce", "drw", "none"), "needs start"),
        (("gce", "drw:1.5", "none"), "fraction of training"),
        (("gce", "none", "flod:0.1"), "unknown flooding 'flod'; did you mean 'flood'"),
        (("gce", "none", "flood"), "needs level"),
    ],
)
def test_wrong_names_and_options(texts, complaint):
    with pytest.raises(UsageError, match=complaint):
        criterion(*map(spec, texts), COUNTS, steps=10)


def test_a_flooded_batch_has_no_losses_of_examples():
    with pytest.raises(UsageError, match=r"use iflood:0\.3"):
        losses_of("cross_entropy", "none", "flood:0.3")


OPTIONS = {"pegr": (("strength", "0.1"),), "sam_on": (("mask", "vectors"),)}


@functools.cache
def net():
    return network("mlp", (4, 4, 1), 3, "group", "float32")


def trace(method: str, loss: str, reweight: str, flooding: str, mixup: float):
    """Trace a step; return whether each part of the state keeps its shape and type, and the shape of the loss."""
    config = Config(method=method, method_options=OPTIONS.get(method, ()), epochs=1)
    made = optimizer.build(config, steps_per_epoch=10, num_classes=3)
    step = make_step(
        net().graphdef,
        made.method,
        made.base,
        pipeline("none", 0, mixup, 3),
        criterion(*map(spec, (loss, reweight, flooding)), COUNTS, steps=10),
    )
    data = Data(jnp.zeros((9, 4, 4, 1), jnp.uint8), jnp.arange(9) % 3, jnp.zeros((1, 1, 1, 1)), jnp.ones((1, 1, 1, 1)))
    state = jax.eval_shape(lambda: initial(made.tx, *net().init(0), seed=0))
    step = functools.partial(step, active=None)
    after, metrics = jax.eval_shape(step, state, data, jnp.arange(6), jax.random.key(0), jnp.float32(0))
    return jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), state, after), metrics.loss.shape


@pytest.mark.parametrize("method", slow_but(FEW, ["none", *pugd_optax.methods.__all__]))
def test_every_method_takes_weights_flooding_and_mixed_labels(method):
    same, loss = trace(method, "ldam", "drw:0.5", "iflood:0.1", 0.2)
    assert all(jax.tree.leaves(same))
    assert loss == ()


@pytest.mark.parametrize("method", ["none", "sam", "rts_pugd", "lpg", "lpl", "ae_sam"])
def test_methods_take_a_flooded_batch(method):
    assert all(jax.tree.leaves(trace(method, "cross_entropy:0.1", "none", "flood:0.1", 0.2)[0]))


def test_pegr_wants_losses_of_examples():
    with pytest.raises(UsageError, match=r"flood:0\.1 .*use iflood:0\.1"):
        trace("pegr", "cross_entropy", "none", "flood:0.1", 0.0)
