"""Rankings of entries, by view, by facet and by data sets won."""

from __future__ import annotations

import polars as pl

from scdrugmap.evaluation.analysis.scores import CELLS, ENTRY, averaged, chosen, per_dataset, side
from scdrugmap.evaluation.experiment import BASELINES
from scdrugmap.evaluation.metrics.metrics import METRICS


def leaderboard(scores: pl.DataFrame, metric: str, *, split_by: str, **where: object) -> pl.DataFrame:
    """Rank the entries on the same cells by a metric, best first.

    `where` gives a value, or a list of values, of any column of `scores`: `protocol`, `facet_value`, ... Columns:
    `rank`, those of `averaged`, `delta` (better than the best measured baseline by so much), and `gap` (how much better
    the same entry scores where the split is by cell: the leakage gap). Both are positive where the metric, turned so
    that more is better, is higher; reported rows have neither.
    """
    sign = 1 if METRICS[metric].higher_is_better else -1
    rows = averaged(scores.filter(pl.col("metric") == metric, *(chosen(key, value) for key, value in where.items())))
    same = [*CELLS, *ENTRY]
    by_cell = rows.filter(pl.col("split_by") == "cell").select(*same, by_cell="value")
    rows = rows.filter(pl.col("split_by") == split_by).join(by_cell, on=same, how="left", nulls_equal=True)
    ours = pl.col("source") == "measured"
    best = pl.when(ours & pl.col("model").is_in(list(BASELINES))).then(sign * pl.col("value")).max().over(CELLS)
    return (
        rows.with_columns(
            delta=pl.when(ours).then(sign * pl.col("value") - best),
            gap=pl.when(ours & (pl.col("split_by") != "cell")).then(sign * (pl.col("by_cell") - pl.col("value"))),
            rank=(sign * pl.col("value")).rank("min", descending=True).over(CELLS).cast(pl.Int64),
        )
        .sort(*CELLS, "rank", *ENTRY, nulls_last=True)
        .select("rank", pl.exclude("rank", "by_cell"))
    )


def by_facet(scores: pl.DataFrame, metric: str, facet: str, *, split_by: str, **where: object) -> pl.DataFrame:
    """Return the entries under each value of a facet, for small multiples: the leaderboard's columns.

    One row an entry and set of cells, ordered by `facet_value`, then rank. `place` counts the entries of a panel (1 the
    best); `panel` is the facet's value with, in brackets, what else tells panels apart (reported numbers, test sets).
    """
    board = leaderboard(scores, metric, split_by=split_by, facet=facet, **where)
    several = pl.struct(CELLS).n_unique().over("facet_value") > 1
    panel = pl.when(several).then(pl.format("{} ({})", "facet_value", side("test"))).otherwise("facet_value")
    place = pl.col("rank").rank("ordinal").over(CELLS).cast(pl.Int64)
    return board.with_columns(panel=panel, place=place).sort("facet_value", "panel", "place")


def won(scores: pl.DataFrame, metric: str, **where: object) -> pl.DataFrame:
    """Return how many data sets each entry wins: what names it, then `won`, `scored`, `compared`.

    An entry is named by `model`, `head`, `strategy`, `variant` and `shots`.

    Compared are the entries of a view (`where`: protocol, split_by, ...) on the same cells of one data set, where two
    or more were scored; means over seeds. Entries that tie share the win. A data set that is scored in several ways
    (facets, training sides) counts once, in parts. `scored` counts the data sets that an entry was scored on, and
    `compared` those where it met another.
    """
    sign = 1 if METRICS[metric].higher_is_better else -1
    entry = ["model", "head", "strategy", "variant", "shots"]
    cells = ["protocol", "split_by", "facet", "facet_value", "others", "dataset", "n", "design"]
    rows = scores.filter(
        pl.col("metric") == metric,
        pl.col("value").is_not_null(),
        *(chosen(name, value) for name, value in where.items()),
    )
    rows = per_dataset(rows).group_by(*entry, *cells).agg(score=sign * pl.col("value").mean().round(12))
    best = pl.col("score") == pl.col("score").max().over(cells)
    rows = rows.with_columns(
        won=pl.when(best).then(1 / best.sum().over(cells)).otherwise(0.0), met=pl.len().over(cells) > 1
    )
    met = pl.col("met")
    each = rows.group_by(*entry, "dataset").agg(won=pl.col("won").filter(met).mean(), met=met.any())
    counts = each.group_by(entry).agg(won=pl.col("won").sum(), scored=pl.len(), compared=pl.col("met").sum())
    return counts.sort("won", *entry, descending=[True, *[False] * len(entry)], nulls_last=True)
