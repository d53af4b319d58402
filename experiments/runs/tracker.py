"""A run in Weights & Biases, Trackio or MLflow, if the package is installed: settings, every epoch, the result."""

import contextlib
import importlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.config.errors import UsageError
from experiments.runs.observer import Observer, numbers

PROJECT = "pugd_optax"


def refuse_missing(name: str) -> None:
    """Report a missing package before anything is trained.

    Raises:
      UsageError: if the package is not installed.
    """
    if name != "none" and importlib.util.find_spec(name) is None:
        raise UsageError(f"--tracker {name}: the package is not installed. Fix: pip install {name}")


@contextlib.contextmanager
def tracked(name: str, title: str, settings: dict[str, Any], folder: Path) -> Iterator[Observer]:
    """A run of the tracker, open during the context; the tracker's own configuration decides where it is sent."""
    module = importlib.import_module(name)
    run = (_mlflow if name == "mlflow" else _wandb)(module, title, settings, folder)
    with run as observer:
        yield observer


@contextlib.contextmanager
def _wandb(module: Any, title: str, settings: dict[str, Any], folder: Path) -> Iterator[Observer]:
    """Also for Trackio, which has the same interface. Runs side by side in one process are separate runs."""
    own = {"dir": str(folder), "reinit": "create_new"} if module.__name__ == "wandb" else {}
    run = module.init(project=PROJECT, name=title, config=settings, **own)
    log = lambda found, step: run.log(numbers(found), step=step)
    try:
        yield Observer(lambda line: log(line, line["epoch"]), lambda found: log(found, settings["epochs"] + 1))
    finally:
        run.finish()


@contextlib.contextmanager
def _mlflow(module: Any, title: str, settings: dict[str, Any], folder: Path) -> Iterator[Observer]:
    """With the client, which has no global current run."""
    client = module.MlflowClient()
    run = client.create_run(module.set_experiment(PROJECT).experiment_id, run_name=title).info.run_id
    for key, value in settings.items():
        client.log_param(run, key, value)

    def log(found: dict[str, Any], step: int) -> None:
        for key, value in numbers(found).items():
            client.log_metric(run, key, value, step=step)

    status = "FAILED"
    try:
        yield Observer(lambda line: log(line, line["epoch"]), lambda found: log(found, settings["epochs"]))
        status = "FINISHED"
    finally:
        client.set_terminated(run, status)
