"""Our methods against those of pytorch_optimizer on the same batches; skipped if it is not installed."""

from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import optax
import pytest

from pugd_optax import friendly_sam, gsam, looksam, mix, normalize, reevaluate, sam, wsam
from pugd_optax._unit_ascent import unit_ascent
from tests.problems import BATCHES, INPUTS, LABELS, START, B, W, X, Y, path

RATE, STEPS = 0.25, 8


def peer(name: str, **given: Any) -> np.ndarray:
    """The steps of the peer divided by the negative learning rate, with shape [steps, parameters]."""
    torch, package = pytest.importorskip("torch"), pytest.importorskip("pytorch_optimizer")
    tensor = lambda x: torch.nn.Parameter(torch.tensor(x))
    model = torch.nn.ParameterDict({"b": tensor(START[B]), "w": tensor(START[W].reshape(INPUTS, LABELS))})
    flat = lambda: np.concatenate([model[k].detach().numpy().ravel() for k in "bw"])
    optimizer = _made(torch, package, name, model, given)
    before, outputs = flat(), []
    for t in range(STEPS):
        x, y = torch.tensor(X[t % BATCHES]), torch.tensor(Y[t % BATCHES])

        @torch.enable_grad()
        def closure(x=x, y=y):
            model.zero_grad()
            margin = y * (x @ model["w"] + model["b"])
            loss = torch.logaddexp(torch.zeros_like(margin), -margin).sum() / len(x) + 0.0125 * (model["w"] ** 4).sum()
            loss.backward()
            return (margin, loss) if name == "GSAM" else loss

        if name not in ("GSAM", "WSAM"):  # these evaluate the first gradient themselves
            closure()
        optimizer.step(closure)
        outputs.append((before - (before := flat())) / RATE)
    return np.stack(outputs)


def _made(torch: Any, package: Any, name: str, model: Any, given: dict[str, Any]) -> Any:
    base = {"lr": RATE, "momentum": given.pop("momentum", 0.0)}
    if name == "GSAM":
        inner, radius = torch.optim.SGD(model.parameters(), **base), given.pop("rho")
        return package.GSAM(model.parameters(), inner, model, SimpleNamespace(step=lambda: radius), **given)
    first = (model,) if name == "WSAM" else ()
    return getattr(package, name)(*first, model.parameters(), torch.optim.SGD, **given, **base)


@pytest.mark.parametrize("adaptive", [False, True], ids=["", "adaptive"])
@pytest.mark.parametrize(
    ("name", "given", "ours", "settings"),
    [
        ("GSAM", {"alpha": 0.4}, gsam, {"alpha": 0.4}),
        ("WSAM", {"gamma": 0.8, "decouple": False}, wsam, {"gamma": 0.8}),
        ("LookSAM", {"k": 3, "alpha": 0.7}, looksam, {"every": 3, "alpha": 0.7, "per_tensor": True}),
        ("FriendlySAM", {"sigma": 0.8, "lmbda": 0.9}, friendly_sam, {"sigma": 0.8, "decay": 0.9}),
    ],
)
def test_takes_the_same_steps(name, given, ours, settings, adaptive):
    theirs = peer(name, rho=0.3, adaptive=adaptive, **given)
    mine, _ = path(ours(0.3, adaptive=adaptive, **settings), steps=STEPS, lr=RATE)
    np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


def test_sam_in_both_balls():
    for adaptive, ours in ((False, sam(0.3)), (True, reevaluate(unit_ascent(adaptive=True), radius=0.3))):
        mine, _ = path(ours, steps=STEPS, lr=RATE)
        np.testing.assert_allclose(mine, peer("SAM", rho=0.3, adaptive=adaptive), rtol=1e-5, atol=1e-6)


def test_decoupled_wsam():
    """The recipe of the docs equals decoupled WSAM; with momentum it differs from the coupled form."""
    theirs = peer("WSAM", rho=0.3, gamma=0.8, decouple=True, momentum=0.9)
    np.testing.assert_allclose(path(_decoupled(0.8, 0.3), steps=STEPS, lr=RATE)[0], theirs, rtol=1e-5, atol=1e-6)
    coupled, _ = path(optax.chain(wsam(0.3, 0.8), optax.trace(0.9)), steps=STEPS, lr=RATE)
    assert np.abs(coupled - theirs).max() > 1e-3


def _decoupled(gamma: float, radius: float) -> optax.GradientTransformationExtraArgs:
    """The sum of the momentum of g and the sharpness term, which has no momentum."""
    weight = gamma / (1 - gamma)
    base, sharpness = optax.trace(0.9), reevaluate(normalize(), mix(-weight, weight), radius=radius)

    def update(updates, state, params=None, **extra_args):
        u, first = base.update(updates, state[0], params)
        added, second = sharpness.update(updates, state[1], params, **extra_args)
        return jax.tree.map(lambda a, b: a + b, u, added), (first, second)

    return optax.GradientTransformationExtraArgs(lambda params: (base.init(params), sharpness.init(params)), update)
