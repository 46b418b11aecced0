"""Intervals by the bootstrap: units drawn with replacement, samples where there are several, else cells.

Whatever is drawn with replacement, samples, patients, cells or data sets, is drawn by `draw_units`; for shares of cells
of too few samples there is Wilson's interval.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from scdrugmap.evaluation.metrics.metrics import METRICS, _checked
from scdrugmap.evaluation.metrics.resampled import CellBootstrap, ClusterBootstrap

DRAWS = 1000
LEVEL = 0.95
MIN_SAMPLES = 3  # fewer are no sample of samples: cells are drawn instead
_CHUNK = 4_000_000  # weights (draws x cells) held at once
_MOST_UNITS = 2000  # whose pairs are counted; above, cells are weighted one by one


@dataclass(frozen=True)
class Intervals:
    """Percentile intervals of one set of cells. `unit` says what was drawn: "sample" or "cell"."""

    unit: str
    n_units: int
    draws: int
    level: float
    interval: dict[str, tuple[float, float]]  # by metric; (NaN, NaN) where no draw defines it
    undefined: dict[str, int]  # draws left out because they do not define the metric, by metric, where there are any


def resampling_unit(labels: Iterable[object], groups: Iterable[object] | None) -> tuple[str, np.ndarray]:
    """Return what a bootstrap may draw, and the unit of each cell, (n_cells,) int.

    Samples, where there are `MIN_SAMPLES` or more and every class stands in two or more of them; otherwise cells, whose
    interval is too narrow, since cells of one sample resemble each other. Labels that play no part are all alike.
    """
    labels = np.asarray(labels, dtype=object)
    if groups is not None:
        names, index = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
        per_class = [len(np.unique(index[labels == label])) for label in set(labels)]
        if len(names) >= MIN_SAMPLES and min(per_class) >= 2:
            return "sample", index
    return "cell", np.arange(len(labels))


def draw_units(n_units: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Return how often each unit is drawn when units are drawn with replacement, (draws, n_units) float64."""
    flat = rng.integers(0, n_units, size=(draws, n_units)) + n_units * np.arange(draws)[:, None]
    return np.bincount(flat.ravel(), minlength=n_units * draws).reshape(draws, n_units).astype(np.float64)


def draw_weights(unit: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Return how often each cell is drawn when its unit is drawn with replacement, (draws, n_cells) float64."""
    return draw_units(int(unit.max()) + 1, draws, rng)[:, unit]


def draw(unit: np.ndarray, draws: int, rng: np.random.Generator) -> Iterator[BootstrapWeights]:
    """Draw units, (n_cells,) int from 0, with replacement, in parts that fit into memory.

    Where units hold several cells, and are not too many, all draws are one part that counts over the units.
    """
    n_units = int(unit.max()) + 1
    if n_units < len(unit) and n_units <= _MOST_UNITS:
        yield BootstrapWeights(draw_units(n_units, draws, rng), unit)
        return
    step = max(1, _CHUNK // len(unit))
    for start in range(0, draws, step):
        yield BootstrapWeights(draw_weights(unit, min(step, draws - start), rng))


def bootstrap(
    labels: Iterable[object],
    p_resistant: np.ndarray,
    groups: Iterable[object] | None = None,
    *,
    folds: np.ndarray | None = None,
    metrics: Iterable[str] | None = None,
    draws: int = DRAWS,
    level: float = LEVEL,
    threshold: float = 0.5,
    seed: int = 0,
) -> Intervals:
    """Return percentile bootstrap intervals, clustered over `groups` (samples) where there are several.

    All cells of a drawn sample come along, so that the interval says what other samples, not other cells of the same
    ones, would have changed. Draws that leave a metric undefined (one class only) are left out of it and counted.
    """
    labels = np.asarray(labels, dtype=object)
    sensitive, p = _checked(labels, p_resistant)
    unit, index = resampling_unit(labels, groups)
    keys = list(METRICS) if metrics is None else [METRICS[key].key for key in metrics]
    samples: dict[str, list[np.ndarray]] = {key: [] for key in keys}
    for part in draw(index, draws, np.random.default_rng(seed)):
        cells = part.on(sensitive, p, threshold, folds)
        for key in keys:
            samples[key].append(getattr(cells, key))
    values = {key: np.concatenate(parts) for key, parts in samples.items()}
    missing = {key: int(np.isnan(value).sum()) for key, value in values.items()}
    return Intervals(
        unit=unit,
        n_units=int(index.max()) + 1,
        draws=draws,
        level=level,
        interval={key: percentile(value, level) for key, value in values.items()},
        undefined={key: count for key, count in missing.items() if count},
    )


def percentile(values: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """Return the percentile interval of the defined draws, (NaN, NaN) where there is none."""
    defined = values[~np.isnan(values)]
    if not len(defined):
        return (float("nan"), float("nan"))
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return (float(low), float(high))


def wilson(count: ArrayLike, n: ArrayLike, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """Return Wilson's interval of shares `count` / `n`, (...,) each: two (...,), NaN where n is 0."""
    from statsmodels.stats.proportion import proportion_confint

    count, n = np.broadcast_arrays(np.asarray(count, dtype=np.float64), np.asarray(n, dtype=np.float64))
    low, high = np.full(n.shape, np.nan), np.full(n.shape, np.nan)
    some = n > 0
    low[some], high[some] = proportion_confint(count[some], n[some], alpha=1 - level, method="wilson")
    low[some & (count == 0)], high[some & (count == n)] = 0, 1  # which rounding would miss by its last digit
    return low, high


@dataclass(frozen=True, eq=False)
class BootstrapWeights:
    """B weightings of the same cells, by cell (B, N) or, with the unit of each cell, by unit (B, S)."""

    weights: np.ndarray
    unit: np.ndarray | None = None

    def on(
        self,
        sensitive: np.ndarray,
        p_resistant: np.ndarray,
        threshold: float = 0.5,
        folds: np.ndarray | None = None,
    ) -> CellBootstrap | ClusterBootstrap:
        """Put the weightings on cells: whether each is sensitive (N,), its P(resistant) (N,) and its fold (N,)."""
        if self.unit is None:
            return CellBootstrap(sensitive, p_resistant, self.weights, threshold, folds)
        return ClusterBootstrap(sensitive, p_resistant, self.weights, threshold, folds, self.unit)
