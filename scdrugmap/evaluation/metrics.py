"""What a score is: one frozen record per metric, the value a constant classifier has, and a bootstrap interval.

The positive class is `sensitive`, as in the paper; a cell with P(resistant) at or above the threshold is called
resistant. `prevalence` is the share of sensitive cells. What the cells do not define (AUROC of one class) is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from sklearn import metrics as sk

from scdrugmap.data.labels import is_sensitive
from scdrugmap.errors import InvalidInput
from scdrugmap.evaluation.weighted import ECE_BINS, Draws, Weighted, calibration_bins
from scdrugmap.registry import Registry

DRAWS = 1000
LEVEL = 0.95
_CHUNK = 4_000_000  # weights (draws x cells) held at once
_MOST_UNITS = 2000  # whose pairs are counted; above, cells are weighted one by one


@dataclass(frozen=True)
class Metric:
    """One metric: its words, and what the constant classifier named by `constant_rule` scores at a prevalence."""

    key: str
    title: str
    definition: str
    constant_rule: str
    constant: Callable[[float], float] = field(repr=False)
    higher_is_better: bool = True


def _majority(p: float) -> float:
    return max(p, 1 - p)


_ALWAYS_S, _ALWAYS_R = "every cell called sensitive", "every cell called resistant"
_MAJORITY, _ANY = "every cell called the commoner class", "every cell given the same score"
_SHARE = "every cell given the share of resistant cells as its P(resistant)"

_METRICS = (
    Metric("f1", "F1 (sensitive)", "2TP / (2TP + FP + FN), positive = sensitive", _ALWAYS_S, lambda p: 2 * p / (1 + p)),
    Metric(
        "f1_resistant",
        "F1 (resistant)",
        "2TN / (2TN + FP + FN): F1 with resistant as the positive class",
        _ALWAYS_R,
        lambda p: 2 * (1 - p) / (2 - p),
    ),
    Metric(
        "f1_macro",
        "F1 (macro)",
        "mean of the F1 of the two classes",
        _MAJORITY,
        lambda p: _majority(p) / (1 + _majority(p)),
    ),
    Metric(
        "auroc",
        "AUROC",
        "chance that a resistant cell has a higher P(resistant) than a sensitive one, ties half, over all cells",
        _ANY,
        lambda p: 0.5,
    ),
    Metric(
        "auroc_within",
        "AUROC within folds",
        "AUROC over pairs of cells of the same fold, so that heads of different folds are not put on one scale",
        _ANY,
        lambda p: 0.5,
    ),
    Metric("auprc", "AUPRC", "average precision of the sensitive class, ranked by falling P(sensitive)", _ANY, float),
    Metric("accuracy", "Accuracy", "share of cells called right", _MAJORITY, _majority),
    Metric("balanced_accuracy", "Balanced accuracy", "mean of the recall of the two classes", _ANY, lambda p: 0.5),
    Metric("precision", "Precision", "TP / (TP + FP): share of cells called sensitive that are", _ALWAYS_S, float),
    Metric("recall", "Recall", "TP / (TP + FN): share of sensitive cells called so", _ALWAYS_S, lambda p: 1.0),
    Metric("mcc", "MCC", "Matthews correlation; 0 where all cells are called alike", _ANY, lambda p: 0.0),
    Metric(
        "brier",
        "Brier score",
        "mean squared distance of P(resistant) from 0 (sensitive) or 1 (resistant)",
        _SHARE,
        lambda p: p * (1 - p),
        higher_is_better=False,
    ),
    Metric(
        "ece",
        "Calibration error",
        f"mean over cells of |mean P(resistant) - share resistant| in {ECE_BINS} bins of equal width",
        _SHARE,
        lambda p: 0.0,
        higher_is_better=False,
    ),
)
METRICS: Registry[Metric] = Registry("metric", lambda: _METRICS)


def _checked(labels: Iterable[object], p_resistant: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    sensitive = is_sensitive(np.asarray(labels, dtype=object))
    p = np.asarray(p_resistant, dtype=np.float64)
    if sensitive.shape != p.shape or p.ndim != 1 or not len(p):
        message = f"There are {sensitive.size} labels for scores of shape {p.shape}."
        raise InvalidInput(message, "Give one label and one P(resistant) a cell.")
    if not (np.isfinite(p).all() and p.min() >= 0 and p.max() <= 1):
        message = f"P(resistant) runs from {p.min():.3g} to {p.max():.3g}."
        raise InvalidInput(message, "Probabilities must be finite and between 0 and 1.")
    return sensitive, p


def constants(prevalence: float) -> dict[str, float]:
    """Return what the constant classifier of each metric scores where `prevalence` of the cells are sensitive."""
    return {key: float(metric.constant(prevalence)) for key, metric in METRICS.items()}


def score(
    labels: Iterable[object], p_resistant: np.ndarray, threshold: float = 0.5, folds: np.ndarray | None = None
) -> dict[str, float]:
    """Return every metric of one set of cells, NaN where the cells do not define it.

    Parameters
    ----------
    labels
        "sensitive" or "resistant" of each cell, (n_cells,).
    p_resistant
        P(resistant), (n_cells,), between 0 and 1.
    folds
        The fold each score comes from, (n_cells,), for `auroc_within`; None where one head scored all cells.
    """
    sensitive, p = _checked(labels, p_resistant)
    called = p < threshold
    share = sensitive.mean()
    f1 = [sk.f1_score(sensitive, called, pos_label=side, zero_division=np.nan) for side in (True, False)]
    values = {
        "f1": f1[0],
        "f1_resistant": f1[1],
        "accuracy": sk.accuracy_score(sensitive, called),
        "precision": sk.precision_score(sensitive, called, zero_division=np.nan),
        "recall": sk.recall_score(sensitive, called, zero_division=np.nan),
        "brier": sk.brier_score_loss(~sensitive, p, pos_label=True),
        "ece": _ece(sensitive, p),
    }
    if 0 < share < 1:
        values |= {
            "f1_macro": np.mean(f1),
            "auroc": sk.roc_auc_score(~sensitive, p),
            "auroc_within": Weighted(sensitive, p, np.ones((1, len(p))), folds=folds).auroc_within[0],
            "auprc": sk.average_precision_score(sensitive, -p),
            "balanced_accuracy": sk.balanced_accuracy_score(sensitive, called),
            "mcc": sk.matthews_corrcoef(sensitive, called),
        }
    return {key: float(values.get(key, np.nan)) for key in METRICS}


def _ece(sensitive: np.ndarray, p: np.ndarray) -> float:
    gap = np.bincount(calibration_bins(p), weights=p - ~sensitive, minlength=ECE_BINS)
    return float(np.abs(gap).sum() / len(p))


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

    Samples, where there are three or more and every class stands in two or more of them; otherwise cells, whose
    interval is too narrow, since cells of one sample resemble each other.
    """
    labels = np.asarray(labels, dtype=object)
    if groups is not None:
        names, index = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
        per_class = [len(np.unique(index[labels == label])) for label in set(labels)]
        if len(names) >= 3 and min(per_class) >= 2:
            return "sample", index
    return "cell", np.arange(len(labels))


