"""The tables of a report, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from scdrugmap.evaluation.analysis.scores import labelled
from scdrugmap.evaluation.analysis.significance import Comparison
from scdrugmap.evaluation.metrics.metrics import METRICS
from scdrugmap.evaluation.results.store import read_run
from scdrugmap.settings import Settings

SHOWN = ("f1", "auroc", "auroc_within", "mcc")  # never an F1 without its constant, an AUROC and MCC beside it


def plain(text: object) -> str:
    """Return text that cannot be read as Markdown of its own: in a table, a link or a heading."""
    return "".join(f"\\{letter}" if letter in "|[]*`<>\\" else letter for letter in " ".join(str(text).split()))


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table; None is an empty cell."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join('' if cell is None else plain(cell) for cell in line)} |" for line in lines)


def with_entry(rows: pl.DataFrame) -> pl.DataFrame:
    """Add `entry`: model + head, the strategy where it is not freeze, and what tells it from others of these."""
    strategy = pl.when(pl.col("strategy") == "freeze").then(pl.lit("")).otherwise(", " + pl.col("strategy"))
    label = pl.when(pl.col("label") == "").then(pl.lit("")).otherwise(", " + pl.col("label"))
    return labelled(rows).with_columns(entry=pl.col("model") + " + " + pl.col("head") + strategy + label)


def views(means: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yield what was asked about which cells, with the averaged scores of it: all entries and splits together."""
    keys = ["protocol", "facet", "facet_value", "shots", "train", "test"]
    means = means.with_columns(train=pl.when(pl.col("protocol") == "pooled").then(pl.lit("")).otherwise("train"))
    cell_first = pl.col("split_by") != "cell"
    means = means.sort(pl.col("protocol") != "pooled", *keys[1:], "entry", cell_first, "split_by", nulls_last=True)
    for (protocol, facet, value, shots, train, test), own in means.group_by(keys, maintain_order=True):
        kind = "" if facet == "all" else f"{facet} "
        few = "" if shots is None else f", {shots} shots"
        sides = "" if train in ("", test) else f", {train} to {test}"
        yield plain(f"{protocol}{few}: {kind}{value}{sides}"), own


def score_table(means: pl.DataFrame, made: pl.DataFrame, settings: Settings) -> str:
    """Return the scores of one view: interval, constant, cells, split, seeds, date, version and run of each."""
    versions = {run_id: _version(run_id, settings) for run_id in {one for ids in means["run_ids"] for one in ids}}
    dates = dict(made.select("run_id", "date").iter_rows())
    seeds = dict(made.select("run_id", "seed").iter_rows())
    rows = []
    for (entry, split_by), own in means.group_by("entry", "split_by", maintain_order=True):
        by = {row["metric"]: row for row in own.to_dicts()}
        first = next(iter(by.values()))
        ids = first["run_ids"]
        rows.append(
            [
                *(entry, split_by),
                *(cell for metric in SHOWN for cell in (_value(by.get(metric)), _constant(by.get(metric)))),
                first["n"],
                ", ".join(sorted({str(seeds.get(one, "")) for one in ids})),
                max(str(dates.get(one, ""))[:10] for one in ids),
                ", ".join(sorted({versions[one] for one in ids})),
                ids[0],
            ]
        )
    titles = [title for metric in SHOWN for title in (METRICS[metric].title, "constant")]
    return table(["entry", "split by", *titles, "cells", "seeds", "date", "version", "first run"], rows)


def _version(run_id: str, settings: Settings) -> str:
    return read_run(run_id, settings).environment.packages.get("scdrugmap", "")


def _value(row: Mapping[str, Any] | None) -> str:
    return "" if row is None else number(row["value"], row["ci_low"], row["ci_high"])


def _constant(row: Mapping[str, Any] | None) -> str:
    return "" if row is None else number(row["constant"])


