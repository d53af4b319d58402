"""The same networks and steps written in PyTorch: SGD with momentum, and SAM. Imported only with `--torch`."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from torch.nn import functional as F  # pyright: ignore[reportMissingImports]

from experiments.bench.problems import Problem
from experiments.config.errors import UsageError

Tensor = Any
CIFAR_RESNETS = ("resnet8", "resnet20", "resnet32", "resnet56")


def runners(problem: Problem, calls: int) -> dict[str, Callable[[], Any]]:
    """Functions that take a number of steps, by the name of the step.

    Raises:
      UsageError: if the network is not available in PyTorch here.
    """
    steps = {"PyTorch SGD": sgd_step, "PyTorch SAM": sam_step}
    return {name: _runner(step, problem, calls) for name, step in steps.items()}


def loss_function(problem: Problem) -> tuple[list[Tensor], Callable[[], Tensor]]:
    """A copy of the parameters, and the loss of the problem's batch as a function of them."""
    forward = _forward_of(problem)
    tree = jax.tree.map(lambda x: torch.tensor(np.asarray(x), requires_grad=True), problem.params)
    inputs, labels = torch.tensor(np.asarray(problem.inputs)), torch.tensor(np.asarray(problem.labels)).long()
    if inputs.ndim == 4:
        inputs = inputs.permute(0, 3, 1, 2)  # a view: stays channels-last in memory
    return jax.tree.leaves(tree), lambda: F.cross_entropy(forward(tree, inputs), labels)


def sgd_step(params: list[Tensor], loss: Callable[[], Tensor], optimizer: Any) -> None:
    """One gradient and the base update."""
    optimizer.zero_grad()
    loss().backward()
    optimizer.step()


def sam_step(params: list[Tensor], loss: Callable[[], Tensor], optimizer: Any) -> None:
    """Two gradients, the second at $w + 0.05 g / |g|$, and the base update from the saved $w$."""
    optimizer.zero_grad()
    loss().backward()
    with torch.no_grad():
        saved = [w.clone() for w in params]
        scale = 0.05 / torch.nn.utils.get_total_norm([w.grad for w in params])
        for w in params:
            w.addcmul_(w.grad, scale)
    optimizer.zero_grad()
    loss().backward()
    with torch.no_grad():
        for w, old in zip(params, saved, strict=True):
            w.copy_(old)
    optimizer.step()


def _runner(step: Callable[..., None], problem: Problem, calls: int) -> Callable[[], Any]:
    params, loss = loss_function(problem)
    optimizer = torch.optim.SGD(params, lr=0.1, momentum=0.9)

    def run() -> None:
        for _ in range(calls):
            step(params, loss, optimizer)

    return run


def _forward_of(problem: Problem) -> Callable[[Any, Tensor], Tensor]:
    name = problem.name.split(",")[0]
    if "bfloat16" not in problem.name:
        if name.startswith("mlp-"):
            return _mlp
        if name in CIFAR_RESNETS:
            return _resnet
    raise UsageError(
        f"no counterpart of {problem.name} in PyTorch; mlp and {', '.join(CIFAR_RESNETS)} in float32 have one"
    )


def _mlp(params: Any, x: Tensor) -> Tensor:
    for layer in params[:-1]:
        x = F.gelu(torch.addmm(layer["bias"], x, layer["kernel"]), approximate="tanh")
    return torch.addmm(params[-1]["bias"], x, params[-1]["kernel"])


def _resnet(params: Any, x: Tensor) -> Tensor:
    x = F.relu(_normed(_conv(x, params["stem"]), params["norm"]))
    for i in sorted(params["blocks"]):
        x = _block(x, params["blocks"][i])
    return torch.addmm(params["head"]["bias"], x.mean((2, 3)), params["head"]["kernel"])


def _block(x: Tensor, block: Any) -> Tensor:
    convs, norms = block["convs"], block["norms"]
    extra = convs[0]["kernel"].shape[3] - x.shape[1]
    y = F.relu(_normed(_conv(x, convs[0], 2 if extra else 1), norms[0]))
    y = _normed(_conv(y, convs[1]), norms[1])
    if extra:
        x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, extra // 2, extra - extra // 2))
    return F.relu(x + y)


def _conv(x: Tensor, layer: Any, stride: int = 1) -> Tensor:
    """Flax pads an even image at stride 2 only at the bottom and on the right."""
    if stride == 2:
        x = F.pad(x, (0, 1, 0, 1))
    return F.conv2d(x, layer["kernel"].permute(3, 2, 0, 1), stride=stride, padding=0 if stride == 2 else 1)


def _normed(x: Tensor, layer: Any) -> Tensor:
    return F.group_norm(x, x.shape[1] // 8, layer["scale"], layer["bias"], eps=1e-5)
