"""The sections of a report: what a set of runs scored, as sentences, tables and the figures that the app draws too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from scdrugmap.errors import InvalidInput
from scdrugmap.evaluation.analysis.few_shot_curves import curves
from scdrugmap.evaluation.analysis.leakage_gap import GAP_CELLS, GAP_ENTRY, gaps
from scdrugmap.evaluation.analysis.scores import averaged, labelled
from scdrugmap.evaluation.analysis.significance import compare
from scdrugmap.evaluation.analysis.transfer_matrix import entries, matrix
from scdrugmap.evaluation.metrics.metrics import METRICS
from scdrugmap.evaluation.report import tables
from scdrugmap.evaluation.report.tables import MarkdownTable, number
from scdrugmap.evaluation.results.store import read_predictions
from scdrugmap.plots import benchmark, transfer
from scdrugmap.plots import scores as plots
from scdrugmap.plots.base import LINE, svg
from scdrugmap.plots.palette import LIGHT
from scdrugmap.settings import Settings

POOLED_METRICS = ("auroc_within", "f1")
CROSS_DATA_METRIC = "auroc"  # each target is one fold
_WIDTH = 760  # px of a figure


@dataclass(frozen=True)
class Figure:
    """A figure as SVG, and in words for those who cannot see it."""

    name: str  # of its file, without the suffix
    title: str
    alt: str
    svg: str


@dataclass
class Section:
    """A heading and what stands under it, in order: paragraphs, tables, figures."""

    title: str
    blocks: list[str | MarkdownTable | Figure] = field(default_factory=list)
    level: int = 2


@dataclass(frozen=True)
class Results:
    """Scores of real or of simulated cells, and the runs that they may be of."""

    scores: pl.DataFrame  # columns as `results.SCORES`
    runs: pl.DataFrame  # as `read_runs` gives them
    settings: Settings
    simulated: bool

    @property
    def suffix(self) -> str:
        """What a heading says of them."""
        return " (simulated cells)" if self.simulated else ""

    @property
    def source(self) -> str:
        """How the figures mark them."""
        return "simulated" if self.simulated else "measured"

    @property
    def mark(self) -> str:
        """What the names of figures say of them."""
        return "-simulated" if self.simulated else ""


def score_sections(results: Results) -> Iterator[Section]:
    """Yield every score, a table for each set of cells; the paper's split stands beside the leak-safe ones."""
    yield Section(f"Scores{results.suffix}")
    means = tables.with_entry(averaged(results.scores))
    for place, (title, view) in enumerate(tables.views(means)):
        section = Section(title, [tables.score_table(view, results.runs, results.settings)], level=3)
        pooled = view.filter(pl.col("protocol") == "pooled", pl.col("value").is_not_null())
        for metric in POOLED_METRICS:
            rows = pooled.filter(metric=metric)
            if not rows.is_empty():
                section.blocks.append(
                    _ranking(rows, results.source, f"scores{results.mark}-{place}-{metric}", metric, title)
                )
        yield section


def _ranking(rows: pl.DataFrame, source: str, name: str, metric: str, where: str) -> Figure:
    """Draw each entry by each split with its interval, and the constant classifier of the same cells."""
    title = METRICS[metric].title
    frame = rows.select(
        "value", "ci_low", "ci_high", "constant", title=pl.format("{}{}by {}", "entry", pl.lit(LINE), "split_by"),
        source=pl.lit(source),
    )  # fmt: skip
    scored = "; ".join(f"{row['entry']} by {row['split_by']} {_interval(row)}" for row in rows.to_dicts())
    words = f"{title} on {where}, with 95 % intervals; the black tick is the constant classifier. {scored}."
    return Figure(name, f"{title}: {where}", words, svg(plots.ranking(frame, title, LIGHT), _WIDTH))


def gap_section(results: Results) -> Iterator[Section]:
    """Yield how much higher each entry scores by cell than leak-safe, where both were run."""
    table = gaps(results.scores, lambda run_id: read_predictions(run_id, results.settings), POOLED_METRICS)
    table = tables.with_entry(table.filter(pl.col("gap").is_not_null()))
    if table.is_empty():
        return
    section = Section(f"Leakage gap{results.suffix}")
    section.blocks += [
        "How much higher the same entry scores on the same cells where the split is by cell. The interval draws the "
        "same samples for both.",
        tables.gap_table(table),
    ]
    key = [*GAP_ENTRY, *GAP_CELLS, "split_by", "metric"]
    safe = averaged(results.scores).select(*key, "constant", safe_low="ci_low", safe_high="ci_high")
    rows = table.join(safe.unique(key), on=key, how="left", nulls_equal=True, maintain_order="left")
    metric = POOLED_METRICS[0]
    views = rows.filter(metric=metric).group_by("facet_value", "split_by", maintain_order=True)
    for place, ((where, split_by), view) in enumerate(views):
        section.blocks.append(
            _dumbbell(view, f"gap{results.mark}-{place}", metric, f"{where}, by cell against by {split_by}")
        )
    yield section


