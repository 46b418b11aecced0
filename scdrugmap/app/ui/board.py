"""From the table of scores to the rows of a board. Polars in, polars out; knows neither streamlit nor a file.

An *entry* is what competes: model, head, strategy and shots. `on` says on which cells: the value of a facet, or
the data sets of a run. The constant classifier is a column of every row and never an entry of its own.
"""

from __future__ import annotations

import polars as pl

from scdrugmap.evaluation.analysis.scores import averaged, labelled, side
from scdrugmap.evaluation.metrics.metrics import METRICS

LEAK_SAFE = ("study", "dataset", "patient_or_line", "sample")  # strictest first
_HEADS = {"mlp": "MLP", "logistic": "logistic", "gradient-boosting": "boosting", "knn": "kNN", "prompt": "prompt"}
# Models of the paper that have no card here yet but whose reported numbers are shown.
PAPER_NAMES = {"llama3-8b": "Llama 3 8B", "gpt-4o-mini": "GPT-4o-mini"}
_CELLS = [
    "protocol",
    "facet",
    "on",
    "strategy",
    "shots",
    "design",
    "metric",
]  # what two entries must share to be compared
_ENTRY = ["model", "head", "variant"]
CONSTANT_MODEL = "constant"
_NAMED = 4  # data sets that are named in full where they were merged
ANY_VALUE = "any"


def tidy(scores: pl.DataFrame, models: pl.DataFrame) -> pl.DataFrame:
    """Return one row per entry, cells, split and metric: the mean over seeds, named for the screen (see `named`)."""
    return named(averaged(scores), models)


def named(rows: pl.DataFrame, models: pl.DataFrame) -> pl.DataFrame:
    """Add `title`, `kind`, `on` and `run_id`; runs on simulated cells get source "simulated", the constant goes.

    `rows` are of `averaged` or `leaderboard`; `models` has `model`, `title` and `kind`. Runs that train on one data set
    for others go as well: they have a page of their own. `shots` become words, "all" where there is no limit.
    """
    rows = rows.filter(pl.col("value").is_not_null() & (pl.col("model") != CONSTANT_MODEL) & ~single_source())
    merged = pl.col("facet") == "all"
    stated = (
        pl.when(merged)
        .then(pl.format("all {} cells", side("test")))
        .otherwise(pl.format("{} ({})", "facet_value", side("test")))
    )
    alone = pl.col("source").eq("reported") | (pl.col("head") == "prompt")
    source = pl.when("simulated").then(pl.lit("simulated")).otherwise("source")
    return (
        rows.with_columns(source=source, on=pl.when(pl.col("source") == "reported").then(stated).otherwise(cells()))
        .join(models.select("model", "title", "kind"), on="model", how="left")
        .pipe(labelled)
        .with_columns(title=_with_label(_title(alone)))
        .with_columns(run_id=pl.col("run_ids").list.first(), shots=pl.col("shots").cast(pl.String).fill_null("all"))
    )


def cells() -> pl.Expr:
    """Return on which cells a row of ours was scored: the value of its facet, or its data sets."""
    whole = (pl.col("facet") == "all") | (pl.col("facet_value").fill_null("") == "")
    sets = pl.col("test")
    many = pl.format("{} data sets ({} …)", sets.list.len(), sets.list.first())
    each = pl.when(sets.list.len() > _NAMED).then(many).otherwise(side("test"))
    return pl.when(whole).then(each).otherwise("facet_value")


def single_source() -> pl.Expr:
    """Tell which cross-data runs trained on one data set and tested others: pairs of the transfer matrix."""
    train, test = pl.col("train"), pl.col("test")
    others = train.list.set_difference(test).list.len() == 1
    few = pl.col("shots").fill_null(0) > 0  # then the tested data sets train as well
    alone = (train.list.len() == 1) & others
    return (pl.col("protocol") == "cross-data") & (pl.col("source") == "measured") & (alone | (few & others))


def titled(rows: pl.DataFrame, models: pl.DataFrame) -> pl.DataFrame:
    """Add `title`, the name of an entry on screen, from `model` and `head`; the constant classifier goes."""
    rows = rows.filter(pl.col("model") != CONSTANT_MODEL).join(models.select("model", "title"), on="model", how="left")
    return labelled(rows).with_columns(title=_with_label(_title(pl.col("head") == "prompt")))


def title_of(model: str, head: str, models: pl.DataFrame) -> str:
    """Return the name of one entry on screen."""
    row = pl.DataFrame({"model": [model], "head": [head]}).join(models.select("model", "title"), on="model", how="left")
    return str(row.select(_title(pl.col("head") == "prompt")).item())


def others(rows: pl.DataFrame, run_id: str) -> pl.DataFrame:
    """Return the rows that a run has no part in."""
    return rows.filter(~pl.col("run_ids").list.contains(run_id))


def _title(alone: pl.Expr) -> pl.Expr:
    """Return the name of an entry; `alone` tells where the model's name says it all."""
    name = pl.col("title").fill_null(pl.col("model").replace(PAPER_NAMES))
    return pl.when(alone).then(name).otherwise(pl.format("{} + {}", name, pl.col("head").replace(_HEADS)))


def _with_label(title: pl.Expr) -> pl.Expr:
    """Add to a name what tells the entry from others of its model, head and strategy, where there are such."""
    return pl.when(pl.col("label") == "").then(title).otherwise(pl.format("{}, {}", title, "label"))


def pairs(board: pl.DataFrame, *, metric: str) -> pl.DataFrame:
    """Return one row per entry that was measured by cell and leak-safe on the same cells.

    Columns: `on`, `title`, `model`, `kind`, `by_cell`, `safe`, `safe_low`, `safe_high`, `safe_name`, `gap`, `constant`,
    `n`, `run_id`. The strictest leak-safe split that was run stands for the leak-safe side.
    """
    ours = board.filter(
        (pl.col("source") != "reported") & (pl.col("metric") == metric) & (pl.col("protocol") == "pooled")
    )
    join = [*_CELLS, *_ENTRY, "source"]
    cell = ours.filter(pl.col("split_by") == "cell").select(*join, by_cell="value")
    order = {name: rank for rank, name in enumerate(LEAK_SAFE)}
    safe = (
        ours.filter(pl.col("split_by").is_in(LEAK_SAFE))
        .with_columns(rank=pl.col("split_by").replace_strict(order, return_dtype=pl.Int64))
        .sort("rank")
        .unique(join, keep="first", maintain_order=True)
        .rename({"value": "safe", "ci_low": "safe_low", "ci_high": "safe_high"})
        .with_columns(safe_name=pl.col("split_by").str.replace_all("_", " "))
    )
    higher = METRICS[metric].higher_is_better
    gap = (1 if higher else -1) * (pl.col("by_cell") - pl.col("safe"))  # turned as its interval is: above 0 flatters
    joined = safe.join(cell, on=join, how="inner", nulls_equal=True).with_columns(gap=gap)
    return joined.sort("safe", descending=higher)


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
    return pl.concat([models, rows.filter(pl.col("kind") == "baseline").head(max(1, best + 1 - models.height))])
