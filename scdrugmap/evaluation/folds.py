"""The folds of one experiment: dropped copies, splits, and a learner fitted and scored on each."""

from __future__ import annotations

import numpy as np
import polars as pl

from scdrugmap.errors import LabelsMissing
from scdrugmap.evaluation import protocols
from scdrugmap.evaluation.cells import CellTable
from scdrugmap.evaluation.experiment import Experiment
from scdrugmap.evaluation.learners import Learner
from scdrugmap.evaluation.material import Material
from scdrugmap.evaluation.metrics import DRAWS
from scdrugmap.evaluation.records import Outcome, Part
from scdrugmap.evaluation.results import PREDICTIONS
from scdrugmap.evaluation.scoring import score_all, score_part

FEW_CELLS = 50  # of a class: below it, a run says so


class Folds:
    """The cells and folds of one experiment, the same for every model and head that is asked the same question."""

    def __init__(self, experiment: Experiment, material: Material, rows: np.ndarray, removed: int, notes: list[str]):
        self.experiment, self.value_type = experiment, material.value_type
        self.rows = rows  # of the material's table
        self.cells: CellTable = material.table.take(rows)
        self.removed, self.notes = removed, notes
        self.splits = protocols.splits(
            self.cells, experiment.protocol, experiment.split_by, experiment.folds, experiment.seed
        )

    @classmethod
    def of(cls, experiment: Experiment, material: Material) -> Folds:
        """Drop copies, then split; raises where the protocol is not possible on these cells."""
        kept, copies, contrary = protocols.distinct(material.table)
        notes = protocols.warnings(material.table.take(kept), experiment.split_by)
        if contrary:
            notes.append(f"{contrary} cells stand in the data with both labels and were left out")
        for label in ("sensitive", "resistant"):
            n = int(np.count_nonzero(material.table.label[kept] == label))
            if n < FEW_CELLS:
                notes.append(f"few cells: {n} {label}")
        rows = kept if experiment.protocol == "pooled" else np.arange(len(material.table))
        return cls(experiment, material, rows, copies + contrary, notes)

    def score(self, learner: Learner, said: tuple[str, ...]) -> tuple[Outcome, pl.DataFrame]:
        """Fit and score every fold; return the outcome and the predictions of all scored cells."""
        tables, parts, notes = [], [], dict.fromkeys(self.notes)
        for split in self.splits:
            if split.reason:
                parts.append(self._unscored(split))
                continue
            p, more = self._predict(split, learner)
            tables.append(self._table(split, p))
            notes |= dict.fromkeys(more)
            draws = DRAWS if self.experiment.protocol == "cross-data" else 0  # there, a fold is a test set of its own
            train = np.unique(self.cells.dataset[split.train])
            parts.append(score_part(tables[-1], split.name, train, n_train=len(split.train), draws=draws))
        if not tables:
            raise LabelsMissing(parts[0].reason, "Add data sets of the other class.")
        predictions = pl.concat(tables)
        scored = [split for split in self.splits if not split.reason]
        train = np.unique(np.concatenate([self.cells.dataset[split.train] for split in scored]))
        parts = [*score_all(predictions, train), *parts]
        if parts[0].unit == "cell":
            notes |= dict.fromkeys(["interval over cells: there are too few samples, so that it is too narrow"])
        outcome = Outcome(
            "done",
            tuple(parts),
            warnings=(*said, *notes),
            duplicates_removed=self.removed,
            n_cells=len(self.cells),
            n_samples=self.cells.n_samples(),
            value_type=self.value_type,
        )
        return outcome, predictions

    def _predict(self, split: protocols.Split, learner: Learner) -> tuple[np.ndarray, list[str]]:
        """Learn from the training side; return P(resistant) of the test side and what there is to say."""
        side = self.cells.take(split.train)
        validation, notes = self._validation(side) if learner.chooses_epoch else (None, [])
        learned = learner.fit(self.rows[split.train], side.label, validation, fold=split.name)
        return learned.predict(self.rows[split.test]), [*notes, *learned.notes]

    def _validation(self, side: CellTable) -> tuple[np.ndarray, list[str]]:
        """Return the cells of a training side that choose the epoch, and what a reader must know of it."""
        chosen, unit = protocols.validation_rows(side, self.experiment.split_by, self.experiment.seed)
        notes = []
        if chosen is None:
            chosen = np.zeros(len(side), dtype=bool)
            notes.append("too few training cells for a validation part: the last epoch is kept")
        elif unit != self.experiment.split_by:
            notes.append(f"the validation part of a training side is split by {unit}, as there are too few units")
        return chosen, notes

    def _table(self, split: protocols.Split, p: np.ndarray) -> pl.DataFrame:
        cells = self.cells.take(split.test)
        columns = {
            "cell": cells.name,
            "dataset": cells.dataset,
            "sample": cells.sample,
            "split": [split.name] * len(cells),
            "label": cells.label.astype(str),
            "p_resistant": p,
        }
        return pl.DataFrame(columns, schema=PREDICTIONS)

    def _unscored(self, split: protocols.Split) -> Part:
        train, test = (tuple(np.unique(self.cells.dataset[side]).tolist()) for side in (split.train, split.test))
        return Part(split.name, train, test, len(split.train), len(split.test), None, reason=split.reason)