def _dumbbell(rows: pl.DataFrame, name: str, metric: str, where: str) -> Figure:
    frame = rows.select(
        "by_cell", "safe", "safe_low", "safe_high", "constant", "gap", "n", title="entry", gap_low="low",
        gap_high="high", safe_name=pl.col("split_by").str.replace_all("_", " "),
    ).sort("safe", descending=METRICS[metric].higher_is_better)  # fmt: skip
    chart = plots.dumbbell(frame, METRICS[metric].title, LIGHT)
    gap_words = "; ".join(f"{row['entry']} {_interval(row, 'gap', 'low', 'high')}" for row in rows.to_dicts())
    words = f"Leakage gap on {where}, with 95 % intervals: {gap_words}."
    return Figure(name, f"Leakage gap: {where}", words, svg(chart, _WIDTH))


def comparison_sections(results: Results) -> Iterator[Section]:
    """Compare entries over data sets, one section a split, protocol and facet, where there are enough."""
    keys = ["protocol", "split_by", "facet", "strategy"]
    for (protocol, split_by, facet, strategy), view in results.scores.group_by(keys, maintain_order=True):
        metric = CROSS_DATA_METRIC if protocol == "cross-data" else POOLED_METRICS[0]
        zero_shot = view.filter(pl.col("shots").is_null() | (pl.col("shots") == 0))
        where: dict[str, Any] = {"split_by": split_by, "protocol": protocol}
        try:
            comparison = compare(zero_shot, metric, simulated=results.simulated, **where)
        except InvalidInput:
            continue
        title = f"Comparison over data sets{results.suffix}: {protocol} by {split_by}, {facet}, {strategy}"
        yield Section(title, [*tables.comparison(comparison)])


def transfer_sections(results: Results) -> Iterator[Section]:
    """Yield a matrix an entry: trained on the data set of the row, tested on that of the column."""
    known = entries(results.scores, simulated=results.simulated)
    if known.is_empty():
        return
    intro = "Each data set of the rows trains alone; each one of the columns is tested. Mean over seeds."
    yield Section(f"Transfer{results.suffix}", [intro])
    for place, row in enumerate(labelled(known).to_dicts()):
        entry = {name: row[name] for name in ("model", "head", "strategy", "variant", "shots", "split_by")}
        table = matrix(results.scores, CROSS_DATA_METRIC, simulated=results.simulated, **entry)
        label = f", {row['label']}" if row["label"] else ""
        title = f"{row['model']} + {row['head']}, {row['strategy']}{label}, {row['shots']} shots"
        yield Section(
            title, [tables.matrix_table(table), _matrix(table, f"transfer{results.mark}-{place}", title)], level=3
        )


def _matrix(rows: pl.DataFrame, name: str, where: str) -> Figure:
    title, names = METRICS[CROSS_DATA_METRIC].title, list(dict.fromkeys(rows["train"]))
    measured = pl.col("state") == "measured"
    frame = rows.select("train", "test", "state", "crosses", *(
        pl.when(measured).then(column).alias(name) for name, column in (("value", "value"), ("shade", "better"))
    ))  # fmt: skip
    chart = transfer.matrix(frame, names, title, LIGHT, against="the constant", undecided="interval holds the constant")
    pairs = "; ".join(
        f"{row['train']} to {row['test']} {row['state'] if row['value'] is None else number(row['value'])}"
        for row in frame.to_dicts() if row["train"] != row["test"]
    )  # fmt: skip
    words = f"Transfer matrix of {where}, {title}; blue is above the constant classifier, orange below. {pairs}."
    return Figure(name, f"{title}: {where}", words, svg(chart, min(240 + 110 * len(names), _WIDTH)))


def few_shot_section(results: Results) -> Iterator[Section]:
    """Yield what each entry scores as more labelled cells of the target may train, where several numbers were run."""
    points = curves(results.scores, CROSS_DATA_METRIC, simulated=results.simulated)
    points = tables.with_entry(points.filter(pl.col("value").is_not_null()))
    if points.is_empty():
        return
    section = Section(f"Few shots{results.suffix}")
    section.blocks += [
        "Labelled cells a class of the target beside the other data sets. All points of a curve are tested on the same "
        "cells; 'all' is the target alone, split by sample.",
        tables.curve_table(points),
    ]
    for place, ((test, train), curve) in enumerate(points.group_by("test", "train", maintain_order=True)):
        if curve["point"].n_unique() > 1:
            where = f"{test}, beside {' + '.join(train)}" if train else f"{test} alone"
            section.blocks.append(_curves(curve, f"shots{results.mark}-{place}", where))
    yield section


def _curves(rows: pl.DataFrame, name: str, where: str) -> Figure:
    title = METRICS[CROSS_DATA_METRIC].title
    frame = rows.select("value", "low", "high", "constant", "n", "seeds", title="entry", shots="point")
    scored = "; ".join(
        f"{row['entry']} at {row['point']} {_interval(row, 'value', 'low', 'high')}" for row in rows.to_dicts()
    )
    words = f"Few-shot curves on {where}, {title}: {scored}."
    return Figure(name, f"{title}: {where}", words, svg(benchmark.few_shot(frame, title, LIGHT), _WIDTH))


def _interval(row: Mapping[str, float], value: str = "value", low: str = "ci_low", high: str = "ci_high") -> str:
    return number(row[value], row[low], row[high])
