"""From the tables of the package to the frames that the models page's tabs draw. Polars in, polars out."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from scdrugmap.app.ui.board import ANY_VALUE, CONSTANT_MODEL, cells, named, titled
from scdrugmap.evaluation.analysis.leaderboard import leaderboard
from scdrugmap.evaluation.analysis.significance import Comparison
from scdrugmap.evaluation.metrics.metrics import METRICS
from scdrugmap.evaluation.metrics.reliability import Reliability

PANEL = 8  # entries in one of the small multiples
_USUAL = {
    "Bone marrow aspirate": "Bone marrow",
    "Peripheral blood mononuclear cells": "PBMC",
    "Non-small cell lung cancer": "NSCLC",
}
LIKE = ["model", "head", "strategy", "variant"]
PLOTS = {"wide": 900, "narrow": 170}  # px of the plot of scores against speed, on a desktop and on a phone
TALL, LETTER, _MARGIN = 240, 7, 30  # px: the plot's height, a letter's width, and what a name may stand out at the side


def words_of(shots: str) -> int | None:
    """Return the number behind the word of a picker, None for "all"."""
    return None if shots == "all" else int(shots)


def panels(rows: pl.DataFrame, most: int = PANEL) -> list[tuple[str, pl.DataFrame]]:
    """Return the small multiples of a facet, those with most entries first, and in each the best `most` entries."""
    rows = rows.with_columns(panel=pl.when(pl.col("panel") == "").then("on").otherwise("panel"))
    order = rows.group_by("panel", maintain_order=True).agg(pl.len().alias("entries"), pl.col("n").max())
    order = order.sort("entries", "n", descending=True, maintain_order=True, nulls_last=True)
    return [(name, rows.filter(panel=name).sort("place").head(most)) for name in order["panel"]]


def with_gaps(both: pl.DataFrame, gaps: pl.DataFrame) -> pl.DataFrame:
    """Add the interval of the leakage gap to the rows of `boards.pairs`, and the gap in its favour-free direction."""
    key = [*LIKE, "split_by", "on", "design"]
    intervals = gaps.with_columns(on=cells()).select(
        *key, gap_low="low", gap_high="high", gap_seeds="seeds", gap_unit="unit"
    )
    return both.join(intervals.unique(key, keep="first"), on=key, how="left", maintain_order="left", nulls_equal=True)


def stated(rows: pl.DataFrame) -> pl.DataFrame:
    """Name the reported numbers for an axis: the entry above, its stratum, shortened where that is usual, below."""
    short = pl.col("on")
    for name, usual in _USUAL.items():
        short = short.str.replace(name, usual, literal=True)
    return rows.with_columns(title=pl.format("{}, {} · {}", "title", "strategy", short), where="on")


def targets(rows: pl.DataFrame) -> list[str]:
    """Return the data sets that have few-shot curves, those of most entries and points first."""
    counts = rows.group_by("test").agg(points=pl.struct("title", "strategy", "point").n_unique())
    return counts.sort("points", "test", descending=[True, False])["test"].to_list()


def one_target(rows: pl.DataFrame, target: str) -> pl.DataFrame:
    """Return the curves of one target as `plots.benchmark.few_shot` draws them: the training side of most points."""
    curves = rows.filter(test=target)
    alone = pl.col("train").list.len() == 0
    sides = curves.filter(~alone).group_by("train").agg(points=pl.len())
    most = sides.sort("points", "train", descending=[True, False]).head(1)
    kept = pl.concat([curves.join(most, on="train", how="semi"), curves.filter(alone)])
    return _by_strategy(kept.rename({"point": "shots", "shots": "k"}))


def best_curves(curves: pl.DataFrame, *, higher: bool) -> list[str]:
    """Return the names of the curves of a target, the one with the best mean over its points first."""
    means = curves.group_by("title").agg(pl.col("value").mean())
    return means.sort("value", "title", descending=[higher, False])["title"].to_list()


def _by_strategy(rows: pl.DataFrame) -> pl.DataFrame:
    """Add the strategy to the names where several are in view."""
    if rows["strategy"].n_unique() < 2:
        return rows
    return rows.with_columns(title=pl.format("{}, {}", "title", "strategy"))


def calibrated(entries: Sequence[tuple[str, Reliability]]) -> pl.DataFrame:
    """Return the bins of several entries as `plots.benchmark.reliability` draws them; empty bins go."""
    tables = [entry.bins.with_columns(title=pl.lit(title)) for title, entry in entries]
    frame = pl.concat(tables).filter(pl.col("n") > 0)
    return frame.rename({"mean_p": "predicted"})


def calibration_table(entries: Sequence[tuple[str, Reliability]]) -> pl.DataFrame:
    """Return one row an entry: its ECE with interval, its Brier score beside the constant's, whether it is too sure."""
    return pl.DataFrame(
        [
            {
                "title": title, "ece": entry.ece, "low": entry.ece_low, "high": entry.ece_high, "brier": entry.brier,
                "constant": entry.brier_constant, "overconfident": entry.overconfident,
                "n": entry.n, "unit": entry.unit,
            }
            for title, entry in entries
        ]
    )  # fmt: skip


