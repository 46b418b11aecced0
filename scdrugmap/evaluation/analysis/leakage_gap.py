"""The leakage gap: how much higher a model scores where the split is by cell than where whole samples are held out.

Both splits score the same cells, so the two scores are compared on the same bootstrap draws of samples; where a split
was made with several seeds, a draw's score is the mean over them. What is left is what another choice of samples would
have changed, not what another shuffle would have.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from scdrugmap.data.labels import is_sensitive
from scdrugmap.errors import InvalidInput, UnknownName
from scdrugmap.evaluation.analysis.scores import chosen
from scdrugmap.evaluation.metrics.bootstrap import DRAWS, BootstrapWeights, draw, percentile, resampling_unit
from scdrugmap.evaluation.metrics.metrics import METRICS

_SAFE_SPLITS = ("study", "dataset", "patient_or_line", "sample")  # strictest first
_USUAL = ("f1", "auroc", "auroc_within", "balanced_accuracy", "mcc")
GAP_ENTRY = ("model", "head", "strategy", "variant")
GAP_CELLS = ("facet", "facet_value", "test", "design")
GAPS: dict[str, Any] = {
    **dict.fromkeys((*GAP_ENTRY, *GAP_CELLS), pl.String),
    "test": pl.List(pl.String),
    "split_by": pl.String,  # the leak-safe split
    "strictest": pl.Boolean,  # no stricter leak-safe split was run on these cells
    "metric": pl.String,
    "by_cell": pl.Float64,  # means over seeds
    "safe": pl.Float64,
    "gap": pl.Float64,  # by_cell minus safe, turned so that it is positive where the split by cell looks better
    "low": pl.Float64,  # 95 %
    "high": pl.Float64,
    "unit": pl.String,  # what the bootstrap drew: "sample" or "cell"; "" where there is no gap
    "n_units": pl.Int64,
    "n": pl.Int64,  # cells
    "seeds": pl.Int64,  # of the split with fewer
    "simulated": pl.Boolean,
    "reason": pl.String,  # why there is no gap
}


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
    n_seeds: int  # of the split with fewer


def leakage_gap(
    leaky: Sequence[pl.DataFrame],
    safe: Sequence[pl.DataFrame],
    metrics: Iterable[str] = _USUAL,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[Gap]:
    """Return the gap of each metric between predictions under two splits, one table a seed (`results.PREDICTIONS`).

    Draws are made in parts, so that memory does not grow with the number of cells. Raises `InvalidInput` where the
    tables do not score the same cells.
    """
    tables = _same_cells([*leaky, *safe])
    labels = tables[0]["label"].to_numpy()
    unit, index = resampling_unit(labels, tables[0]["sample"].to_numpy())
    sensitive = is_sensitive(labels)
    predicted = [(table["p_resistant"].to_numpy().astype(np.float64), table["split"].to_numpy()) for table in tables]
    keys = [METRICS[metric].key for metric in metrics]
    rng = np.random.default_rng(seed)
    as_they_are = BootstrapWeights(np.ones((1, len(index))))
    values: list[np.ndarray] = []  # each (metrics, tables, weightings)
    for part in itertools.chain([as_they_are], draw(index, draws, rng)):
        scored = [part.on(sensitive, p, folds=folds) for p, folds in predicted]
        values.append(np.array([[getattr(scores, key) for scores in scored] for key in keys]))
    joined = np.concatenate(values, axis=2)
    high, low = joined[:, : len(leaky)].mean(axis=1), joined[:, len(leaky) :].mean(axis=1)  # (metrics, weightings)
    n_seeds = min(len(leaky), len(safe))
    return [
        Gap(key, float(a[0]), float(b[0]), float(a[0] - b[0]), *percentile((a - b)[1:]), unit, index.max() + 1, n_seeds)
        for key, a, b in zip(keys, high, low, strict=True)
    ]


def _same_cells(tables: Sequence[pl.DataFrame]) -> list[pl.DataFrame]:
    ordered = [table.sort("dataset", "cell", "sample") for table in tables]
    first = ordered[0].select("dataset", "cell", "label")
    if not all(table.select("dataset", "cell", "label").equals(first) for table in ordered[1:]):
        message = "The predictions under the two splits are not of the same cells."
        raise InvalidInput(message, "Compare runs on the same data sets.")
    return ordered


def gaps(
    scores: pl.DataFrame,
    predictions: Callable[[str], pl.DataFrame],
    metrics: Sequence[str] = _USUAL,
    *,
    draws: int = DRAWS,
    **where: object,
) -> pl.DataFrame:
    """Return the leakage gap of every pooled entry that was scored by cell and leak-safe on the same cells.

    One row an entry, set of cells, leak-safe split and metric, columns as `GAPS`, the largest gap last. Predictions
    are read one entry at a time. Where they are not here, or are of other cells, the gap is null and `reason` says so.

    Parameters
    ----------
    scores
        Columns as `results.SCORES`; tells which runs belong together.
    predictions
        Gives the predictions of a run: `lambda run_id: results.read_predictions(run_id, settings)`.
    metrics
        Keys of `METRICS`.
    where
        A value, or a list of values, of any column of `scores`: `model`, `facet_value`, ...
    """
    rows = scores.filter(
        (pl.col("source") != "reported") & (pl.col("protocol") == "pooled") & (pl.col("fold") == "all"),
        pl.col("split_by").is_in(("cell", *_SAFE_SPLITS)),
        *(chosen(name, value) for name, value in where.items()),
    )
    rows = rows.unique(["run_id"], maintain_order=True)
    differences: list[dict[str, object]] = []
    for key, entry_rows in rows.group_by(*GAP_ENTRY, *GAP_CELLS, "train", "simulated", maintain_order=True):
        about = dict(zip((*GAP_ENTRY, *GAP_CELLS, "train", "simulated"), key, strict=True))
        runs = {str(name): part["run_id"].to_list() for (name,), part in entry_rows.group_by("split_by")}
        safe = [name for name in _SAFE_SPLITS if name in runs]
        for split_by in safe if "cell" in runs else ():
            about |= {"split_by": split_by, "strictest": split_by == safe[0], "n": entry_rows["n"].max()}
            differences += [about | gap for gap in _gaps(runs["cell"], runs[split_by], predictions, metrics, draws)]
    table = pl.DataFrame([{name: row.get(name) for name in GAPS} for row in differences], schema=GAPS)
    return table.sort("metric", *GAP_CELLS, "split_by", "gap", nulls_last=True)


def _gaps(
    leaky: list[str], safe: list[str], read: Callable[[str], pl.DataFrame], metrics: Sequence[str], draws: int
) -> list[dict[str, object]]:
    """Return the gap of each metric between two lists of runs, or why there is none."""
    try:
        differences = leakage_gap([read(run) for run in leaky], [read(run) for run in safe], metrics, draws=draws)
    except (InvalidInput, UnknownName) as error:
        return [{"metric": METRICS[metric].key, "unit": "", "reason": str(error)} for metric in metrics]
    rows: list[dict[str, object]] = []
    for gap in differences:
        up = METRICS[gap.metric].higher_is_better
        low, high = (gap.low, gap.high) if up else (-gap.high, -gap.low)
        numbers = {"by_cell": gap.leaky, "safe": gap.safe, "gap": gap.value if up else -gap.value}
        numbers |= {"low": low, "high": high}
        known = {name: None if np.isnan(number) else number for name, number in numbers.items()}
        about = {"metric": gap.metric, "unit": gap.unit, "n_units": gap.n_units, "seeds": gap.n_seeds, "reason": ""}
        rows.append(about | known)
    return rows


def over_datasets(table: pl.DataFrame) -> pl.DataFrame:
    """Return each entry's mean gap over sets of cells, from `gaps`: what another choice of data sets would change.

    Of each set of cells the strictest split counts. Columns: `model`, `head`, `strategy`, `metric`, `simulated`, `gap`
    (mean), `low`, `high` (95 % t interval over the sets; null below three), `sets`, `above` (sets with a gap above 0).
    """
    rows = table.filter(pl.col("strictest") & pl.col("gap").is_not_null())
    keys = [*GAP_ENTRY, "metric", "simulated"]
    means = rows.group_by(keys).agg(
        sd=pl.col("gap").std(), sets=pl.len(), above=(pl.col("gap") > 0).sum(), gap=pl.col("gap").mean()
    )
    t = [float(stats.t.ppf(0.975, sets - 1)) if sets > 2 else None for sets in means["sets"]]
    half = pl.col("sd") / pl.col("sets").sqrt() * pl.Series("t", t, dtype=pl.Float64)
    return means.select(
        *keys, "gap", low=pl.col("gap") - half, high=pl.col("gap") + half, sets="sets", above="above"
    ).sort("metric", "gap", *GAP_ENTRY)
