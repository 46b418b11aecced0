"""The complete table that a paired comparison needs: every entry on every data set, and what was left out for it.

An entry is a model with its head, strategy, variant (settings, options, weights) and shots. A data set counts once,
however often an entry was scored on it: seeds are averaged, and so are training sides where there are several, over
those that all entries share. Nothing is filled in: what was not run everywhere is dropped, the worst first, and named.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from scdrugmap.errors import InvalidInput
from scdrugmap.evaluation.analysis.scores import chosen, labelled, per_dataset, require_one
from scdrugmap.evaluation.metrics.metrics import METRICS

_ENTRY = ("model", "head", "strategy", "variant", "shots")
CONTEXT = ("dataset", "facet", "facet_value", "others", "n", "design")  # on what an entry was scored
APART = "no training side, facet and set of cells that all entries share"
DROPPED = {"what": pl.String, "name": pl.String, "missing": pl.Int64, "of": pl.Int64, "reason": pl.String}


@dataclass(frozen=True, eq=False)
class ScoreMatrix:
    """Scores of E entries on D data sets, without a gap."""

    metric: str
    entries: pl.DataFrame  # (E,) entry (its name), then the columns of `_ENTRY`
    datasets: tuple[str, ...]  # (D,)
    values: np.ndarray  # (D, E) float64, means over seeds
    dropped: pl.DataFrame  # columns of `DROPPED`: what ("entry" or "data set"), name, missing of how many, reason

    @property
    def sign(self) -> int:
        """1 where a higher value is better, -1 where a lower one is."""
        return 1 if METRICS[self.metric].higher_is_better else -1

    @property
    def names(self) -> list[str]:
        """The entries' names, in the order of the columns of `values`."""
        return self.entries["entry"].to_list()


def with_names(entries: pl.DataFrame) -> pl.DataFrame:
    """Add `entry`: model + head, then strategy, variant and shots where they are not the same for all."""
    label = labelled(entries)["label"]
    parts = [pl.format("{} + {}", "model", "head")]
    if entries["strategy"].n_unique() > 1:
        parts.append(pl.col("strategy"))
    if (label != "").any():
        parts.append(pl.when(label != "").then(label))
    if entries["shots"].n_unique() > 1:
        parts.append(pl.when(pl.col("shots").is_null()).then(pl.lit("all cells")).otherwise(_shots()))
    return entries.select(pl.concat_str(parts, separator=", ", ignore_nulls=True).alias("entry"), pl.all())


def _shots() -> pl.Expr:
    return pl.format("{} shots", pl.col("shots").cast(pl.String))


def score_matrix(scores: pl.DataFrame, metric: str, *, simulated: bool = False, **where: object) -> ScoreMatrix:
    """Return the complete table of entries x data sets of one view.

    Parameters
    ----------
    scores
        Columns as `results.SCORES`. Reported rows are left out.
    metric
        A key of `METRICS`.
    simulated
        Take the simulated data sets in place of the real ones; the two are never put together.
    where
        A value, or a list of values, of any column: `protocol`, `split_by`, `strategy`, `facet`, ...

    Raises
    ------
    InvalidInput
        The view holds several splits or protocols, whose scores cannot be compared, or fewer than two entries or data
        sets that have a score everywhere.
    """
    key = METRICS[metric].key
    rows = per_dataset(scores.filter(pl.col("metric") == key, *(chosen(name, value) for name, value in where.items())))
    rows = rows.filter(pl.col("simulated") == simulated)
    require_one(rows, "protocol")
    require_one(rows, "split_by")
    table = rows.group_by(*_ENTRY, *CONTEXT).agg(pl.col("value").mean())
    entries = with_names(table.select(_ENTRY).unique().sort(_ENTRY, nulls_last=True))
    contexts = table.select(CONTEXT).unique().sort(CONTEXT)
    values = _cross(table, entries, contexts)  # (contexts, E)
    datasets, of = np.unique(contexts["dataset"].to_numpy().astype(str), return_inverse=True)
    scored = np.zeros((len(datasets), entries.height), dtype=bool)
    np.logical_or.at(scored, of, ~np.isnan(values))
    rows_kept, columns, dropped = _complete(scored, datasets.tolist(), entries["entry"].to_list())
    shared = np.isin(of, rows_kept) & ~np.isnan(values[:, columns]).any(axis=1)  # contexts that all entries have
    counts = np.bincount(of[shared], minlength=len(datasets))
    apart = [("data set", str(datasets[row]), 0, len(columns), APART) for row in rows_kept if not counts[row]]
    sums = np.zeros((len(datasets), len(columns)))
    np.add.at(sums, of[shared], values[np.ix_(shared, columns)])
    kept = np.flatnonzero(counts)
    if len(kept) < 2 or len(columns) < 2:
        message = f"{len(columns)} entries have a score on each of {len(kept)} data sets: there is no comparison."
        raise InvalidInput(message, "Compare two entries or more that were run on two data sets or more.")
    left_out = pl.DataFrame([*dropped, *apart], schema=DROPPED, orient="row")
    means = sums[kept] / counts[kept, None]
    return ScoreMatrix(key, entries[columns.tolist()], tuple(datasets[kept].tolist()), means, left_out)


def _cross(table: pl.DataFrame, entries: pl.DataFrame, contexts: pl.DataFrame) -> np.ndarray:
    """Return the scores as (contexts, entries), NaN where there is none."""
    numbered = table.join(entries.with_row_index("column"), on=_ENTRY, nulls_equal=True)
    numbered = numbered.join(contexts.with_row_index("row"), on=CONTEXT, nulls_equal=True)
    values = np.full((contexts.height, entries.height), np.nan)
    values[numbered["row"].to_numpy(), numbered["column"].to_numpy()] = numbered["value"].to_numpy()
    return values


def _complete(
    scored: np.ndarray, datasets: list[str], entries: list[str]
) -> tuple[np.ndarray, np.ndarray, list[tuple[str, str, int, int, str]]]:
    """Drop rows and columns, the one with the largest share of gaps first, until none is left.

    Returns the kept rows and columns, and what was dropped. Of equal shares the row goes, and of rows the first.
    """
    rows, columns = np.arange(len(datasets)), np.arange(len(entries))
    dropped: list[tuple[str, str, int, int, str]] = []
    while len(rows) and len(columns) and not scored[np.ix_(rows, columns)].all():
        gaps = ~scored[np.ix_(rows, columns)]
        by_row, by_column = gaps.mean(axis=1), gaps.mean(axis=0)
        if by_row.max() >= by_column.max():
            worst = int(by_row.argmax())
            lacking = f"no score by {_named([entries[column] for column in columns[gaps[worst]]])}"
            dropped.append(("data set", datasets[rows[worst]], int(gaps[worst].sum()), len(columns), lacking))
            rows = np.delete(rows, worst)
        else:
            worst = int(by_column.argmax())
            lacking = f"no score on {_named([datasets[row] for row in rows[gaps[:, worst]]])}"
            dropped.append(("entry", entries[columns[worst]], int(gaps[:, worst].sum()), len(rows), lacking))
            columns = np.delete(columns, worst)
    return rows, columns, dropped


def _named(names: list[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
