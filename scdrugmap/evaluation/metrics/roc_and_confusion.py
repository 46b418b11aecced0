"""What some predictions look like: who was called what, the spread of each sample, ROC and precision-recall.

Predictions are rows of `results.PREDICTIONS`; the positive class is `sensitive`, as everywhere.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from sklearn import metrics as sk

from scdrugmap.data.labels import is_sensitive

_POINTS = 200  # of a curve: more than a screen shows
QUANTILES = (5, 25, 50, 75, 95)
_LABELS = ("sensitive", "resistant")


def confusion(predictions: pl.DataFrame, threshold: float = 0.5) -> pl.DataFrame:
    """Return four rows: `label`, `called`, `cells`, and `share` of the cells with that label (null where none has)."""
    called = pl.when(pl.col("p_resistant") >= threshold).then(pl.lit("resistant")).otherwise(pl.lit("sensitive"))
    counts = predictions.group_by("label", called=called).agg(cells=pl.len())
    every = pl.DataFrame([(a, b) for a in _LABELS for b in _LABELS], schema=["label", "called"], orient="row")
    table = every.join(counts, on=["label", "called"], how="left", maintain_order="left")
    table = table.with_columns(pl.col("cells").fill_null(0).cast(pl.Int64))
    return table.with_columns(share=(pl.col("cells") / pl.col("cells").sum().over("label")).fill_nan(None))


def by_sample(predictions: pl.DataFrame) -> pl.DataFrame:
    """Return the spread of P(resistant), one row a sample and label: `sample`, `label`, `n`, `p5` ... `p95`."""
    p = pl.col("p_resistant").cast(pl.Float64)
    spread = [p.quantile(q / 100, "linear").alias(f"p{q}") for q in QUANTILES]
    return predictions.group_by("sample", "label").agg(pl.len().alias("n"), *spread).sort("label", "sample")


def roc(predictions: pl.DataFrame) -> pl.DataFrame:
    """Return the ROC curve: `step`, `x` (false positive rate), `y` (true positive rate), `level` (chance).

    Empty where the predictions are of one class.
    """
    sensitive, p = _sides(predictions)
    if sensitive.all() or not sensitive.any():
        return _curve(np.zeros(0), np.zeros(0), np.zeros(0))
    x, y, _ = sk.roc_curve(sensitive, 1 - p)
    return _curve(x, y, x)


def precision_recall(predictions: pl.DataFrame) -> pl.DataFrame:
    """Return the precision-recall curve: `step`, `x` (recall), `y` (precision), `level` (share of sensitive cells).

    Empty where the predictions are of one class.
    """
    sensitive, p = _sides(predictions)
    if sensitive.all() or not sensitive.any():
        return _curve(np.zeros(0), np.zeros(0), np.zeros(0))
    precision, recall, _ = sk.precision_recall_curve(sensitive, 1 - p)
    return _curve(recall[::-1], precision[::-1], np.full(len(recall), sensitive.mean()))


def _sides(predictions: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    return is_sensitive(predictions["label"]), predictions["p_resistant"].to_numpy().astype(np.float64)


def _curve(x: np.ndarray, y: np.ndarray, level: np.ndarray) -> pl.DataFrame:
    """Thin a curve to `_POINTS`, its ends among them."""
    kept = np.unique(np.linspace(0, max(len(x) - 1, 0), min(len(x), _POINTS)).round().astype(int))
    return pl.DataFrame({"step": np.arange(len(kept)), "x": x[kept], "y": y[kept], "level": level[kept]})