def draw_units(n_units: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Return how often each unit is drawn when units are drawn with replacement, (draws, n_units) float64."""
    flat = rng.integers(0, n_units, size=(draws, n_units)) + n_units * np.arange(draws)[:, None]
    return np.bincount(flat.ravel(), minlength=n_units * draws).reshape(draws, n_units).astype(np.float64)


def draw_weights(unit: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Return how often each cell is drawn when its unit is drawn with replacement, (draws, n_cells) float64."""
    return draw_units(int(unit.max()) + 1, draws, rng)[:, unit]


def draw(unit: np.ndarray, draws: int, rng: np.random.Generator) -> Iterator[Draws]:
    """Draw units, (n_cells,) int from 0, with replacement, in parts that fit into memory.

    Where units hold several cells, and are not too many, all draws are one part that counts over the units.
    """
    n_units = int(unit.max()) + 1
    if n_units < len(unit) and n_units <= _MOST_UNITS:
        yield Draws(draw_units(n_units, draws, rng), unit)
        return
    step = max(1, _CHUNK // len(unit))
    for start in range(0, draws, step):
        yield Draws(draw_weights(unit, min(step, draws - start), rng))


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
    found: dict[str, list[np.ndarray]] = {key: [] for key in keys}
    for part in draw(index, draws, np.random.default_rng(seed)):
        cells = part.on(sensitive, p, threshold, folds)
        for key in keys:
            found[key].append(getattr(cells, key))
    values = {key: np.concatenate(parts) for key, parts in found.items()}
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
