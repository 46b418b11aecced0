"""Metrics of many weightings of the same cells at once: what a bootstrap needs, without a Python loop over draws.

A draw of a bootstrap gives every cell a weight (how often it was drawn), or every sample (`ClusterBootstrap`), which
its cells share. Letters: B draws, N cells, S units, U distinct scores. `metrics.score` computes the same numbers for
one weighting with scikit-learn; tests compare all three.
"""

from __future__ import annotations

import abc
import functools
from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike

_BLOCK = 4_000_000  # numbers (draws x cells, or scores x units) held at once
ECE_BINS = 10  # of equal width over P(resistant): [0, 0.1), [0.1, 0.2), ..., [0.9, 1]


def calibration_bins(p_resistant: np.ndarray) -> np.ndarray:
    """Return the calibration bin of each cell, (N,) int, from P(resistant)."""
    return np.minimum((np.asarray(p_resistant, dtype=np.float64) * ECE_BINS).astype(int), ECE_BINS - 1)


def calibration_error(gaps: np.ndarray, total: ArrayLike) -> np.ndarray:
    """Return the expected calibration error of weighted cells, (...,), NaN where there are none.

    `gaps`, (..., `ECE_BINS`), is the sum over the cells of a bin of weight x (P(resistant) - resistant); `total`,
    (...,), the sum of all weights. Each bin counts by its weight.
    """
    return divide(np.abs(gaps).sum(axis=-1), total)


def divide(above: ArrayLike, below: ArrayLike) -> np.ndarray:
    """Divide elementwise; where nothing is below the line the result is NaN, not an error."""
    below = np.asarray(below, dtype=np.float64)
    out = np.full(below.shape, np.nan)
    np.divide(above, below, out=out, where=below > 0)
    return out


