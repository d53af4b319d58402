"""Arguments under the names of the papers, of Keras and of PyTorch."""

import inspect
import pickle
import re

import optax
import pytest

import pugd_optax
from pugd_optax import methods


@pytest.mark.parametrize(
    ("method", "name", "value", "fix"),
    [
        ("sam", "rho", 0.05, "Fix: pugd_optax.sam(radius=0.05)."),
        ("asam", "rho", 2.0, "Fix: pugd_optax.asam(radius=2.0)."),
        ("amp", "rho", 0.5, "Fix: pugd_optax.amp(epsilon=0.5)."),
        ("amp", "inner_lr", 1.0, "Fix: pugd_optax.amp(step_size=1.0)."),
        ("gradient_regularization", "rho", 0.1, "Fix: pugd_optax.gradient_regularization(step=0.1)."),
        ("gradient_regularization", "lambda", 0.1, "Fix: pugd_optax.gradient_regularization(strength=0.1)."),
        ("pegr", "lam", 0.1, "Fix: pugd_optax.pegr(strength=0.1)."),
        ("friendly_sam", "lmbda", 0.95, "Fix: pugd_optax.friendly_sam(decay=0.95)."),
        ("looksam", "k", 5, "Fix: pugd_optax.looksam(every=5)."),
        ("noise_injection", "seed", 3, "Fix: pugd_optax.noise_injection(key=3)."),
        ("sam", "raduis", 0.1, "Fix: pugd_optax.sam(radius=0.1)."),
        ("sam", "lr", 0.1, "optax.chain(pugd_optax.sam(), optax.sgd(0.1))"),
        ("sam", "adaptive", True, "Fix: pugd_optax.asam()."),
        ("wsam", "foo", None, "Fix: one of radius, gamma, "),
    ],
)
def test_answered_with_the_name_here(method, name, value, fix):
    with pytest.raises(TypeError) as caught:
        getattr(pugd_optax, method)(**{name: value})
    assert str(caught.value).startswith(f"{method}({name}={value!r}): no such argument. ")
    assert fix in str(caught.value)


@pytest.mark.parametrize("name", methods.__all__)
def test_nothing_else_changes(name):
    """The signature, docstring, module and pickle of a method are those of the undecorated function."""
    method = getattr(methods, name)
    own = inspect.unwrap(method)
    assert own is not method
    assert inspect.signature(method) == inspect.signature(own)
    assert (method.__doc__, method.__module__, method.__name__) == (own.__doc__, own.__module__, own.__name__)
    assert pickle.loads(pickle.dumps(method)) is method is getattr(pugd_optax, name)


def test_an_optimizer_in_place_of_the_radius():
    with pytest.raises(TypeError, match=re.escape("optax.chain(pugd_optax.sam(), optax.sgd(0.1))")):
        pugd_optax.sam(optax.sgd(0.1))


def test_names_as_papers_write_them():
    with pytest.raises(AttributeError, match="'SAM'; did you mean 'sam'"):
        _ = pugd_optax.SAM
    with pytest.raises(AttributeError, match=r"'nothing'$"):
        _ = pugd_optax.nothing
