"""The tables of a report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from scdrugmap.evaluation.analysis.scores import labelled, side
from scdrugmap.evaluation.analysis.significance import Comparison
from scdrugmap.evaluation.metrics.metrics import METRICS
from scdrugmap.evaluation.results.store import read_run
from scdrugmap.settings import Settings

_SHOWN = ("f1", "auroc", "auroc_within", "mcc")  # never an F1 without its constant, an AUROC and MCC beside it


@dataclass(frozen=True)
class MarkdownTable:
    """The heads of the columns, and rows of as many cells; None is an empty cell."""

    head: Sequence[str]
    rows: Sequence[Sequence[object]]


def with_entry(rows: pl.DataFrame) -> pl.DataFrame:
    """Add `entry`: model + head, the strategy where it is not freeze, and what tells it from others of these."""
    strategy = pl.when(pl.col("strategy") == "freeze").then(pl.lit("")).otherwise(", " + pl.col("strategy"))
    label = pl.when(pl.col("label") == "").then(pl.lit("")).otherwise(", " + pl.col("label"))
    return labelled(rows).with_columns(entry=pl.col("model") + " + " + pl.col("head") + strategy + label)


def views(means: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yield the title of each set of cells, with the averaged scores of it: all entries and splits together."""
    keys = ["protocol", "facet", "facet_value", "shots", "train", "test"]
    means = means.with_columns(train=pl.when(pl.col("protocol") != "pooled").then("train"))
    cell_first = pl.col("split_by") != "cell"
    means = means.sort(pl.col("protocol") != "pooled", *keys[1:], "entry", cell_first, "split_by", nulls_last=True)
    for (protocol, facet, value, shots, train, test), view in means.group_by(keys, maintain_order=True):
        cells = value if facet == "all" else f"{facet} {value}"
        few = "" if shots is None else f", {shots} shots"
        sides = "" if train in (None, test) else f"{' + '.join(train)} to {' + '.join(test)}"
        yield f"{protocol}{few}: {', '.join(filter(None, (cells, sides)))}", view


def score_table(means: pl.DataFrame, runs: pl.DataFrame, settings: Settings) -> MarkdownTable:
    """Return the scores of one view: interval, constant, cells, split, seeds, date, version and run of each."""
    versions = {run_id: _version(run_id, settings) for run_id in means["run_ids"].explode().unique()}
    dates = dict(runs.select("run_id", "date").iter_rows())
    seeds = dict(runs.select("run_id", "seed").iter_rows())
    lines = []
    for (entry, split_by), scores in means.group_by("entry", "split_by", maintain_order=True):
        by_metric = {row["metric"]: row for row in scores.to_dicts()}
        first = next(iter(by_metric.values()))
        run_ids = first["run_ids"]
        lines.append(
            [
                *(entry, split_by),
                *(cell for metric in _SHOWN for cell in _score_cells(by_metric.get(metric))),
                first["n"],
                ", ".join(sorted({str(seeds.get(run_id, "")) for run_id in run_ids})),
                max(str(dates.get(run_id, ""))[:10] for run_id in run_ids),
                ", ".join(sorted({versions[run_id] for run_id in run_ids})),
                run_ids[0],
            ]
        )
    titles = [title for metric in _SHOWN for title in (METRICS[metric].title, "constant")]
    return MarkdownTable(["entry", "split by", *titles, "cells", "seeds", "date", "version", "first run"], lines)


def _version(run_id: str, settings: Settings) -> str:
    return read_run(run_id, settings).environment.packages.get("scdrugmap", "")


def _score_cells(row: Mapping[str, Any] | None) -> tuple[str, str]:
    """Return a score with its interval, and that of the constant classifier; empty where there is none."""
    return ("", "") if row is None else (number(row["value"], row["ci_low"], row["ci_high"]), number(row["constant"]))


