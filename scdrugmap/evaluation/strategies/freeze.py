"""The strategy `freeze`: the encoder stays as it is, and a head is fitted on its embeddings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from scdrugmap.evaluation.cells.labelled_cells import LabelledData
from scdrugmap.evaluation.experiment import Experiment
from scdrugmap.evaluation.strategies.features import Features, FeatureView, encoder_of, make_features
from scdrugmap.evaluation.strategies.head import Head
from scdrugmap.evaluation.strategies.heads import HEADS, make_head
from scdrugmap.evaluation.strategies.strategy import FoldRows
from scdrugmap.progress import Progress

FEW_STEPS = 500  # of the optimiser: below it, a run says so


@dataclass(frozen=True)
class FittedFreeze:
    """A head and the vectors that it was fitted on."""

    head: Head
    view: FeatureView
    notes: Sequence[str]

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Return P(resistant) of rows of the material's table, (n_rows,) float32."""
        return self.head.predict_proba(self.view.of(rows))


class FreezeStrategy:
    """Fits the experiment's head on each training side."""

    may_abstain = False
    spent: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, experiment: Experiment, made: Features) -> None:
        self.experiment, self.made = experiment, made
        self.device, self.precision, self.weights = made.device, made.precision, made.weights
        self.chooses_epoch = HEADS[experiment.head].chooses_epoch

    @classmethod
    def from_experiment(
        cls,
        experiment: Experiment,
        material: LabelledData,
        *,
        folds: Iterable[FoldRows],
        device: str,
        cache: Path | None,
        progress: Progress,
        weights: str | None = None,
    ) -> FreezeStrategy:
        """Embed the cells, through the cache, where the model is not a baseline that is fitted on each side."""
        encoder = encoder_of(experiment, device, weights)
        return cls(experiment, make_features(material, encoder, cache, progress))

    def fit(self, train: np.ndarray, labels: np.ndarray, validation: np.ndarray | None, *, fold: str) -> FittedFreeze:
        """Fit the head on the training side's vectors; a baseline's genes and loadings as well."""
        experiment = self.experiment
        view = self.made.learn(train)
        device = self.device if self.device.startswith("cuda") else "cpu"
        head = make_head(experiment.head, seed=experiment.seed, device=device, **dict(experiment.options))
        head.fit(view.of(train), labels, validation)
        return FittedFreeze(head, view, self._notes(len(train) if validation is None else int((~validation).sum())))

    def _notes(self, n_train: int) -> list[str]:
        if not self.chooses_epoch:
            return []
        options = {**HEADS[self.experiment.head].options, **dict(self.experiment.options)}
        steps = options["epochs"] * -(-n_train // options["batch_size"])
        few = f"short training: {options['epochs']} epochs are under {FEW_STEPS} steps on so few cells"
        return [few] if steps < FEW_STEPS else []
