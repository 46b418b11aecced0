"""Few-shot curves: what an entry scores on a target data set as more of its labelled cells may train."""

from __future__ import annotations

from typing import Any

import polars as pl
from scipy import stats

from scdrugmap.evaluation.analysis.scores import chosen, per_dataset, with_constant
from scdrugmap.evaluation.metrics.metrics import METRICS

_ENTRY = ("model", "head", "strategy", "variant")
CURVES: dict[str, Any] = {
    "model": pl.String,
    "head": pl.String,
    "strategy": pl.String,
    "variant": pl.String,
    "train": pl.List(pl.String),  # the other data sets that train; none for "all", the target by itself
    "test": pl.String,  # the target
    "shots": pl.Int64,  # null: all labelled cells of the training folds of the target
    "point": pl.String,  # the shots in words: "0", "1", ..., "all"
    "value": pl.Float64,  # mean over seeds
    "low": pl.Float64,
    "high": pl.Float64,
    "interval": pl.String,  # "seeds": t interval of the mean over seeds; "run": the run's own; "": none
    "seeds": pl.Int64,
    "constant": pl.Float64,
    "n": pl.Int64,  # tested cells
    "same_cells": pl.Boolean,  # as many tested cells as at the other points of the curve
    "run_ids": pl.List(pl.String),
}


def curves(
    scores: pl.DataFrame, metric: str, *, all_by: str | None = "sample", simulated: bool = False, **where: object
) -> pl.DataFrame:
    """Return the points of the few-shot curves, one an entry, training side, target and number of shots.

    Columns as `CURVES`, ordered by entry, target and shots, "all" last. Points of a curve are tested on the same cells
    where its runs set the same reserve aside (`Experiment.reserve`); zero-shot runs on all cells of the target give
    way to those on the cells of the curve, and where there is no such run `same_cells` is false. Targets with a single
    number of shots have no curve and are left out.

    Parameters
    ----------
    all_by
        The split of the pooled run on the target alone that stands at the end, "all"; None for no such point.
    where
        The view: `model`, `strategy`, `split_by` (of the cross-data runs), ...
    """
    rows = scores.filter(pl.col("metric") == METRICS[metric].key, pl.col("value").is_not_null())
    plain = {name: value for name, value in where.items() if name != "split_by"}
    rows = rows.filter(*(chosen(name, value) for name, value in plain.items()))
    rows = per_dataset(rows).filter(pl.col("simulated") == simulated).with_columns(train="others", test="dataset")
    split = [chosen("split_by", where["split_by"])] if "split_by" in where else []
    crossed = rows.filter(pl.col("protocol") == "cross-data", *split)
    few = _same_cells(crossed)
    points = _points(few)
    if all_by is not None:
        points = pl.concat([points, _all(rows, points, all_by)])
    order = [*_ENTRY, "test", "shots", "train"]
    return points.select(pl.col(name).cast(kind) for name, kind in CURVES.items()).sort(order, nulls_last=True)


def _same_cells(rows: pl.DataFrame) -> pl.DataFrame:
    """Keep the runs of each curve that were tested on as many cells as most of its points; mark those that were not."""
    curve = [*_ENTRY, "train", "test", "split_by", "facet", "facet_value"]
    rows = rows.filter(pl.col("shots").n_unique().over(curve) > 1)
    sizes = rows.group_by(*curve, "seed", "n").agg(points=pl.col("shots").n_unique())
    usual = sizes.sort("points", "n", descending=True).unique([*curve, "seed"], keep="first").drop("points")
    rows = rows.join(usual.rename({"n": "usual"}), on=[*curve, "seed"], how="left", nulls_equal=True)
    rows = rows.with_columns(same_cells=pl.col("n") == pl.col("usual"))
    known = pl.col("same_cells").any().over(*curve, "seed", "shots")
    return rows.filter(pl.col("same_cells") | ~known)


def _points(rows: pl.DataFrame) -> pl.DataFrame:
    keys = [*_ENTRY, "train", "test", "shots", "metric"]
    means = rows.group_by(keys, maintain_order=True).agg(
        pl.col("value", "ci_low", "ci_high", "prevalence", "n").mean(),
        pl.col("same_cells").all(),
        sd=pl.col("value").std(),
        seeds=pl.len(),
        run_ids=pl.col("run_id").sort_by("seed"),
    )
    several = pl.col("seeds") > 1
    half = pl.col("sd") / pl.col("seeds").sqrt() * _t(means["seeds"])
    return with_constant(means).with_columns(
        point=pl.col("shots").cast(pl.String).fill_null("all"),
        low=pl.when(several).then(pl.col("value") - half).otherwise("ci_low"),
        high=pl.when(several).then(pl.col("value") + half).otherwise("ci_high"),
        interval=pl.when(several)
        .then(pl.lit("seeds"))
        .when(pl.col("ci_low").is_not_null())
        .then(pl.lit("run"))
        .otherwise(pl.lit("")),
        n=pl.col("n").cast(pl.Int64),
    )


def _t(seeds: pl.Series) -> pl.Series:
    """Return the half width of a 95 % t interval in standard errors, 0 for one seed."""
    known = {count: float(stats.t.ppf(0.975, count - 1)) if count > 1 else 0.0 for count in seeds.unique()}
    return pl.Series("t", [known[count] for count in seeds], dtype=pl.Float64)


def _all(rows: pl.DataFrame, points: pl.DataFrame, split_by: str) -> pl.DataFrame:
    """Return the point "all" of each curve that has one: folds of the target alone, which cover all its cells."""
    alone = rows.filter(
        pl.col("protocol") == "pooled", pl.col("split_by") == split_by, pl.col("others").list.len() == 0
    )
    alone = alone.with_columns(same_cells=pl.lit(False))
    ends = _points(alone).join(
        points.select(*_ENTRY, "test").unique(), on=[*_ENTRY, "test"], how="semi", nulls_equal=True
    )
    return ends.select(points.columns)