def ranks(comparison: Comparison, models: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, str]]:
    """Return the mean ranks with `title`, and the title of each entry by its name in the comparison."""
    constant = comparison.ranks.filter(model=CONSTANT_MODEL).with_columns(title=pl.lit("constant"))
    rest = _by_strategy(titled(comparison.ranks, models).drop("label"))
    several = rest["shots"].n_unique() > 1
    if several:
        rest = rest.with_columns(title=pl.format("{}, {} shots", "title", "shots"))
    rows = pl.concat([rest, constant.select(rest.columns)]).sort("mean_rank", "entry")
    return rows, dict(rows.select("entry", "title").iter_rows())


def compared(comparison: Comparison, names: dict[str, str]) -> pl.DataFrame:
    """Return the table of paired tests, named for the screen, smallest p first."""
    table = comparison.pairs.with_columns(pl.col("a", "b").replace(names))
    return table.sort("p_holm", "p_wilcoxon", "median_difference", descending=[False, False, True])


def costed(rows: pl.DataFrame, speeds: pl.DataFrame, *, higher_is_better: bool) -> pl.DataFrame:
    """Return the entries of a view whose model's speed was measured, as `plots.benchmark.cost` draws them.

    `pareto`: no other entry of the same source is as fast and scores better. `left`: the name stands left of its mark;
    `wide` and `narrow`: it has room there on a wide plot, and on a phone's.
    """
    frame = rows.join(speeds, on="model", how="inner", maintain_order="left").drop_nulls("value")
    better = pl.col("value") if higher_is_better else -pl.col("value")
    frame = frame.with_columns(_score=better).sort("cells_per_s", "_score", descending=True)
    best = pl.col("_score").cum_max().over("source")
    earlier = best.shift(1).over("source")
    half = pl.col("cells_per_s").log() > (pl.col("cells_per_s").log().min() + pl.col("cells_per_s").log().max()) / 2
    frame = frame.with_columns(pareto=earlier.is_null() | (pl.col("_score") > earlier), left=half)
    frame = frame.sort("pareto", "_score", descending=True, maintain_order=True).drop("_score")
    return frame.with_columns(**{name: pl.Series(_room(frame, px), dtype=pl.Boolean) for name, px in PLOTS.items()})


def _room(frame: pl.DataFrame, px: int) -> list[bool]:
    """Tell whose name finds room on a plot of so many px, earlier rows first: a name gives way to those before it."""
    speed, value, width = pl.col("cells_per_s").log(), pl.col("value"), LETTER * pl.col("title").str.len_chars()
    top, foot = (pl.max_horizontal("value", "ci_high").max(), pl.min_horizontal("value", "ci_low").min())
    places = frame.select(
        start=px * (speed - speed.min()) / pl.max_horizontal(speed.max() - speed.min(), pl.lit(1e-9))
        - pl.when("left").then(width).otherwise(0),
        height=TALL * (value - foot) / pl.max_horizontal(top - foot, pl.lit(1e-9)),
        width=width,
    )
    taken: list[tuple[float, float, float]] = []
    free = []
    for start, height, width in places.iter_rows():
        fits = start >= -_MARGIN and start + width <= px + _MARGIN
        fits &= all(abs(height - other) > 2 * LETTER or start > b or start + width < a for a, b, other in taken)
        free.append(fits)
        if fits:
            taken.append((start, start + width, height))
    return free


def pick(board: pl.DataFrame, **choices: str) -> pl.DataFrame:
    """Keep the rows where each named column has the chosen value; `ANY_VALUE` leaves a column open."""
    return board.filter(*(pl.col(column) == value for column, value in choices.items() if value != ANY_VALUE))


def ranking(scores: pl.DataFrame, models: pl.DataFrame, *, metric: str, split_by: str, **view: str) -> pl.DataFrame:
    """Return the entries of one view, best first; `view` gives protocol, facet, on and strategy.

    `delta` is the distance to the best measured baseline, `gap` that to the split by cell; reported rows have neither.
    """
    rows = pick(named(leaderboard(scores, metric, split_by=split_by), models), **view)
    return rows.sort("value", descending=METRICS[metric].higher_is_better, nulls_last=True)


def at_constant(board: pl.DataFrame, tolerance: float = 0.0006) -> pl.DataFrame:
    """Return reported numbers that equal the constant classifier's to the third decimal, as they were printed."""
    reported = board.filter((pl.col("source") == "reported") & pl.col("constant").is_not_null())
    return reported.filter((pl.col("value") - pl.col("constant")).abs() < tolerance)