def number(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """Return a score with its interval, to two digits."""
    if value is None:
        return "not defined"
    return f"{value:.2f}" + ("" if low is None or high is None else f" [{low:.2f}, {high:.2f}]")


def gap_table(found: pl.DataFrame) -> str:
    """Return the leakage gaps."""
    head = ["entry", "cells", "metric", "by cell", "leak-safe by", "leak-safe", "gap [95 %]", "drawn", "seeds"]
    rows = (
        [
            *(row["entry"], row["facet_value"], METRICS[row["metric"]].title, number(row["by_cell"])),
            *(row["split_by"], number(row["safe"]), number(row["gap"], row["low"], row["high"])),
            *(f"{row['n_units']} {row['unit']}s", row["seeds"]),
        ]
        for row in found.to_dicts()
    )
    return table(head, rows)


def comparison(found: Comparison) -> str:
    """Return mean ranks and what the tests say of them."""
    title, p = METRICS[found.metric].title, found.p_friedman
    friedman = "" if p is None else f" Friedman's test over all entries: p = {p:.3g}."
    difference = f" Nemenyi's critical difference of mean ranks is {found.critical_difference:.2f}."
    said = f"{title} over {found.n_datasets} data sets.{friedman}{difference} {' '.join(found.said)}"
    ranks = table(
        ["entry", "mean rank", "mean", "median", "data sets won"],
        (
            [row["entry"], f"{row['mean_rank']:.2f}", number(row["mean"]), number(row["median"]), f"{row['won']:.3g}"]
            for row in found.ranks.to_dicts()
        ),
    )
    pairs = table(
        ["entry", "against", "median difference", "won / lost / tied", "p (Wilcoxon, Holm)", "p (Nemenyi)"],
        (
            [
                *(row["a"], row["b"], number(row["median_difference"], row["low"], row["high"])),
                *(f"{row['won']} / {row['lost']} / {row['tied']}", f"{row['p_holm']:.3g}", f"{row['p_nemenyi']:.3g}"),
            ]
            for row in found.pairs.to_dicts()
        ),
    )
    return f"{said}\n\n{ranks}\n\n{pairs}"


def matrix_table(rows: pl.DataFrame) -> str:
    """Return the pairs of a transfer matrix, measured or not."""
    head = ["trained on", "tested on", "score [95 %]", "constant", "cells", "seeds", "state"]
    pairs = rows.filter(pl.col("train") != pl.col("test")).to_dicts()
    return table(
        head,
        (
            [
                *(row["train"], row["test"], number(row["value"], row["ci_low"], row["ci_high"])),
                *(number(row["constant"]), row["n"], row["seeds"], row["reason"] or row["state"]),
            ]
            for row in pairs
        ),
    )


def curve_table(rows: pl.DataFrame) -> str:
    """Return the points of few-shot curves."""
    head = ["entry", "target", "beside", "shots", "score [95 %]", "constant", "cells", "seeds"]
    return table(
        head,
        (
            [
                *(row["entry"], row["test"], row["train"], row["point"], number(row["value"], row["low"], row["high"])),
                *(number(row["constant"]), row["n"], row["seeds"]),
            ]
            for row in rows.to_dicts()
        ),
    )


def failure_table(failed: pl.DataFrame) -> str:
    """Return why experiments failed, what mends it, and which ones they were."""
    rows = failed.with_columns(
        which=pl.format(
            "{} + {} ({} by {}) on {}", "model", "head", "protocol", "split_by", pl.col("datasets").list.join("+")
        )
    )
    grouped = rows.group_by("reason", "remedy", maintain_order=True).agg(pl.len().alias("n"), pl.col("which").unique())
    lines = ([row["n"], row["reason"], row["remedy"], "; ".join(sorted(row["which"]))] for row in grouped.to_dicts())
    return table(["experiments", "reason", "what mends it", "which"], lines)


def remarks(given: Mapping[str, str]) -> str:
    """Return the remarks of a plan."""
    return table(["data set", "remark"], given.items())
