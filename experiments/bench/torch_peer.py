"""The same networks and steps written in PyTorch: SGD with momentum, and SAM. Imported only with `--torch`.

They run where JAX runs. On a GPU the loss is compiled by `torch.compile`, as its users do there.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from torch.nn import functional as F  # pyright: ignore[reportMissingImports]

from experiments.bench.problems import Problem
from experiments.config.errors import UsageError

Tensor = Any
RESNETS = ("resnet8", "resnet18", "resnet20", "resnet32", "resnet56")


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
    copied = lambda x: torch.tensor(np.asarray(x), device="cuda" if _on_gpu() else "cpu")
    tree = jax.tree.map(lambda x: copied(x).requires_grad_(), problem.params)
    inputs, labels = copied(problem.inputs), copied(problem.labels).long()
    if inputs.ndim == 4:
        inputs = inputs.permute(0, 3, 1, 2)  # a view: stays channels-last in memory

    def loss() -> Tensor:
        return F.cross_entropy(forward(tree, inputs), labels)

    return jax.tree.leaves(tree), torch.compile(loss) if _on_gpu() else loss


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
        saved, grads = [w.clone() for w in params], [w.grad for w in params]
        scale = 0.05 / torch.nn.utils.get_total_norm(grads)
        torch._foreach_add_(params, torch._foreach_mul(grads, scale))
    optimizer.zero_grad()
    loss().backward()
    with torch.no_grad():
        torch._foreach_copy_(params, saved)
    optimizer.step()


def _on_gpu() -> bool:
    return jax.default_backend() == "gpu"


def _runner(step: Callable[..., None], problem: Problem, calls: int) -> Callable[[], Any]:
    params, loss = loss_function(problem)
    optimizer = torch.optim.SGD(params, lr=0.1, momentum=0.9)

    def run() -> None:
        for _ in range(calls):
            step(params, loss, optimizer)
        if _on_gpu():
            torch.cuda.synchronize()

    return run


def _forward_of(problem: Problem) -> Callable[[Any, Tensor], Tensor]:
    name, half = problem.name.split(",")[0], "bfloat16" in problem.name
    if name.startswith("mlp-") and not half:
        return _mlp
    if name in RESNETS:
        return (lambda params, x: _resnet(params, x.bfloat16())) if half else _resnet
    raise UsageError(f"no counterpart of {problem.name} in PyTorch; {', '.join(RESNETS)} and mlp in float32 have one")


def _mlp(params: Any, x: Tensor) -> Tensor:
    for layer in params[:-1]:
        x = F.gelu(torch.addmm(layer["bias"], x, layer["kernel"]), approximate="tanh")
    return torch.addmm(params[-1]["bias"], x, params[-1]["kernel"])


def _resnet(params: Any, x: Tensor) -> Tensor:
    """In the type of `x`, except for the head; every block that widens halves the image."""
    x = F.relu(_normed(_conv(x, params["stem"]), params["norm"]))
    for i in sorted(params["blocks"]):
        x = _block(x, params["blocks"][i])
    return torch.addmm(params["head"]["bias"], x.mean((2, 3)).float(), params["head"]["kernel"])


def _block(x: Tensor, block: Any) -> Tensor:
    convs, norms = block["convs"], block["norms"]
    extra = convs[0]["kernel"].shape[3] - x.shape[1]
    y = F.relu(_normed(_conv(x, convs[0], 2 if extra else 1), norms[0]))
    y = _normed(_conv(y, convs[1]), norms[1])
    if shortcut := block.get("shortcut"):
        x = _normed(_conv(x, shortcut["conv"], 2), shortcut["norm"])
    elif extra:
        x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, extra // 2, extra - extra // 2))
    return F.relu(x + y)


def _conv(x: Tensor, layer: Any, stride: int = 1) -> Tensor:
    """Flax pads an even image at stride 2 only at the bottom and on the right."""
    kernel = layer["kernel"].permute(3, 2, 0, 1).to(x.dtype)
    if kernel.shape[2] == 1:
        return F.conv2d(x, kernel, stride=stride)
    if stride == 2:
        x = F.pad(x, (0, 1, 0, 1))
    return F.conv2d(x, kernel, stride=stride, padding=0 if stride == 2 else 1)


def _normed(x: Tensor, layer: Any) -> Tensor:
    return F.group_norm(x, x.shape[1] // 8, layer["scale"].to(x.dtype), layer["bias"].to(x.dtype), eps=1e-5)
