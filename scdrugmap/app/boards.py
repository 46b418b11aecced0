"""From the table of scores to the rows of a board. Polars in, polars out; knows neither streamlit nor a file.

An *entry* is what competes: model, head, strategy and shots. `on` says on which cells: the value of a facet, or the data
sets of a run. The constant classifier is a column of every row and never an entry of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from scdrugmap.evaluation.metrics import METRICS

SAFE_SPLITS = ("study", "dataset", "patient_or_line", "sample")  # strictest first
HEADS = {"mlp": "MLP", "logistic": "logistic", "gradient-boosting": "boosting", "knn": "kNN", "prompt": "prompt"}
CELLS = ["protocol", "facet", "on", "strategy", "shots", "metric"]  # what two entries must share to be compared
ENTRY = ["model", "head"]
CONSTANT = "constant"


def tidy(scores: pl.DataFrame, models: pl.DataFrame) -> pl.DataFrame:
    """Return one row per run and metric (all folds together) with `title`, `on`, `constant` and `kind` added.

    `scores` is `read_scores`; `models` has `model`, `title` and `kind`. Runs on simulated cells get source "simulated".
    """
    whole = scores.filter((pl.col("fold") == "all") & pl.col("value").is_not_null() & (pl.col("model") != CONSTANT))
    on = (
        pl.when(pl.col("source") == "reported")
        .then(pl.format("{} ({})", pl.col("facet_value"), pl.col("test")))
        .when((pl.col("facet") == "all") | (pl.col("facet_value").fill_null("") == ""))
        .then(pl.col("test").str.replace_all(r"\+", " + "))
        .otherwise("facet_value")
    )
    simulated = (pl.col("source") == "measured") & pl.col("test").str.to_lowercase().str.contains("simulated")
    head = pl.col("head").replace_strict(HEADS, default=pl.col("head"))
    alone = pl.col("source").eq("reported") | pl.col("kind").eq("llm").fill_null(False)
    return (
        whole.join(models.select("model", "title", "kind"), on="model", how="left")
        .with_columns(title=pl.col("title").fill_null(pl.col("model")), on=on)
        .with_columns(title=pl.when(alone).then("title").otherwise(pl.format("{} + {}", "title", head)))
        .with_columns(
            source=pl.when(simulated).then(pl.lit("simulated")).otherwise("source"),
            constant=_constant(),
        )
        .sort("seed", nulls_last=True)
        .unique([*CELLS, *ENTRY, "split_by", "source"], keep="first", maintain_order=True)
    )


def _constant() -> pl.Expr:
    """Return the always-constant value of each row's metric at its prevalence."""

    def value(row: Mapping[str, object]) -> float | None:
        prevalence, metric = row["prevalence"], METRICS.get(str(row["metric"]))
        return float(metric.constant(float(prevalence))) if prevalence is not None and metric else None  # type: ignore[arg-type]

    return pl.struct("prevalence", "metric").map_elements(value, return_dtype=pl.Float64)


def pick(board: pl.DataFrame, **choices: str) -> pl.DataFrame:
    """Keep the rows where each named column has the chosen value."""
    return board.filter(*(pl.col(column) == value for column, value in choices.items()))


def ranking(
    board: pl.DataFrame, *, protocol: str, split_by: str, facet: str, on: str, strategy: str, metric: str
) -> pl.DataFrame:
    """Return the entries of one view, best first, with `delta` to the best baseline and the `gap` to the split by cell.

    The best baseline is the best measured entry of a model of kind "baseline". Reported rows get neither: their
    baselines were not published.
    """
    rows = pick(board, protocol=protocol, split_by=split_by, facet=facet, on=on, strategy=strategy, metric=metric)
    better = METRICS[metric].higher_is_better
    measured = rows.filter(pl.col("source") != "reported")
    baseline = measured.filter(pl.col("kind") == "baseline").sort("value", descending=better).head(1)
    best = baseline["value"].item() if baseline.height else None
    by_cell = pick(board, protocol=protocol, split_by="cell", facet=facet, on=on, strategy=strategy, metric=metric)
    by_cell = by_cell.select(*ENTRY, "source", by_cell="value")
    rows = rows.join(by_cell, on=[*ENTRY, "source"], how="left")
    ours = pl.col("source") != "reported"
    gap = pl.when(pl.col("split_by") != "cell").then(pl.col("by_cell") - pl.col("value"))
    return rows.with_columns(delta=pl.when(ours).then(pl.col("value") - pl.lit(best, dtype=pl.Float64)), gap=gap).sort(
        "value", descending=better, nulls_last=True
    )


def pairs(board: pl.DataFrame, *, metric: str) -> pl.DataFrame:
    """Return one row per entry that was measured by cell and leak-safe on the same cells.

    Columns: `on`, `title`, `model`, `kind`, `by_cell`, `safe`, `safe_low`, `safe_high`, `safe_name`, `gap`, `constant`,
    `n`, `run_id`. The strictest leak-safe split that was run stands for the leak-safe side.
    """
    ours = board.filter(
        (pl.col("source") != "reported") & (pl.col("metric") == metric) & (pl.col("protocol") == "pooled")
    )
    join = [*CELLS, *ENTRY, "source"]
    cell = ours.filter(pl.col("split_by") == "cell").select(*join, by_cell="value")
    order = {name: rank for rank, name in enumerate(SAFE_SPLITS)}
    safe = (
        ours.filter(pl.col("split_by").is_in(SAFE_SPLITS))
        .with_columns(rank=pl.col("split_by").replace_strict(order, return_dtype=pl.Int64))
        .sort("rank")
        .unique(join, keep="first", maintain_order=True)
        .rename({"value": "safe", "ci_low": "safe_low", "ci_high": "safe_high"})
        .with_columns(safe_name=pl.col("split_by").str.replace_all("_", " "))
    )
    joined = safe.join(cell, on=join, how="inner", nulls_equal=True).with_columns(
        gap=pl.col("by_cell") - pl.col("safe")
    )
    return joined.sort("safe", descending=METRICS[metric].higher_is_better)


def headline(board: pl.DataFrame, *, metric: str, best: int = 3) -> pl.DataFrame:
    """Return the rows of the figure on the first page: the best models and the best baseline, one set of real cells.

    The set is the one on which most entries were measured both ways; ties go to the larger one.
    """
    both = pairs(board.filter(pl.col("source") == "measured"), metric=metric)
    if both.is_empty():
        return both
    counts = both.group_by("on", "safe_name").agg(pl.len().alias("entries"), pl.col("n").max()).sort("entries", "n")
    chosen = counts.tail(1)
    rows = both.filter((pl.col("on") == chosen["on"].item()) & (pl.col("safe_name") == chosen["safe_name"].item()))
    models = rows.filter(pl.col("kind") != "baseline").head(best)
    return pl.concat([models, rows.filter(pl.col("kind") == "baseline").head(max(1, best - models.height))])


def at_constant(board: pl.DataFrame, tolerance: float = 0.0006) -> pl.DataFrame:
    """Return reported numbers that equal the constant classifier's to the third decimal, as they were printed."""
    reported = board.filter((pl.col("source") == "reported") & pl.col("constant").is_not_null())
    return reported.filter((pl.col("value") - pl.col("constant")).abs() < tolerance)
