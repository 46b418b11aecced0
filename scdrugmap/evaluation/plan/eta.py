"""How long a grid still takes, from what its finished experiments took."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import polars as pl

from scdrugmap.evaluation.cells.dataset_summary import DatasetSummary
from scdrugmap.evaluation.experiment import Experiment
from scdrugmap.evaluation.results.run_record import Run


@dataclass
class TimeEstimate:
    """How long experiments take, from the seconds a cell of those that were measured: the nearest kind of them."""

    cells: Mapping[str, int]  # by content of the data set
    _seconds: dict[tuple[str, ...], float] = field(default_factory=lambda: defaultdict(float))
    _cells: dict[tuple[str, ...], int] = field(default_factory=lambda: defaultdict(int))

    @classmethod
    def from_summaries(cls, known: Iterable[DatasetSummary], measured: pl.DataFrame | None = None) -> TimeEstimate:
        """Know the size of data sets and what was measured before, rows of `read_runs`."""
        pace = cls({summary.content: summary.n_cells for summary in known})
        for row in measured.to_dicts() if measured is not None else ():
            if row["state"] == "done":
                pace._learn((row["strategy"], row["model"], row["head"]), row["seconds"], row["n_cells"])
        return pace

    def learn(self, run: Run) -> None:
        """Take in what an experiment took."""
        experiment = run.experiment
        if run.outcome.state == "done":
            kind = (experiment.strategy, experiment.model, experiment.head)
            self._learn(kind, run.environment.seconds, self._size(experiment))

    def seconds(self, experiment: Experiment) -> float | None:
        """Return how long an experiment may take; None where nothing was measured."""
        kind = (experiment.strategy, experiment.model, experiment.head)
        for near in (kind, kind[:2], kind[:1], ()):
            if self._cells.get(near):
                return self._seconds[near] / self._cells[near] * self._size(experiment)
        return None

    def knows(self, experiment: Experiment) -> bool:
        """Tell whether the experiment's own model was measured under its strategy; all else is a guess."""
        return bool(self._cells.get((experiment.strategy, experiment.model)))

    def total(self, todo: Iterable[Experiment]) -> float | None:
        """Return how long experiments may take one after another; None where nothing was measured."""
        each = [self.seconds(experiment) for experiment in todo]
        known = [seconds for seconds in each if seconds is not None]
        return sum(known) if len(known) == len(each) else None

    def _size(self, experiment: Experiment) -> int:
        return sum(self.cells.get(content, 0) for content in experiment.contents)

    def _learn(self, kind: tuple[str, ...], seconds: float, cells: int) -> None:
        for near in (kind, kind[:2], kind[:1], ()):
            self._seconds[near] += seconds
            self._cells[near] += cells


def in_words(seconds: float | None) -> str:
    """Say a duration as a person would: "40 s", "12 min", "3.5 h"."""
    if seconds is None:
        return "unknown"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
