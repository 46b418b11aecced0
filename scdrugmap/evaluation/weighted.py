"""Metrics of many weightings of the same cells at once: what a bootstrap needs, without a Python loop over draws.

A draw of a bootstrap gives every cell a weight (how often it was drawn). Letters: B draws, N cells, U distinct
scores. `metrics.score` computes the same numbers for one weighting with scikit-learn; a test compares the two.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

ECE_BINS = 10  # of equal width over P(resistant): [0, 0.1), [0.1, 0.2), ..., [0.9, 1]


def calibration_bins(p_resistant: np.ndarray) -> np.ndarray:
    """Return the calibration bin of each cell, (N,) int, from P(resistant)."""
    return np.minimum((np.asarray(p_resistant, dtype=np.float64) * ECE_BINS).astype(int), ECE_BINS - 1)


def divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Divide elementwise; where nothing is below the line the result is NaN, not an error."""
    below = np.asarray(below, dtype=np.float64)
    out = np.full(below.shape, np.nan)
    np.divide(above, below, out=out, where=below > 0)
    return out


@dataclass(frozen=True, eq=False)
class Weighted:
    """Cells with B weightings; every metric is a (B,) float64 array, NaN where a draw leaves it undefined."""

    sensitive: np.ndarray  # (N,) bool
    p_resistant: np.ndarray  # (N,)
    weights: np.ndarray  # (B, N)
    threshold: float = 0.5  # a cell with P(resistant) at or above it is called resistant
    folds: np.ndarray | None = None  # (N,) the part each score comes from; None = one

    @functools.cached_property
    def _table(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        called = self.p_resistant < self.threshold
        cells = np.stack([s & c for s in (self.sensitive, ~self.sensitive) for c in (called, ~called)], axis=1)
        tp, fn, fp, tn = (self.weights @ cells.astype(np.float64)).T  # each (B,); positive = sensitive
        return tp, fn, fp, tn

    @property
    def _both(self) -> np.ndarray:
        tp, fn, fp, tn = self._table
        return (tp + fn > 0) & (fp + tn > 0)

    @property
    def accuracy(self) -> np.ndarray:
        """Share of cells called right."""
        tp, fn, fp, tn = self._table
        return divide(tp + tn, tp + fn + fp + tn)

    @property
    def precision(self) -> np.ndarray:
        """Share of the cells called sensitive that are."""
        tp, _, fp, _ = self._table
        return divide(tp, tp + fp)

    @property
    def recall(self) -> np.ndarray:
        """Share of the sensitive cells that are called so."""
        tp, fn, _, _ = self._table
        return divide(tp, tp + fn)

    @property
    def f1(self) -> np.ndarray:
        """F1 of the sensitive class."""
        tp, fn, fp, _ = self._table
        return divide(2 * tp, 2 * tp + fp + fn)

    @property
    def f1_resistant(self) -> np.ndarray:
        """F1 of the resistant class."""
        _, fn, fp, tn = self._table
        return divide(2 * tn, 2 * tn + fp + fn)

    @property
    def f1_macro(self) -> np.ndarray:
        """Mean of the two classes' F1."""
        return np.where(self._both, (self.f1 + self.f1_resistant) / 2, np.nan)

    @property
    def balanced_accuracy(self) -> np.ndarray:
        """Mean of the two classes' recall."""
        tp, fn, fp, tn = self._table
        return (divide(tp, tp + fn) + divide(tn, fp + tn)) / 2

    @property
    def mcc(self) -> np.ndarray:
        """Matthews correlation; 0 where all cells are called alike, as in scikit-learn."""
        tp, fn, fp, tn = self._table
        below = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
        return np.where(self._both, np.nan_to_num(divide(tp * tn - fp * fn, below)), np.nan)

    @property
    def brier(self) -> np.ndarray:
        """Mean squared distance of P(resistant) from 0 (sensitive) or 1 (resistant)."""
        return divide(self.weights @ (self.p_resistant - ~self.sensitive) ** 2, self.weights.sum(axis=1))

    @property
    def ece(self) -> np.ndarray:
        """Expected calibration error over `ECE_BINS` bins of equal width."""
        one_hot = np.eye(ECE_BINS)[calibration_bins(self.p_resistant)]  # (N, bins)
        gap = self.weights @ (one_hot * (self.p_resistant - ~self.sensitive)[:, None])  # (B, bins)
        return divide(np.abs(gap).sum(axis=1), self.weights.sum(axis=1))

    def _steps(self, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weight of sensitive and of resistant cells at each distinct score, ascending: two (B, U)."""
        order = cells[np.argsort(self.p_resistant[cells], kind="stable")]
        scores = self.p_resistant[order]
        starts = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]])
        weights, sensitive = self.weights[:, order], self.sensitive[order]
        return tuple(np.add.reduceat(weights * side, starts, axis=1) for side in (sensitive, ~sensitive))  # type: ignore[return-value]

    def _pairs(self, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weight of (sensitive, resistant) pairs ranked rightly, ties half, and of all pairs: two (B,)."""
        sensitive, resistant = self._steps(cells)
        right = (resistant * (np.cumsum(sensitive, axis=1) - sensitive / 2)).sum(axis=1)
        return right, sensitive.sum(axis=1) * resistant.sum(axis=1)

    @property
    def auroc(self) -> np.ndarray:
        """Chance that a resistant cell has the higher P(resistant) than a sensitive one, ties half."""
        return divide(*self._pairs(np.arange(len(self.sensitive))))

    @property
    def auroc_within(self) -> np.ndarray:
        """The same over pairs of cells of one fold only."""
        folds = np.zeros(len(self.sensitive)) if self.folds is None else np.asarray(self.folds)
        parts = [self._pairs(np.flatnonzero(folds == fold)) for fold in np.unique(folds)]
        return divide(sum(right for right, _ in parts), sum(pairs for _, pairs in parts))  # type: ignore[arg-type]

    @property
    def auprc(self) -> np.ndarray:
        """Average precision of the sensitive class, cells ranked by falling P(sensitive)."""
        sensitive, resistant = self._steps(np.arange(len(self.sensitive)))
        found, drawn = np.cumsum(sensitive, axis=1), np.cumsum(sensitive + resistant, axis=1)
        area = (sensitive * np.nan_to_num(divide(found, drawn))).sum(axis=1)
        return np.where(self._both, divide(area, found[:, -1]), np.nan)
