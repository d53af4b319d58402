"""Trainings of studies: runs in the ledger are read; the others are trained and added to it."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from rich.console import Console

from experiments.claims.claim import Trainings
from experiments.claims.ledger import Ledger, Line
from experiments.claims.setting import Setting
from experiments.claims.variants import described
from experiments.config.errors import Diverged
from experiments.config.schema import Config
from experiments.report.stats import interval
from experiments.runs import run_dir
from experiments.training import sweep


class Trained(NamedTuple):
    """The runs of one configuration, ordered by seed; `stopped` as in `setting.Variant`."""

    config: Config
    runs: list[Line]
    stopped: bool = False

    @property
    def diverged(self) -> bool:
        """Whether any of the runs diverged."""
        return any(run.error for run in self.runs)

    def result(self, key: str) -> np.ndarray:
        """One number per run, [seeds], or several, [seeds, n]; NaN if it diverged."""
        known = [np.asarray(run.result[key], float) for run in self.runs if key in run.result]
        blank = np.full_like(known[0], np.nan) if known else np.nan
        return np.array([run.result.get(key, blank) for run in self.runs], float)

    def metric(self, key: str) -> np.ndarray:
        """One number per epoch and run, [epochs, seeds]; NaN if there is none."""
        length = max((len(values) for run in self.runs for values in run.curve.values()), default=1)
        return np.array([run.curve.get(key, [np.nan] * length) for run in self.runs], float).T

    def course(self, key: str) -> np.ndarray:
        """One number per epoch, the mean over the runs that did not diverge, [epochs]."""
        return np.array([interval(values).mean for values in self.metric(key)])

    @property
    def accuracy(self) -> np.ndarray:
        """Test accuracy in percent, [seeds]."""
        return 100 * self.result("test_accuracy" if self.stopped else "last_test_accuracy")

    @property
    def peak(self) -> np.ndarray:
        """The best validation accuracy of all epochs in percent, [seeds]."""
        return 100 * self.result("val_accuracy")

    @property
    def validation(self) -> np.ndarray:
        """Validation accuracy in percent, [seeds], of the last epoch or of the best."""
        return self.peak if self.stopped else 100 * self.metric("val_accuracy")[-1]


@dataclasses.dataclass(frozen=True)
class Workspace:
    """Where runs are trained and recorded, `jobs` at a time, where data is found and progress shown; the used runs."""

    folder: Path
    ledger: Ledger
    data_dir: Path | None
    console: Console
    jobs: int | None = None
    used: dict[tuple[str, int], Line] = dataclasses.field(default_factory=dict)

    def train(
        self, setting: Setting, configs: Sequence[Config], half: Literal["first", "second"], seeds: Sequence[int]
    ) -> list[Trained]:
        """The runs of the configurations on one half of the training data, one per seed."""
        configs = [dataclasses.replace(config, half=half) for config in configs]
        self.ledger.refresh()
        missing = [(c, block) for c in dict.fromkeys(configs) for block in self._missing(c, seeds)]
        if missing:
            self.ledger.refuse_unwritable()
            sweep.run(
                [(self.folder / setting.name, self._named(c, setting, block)) for c, block in missing],
                self.console,
                (Diverged,),
                self.ledger.add,
            )
            self._take_over(setting, missing)
        return [Trained(config, [self._line(config, seed) for seed in seeds]) for config in configs]

    def _missing(self, config: Config, seeds: Sequence[int]) -> list[list[int]]:
        """The seeds missing in the ledger, as contiguous blocks."""
        missing = [seed for seed in seeds if self.ledger.find(config, seed) is None]
        blocks = itertools.groupby(enumerate(missing), lambda pair: pair[1] - pair[0])
        return [[seed for _, seed in block] for _, block in blocks]

    def _named(self, config: Config, setting: Setting, block: list[int]) -> Config:
        """The configuration with seeds and a folder name that equal configurations share."""
        return dataclasses.replace(
            config,
            label=described(config, setting.base),
            first_seed=block[0],
            seeds=len(block),
            resume=True,
            data_dir=self.data_dir,
            jobs=self.jobs,
        )

    def _take_over(self, setting: Setting, missing: Sequence[tuple[Config, list[int]]]) -> None:
        """Add runs to the ledger that were complete before."""
        for config, block in missing:
            for seed in block:
                folder = run_dir.folder_of(self.folder / setting.name, self._named(config, setting, block), seed)
                self.ledger.add(config, seed, folder)

    def _line(self, config: Config, seed: int) -> Line:
        line = self.ledger.find(config, seed)
        assert line is not None, "the sweep has ended, so every run is in the ledger"
        self.used[line.key, seed] = line
        return line

    @property
    def trainings(self) -> Trainings | None:
        """The trainings behind a finding; None if nothing was trained."""
        if not self.used:
            return None
        keys = ("seconds", "compile_seconds")
        lines = self.used.values()
        seconds = sum(line.result.get(key, 0.0) for line in lines for key in keys)
        machines = Counter(sorted(line.machine for line in lines))
        return Trainings(len(lines), seconds, sorted({commit for x in lines for commit in x.commits}), dict(machines))
