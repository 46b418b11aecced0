"""What a score is: one frozen record per metric, the value a constant classifier has, and a bootstrap interval.

The positive class is `sensitive`, as in the paper; a cell with P(resistant) at or above the threshold is called
resistant. `prevalence` is the share of sensitive cells. What the cells do not define (AUROC of one class) is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from sklearn import metrics as sk

from scdrugmap.data.labels import is_sensitive
from scdrugmap.errors import InvalidInput
from scdrugmap.evaluation.metrics.resampled import ECE_BINS, CellBootstrap, calibration_bins, calibration_error
from scdrugmap.registry import Registry


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
        "ece": expected_calibration_error(p, ~sensitive),
    }
    if 0 < share < 1:
        values |= {
            "f1_macro": np.mean(f1),
            "auroc": sk.roc_auc_score(~sensitive, p),
            "auroc_within": CellBootstrap(sensitive, p, np.ones((1, len(p))), folds=folds).auroc_within[0],
            "auprc": sk.average_precision_score(sensitive, -p),
            "balanced_accuracy": sk.balanced_accuracy_score(sensitive, called),
            "mcc": sk.matthews_corrcoef(sensitive, called),
        }
    return {key: float(values.get(key, np.nan)) for key in METRICS}


def expected_calibration_error(
    p_resistant: np.ndarray, resistant: np.ndarray, weights: np.ndarray | None = None
) -> float:
    """Return the expected calibration error of P(resistant), (n_cells,) float64, against `resistant`, (n_cells,) bool.

    The mean over cells, or over their `weights` (n_cells,), of |mean P(resistant) - share resistant| of a cell's bin:
    `ECE_BINS` of equal width (Naeini et al. 2015, AAAI-15).
    """
    weights = np.ones(len(p_resistant)) if weights is None else weights
    gaps = np.bincount(calibration_bins(p_resistant), weights=weights * (p_resistant - resistant), minlength=ECE_BINS)
    return float(calibration_error(gaps, weights.sum()))
