"""The strategy `lora`: adapters in the encoder and the paper's head, trained together on each training side."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from scdrugmap.errors import InvalidInput
from scdrugmap.evaluation.cells.labelled_cells import LabelledData
from scdrugmap.evaluation.experiment import Experiment
from scdrugmap.evaluation.strategies.features import encoder_of
from scdrugmap.evaluation.strategies.freeze import FEW_STEPS
from scdrugmap.evaluation.strategies.head import resistant_of
from scdrugmap.evaluation.strategies.lora.adapter_files import Adapted, folder_of, save_adapted
from scdrugmap.evaluation.strategies.lora.train import History, TrainingPool, train_adapters
from scdrugmap.evaluation.strategies.lora.training_options import LoraOptions
from scdrugmap.evaluation.strategies.strategy import FoldRows
from scdrugmap.models import MODELS
from scdrugmap.models.core.lora_adapters import Adapters
from scdrugmap.progress import Progress, reporting

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class FittedLora:
    """What one fold's training gave, and what happened in it."""

    adapted: Adapted
    pool: TrainingPool
    history: History
    notes: Sequence[str]

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Return P(resistant) of rows of the material's table, (n_rows,) float32."""
        return self.adapted.predict_rows(self.pool, rows)


class LoraStrategy:
    """Trains new adapters and a new head on each training side; the encoder itself never changes."""

    spent: Mapping[str, Any] = MappingProxyType({})
    chooses_epoch = True
    may_abstain = False

    def __init__(
        self, experiment: Experiment, pool: TrainingPool, options: LoraOptions, cache: Path | None, progress: Progress
    ) -> None:
        self.experiment, self.pool, self.options, self.cache, self.progress = experiment, pool, options, cache, progress
        self.device, self.precision = str(pool.encoder.device), pool.encoder.precision
        self.weights = pool.encoder.weights_hash

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
    ) -> LoraStrategy:
        """Tokenize the cells; `cache` is the store of embeddings, beside which the adapters are kept, or None.

        Raises `UnknownName` and `InvalidInput` for options and models that LoRA cannot be done with, and what the
        encoder raises for values that it cannot take.
        """
        options, card = LoraOptions.from_options(experiment.options), MODELS.get(experiment.model)
        if card is None:
            message = f"'{experiment.model}' has no network that LoRA could adapt."
            raise InvalidInput(message, "Use strategy 'freeze'.")
        Adapters.new(card)  # refuses a model without linears before its weights are looked for
        encoder = encoder_of(experiment, device, weights)
        assert encoder is not None, "only the constant classifier has none"
        pool = TrainingPool.from_adatas(
            encoder, [source.adata for source in material.sources], options, experiment.seed
        )
        return cls(experiment, pool, options, cache, progress)

    def fit(self, train: np.ndarray, labels: np.ndarray, validation: np.ndarray | None, *, fold: str) -> FittedLora:
        """Train on rows (n,) that `validation` (n,) bool does not mark; those choose the step. Keep what comes out."""
        held = np.zeros(len(train), dtype=bool) if validation is None else validation
        resistant = resistant_of(train, labels)
        with reporting(self.progress, self.options.budget(int((~held).sum())), "step") as tell:
            adapters, head, history = train_adapters(self.pool, train, resistant, held, self.options, tell)
        learned = Adapted(self.pool.encoder, adapters, head, self.options, self.experiment.seed)
        notes = [*self._notes(history, fold), *self._keep(learned, history, fold)]
        return FittedLora(learned, self.pool, history, notes)

    def _notes(self, history: History, fold: str) -> list[str]:
        notes = []
        if history.budget < FEW_STEPS:
            notes.append(f"short training: under {FEW_STEPS} steps of {history.batch_size} cells")
        how = f"fold {fold}: step {history.chosen} of {history.budget} is kept"
        if not history.validation:
            return [*notes, f"{how}, the last, as no validation part chooses"]
        early = f", training ended at {history.steps}" if history.steps < history.budget else ""
        return [*notes, f"{how} (validation loss {min(history.validation):.4f}{early})"]

    def _keep(self, learned: Adapted, history: History, fold: str) -> list[str]:
        """Write the adapters; a disk that is full costs them, not the result."""
        if self.cache is None:
            return []
        folder = folder_of(self.cache, self.experiment.run_id, fold)
        try:
            save_adapted(learned, folder, self.experiment, fold, history)
        except OSError as error:
            log.warning("adapters of fold %s are not kept: %s", fold, error)
            return [f"the adapters of fold {fold} could not be kept"]
        return []
