"""What a strategy is to the loop: something that learns from training rows and gives P(resistant) of others.

Rows are positions in the material's table. One learner serves all folds of an experiment; what it learns in one fold
must not reach another.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from scdrugmap.evaluation.cells.labelled_cells import LabelledData
from scdrugmap.evaluation.experiment import Experiment
from scdrugmap.progress import Progress

# By strategy; imported when asked for, as LoRA and prompting need packages of their own.
STRATEGY_CLASSES = {
    "freeze": "scdrugmap.evaluation.strategies.freeze:FreezeStrategy",
    "lora": "scdrugmap.evaluation.strategies.lora.fine_tune:LoraStrategy",
    "prompt": "scdrugmap.evaluation.strategies.prompt:PromptStrategy",
}


@dataclass(frozen=True, eq=False)
class FoldRows:
    """The sides of one fold that will be scored, as rows of the material's table."""

    train: np.ndarray  # (n_train,) int
    labels: np.ndarray  # (n_train,) "sensitive" or "resistant", of the training rows
    test: np.ndarray  # (n_test,) int


class FittedStrategy(Protocol):
    """What came out of one fold's training side."""

    @property
    def notes(self) -> Sequence[str]:
        """What a reader must know of the training, for the record's warnings."""

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Return P(resistant) of rows of the material's table, (n_rows,) float32; NaN where there is no answer."""


class Strategy(Protocol):
    """A strategy over one model and the cells of one experiment. `weights` is the hash of the encoder's."""

    device: str
    precision: str
    weights: str
    chooses_epoch: bool  # wants a validation part of the training side
    may_abstain: bool  # a NaN is a cell without an answer, which counts as wrong; of others it is a bug
    spent: Mapping[str, Any]  # what asking an endpoint took; empty where nothing leaves the machine

    def fit(self, train: np.ndarray, labels: np.ndarray, validation: np.ndarray | None, *, fold: str) -> FittedStrategy:
        """Learn from rows (n,) and their labels; `validation` (n,) bool marks the rows that choose the epoch."""


def make_strategy(
    experiment: Experiment,
    material: LabelledData,
    *,
    folds: Iterable[FoldRows],
    device: str,
    cache: Path | None,
    progress: Progress,
    weights: str | None = None,
) -> Strategy:
    """Return the learner that an experiment asks for; raises what its model raises for values it cannot take.

    `folds` are those that will be scored, read at most once, by a strategy that must know before the first what all of
    them take.
    """
    made: Strategy = pkgutil.resolve_name(STRATEGY_CLASSES[experiment.strategy]).from_experiment(
        experiment, material, folds=folds, device=device, cache=cache, progress=progress, weights=weights
    )
    return made
