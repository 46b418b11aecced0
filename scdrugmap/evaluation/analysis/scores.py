"""From scores to the tables that a reader asks for. Polars in, polars out: no file is read."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from scdrugmap.errors import InvalidInput
from scdrugmap.evaluation.metrics.metrics import METRICS

ENTRY = ("model", "head", "strategy", "variant", "source", "simulated")  # what competes
VIEW = ("protocol", "facet", "facet_value", "shots", "train", "test")
CELLS = (*VIEW, "design")  # on what
_SIDES = ("train", "test", "others")  # columns of lists of data sets


def chosen(column: str, value: object) -> pl.Expr:
    """Return the condition that a column has a value, or one of a list of values; None is a value like others.

    A value of `train`, `test` or `others` is a list of data sets, and a word there is the list of that one data set.
    """
    if isinstance(value, list | tuple | set | frozenset):
        return pl.any_horizontal(pl.lit(False), *(_is(column, each) for each in value))
    return _is(column, value)


def _is(column: str, value: object) -> pl.Expr:
    if column in _SIDES:
        return pl.col(column).eq_missing(datasets_of(value))
    return pl.col(column).eq_missing(pl.lit(value))


def datasets_of(value: object) -> pl.Expr:
    """Return a list of data sets, one name or several, as a constant that compares with the columns of `_SIDES`."""
    names = [value] if isinstance(value, str) else value
    return pl.lit(None if names is None else list(names), dtype=pl.List(pl.String))  # type: ignore[call-overload]


def side(column: str) -> pl.Expr:
    """Return the data sets of a list column as words for the eye, which nothing takes apart again."""
    return pl.col(column).list.join(" + ")


def require_one(rows: pl.DataFrame, column: str) -> None:
    """Raise `InvalidInput` where a column has several values, whose scores do not compare."""
    values = rows[column].unique().sort().to_list()
    if len(values) > 1:
        message = f"The scores are of several values of {column}: {', '.join(map(repr, values))}. They do not compare."
        raise InvalidInput(message, f"Choose one, e.g. {column}={values[0]!r}.")


def labelled(rows: pl.DataFrame) -> pl.DataFrame:
    """Add `label`: what tells a row from others of its model, head and strategy, in words; "" where nothing does.

    Of `variant` those parts that not all rows of the model, head and strategy share ("max_length=600"); of `design`,
    where there is one, those that not all of these share on the same data sets ("50 set aside").
    """
    entry = ["model", "head", "strategy"]
    where = [*entry, *(name for name in VIEW if name in rows.columns)]
    columns = {name: over for name, over in (("variant", entry), ("design", where)) if name in rows.columns}
    named = rows.select(*where, *columns).unique(maintain_order=True)  # few beside the rows: a metric each
    parts = [_apart(named, name, over) for name, over in columns.items()]
    texts = [", ".join(part for part in both if part) for both in zip(*parts, strict=True)]
    label = named.with_columns(label=pl.Series(texts, dtype=pl.String))
    return rows.join(label, on=named.columns, how="left", nulls_equal=True, maintain_order="left")


def _apart(rows: pl.DataFrame, column: str, over: Sequence[str]) -> list[str]:
    """Return of each row the parts of a column that not all rows with equal `over` have."""
    keys = rows.select(pl.struct(over).rank("dense").alias("key"))["key"]  # a number: lists are no keys of a dict
    keyed = [(key, frozenset((text or "").split("; "))) for key, text in zip(keys, rows[column], strict=True)]
    common: dict[int, frozenset[str]] = {}
    for key, parts in set(keyed):
        common[key] = common.get(key, parts) & parts
    texts = rows[column].fill_null("").to_list()
    return [
        ", ".join(part for part in text.split("; ") if part not in common[key])
        for text, (key, _) in zip(texts, keyed, strict=True)
    ]


def with_constant(rows: pl.DataFrame) -> pl.DataFrame:
    """Add `constant`: what the constant classifier of each row's metric scores at the row's prevalence."""
    pairs = rows.select("metric", "prevalence").unique()
    constants = [None if share is None else METRICS[metric].constant(share) for metric, share in pairs.iter_rows()]
    known = pairs.with_columns(constant=pl.Series(constants, dtype=pl.Float64))
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

    `dataset` names it; `others` lists the data sets that trained beside it, by name: in cross-data its whole training
    side but for the shots; none where it trained alone, which is a pooled run of one data set. A run may hold
    such a score as the fold of its test unit, as "dataset:<name>" and, where it tests one data set, as "all".
    """
    place = (
        pl.when((pl.col("fold") == pl.col("dataset")) & (pl.col("protocol") == "cross-data"))
        .then(0)
        .when(pl.col("fold") == _SHARE)
        .then(1)
        .when(pl.col("fold") == "all")
        .then(2)
    )
    rows = scores.filter(pl.col("source") != "reported", pl.col("test").list.len() == 1)
    rows = rows.with_columns(dataset=pl.col("test").list.first()).with_columns(place=place).drop_nulls("place")
    best = rows.filter(pl.col("place") == pl.col("place").min().over("run_id", "dataset", "metric")).drop("place")
    best = best.join(_units(scores), on=["run_id", "dataset"], how="left", maintain_order="left")
    best = best.with_columns(side=pl.coalesce("unit_train", "train"))
    sides = best.select("side", "dataset").unique()
    names = pl.col("side").list.set_difference(pl.concat_list("dataset"))
    sides = sides.with_columns(others=names.list.sort())
    return best.join(sides, on=["side", "dataset"], how="left", maintain_order="left").drop("side", "unit_train")


def _units(scores: pl.DataFrame) -> pl.DataFrame:
    """Return the training side of each data set that was tested as part of a unit: `run_id`, `dataset`, `unit_train`.

    A score of fold "dataset:<name>" names all that ever trained in its run; the fold of its unit says which did.
    """
    rows = scores.filter(protocol="cross-data").with_columns(dataset=pl.col("test").list.first())
    alone = (pl.col("test").list.len() == 1) & ((pl.col("fold") == _SHARE) | (pl.col("fold") == pl.col("dataset")))
    rows = rows.filter((pl.col("fold") != "all") & ~alone).select("run_id", "test", unit_train="train")
    return rows.unique().select("run_id", "unit_train", dataset="test").explode("dataset")


_SHARE = pl.format("dataset:{}", "dataset")  # the fold of one data set's share of the out-of-fold scores
