"""Every public name is importable, documented in one shape, and listed."""

import importlib
import inspect
import os
import re
import subprocess
import sys

import pytest

import pugd_optax
from pugd_optax import methods

MODULES = ["reevaluate", "ascents", "combines", "timing", "schedules", "functional"]
FUNCTIONS = {
    f"{module}.{name}": member
    for module in MODULES
    for name, member in vars(importlib.import_module(f"pugd_optax.{module}")).items()
    if inspect.isfunction(member) and not name.startswith("_") and member.__module__ == f"pugd_optax.{module}"
}
METHODS = {name: getattr(methods, name) for name in methods.__all__}


def test_all_is_what_can_be_imported():
    assert len(set(pugd_optax.__all__)) == len(pugd_optax.__all__)
    assert all(hasattr(pugd_optax, name) for name in pugd_optax.__all__)
    visible = {n for n, v in vars(pugd_optax).items() if not n.startswith("_") and not inspect.ismodule(v)}
    assert visible <= set(pugd_optax.__all__)
    assert set(methods.__all__) <= set(pugd_optax.__all__)
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", pugd_optax.__version__)


def test_methods_are_one_file_each():
    assert list(methods.__all__) == sorted(methods.__all__)
    for name, method in METHODS.items():
        assert method.__module__ == f"pugd_optax.methods.{name}"
        module = importlib.import_module(method.__module__)
        public = [n for n, v in vars(module).items() if inspect.isfunction(v) and v.__module__ == method.__module__]
        assert name in public


BUILT = """
import optax
import pugd_optax
from tests.contract.given import build, methods
built = [build(name) for name in methods.__all__]
built.append(pugd_optax.value_and_grad(lambda w: w, optax.chain(pugd_optax.sam(when=pugd_optax.timing.bernoulli(0.5)))))
built.append(pugd_optax.pegr(0.1, penalty=pugd_optax.per_example.signs(0)))
print(len(built))
"""


def test_building_a_method_computes_nothing():
    """With several processes, `jax.distributed.initialize()` comes before the first computation."""
    environment = os.environ | {"JAX_PLATFORMS": "none"}  # the first computation would look for this backend
    ran = subprocess.run([sys.executable, "-c", BUILT], env=environment, capture_output=True, text=True)
    assert ran.stdout.strip() == str(len(METHODS) + 2), ran.stderr


@pytest.mark.parametrize("function", (FUNCTIONS | METHODS).values(), ids=FUNCTIONS | METHODS)
def test_docstring(function):
    """Docstrings start with one line, have an example, and explain every argument if they have sections."""
    doc = inspect.getdoc(function) or ""
    first, _, rest = doc.partition("\n")
    assert first.strip().endswith((".", ":", "?")) or not rest.strip() or rest.startswith("\n"), "one line first"
    assert ">>> " in doc, "an example"
    explained = re.search(r"\n\s*Args:\n(.*?)(\n\S|\Z)", doc, re.S)
    if function.__module__ in ("pugd_optax.combines", "pugd_optax.ascents") and not explained:
        return  # an equation between two trees needs no list
    assert explained
    assert "Returns:" in doc
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            assert re.search(rf"^\s*{name}(, \w+)*:|, {name}:", explained.group(1), re.M), name


@pytest.mark.parametrize("name", METHODS)
def test_methods_cite_their_source_and_show_their_equation(name):
    doc = inspect.getdoc(METHODS[name]) or ""
    for section in ("$", "Args:", "Returns:", "Raises:", "Example:", "References:", "https://"):
        assert section in doc, section


@pytest.mark.parametrize("name", METHODS)
def test_methods_share_their_argument_names(name):
    """`when` and `mask` are keyword-only, and arguments do not have names of a paper, such as rho or lambda."""
    parameters = inspect.signature(METHODS[name]).parameters
    for keyword in ("when", "mask"):
        if keyword in parameters:
            assert parameters[keyword].kind is inspect.Parameter.KEYWORD_ONLY
            assert parameters[keyword].default is None
    assert not {"rho", "lam", "lambda_", "lr", "learning_rate"} & set(parameters)
