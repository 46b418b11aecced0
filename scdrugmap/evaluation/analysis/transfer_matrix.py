"""Trained on one data set, tested on another: the table behind a heat map, its margins and its order.

A pair is what a cross-data run with one training data set scored (`Experiment.train`). Leave-one-out runs, whose
training sides are several data sets, are not pairs: `held_out` has their rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from scdrugmap.evaluation.analysis.scores import chosen, per_dataset, require_one, with_constant
from scdrugmap.evaluation.metrics.metrics import METRICS

_ENTRY = ("model", "head", "strategy", "variant", "shots")
MATRIX: dict[str, Any] = {
    "train": pl.String,
    "test": pl.String,
    "value": pl.Float64,  # mean over seeds
    "ci_low": pl.Float64,
    "ci_high": pl.Float64,
    "constant": pl.Float64,  # what ignoring expression scores on the test set
    "better": pl.Float64,  # value minus constant, turned so that more is better: the colour of the heat map
    "crosses": pl.Boolean,  # the interval holds the constant
    "n": pl.Int64,  # tested cells
    "prevalence": pl.Float64,
    "seeds": pl.Int64,
    "run_id": pl.String,  # of the first seed
    "state": pl.String,  # "measured", "one class", "confounded", "failed", "not run", "itself"
    "reason": pl.String,
}
_WHY = {"confounded": "confounded", "one class": "one class", "cells only": "one class"}  # in a failed run's reason


def matrix(
    scores: pl.DataFrame,
    metric: str,
    *,
    datasets: Sequence[str] | None = None,
    failed: pl.DataFrame | None = None,
    simulated: bool = False,
    **where: object,
) -> pl.DataFrame:
    """Return one row a pair of data sets, columns as `MATRIX`, for every train x test.

    Parameters
    ----------
    scores
        Columns as `results.SCORES`.
    metric
        A key of `METRICS`.
    datasets
        Names of rows and columns, in order; None takes those that appear in a pair, by name.
    failed
        Runs as `results.read_runs` gives them, done ones too: pairs that could not be scored get their reason. Without
        it they are "not run".
    simulated
        Take simulated data sets in place of real ones.
    where
        The entry and the view: `model`, `head`, `strategy`, `shots`, `split_by`, ...; where several entries are left,
        their mean would say nothing, so name one.

    Raises `InvalidInput` where the scores are of several variants (settings, options, weights) of an entry.
    """
    rows = _pairs(scores, metric, simulated=simulated, **where)
    require_one(rows, "variant")
    measured = _measured(rows, metric)
    if failed is not None:
        measured = pl.concat([measured, _failed(failed, measured, **where)], how="diagonal")
    names = list(datasets) if datasets is not None else sorted({*measured["train"], *measured["test"]})
    grid = pl.DataFrame({"train": names}, schema={"train": pl.String}).join(
        pl.DataFrame({"test": names}, schema={"test": pl.String}), how="cross"
    )
    diagonal = pl.col("train") == pl.col("test")
    state = pl.when(diagonal).then(pl.lit("itself")).otherwise(pl.lit("not run"))
    table = grid.join(measured, on=["train", "test"], how="left", maintain_order="left")
    return table.with_columns(pl.col("state").fill_null(state), pl.col("reason").fill_null("")).select(
        *(pl.col(name).cast(kind) for name, kind in MATRIX.items())
    )


def entries(scores: pl.DataFrame, *, simulated: bool = False) -> pl.DataFrame:
    """Return the entries that have pairs: the columns of `_ENTRY`, `split_by`, `pairs` (how many)."""
    runs = scores.filter(pl.col("metric") == pl.col("metric").first())  # a run has a row of every metric
    rows = _pairs(runs, None, simulated=simulated)
    keys = [*_ENTRY, "split_by"]
    return rows.group_by(keys).agg(pairs=pl.struct("others", "dataset").n_unique()).sort(keys, nulls_last=True)


def margins(table: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the means of a matrix's rows (how good a teacher) and columns (how hard a pupil).

    Both have `name`, `value`, `constant` and `better` (means over the pairs that were measured, each data set counting
    once) and `pairs`; null where none was.
    """
    means = [pl.col("value", "constant", "better").mean(), pl.len().alias("pairs")]
    sides = []
    for side in ("train", "test"):
        names = table.select(name=side).unique(maintain_order=True)
        measured = table.filter(state="measured").group_by(name=side).agg(*means)
        joined = names.join(measured, on="name", how="left", maintain_order="left")
        sides.append(joined.with_columns(pl.col("pairs").fill_null(0)))
    return sides[0], sides[1]


def difference(table: pl.DataFrame, other: pl.DataFrame, metric: str) -> pl.DataFrame:
    """Return a matrix minus another: `train`, `test`, `value`, `other`, `difference`, `apart`, `state`, `run_id`.

    `difference` is turned so that it is positive where the first is better; `apart` tells that the two 95 % intervals
    do not overlap (stricter than a test, and the two entries were scored on the same cells). `state` is "measured"
    where both are, else that of the side that is not.
    """
    sign = 1 if METRICS[metric].higher_is_better else -1
    second = other.select("train", "test", *(pl.col(name).name.suffix("_other") for name in (*_COMPARED, "state")))
    both = table.join(second, on=["train", "test"], how="left", maintain_order="left")
    missing = pl.col("state_other").fill_null("not run")
    apart = (pl.col("ci_low") > pl.col("ci_high_other")) | (pl.col("ci_high") < pl.col("ci_low_other"))
    return both.select(
        "train",
        "test",
        "value",
        other="value_other",
        difference=sign * (pl.col("value") - pl.col("value_other")),
        apart=apart,
        state=pl.when(pl.col("state") == "measured").then(missing).otherwise("state"),
        run_id="run_id",
    )


