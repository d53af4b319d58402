"""The claims: every module in `theory/`, `rts/`, `lpg/` or `real/` that defines `STUDY` or `run`.

The docstring of the module is the lab note; its first line is the statement. `rts/early.py` is the claim `rts.early`,
`theory/gr_bias.py` the claim `gr.bias`.
"""

import functools
import importlib
import inspect
import pkgutil
import re
from types import ModuleType

from experiments.claims import lpg, real, rts, study, theory
from experiments.claims.claim import Finding, Scale
from experiments.claims.workspace import Workspace
from experiments.config.errors import pick


@functools.cache
def claims() -> dict[str, ModuleType]:
    """The module of every claim by name."""
    found = {}
    for package in (theory, rts, lpg, real):
        for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            module = importlib.import_module(info.name)
            if hasattr(module, "STUDY") or hasattr(module, "run"):
                *_, group, name = info.name.split(".")
                found[name.replace("_", ".", 1) if package is theory else f"{group}.{name}"] = module
    return found


def trained(name: str) -> bool:
    """Whether a claim is tested by training networks instead of on a small problem."""
    return hasattr(_module(name), "STUDY")


def reads_data(name: str) -> bool:
    """Whether a claim may read data files: its `run` takes `data_dir`, or it trains networks."""
    return trained(name) or "data_dir" in inspect.signature(_module(name).run).parameters


def note(name: str) -> str:
    """The lab note of a claim: statement, paper, setting, hyperparameters, success criteria, observations."""
    return inspect.getdoc(_module(name)) or ""


def statement(name: str) -> str:
    """The first line of the note."""
    return note(name).partition("\n")[0]


def setting(name: str) -> str:
    """The beginning of the setting of a claim: its data and network."""
    _, _, after = note(name).partition("**Setting")
    words = " ".join(after.partition("**")[2].split())
    return re.split(r";|\.(?!\w)", words, maxsplit=1)[0].rstrip(".")


def find(name: str, scale: Scale, first_seed: int, workspace: Workspace) -> Finding:
    """Run a claim; for small problems the largest scale is full."""
    module = _module(name)
    if trained(name):
        return study.run(module.STUDY, scale, first_seed, workspace)
    files = {"data_dir": workspace.data_dir} if reads_data(name) else {}
    return module.run("full" if scale == "paper" else scale, first_seed, **files)


def _module(name: str) -> ModuleType:
    return pick("claim", name, claims())
