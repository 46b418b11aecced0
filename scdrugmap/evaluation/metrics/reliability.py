"""Whether P(resistant) means what it says: of the cells given 0.8, are eight in ten resistant?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from scdrugmap.data.labels import is_sensitive
from scdrugmap.evaluation.metrics.bootstrap import DRAWS, draw_units, percentile, resampling_unit, wilson
from scdrugmap.evaluation.metrics.metrics import METRICS, expected_calibration_error
from scdrugmap.evaluation.metrics.resampled import ECE_BINS, calibration_bins, calibration_error, divide

BINS = {
    "bin": pl.Int64,
    "left": pl.Float64,  # edges of the bin of P(resistant)
    "right": pl.Float64,
    "n": pl.Int64,  # cells
    "n_samples": pl.Int64,
    "mean_p": pl.Float64,  # mean P(resistant); null in an empty bin, as are the next three
    "observed": pl.Float64,  # share of resistant cells
    "low": pl.Float64,  # 95 % interval of the share
    "high": pl.Float64,
}


@dataclass(frozen=True, eq=False)
class Reliability:
    """The calibration of one set of predictions."""

    bins: pl.DataFrame  # columns of `BINS`, one row a bin, empty ones too
    unit: str  # of the intervals: "sample" (bootstrap over samples) or "cell" (Wilson; too narrow)
    n: int
    n_samples: int
    ece: float
    ece_low: float
    ece_high: float
    brier: float
    brier_constant: float  # of giving every cell the share of resistant cells
    overconfident: float  # mean distance of P from 0.5 minus that of the observed shares; above 0: too sure


def reliability(predictions: pl.DataFrame, *, draws: int = DRAWS, seed: int = 0) -> Reliability:
    """Return the calibration curve, ECE and Brier score of predictions (`results.PREDICTIONS`).

    Bins are those of the metric `ece`. Intervals draw whole samples where there are several (see
    `metrics.resampling_unit`), else they are Wilson's over cells.
    """
    sensitive = is_sensitive(predictions["label"])
    p = predictions["p_resistant"].to_numpy().astype(np.float64)
    samples = predictions["sample"].to_numpy().astype(str)
    unit, _ = resampling_unit(predictions["label"].to_numpy(), samples)
    names, index = np.unique(samples, return_inverse=True)
    flat, size = index * ECE_BINS + calibration_bins(p), len(names) * ECE_BINS
    cells, sums, resistant = (  # of each sample in each bin, (S, bins)
        np.bincount(flat, weights=weights, minlength=size).reshape(-1, ECE_BINS)
        for weights in (np.ones(len(p)), p, (~sensitive).astype(float))
    )
    if unit == "sample":
        low, high, bounds = _by_sample(cells, sums, resistant, draws, seed)
    else:
        low, high = wilson(resistant.sum(axis=0), cells.sum(axis=0))
        bounds = _by_cell(sensitive, p, draws, seed)
    table = _table(cells, sums, resistant, low, high)
    far = (pl.col("mean_p") - 0.5).abs() - (pl.col("observed") - 0.5).abs()
    return Reliability(
        bins=table,
        unit=unit,
        n=len(p),
        n_samples=len(names),
        ece=expected_calibration_error(p, ~sensitive),
        ece_low=bounds[0],
        ece_high=bounds[1],
        brier=float(np.mean((p - ~sensitive) ** 2)),
        brier_constant=float(METRICS["brier"].constant(float(sensitive.mean()))),
        overconfident=float(table.select((far * pl.col("n")).sum() / len(p)).item()),
    )


def _table(
    cells: np.ndarray, sums: np.ndarray, resistant: np.ndarray, low: np.ndarray, high: np.ndarray
) -> pl.DataFrame:
    total, edges = cells.sum(axis=0), np.linspace(0, 1, ECE_BINS + 1)
    columns = {
        "bin": np.arange(ECE_BINS),
        "left": edges[:-1],
        "right": edges[1:],
        "n": total.astype(int),
        "n_samples": (cells > 0).sum(axis=0),
        "mean_p": divide(sums.sum(axis=0), total),
        "observed": divide(resistant.sum(axis=0), total),
        "low": low,
        "high": high,
    }
    return pl.DataFrame(columns, schema=BINS).with_columns(pl.col("mean_p", "observed", "low", "high").fill_nan(None))


def _by_sample(
    cells: np.ndarray, sums: np.ndarray, resistant: np.ndarray, draws: int, seed: int
) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """Percentile intervals of each bin's share, and of the ECE, when samples are drawn anew."""
    counts = draw_units(len(cells), draws, np.random.default_rng(seed))  # (draws, S)
    total, p, r = counts @ cells, counts @ sums, counts @ resistant  # (draws, bins)
    bounds = np.array([percentile(column) for column in divide(r, total).T])  # (bins, 2)
    return bounds[:, 0], bounds[:, 1], percentile(calibration_error(p - r, total.sum(axis=1)))


def _by_cell(sensitive: np.ndarray, p: np.ndarray, draws: int, seed: int) -> tuple[float, float]:
    """Percentile interval of the ECE when cells are drawn anew, as `bootstrap` draws them.

    A draw counts what the cells are in bin and label: of 60,000 cells this takes milliseconds where `draw_units` takes
    seconds.
    """
    kind = calibration_bins(p) * 2 + sensitive
    of = np.bincount(kind, minlength=2 * ECE_BINS)
    mean_p = divide(np.bincount(kind, weights=p, minlength=2 * ECE_BINS), of)
    drawn = np.random.default_rng(seed).multinomial(len(p), of / len(p), size=draws)  # (draws, kinds)
    is_resistant = (np.arange(2 * ECE_BINS) % 2 == 0).astype(float)
    gaps = drawn * np.nan_to_num(mean_p - is_resistant)  # (draws, kinds)
    return percentile(calibration_error(gaps.reshape(draws, ECE_BINS, 2).sum(axis=2), np.full(draws, len(p))))