def ordered(table: pl.DataFrame, by: str, facts: Mapping[str, str] | None = None) -> list[str]:
    """Return the data sets of a matrix in the order in which rows and columns are drawn.

    `by` is "similarity" (data sets that teach and learn alike are neighbours: average linkage of `better`), "name", or
    any other word, which orders by `facts` (a value a data set: its cancer type, drug type), then by name.
    """
    names = sorted({*table["train"], *table["test"]})
    if by == "similarity":
        return _similar(table, names)
    values = facts or {}
    return sorted(names, key=lambda name: (name not in values, values.get(name, ""), name))


def held_out(scores: pl.DataFrame, metric: str, *, simulated: bool = False, **where: object) -> pl.DataFrame:
    """Return how each data set is called by what was trained on several others, for the bars under a matrix.

    Columns: those of `_ENTRY`, `split_by`, `facet`, `facet_value`, `train` (a list), `test`, then those of `MATRIX`
    from `value` to `run_id`.
    """
    rows = scores.filter(pl.col("protocol") == "cross-data", pl.col("metric") == metric)
    rows = per_dataset(rows.filter(*(chosen(name, value) for name, value in where.items())))
    rows = rows.filter(pl.col("simulated") == simulated, pl.col("others").list.len() > 1)
    keys = [*_ENTRY, "split_by", "facet", "facet_value"]
    return _measured(rows, metric, keys).drop("state", "reason").sort(*keys, "test", nulls_last=True)


_COMPARED = ("value", "ci_low", "ci_high")


def _pairs(scores: pl.DataFrame, metric: str | None, *, simulated: bool, **where: object) -> pl.DataFrame:
    rows = scores.filter(pl.col("protocol") == "cross-data", *(chosen(name, value) for name, value in where.items()))
    if metric is not None:
        rows = rows.filter(pl.col("metric") == METRICS[metric].key)
    rows = per_dataset(rows).filter(pl.col("simulated") == simulated, pl.col("others").list.len() == 1)
    return rows.with_columns(pl.col("others").list.first())


def _measured(rows: pl.DataFrame, metric: str, keys: Sequence[str] = ()) -> pl.DataFrame:
    """Return one row a pair, means over seeds; a test set of one class says so."""
    sign = 1 if METRICS[metric].higher_is_better else -1
    if rows["n"].n_unique() > 1:  # of a few-shot reserve and of none: the pairs of most cells
        rows = rows.filter(pl.col("n") == pl.col("n").max().over(*keys, "others", "dataset", "seed"))
    means = rows.group_by(*keys, "others", "dataset", "metric", maintain_order=True).agg(
        pl.col("value", "ci_low", "ci_high", "prevalence", "n").mean(),
        seeds=pl.len(),
        run_id=pl.col("run_id").sort_by("seed").first(),
    )
    one_class = (pl.col("prevalence") == 0) | (pl.col("prevalence") == 1) | pl.col("value").is_null()
    return with_constant(means).select(
        *keys,
        train="others",
        test="dataset",
        value="value",
        ci_low="ci_low",
        ci_high="ci_high",
        constant="constant",
        better=sign * (pl.col("value") - pl.col("constant")),
        crosses=pl.col("constant").is_between("ci_low", "ci_high"),
        n=pl.col("n").cast(pl.Int64),
        prevalence="prevalence",
        seeds="seeds",
        run_id="run_id",
        state=pl.when(one_class).then(pl.lit("one class")).otherwise(pl.lit("measured")),
        reason=pl.when(one_class).then(pl.lit("The tested cells are of one class.")).otherwise(pl.lit("")),
    )


def _failed(runs: pl.DataFrame, measured: pl.DataFrame, **where: object) -> pl.DataFrame:
    """Return the pairs that no run could score: those of failed runs, and what done runs left out."""
    picked = (chosen(name, value) for name, value in where.items() if name in runs.columns)
    single = (pl.col("train").list.len() == 1) & (pl.col("protocol") == "cross-data")
    rows = runs.filter(single, *picked).with_columns(pl.col("train").list.first())
    failed = rows.filter(state="failed").select("run_id", "train", "reason", test="datasets").explode("test")
    left = rows.filter(state="done").select("run_id", "train", "unscored").explode("unscored").drop_nulls("unscored")
    pairs = pl.concat([failed, left.unnest("unscored").select(failed.columns)])
    state = pl.lit("failed")
    for words, name in _WHY.items():
        state = pl.when(pl.col("reason").str.contains(words, literal=True)).then(pl.lit(name)).otherwise(state)
    pairs = pairs.filter(pl.col("train") != pl.col("test")).with_columns(state=state)
    pairs = pairs.unique(["train", "test"], keep="first", maintain_order=True)
    return pairs.join(measured, on=["train", "test"], how="anti")


def _similar(table: pl.DataFrame, names: list[str]) -> list[str]:
    from scipy.cluster.hierarchy import leaves_list, linkage

    if len(names) < 3:
        return names
    place = {name: i for i, name in enumerate(names)}
    values = np.zeros((len(names), len(names)))  # what was not measured says neither way
    for train, test, better in table.select("train", "test", "better").drop_nulls().iter_rows():
        values[place[train], place[test]] = better
    points = np.concatenate([values, values.T], axis=1)  # as teacher and as pupil
    return [names[i] for i in leaves_list(linkage(points, "average", optimal_ordering=True))]