@dataclass(frozen=True, eq=False)
class _Metrics(abc.ABC):
    """Every metric from sums over cells and from counts of ranked pairs, which the two ways of weighting compute."""

    sensitive: np.ndarray  # (N,) bool
    p_resistant: np.ndarray  # (N,)
    weights: np.ndarray  # (B, N), or (B, S) of the S units that cells belong to
    threshold: float = 0.5  # a cell with P(resistant) at or above it is called resistant
    folds: np.ndarray | None = None  # (N,) the part each score comes from; None = one

    @abc.abstractmethod
    def _sums(self, columns: np.ndarray) -> np.ndarray:
        """Sum of each column of a (N, K) matrix over the weighted cells, (B, K)."""

    @abc.abstractmethod
    def _pairs(self, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weight of (sensitive, resistant) pairs ranked rightly, ties half, and of all pairs: two (B,)."""

    @functools.cached_property
    def _table(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        called = self.p_resistant < self.threshold
        cells = np.stack([s & c for s in (self.sensitive, ~self.sensitive) for c in (called, ~called)], axis=1)
        tp, fn, fp, tn = self._sums(cells.astype(np.float64)).T  # each (B,); positive = sensitive
        return tp, fn, fp, tn

    @property
    def _total(self) -> np.ndarray:
        return sum(self._table)  # type: ignore[return-value]

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
        return divide(self._sums(((self.p_resistant - ~self.sensitive) ** 2)[:, None])[:, 0], self._total)

    @property
    def ece(self) -> np.ndarray:
        """Expected calibration error over `ECE_BINS` bins of equal width."""
        one_hot = np.eye(ECE_BINS)[calibration_bins(self.p_resistant)]  # (N, bins)
        gaps = self._sums(one_hot * (self.p_resistant - ~self.sensitive)[:, None])  # (B, bins)
        return calibration_error(gaps, self._total)

    @property
    def auroc(self) -> np.ndarray:
        """Chance that a resistant cell has the higher P(resistant) than a sensitive one, ties half."""
        return divide(*self._pairs(np.arange(len(self.sensitive))))

    @property
    def auroc_within(self) -> np.ndarray:
        """The same over pairs of cells of one fold only."""
        folds = np.zeros(len(self.sensitive)) if self.folds is None else np.asarray(self.folds)
        parts = [self._pairs(np.flatnonzero(folds == fold)) for fold in np.unique(folds)]
        return divide(sum(right for right, _ in parts), sum(pairs for _, pairs in parts))


@dataclass(frozen=True, eq=False)
class CellBootstrap(_Metrics):
    """Cells with B weightings of each; every metric is a (B,) float64 array, NaN where a draw leaves it undefined."""

    def _sums(self, columns: np.ndarray) -> np.ndarray:
        return self.weights @ columns

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
    def auprc(self) -> np.ndarray:
        """Average precision of the sensitive class, cells ranked by falling P(sensitive)."""
        sensitive, resistant = self._steps(np.arange(len(self.sensitive)))
        hits, drawn = np.cumsum(sensitive, axis=1), np.cumsum(sensitive + resistant, axis=1)
        area = (sensitive * np.nan_to_num(divide(hits, drawn))).sum(axis=1)
        return np.where(self._both, divide(area, hits[:, -1]), np.nan)


@dataclass(frozen=True, eq=False)
class ClusterBootstrap(_Metrics):
    """Cells of S units with B weightings of the units: the same metrics, after one pass over the cells.

    A sum over cells is a sum over units. The pairs that a ranking gets right are counted once for each pair of units,
    M (S, S), and a weighting w gives w M w; only `auprc` is not of that form and goes through the cells.
    """

    unit: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=int))  # (N,) the unit of each cell, 0 to S - 1

    def _sums(self, columns: np.ndarray) -> np.ndarray:
        of_units = np.stack([self._count(self.unit, column) for column in columns.T], axis=1)  # (S, K)
        return np.asarray(self.weights @ of_units)

    def _count(self, unit: np.ndarray, values: np.ndarray) -> np.ndarray:
        return np.bincount(unit, weights=values, minlength=self.weights.shape[1])

    def _pairs(self, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        unit, sensitive = self.unit[cells], self.sensitive[cells]
        right = ((self.weights @ self._ranked(cells)) * self.weights).sum(axis=1)
        s, r = (self.weights @ self._count(unit, side.astype(np.float64)) for side in (sensitive, ~sensitive))
        return right, s * r

    def _ranked(self, cells: np.ndarray) -> np.ndarray:
        """Pairs ranked rightly, ties half, of sensitive cells of one unit and resistant ones of another, (S, S)."""
        order = cells[np.argsort(self.p_resistant[cells], kind="stable")]
        scores, unit, sensitive = self.p_resistant[order], self.unit[order], self.sensitive[order]
        step = np.cumsum(np.r_[False, scores[1:] != scores[:-1]])  # place of each cell's score among the distinct ones
        n_units, n_steps = self.weights.shape[1], int(step[-1]) + 1
        pairs, below = np.zeros((n_units, n_units)), np.zeros(n_units)
        width = min(n_steps, max(1, _BLOCK // n_units))
        for start in range(0, n_steps, width):
            first, last = np.searchsorted(step, [start, start + width])
            at, units, sides = step[first:last] - start, unit[first:last], sensitive[first:last]
            counts = np.bincount(at[sides] * n_units + units[sides], minlength=width * n_units).reshape(width, n_units)
            lower = below + np.cumsum(counts, axis=0) - counts / 2  # sensitive cells of each unit below each score
            resistant = sp.csr_matrix((np.ones((~sides).sum()), (units[~sides], at[~sides])), shape=(n_units, width))
            pairs += (resistant @ lower).T
            below += counts.sum(axis=0)
        return pairs

    @property
    def auprc(self) -> np.ndarray:
        """Average precision of the sensitive class, cells ranked by falling P(sensitive)."""
        rows = max(1, _BLOCK // len(self.unit))
        parts = [self.weights[start : start + rows] for start in range(0, len(self.weights), rows)]
        return np.concatenate(
            [
                CellBootstrap(self.sensitive, self.p_resistant, part[:, self.unit], self.threshold).auprc
                for part in parts
            ]
        )
