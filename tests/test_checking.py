"""`check` finds every silent mistake on the first step, and accepts correct calls."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pugd_optax
from pugd_optax import methods, schedules
from tests.contract.given import build
from tests.problems import classifier, examples, extra_args

W = {"a": jnp.array([3.0, -4.0]), "b": jnp.array(0.5)}
loss = lambda w, x=1.0: jnp.sum(w["a"] ** 2) * x + w["b"] ** 4
SGD = optax.sgd(0.1)


@pytest.mark.parametrize("name", methods.__all__)
def test_every_method_passes_first_in_a_chain(name):
    extra = extra_args(examples())
    given = {k: extra[k] for k in ("logits_fn", "losses_fn", "labels")}
    first = name not in ("anti_pgd", "perturbed_gradient_descent")
    tx = optax.chain(build(name), optax.clip_by_global_norm(1.0), optax.adamw(1e-3)) if first else build(name)
    pugd_optax.check(tx, extra["value_fn"], classifier(), extra_args=given)


@pytest.mark.parametrize(
    ("tx", "message"),
    [
        (optax.chain(SGD, pugd_optax.sam()), r"an optimizer before the method.*cosine -1.00.*Fix: optax.chain"),
        (optax.chain(optax.adamw(0.1), pugd_optax.sam()), r"an optimizer before the method"),
        (optax.chain(optax.clip_by_global_norm(1.0), pugd_optax.pugd(), SGD), r"length 10 to 1, .*put it after"),
        (optax.chain(optax.add_decayed_weights(0.5), pugd_optax.asam(), SGD), r"before the method.*put it after"),
        (optax.MultiSteps(optax.chain(pugd_optax.sam(), SGD), 4), r"inside optax.MultiSteps.*Fix: optax.chain"),
        (optax.apply_if_finite(optax.chain(SGD, pugd_optax.sam()), 3), r"an optimizer before the method"),
    ],
    ids=["sgd", "adamw", "clip", "decay", "MultiSteps", "apply_if_finite"],
)
def test_what_is_in_the_wrong_order_is_named(tx, message):
    with pytest.raises(ValueError, match=message):
        pugd_optax.check(tx, loss, W)


def test_accumulation_after_a_method_passes():
    pugd_optax.check(optax.chain(pugd_optax.sam(), optax.MultiSteps(SGD, 4).gradient_transformation()), loss, W, 2.0)


def test_a_loss_that_is_not_the_same_twice_is_named():
    random = np.random.default_rng(0)
    noisy = lambda w: jnp.sum(w["a"] * random.normal(size=2).astype(np.float32))
    with pytest.raises(ValueError, match=r"two gradients at one point.*key"):
        pugd_optax.check(pugd_optax.sam(), noisy, W)


def test_a_perturbation_that_rounding_takes_away_is_named():
    w = jax.random.normal(jax.random.key(0), (10_000,)).astype(jnp.bfloat16)
    square = lambda w: jnp.sum(w.astype(jnp.float32) ** 2)
    with pytest.raises(ValueError, match=r"too low a precision .*: length .* instead of 0\.05.*float32 parameters"):
        pugd_optax.check(pugd_optax.sam(0.05), square, w)
    pugd_optax.check(pugd_optax.sam(20.0), square, w)


def test_a_mistyped_argument_is_named():
    with pytest.raises(TypeError, match=r"'actve'.*Fix: active="):
        pugd_optax.check(pugd_optax.sam(), loss, W, extra_args={"actve": False})


def test_auxiliary_output_is_left_out():
    pugd_optax.check(optax.chain(pugd_optax.sam(), SGD), lambda w: (loss(w), {"n": 3}), W, has_aux=True)


def test_the_loss_is_passed_to_what_reads_it():
    pugd_optax.check(optax.chain(pugd_optax.sam(schedules.target_rise()), SGD), loss, W)
    pugd_optax.check(pugd_optax.sam(schedules.target_rise()), lambda w: (loss(w), {"n": 3}), W, has_aux=True)
