"""From scores to the tables that a reader asks for. Polars in, polars out: no file is read."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from scdrugmap.errors import InvalidInput
from scdrugmap.evaluation.metrics import METRICS
from scdrugmap.evaluation.plan import BASELINES

ENTRY = ("model", "head", "strategy", "variant", "source")  # what competes
VIEW = ("protocol", "facet", "facet_value", "shots", "train", "test")
CELLS = (*VIEW, "design")  # on what


def simulated(scores: pl.DataFrame) -> pl.Series:
    """Tell which rows are of simulated cells, or made up altogether: their data sets say so in their names."""
    return scores.select(pl.col("source").ne("reported") & pl.col("test").str.starts_with("simulated")).to_series()


def chosen(column: str, value: object) -> pl.Expr:
    """Return the condition that a column has a value, or one of a list of values; None is a value like others."""
    if isinstance(value, list | tuple | set | frozenset):
        return pl.any_horizontal(pl.lit(False), *(pl.col(column).eq_missing(pl.lit(one)) for one in value))
    return pl.col(column).eq_missing(pl.lit(value))


def require_one(rows: pl.DataFrame, column: str) -> None:
    """Raise `InvalidInput` where a column has several values, whose scores do not compare."""
    found = rows[column].unique().sort().to_list()
    if len(found) > 1:
        message = f"The scores are of several values of {column}: {', '.join(map(repr, found))}. They do not compare."
        raise InvalidInput(message, f"Choose one, e.g. {column}={found[0]!r}.")


def labelled(rows: pl.DataFrame) -> pl.DataFrame:
    """Add `label`: what tells a row from others of its model, head and strategy, in words; "" where nothing does.

    Of `variant` those parts that not all rows of the model, head and strategy share ("max_length=600"); of `design`,
    where there is one, those that not all of these share on the same data sets ("50 set aside").
    """
    entry = ["model", "head", "strategy"]
    where = [*entry, *(name for name in VIEW if name in rows.columns)]
    told = {name: over for name, over in (("variant", entry), ("design", where)) if name in rows.columns}
    named = rows.select(*where, *told).unique(maintain_order=True)  # few beside the rows: a metric each
    parts = [_apart(named, name, over) for name, over in told.items()]
    texts = [", ".join(part for part in both if part) for both in zip(*parts, strict=True)]
    label = named.with_columns(label=pl.Series(texts, dtype=pl.String))
    return rows.join(label, on=named.columns, how="left", nulls_equal=True, maintain_order="left")


def _apart(rows: pl.DataFrame, column: str, over: Sequence[str]) -> list[str]:
    """Return of each row the parts of a column that not all rows with equal `over` have."""
    asked = [(tuple(key), frozenset((text or "").split("; "))) for *key, text in rows.select(*over, column).iter_rows()]
    common: dict[tuple[object, ...], frozenset[str]] = {}
    for key, parts in set(asked):
        common[key] = common.get(key, parts) & parts
    texts = rows[column].fill_null("").to_list()
    return [
        ", ".join(part for part in text.split("; ") if part not in common[key])
        for text, (key, _) in zip(texts, asked, strict=True)
    ]


def with_constant(rows: pl.DataFrame) -> pl.DataFrame:
    """Add `constant`: what the constant classifier of each row's metric scores at the row's prevalence."""
    pairs = rows.select("metric", "prevalence").unique()
    found = [None if share is None else METRICS[metric].constant(share) for metric, share in pairs.iter_rows()]
    known = pairs.with_columns(constant=pl.Series(found, dtype=pl.Float64))
    return rows.join(known, on=["metric", "prevalence"], how="left", nulls_equal=True, maintain_order="left")


def averaged(scores: pl.DataFrame) -> pl.DataFrame:
    """Return the out-of-fold rows, one an entry, set of cells, split and metric: the mean over seeds.

    `seeds` counts them and `run_ids` names their runs; value and interval bounds are means. `constant` is what the
    constant classifier of the metric scores at the prevalence of these cells.
    """
    keys = [*CELLS, *ENTRY, "split_by", "metric"]
    means = scores.filter(pl.col("fold") == "all").group_by(keys, maintain_order=True)
    table = means.agg(
        pl.col("value", "ci_low", "ci_high", "n", "prevalence").mean(),
        seeds=pl.len(),
        run_ids=pl.col("run_id"),
    )
    return with_constant(table.with_columns(pl.col("n").cast(pl.Int64)))


def per_dataset(scores: pl.DataFrame) -> pl.DataFrame:
    """Return the rows, reported ones aside, that score one data set by itself, each once, with two columns more.

    `dataset` names it; `others` names the data sets that trained beside it, joined with "+": in cross-data its whole
    training side but for the shots; "" where it trained alone, which is a pooled run of one data set. A run may hold
    such a score as the fold of its test unit, as "dataset:<name>" and, where it tests one data set, as "all".
    """
    one = ~pl.col("test").str.contains("+", literal=True)
    place = (
        pl.when((pl.col("fold") == pl.col("test")) & (pl.col("protocol") == "cross-data"))
        .then(0)
        .when(pl.col("fold").str.starts_with("dataset:"))
        .then(1)
        .when(one & (pl.col("fold") == "all"))
        .then(2)
    )
    rows = scores.filter(pl.col("source") != "reported").with_columns(place=place).filter(pl.col("place").is_not_null())
    best = rows.filter(pl.col("place") == pl.col("place").min().over("run_id", "test", "metric")).drop("place")
    best = best.with_columns(dataset="test").join(
        _units(scores), on=["run_id", "dataset"], how="left", maintain_order="left"
    )
    best = best.with_columns(side=pl.coalesce("unit_train", "train"))
    sides = best.select("side", "dataset").unique()
    names = pl.col("side").str.split("+").list.set_difference(pl.concat_list("dataset"))
    sides = sides.with_columns(others=names.list.sort().list.join("+"))
    return best.join(sides, on=["side", "dataset"], how="left", maintain_order="left").drop("side", "unit_train")


def _units(scores: pl.DataFrame) -> pl.DataFrame:
    """Return the training side of each data set that was tested as part of a unit: `run_id`, `dataset`, `unit_train`.

    A score of fold "dataset:<name>" names all that ever trained in its run; the fold of its unit says which did.
    """
    whole = pl.col("fold").eq("all") | pl.col("fold").str.starts_with("dataset:") | (pl.col("fold") == pl.col("test"))
    rows = scores.filter((pl.col("protocol") == "cross-data") & ~whole).select("run_id", "test", unit_train="train")
    return rows.unique().select("run_id", "unit_train", dataset=pl.col("test").str.split("+")).explode("dataset")


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
    panel = pl.when(several).then(pl.format("{} ({})", "facet_value", "test")).otherwise("facet_value")
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
    found = each.group_by(entry).agg(won=pl.col("won").sum(), scored=pl.len(), compared=pl.col("met").sum())
    return found.sort("won", *entry, descending=[True, *[False] * len(entry)], nulls_last=True)
