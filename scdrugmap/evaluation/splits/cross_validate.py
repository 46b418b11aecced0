"""The folds of one experiment: dropped copies, splits, and a learner fitted and scored on each."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl

from scdrugmap.data.labels import SENSITIVE
from scdrugmap.errors import LabelsMissing
from scdrugmap.evaluation.cells.cell_table import CellMetadata
from scdrugmap.evaluation.cells.labelled_cells import LabelledData
from scdrugmap.evaluation.experiment import Experiment
from scdrugmap.evaluation.metrics.bootstrap import DRAWS
from scdrugmap.evaluation.metrics.failures import count_failures
from scdrugmap.evaluation.results.run_record import FoldScores, Outcome
from scdrugmap.evaluation.results.score_predictions import score_all, score_fold
from scdrugmap.evaluation.results.store import PREDICTIONS
from scdrugmap.evaluation.splits import protocols
from scdrugmap.evaluation.strategies.strategy import FittedStrategy, FoldRows, Strategy

_FEW_CELLS = 50  # of a class: below it, a run says so
TRANSFER = "transfer"  # names what is learned once for several test sets


class CrossValidation:
    """The cells and folds of one experiment, the same for every model and head that is asked the same question."""

    def __init__(
        self, experiment: Experiment, material: LabelledData, rows: np.ndarray, removed: int, notes: list[str]
    ):
        self.experiment, self.value_type = experiment, material.value_type
        self.contents = [source.content for source in material.sources]
        self.rows = rows  # of the material's table
        self.cells: CellMetadata = material.table.take(rows)
        self.removed, self.notes = removed, notes
        self.splits = protocols.splits(
            self.cells,
            experiment.protocol,
            experiment.split_by,
            experiment.folds,
            experiment.seed,
            train=experiment.train,
            shots=experiment.shots,
            reserve=experiment.reserve,
        )

    @classmethod
    def from_experiment(cls, experiment: Experiment, material: LabelledData) -> CrossValidation:
        """Drop copies, then split; raises where the protocol is not possible on these cells."""
        kept, copies, contrary = protocols.distinct(material.table)
        notes = protocols.warnings(material.table.take(kept), experiment.split_by)
        if contrary:
            notes.append(f"{contrary} cells stand in the data with both labels and were left out")
        for label in ("sensitive", "resistant"):
            n = int(np.count_nonzero(material.table.label[kept] == label))
            if n < _FEW_CELLS:
                notes.append(f"few cells: {n} {label}")
        rows = kept if experiment.protocol == "pooled" else np.arange(len(material.table))
        return cls(experiment, material, rows, copies + contrary, notes)

    def identity(self, *sides: str) -> str:
        """Return a hash of the scored folds' sides ("train", "test") over the content of the data sets.

        Equal where the same cells, by content, name, label and groups, stand in the same folds: of both sides, two runs
        answered one question; of "test" alone, they were scored on the same cells.
        """
        digest = hashlib.sha256("\n".join(self.contents).encode())
        for split in self.splits:
            for side in sides if not split.reason else ():
                rows = self.rows[getattr(split, side)].astype("<i8")
                digest.update(f"\n{split.name}\n{side}\n{len(rows)}\n".encode() + rows.tobytes())
        return f"sha256:{digest.hexdigest()}"

    def scored_rows(self) -> Iterator[FoldRows]:
        """Yield the sides of each fold that can be scored, as rows of the material's table."""
        for split in self.splits:
            if not split.reason:
                yield FoldRows(self.rows[split.train], self.cells.label[split.train], self.rows[split.test])

    def score(self, learner: Strategy, warnings: tuple[str, ...]) -> tuple[Outcome, pl.DataFrame]:
        """Fit and score every fold; return the outcome and the predictions of all scored cells."""
        scored = [split for split in self.splits if not split.reason]
        if not scored:
            raise LabelsMissing(self.splits[0].reason, self._remedy())
        notes = dict.fromkeys((*self.notes, *(note for split in scored for note in split.notes)))
        tables, parts = {}, {split.name: self._unscored(split) for split in self.splits}
        for split, p, more in self._predictions(scored, learner):
            tables[split.name] = self._table(split, p)
            notes |= dict.fromkeys(more)
            parts[split.name] = self._part(split, tables[split.name])
        predictions = pl.concat([tables[split.name] for split in scored])
        train = np.unique(np.concatenate([self.cells.dataset[split.train] for split in scored]))
        scores = [*score_all(predictions, train), *parts.values()]
        if scores[0].unit == "cell":
            notes |= dict.fromkeys(["interval over cells: there are too few samples, so that it is too narrow"])
        outcome = Outcome(
            "done",
            tuple(scores),
            warnings=(*warnings, *notes),
            duplicates_removed=self.removed,
            n_cells=len(self.cells),
            n_samples=self.cells.n_samples(),
            value_type=self.value_type,
            splits=self.identity("train", "test"),
            tests=self.identity("test"),
        )
        return outcome, predictions

    def _remedy(self) -> str:
        if self.experiment.shots:
            return "Ask for fewer shots, or add data sets."
        if self.experiment.train:
            return "Train on data sets of other studies, and of both classes."
        return "Add data sets of the other class."

    def _predictions(
        self, scored: Sequence[protocols.Split], learner: Strategy
    ) -> Iterator[tuple[protocols.Split, np.ndarray, list[str]]]:
        """Learn from each training side once, and yield P(resistant) of the test sides that go with it.

        A cell that the strategy has no answer for counts as wrong.
        """
        for _, together in itertools.groupby(scored, key=lambda split: split.train.tobytes()):
            group = list(together)
            learned, notes = self._learn(group[0], group[0].name if len(group) == 1 else TRANSFER, learner)
            for split in group:
                p = learned.predict(self.rows[split.test])
                if learner.may_abstain:
                    p = count_failures(p, self.cells.label[split.test] == SENSITIVE)
                yield split, p, [*notes, *learned.notes]

    def _learn(self, split: protocols.Split, fold: str, learner: Strategy) -> tuple[FittedStrategy, list[str]]:
        side = self.cells.take(split.train)
        validation, notes = self._validation(split) if learner.chooses_epoch else (None, [])
        return learner.fit(self.rows[split.train], side.label, validation, fold=fold), notes

    def _validation(self, split: protocols.Split) -> tuple[np.ndarray, list[str]]:
        """Return the cells of a training side that choose the epoch, and what a reader must know of it.

        Shots always train: the epoch is chosen on cells of the other units, the same ones at every number of shots.
        """
        ours = ~np.isin(split.train, split.shots)
        chosen, unit = protocols.validation_rows(
            self.cells.take(split.train[ours]), self.experiment.split_by, self.experiment.seed
        )
        notes = []
        marked = np.zeros(len(split.train), dtype=bool)
        if chosen is None:
            notes.append("too few training cells for a validation part: the last epoch is kept")
        else:
            marked[ours] = chosen
        if chosen is not None and unit != self.experiment.split_by:
            notes.append(f"the validation part of a training side is split by {unit}, as there are too few units")
        return marked, notes

    def _part(self, split: protocols.Split, rows: pl.DataFrame) -> FoldScores:
        draws = DRAWS if self.experiment.protocol == "cross-data" else 0  # there, a fold is a test set of its own
        train = np.unique(self.cells.dataset[split.train])
        part = score_fold(rows, split.name, train, n_train=len(split.train), draws=draws)
        return dataclasses.replace(part, left_out=split.left_out)

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

    def _unscored(self, split: protocols.Split) -> FoldScores:
        train, test = (tuple(np.unique(self.cells.dataset[side]).tolist()) for side in (split.train, split.test))
        return FoldScores(split.name, train, test, len(split.train), len(split.test), None, reason=split.reason)