def number(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """Return a score with its interval, to two digits."""
    if value is None:
        return "not defined"
    return f"{value:.2f}" + ("" if low is None or high is None else f" [{low:.2f}, {high:.2f}]")


def gap_table(gaps: pl.DataFrame) -> MarkdownTable:
    """Return the leakage gaps."""
    head = ["entry", "cells", "metric", "by cell", "leak-safe by", "leak-safe", "gap [95 %]", "drawn", "seeds"]
    lines = [
        [
            *(row["entry"], row["facet_value"], METRICS[row["metric"]].title, number(row["by_cell"])),
            *(row["split_by"], number(row["safe"]), number(row["gap"], row["low"], row["high"])),
            *(f"{row['n_units']} {row['unit']}s", row["seeds"]),
        ]
        for row in gaps.to_dicts()
    ]
    return MarkdownTable(head, lines)


def comparison(compared: Comparison) -> list[str | MarkdownTable]:
    """Return what the tests say, mean ranks, and the pairs of entries."""
    title, p = METRICS[compared.metric].title, compared.p_friedman
    friedman = "" if p is None else f" Friedman's test over all entries: p = {p:.3g}."
    difference = f" Nemenyi's critical difference of mean ranks is {compared.critical_difference:.2f}."
    summary = f"{title} over {compared.n_datasets} data sets.{friedman}{difference} {' '.join(compared.remarks)}"
    ranks = [
        [row["entry"], f"{row['mean_rank']:.2f}", number(row["mean"]), number(row["median"]), f"{row['won']:.3g}"]
        for row in compared.ranks.to_dicts()
    ]
    pairs = [
        [
            *(row["a"], row["b"], number(row["median_difference"], row["low"], row["high"])),
            *(f"{row['won']} / {row['lost']} / {row['tied']}", f"{row['p_holm']:.3g}", f"{row['p_nemenyi']:.3g}"),
        ]
        for row in compared.pairs.to_dicts()
    ]
    tests = ["p (Wilcoxon, Holm)", "p (Nemenyi)"]
    return [
        summary,
        MarkdownTable(["entry", "mean rank", "mean", "median", "data sets won"], ranks),
        MarkdownTable(["entry", "against", "median difference", "won / lost / tied", *tests], pairs),
    ]


def matrix_table(rows: pl.DataFrame) -> MarkdownTable:
    """Return the pairs of a transfer matrix, measured or not."""
    head = ["trained on", "tested on", "score [95 %]", "constant", "cells", "seeds", "state"]
    lines = [
        [
            *(row["train"], row["test"], number(row["value"], row["ci_low"], row["ci_high"])),
            *(number(row["constant"]), row["n"], row["seeds"], row["reason"] or row["state"]),
        ]
        for row in rows.to_dicts()
        if row["train"] != row["test"]
    ]
    return MarkdownTable(head, lines)


def curve_table(points: pl.DataFrame) -> MarkdownTable:
    """Return the points of few-shot curves."""
    head = ["entry", "target", "beside", "shots", "score [95 %]", "constant", "cells", "seeds"]
    lines = [
        [
            *(
                row["entry"],
                row["test"],
                " + ".join(row["train"]),
                row["point"],
                number(row["value"], row["low"], row["high"]),
            ),
            *(number(row["constant"]), row["n"], row["seeds"]),
        ]
        for row in points.to_dicts()
    ]
    return MarkdownTable(head, lines)


def failure_table(failed: pl.DataFrame) -> MarkdownTable:
    """Return why experiments failed, what mends it, and which ones they were."""
    runs = failed.with_columns(
        which=pl.format("{} + {} ({} by {}) on {}", "model", "head", "protocol", "split_by", side("datasets"))
    )
    groups = runs.group_by("reason", "remedy", maintain_order=True).agg(pl.len().alias("n"), pl.col("which").unique())
    lines = [[row["n"], row["reason"], row["remedy"], "; ".join(sorted(row["which"]))] for row in groups.to_dicts()]
    return MarkdownTable(["experiments", "reason", "what mends it", "which"], lines)


def remark_table(remarks: Mapping[str, str]) -> MarkdownTable:
    """Return the remarks of a plan, one a data set."""
    return MarkdownTable(["data set", "remark"], list(remarks.items()))
