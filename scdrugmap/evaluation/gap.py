"""The leakage gap: how much higher a model scores where the split is by cell than where whole samples are held out.

Both splits score the same cells, so the two scores are compared on the same bootstrap draws of samples; where a split
was made with several seeds, a draw's score is the mean over them. What is left is what another choice of samples would
have changed, not what another shuffle would have.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from scdrugmap.data.labels import is_sensitive
from scdrugmap.errors import InvalidInput
from scdrugmap.evaluation.metrics import DRAWS, METRICS, draw_weights, percentile, resampling_unit
from scdrugmap.evaluation.weighted import Weighted


@dataclass(frozen=True)
class Gap:
    """One metric under two splits of the same cells; `value` is `leaky` minus `safe`, [`low`, `high`] 95 %."""

    metric: str
    leaky: float
    safe: float
    value: float
    low: float
    high: float
    unit: str  # what the bootstrap drew: "sample" or "cell"
    n_units: int
    n_seeds: int


def leakage_gap(
    leaky: Sequence[pl.DataFrame],
    safe: Sequence[pl.DataFrame],
    metrics: Iterable[str] = ("f1", "auroc", "auroc_within", "balanced_accuracy", "mcc"),
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[Gap]:
    """Return the gap of each metric between predictions under two splits, one table a seed (`results.PREDICTIONS`).

    Raises `InvalidInput` where the tables do not score the same cells.
    """
    tables = [table.sort("dataset", "cell", "sample") for table in (*leaky, *safe)]
    first = tables[0]
    for table in tables[1:]:
        if not table.select("dataset", "cell", "label").equals(first.select("dataset", "cell", "label")):
            message = "The predictions under the two splits are not of the same cells."
            raise InvalidInput(message, "Compare runs on the same data sets.")
    labels = first["label"].to_numpy()
    unit, index = resampling_unit(labels, first["sample"].to_numpy())
    drawn = draw_weights(index, draws, np.random.default_rng(seed))
    weights = np.concatenate([np.ones((1, len(first))), drawn])  # row 0: the cells as they are
    scored = [_weighted(table, weights) for table in tables]
    found = []
    for metric in metrics:
        values = [getattr(one, METRICS[metric].key) for one in scored]
        high, low = np.mean(values[: len(leaky)], axis=0), np.mean(values[len(leaky) :], axis=0)
        bounds = percentile((high - low)[1:])
        value = float(high[0] - low[0])
        found.append(Gap(metric, float(high[0]), float(low[0]), value, *bounds, unit, int(index.max()) + 1, len(leaky)))
    return found


def _weighted(table: pl.DataFrame, weights: np.ndarray) -> Weighted:
    sensitive, p = is_sensitive(table["label"]), table["p_resistant"].to_numpy().astype(np.float64)
    return Weighted(sensitive, p, weights, folds=table["split"].to_numpy())
