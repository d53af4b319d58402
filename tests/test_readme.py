"""The README's table has the methods of the package, with the same papers."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest
from optax import contrib

import pugd_optax
from pugd_optax import methods

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
METHODS = README.partition("\n## Methods\n")[2].partition("\n## ")[0]
ROWS = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", METHODS, flags=re.MULTILINE))


def test_the_methods_table_holds_every_method_and_nothing_else():
    assert sorted(ROWS) == sorted(methods.__all__)


@pytest.mark.parametrize("name", methods.__all__)
def test_the_paper_of_a_row_is_that_of_the_docstring(name):
    link = re.search(r"https://[^)]+", ROWS[name])
    assert link is not None
    assert link.group() in (getattr(pugd_optax, name).__doc__ or "")


@pytest.mark.skipif(optax.__version__ != "0.2.8", reason="the page of other packages compares with Optax 0.2.8")
def test_what_is_said_of_the_peer_in_optax():
    """In Optax's SAM, the radius schedule does not advance, a zero gradient gives NaN, and `value=` is refused."""
    w, counts = jnp.array([1.0, -0.5]), []

    def radius(count):
        counts.append(int(count))
        return 0.1

    peer = optax.contrib.sam(optax.sgd(0.1), optax.chain(contrib.normalize(), optax.sgd(radius)), opaque_mode=True)
    state = peer.init(w)
    for _ in range(3):
        with jax.disable_jit():
            _, state = peer.update(w, state, w, grad_fn=lambda p, i: p)
    assert counts == [0, 0, 0]
    zero, _ = peer.update(jnp.zeros(2), peer.init(w), w, grad_fn=lambda p, i: p)
    assert bool(jnp.isnan(zero).all())
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        peer.update(w, state, w, grad_fn=lambda p, i: p, value=1.0)


def test_links_to_files_exist():
    links = re.findall(r"\]\(([^)#:\s]+)\)", README)
    assert [link for link in links if not (ROOT / link).exists()] == []
