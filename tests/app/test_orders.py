"""Every order and sign that carries meaning: best first, worst last, and which way a difference is turned."""

from __future__ import annotations

import colorsys
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from anndata import AnnData

from scdrugmap.app.models import frames
from scdrugmap.app.transfer import frames as transfer_frames
from scdrugmap.app.ui import board as score_frames
from scdrugmap.app.ui import glossary
from scdrugmap.evaluation.analysis.leakage_gap import over_datasets
from scdrugmap.evaluation.analysis.score_matrix import DROPPED, ScoreMatrix, with_names
from scdrugmap.evaluation.analysis.significance import compare_blocks
from scdrugmap.evaluation.analysis.transfer_matrix import difference
from scdrugmap.evaluation.metrics.reliability import reliability
from scdrugmap.evaluation.report import sections, tables
from scdrugmap.evaluation.results.store import PREDICTIONS
from scdrugmap.plots import palette, transfer
from scdrugmap.prediction.pipeline import summary

BOARD = {
    "protocol": "pooled", "facet": "all", "on": "set", "strategy": "freeze", "shots": "all", "design": "", "n": 9,
    "head": "mlp", "variant": "", "source": "measured", "ci_low": None, "ci_high": None, "constant": 0.5,
}  # fmt: skip
UP_AND_DOWN = pytest.mark.parametrize(
    ("metric", "best_first"),
    [
        pytest.param("f1", ["high", "middle", "low"], id="the highest F1 is the best"),
        pytest.param("brier", ["low", "middle", "high"], id="the lowest Brier score is the best"),
    ],
)
VALUES = {"middle": 0.6, "low": 0.3, "high": 0.8}


def both_ways(metric: str, kinds: dict[str, str]) -> pl.DataFrame:
    rows = [
        BOARD | {"metric": metric, "model": name, "title": name, "kind": kind, "split_by": split, "value": VALUES[name]}
        for name, kind in kinds.items()
        for split in ("cell", "sample")
    ]
    return pl.DataFrame(rows)


# ---- boards --------------------------------------------------------------------------------------------------------
@UP_AND_DOWN
def test_home_shows_the_best_models_and_the_best_first(metric, best_first):
    board = both_ways(metric, dict.fromkeys(VALUES, "foundation"))
    assert score_frames.headline(board, metric=metric, best=2)["title"].to_list() == best_first[:2]


@UP_AND_DOWN
def test_home_shows_the_best_baseline_after_the_models(metric, best_first):
    best, model, worst = best_first
    board = both_ways(metric, {worst: "baseline", model: "foundation", best: "baseline"})
    assert score_frames.headline(board, metric=metric, best=1)["title"].to_list() == [model, best]


def test_the_strictest_leak_safe_split_stands_for_the_leak_safe_side():
    splits = ("cell", "sample", "patient_or_line", "dataset", "study")
    for strictest in range(1, len(splits)):
        rows = [BOARD | {"metric": "f1", "model": "a", "split_by": name, "value": 0.5}
                for name in splits[: strictest + 1]]  # fmt: skip
        found = score_frames.pairs(pl.DataFrame(rows), metric="f1")
        assert found["split_by"].to_list() == [splits[strictest]]


@UP_AND_DOWN
def test_the_curves_that_are_drawn_first_are_the_best(metric, best_first):
    curves = pl.DataFrame({"title": list(VALUES) * 2, "value": [*VALUES.values()] * 2})
    assert frames.best_curves(curves, higher=metric == "f1") == best_first


def test_panels_with_most_entries_come_first_and_in_each_the_best_entries():
    rows = pl.DataFrame(
        {"panel": ["few", "many", "many", "many"], "on": "", "n": 1, "place": [1, 3, 1, 2], "title": list("abcd")}
    )
    found = frames.panels(rows, most=2)
    assert [(name, part["title"].to_list()) for name, part in found] == [("many", ["c", "d"]), ("few", ["a"])]


@UP_AND_DOWN
def test_what_no_other_entry_beats_in_both_comes_first_and_is_marked(metric, best_first):
    best, middle, worst = best_first
    speed = {best: 1.0, middle: 3.0, worst: 2.0}  # the worst is slower than the middle one, which beats it in both
    rows = [
        {"model": name, "title": name, "value": VALUES[name], "ci_low": None, "ci_high": None, "source": "measured"}
        for name in VALUES
    ]
    types = {"ci_low": pl.Float64, "ci_high": pl.Float64}
    speeds = pl.DataFrame({"model": list(speed), "cells_per_s": list(speed.values())})
    found = frames.costed(pl.DataFrame(rows, schema_overrides=types), speeds, higher_is_better=metric == "f1")
    assert found.select("title", "pareto").rows() == [(best, True), (middle, True), (worst, False)]


def test_paired_tests_are_listed_with_the_smallest_p_first():
    table = {"a": list("xyz"), "b": "w", "p_holm": [0.3, 0.01, 0.04], "p_wilcoxon": 0.1, "median_difference": 0.1}
    found: Any = SimpleNamespace(pairs=pl.DataFrame(table))
    assert frames.compared(found, {})["a"].to_list() == ["y", "z", "x"]


def test_pairs_are_listed_from_the_best_to_the_worst_and_those_without_a_score_last():
    table = pl.DataFrame(
        {"train": list("abcde"), "better": [0.1, None, -0.2, 0.3, None], "state": [*["measured"] * 4, "itself"]}
    )
    assert transfer_frames.best_first(table)["train"].to_list() == ["d", "a", "c", "b"]


# ---- statistics ----------------------------------------------------------------------------------------------------
def compared(metric: str):
    values = np.array([[VALUES[name] + i / 100 for name in VALUES] for i in range(6)])
    entries = pl.DataFrame({"model": list(VALUES), "head": "mlp", "strategy": "freeze", "variant": "", "shots": None})
    entries = with_names(entries.with_columns(pl.col("shots").cast(pl.Int64)))
    names = tuple("abcdef")
    return compare_blocks(ScoreMatrix(metric, entries, names, values, pl.DataFrame(schema=DROPPED)), draws=10)


@UP_AND_DOWN
def test_rank_1_is_the_best_and_a_pair_names_its_better_entry_first(metric, best_first):
    found = compared(metric)
    assert found.ranks["model"].to_list() == best_first
    assert found.ranks["mean_rank"].to_list() == [1, 2, 3]
    for a, b, difference_of, ranks, won, lost in found.pairs.select(
        "a", "b", "median_difference", "rank_difference", "won", "lost"
    ).iter_rows():
        assert best_first.index(a.split(" ")[0]) < best_first.index(b.split(" ")[0])
        assert difference_of > 0 > ranks
        assert (won, lost) == (6, 0)


@UP_AND_DOWN
def test_a_report_lists_the_best_entry_first_and_calls_no_side_of_a_pair_better(metric, best_first):
    _, ranks, pairs = tables.comparison(compared(metric))
    assert [row[0].split(" ")[0] for row in ranks.rows] == best_first
    assert pairs.head[:4] == ["entry", "against", "median difference", "won / lost / tied"]
    assert all(row[3] == "6 / 0 / 0" for row in pairs.rows)


@pytest.mark.parametrize(
    ("metric", "value", "other", "sign"),
    [
        pytest.param("auroc", 0.8, 0.6, 1, id="a higher AUROC than the other entry's is better"),
        pytest.param("auroc", 0.6, 0.8, -1, id="a lower AUROC is worse"),
        pytest.param("brier", 0.6, 0.8, 1, id="a lower Brier score is better"),
        pytest.param("brier", 0.8, 0.6, -1, id="a higher Brier score is worse"),
    ],
)
@pytest.mark.parametrize(("half", "apart"), [(0.05, True), (0.15, False)], ids=["intervals apart", "they overlap"])
def test_a_difference_of_two_matrices_is_above_0_where_the_first_is_better(metric, value, other, sign, half, apart):
    def one(score: float) -> pl.DataFrame:
        row = {"train": "a", "test": "b", "value": score, "ci_low": score - half, "ci_high": score + half}
        return pl.DataFrame([row | {"state": "measured", "run_id": "r"}])

    found = difference(one(value), one(other), metric)
    assert found["difference"].item() == pytest.approx(0.2 * sign)
    assert found["apart"].item() == apart


@pytest.mark.parametrize(
    ("p", "sign"),
    [(0.99, 1), (0.55, -1), (0.8, 0)],
    ids=["too sure is above 0", "not sure enough is below 0", "as sure as it is right is 0"],
)
def test_being_too_sure_has_a_sign(p, sign):
    right = [True] * 8 + [False] * 2  # eight in ten are what they are called
    rows = [("resistant" if side == hit else "sensitive", p if side else 1 - p) for side in (1, 0) for hit in right]
    columns = {"cell": [str(i) for i in range(20)], "dataset": "d", "sample": "s", "split": "0"}
    table = pl.DataFrame({**columns, "label": [a for a, _ in rows], "p_resistant": [b for _, b in rows]})
    found = reliability(table.cast(dict(PREDICTIONS)), draws=5).overconfident
    assert np.sign(round(found, 6)) == sign


def test_the_mean_gap_counts_the_sets_whose_gap_is_above_0():
    like = {"model": "a", "head": "mlp", "strategy": "freeze", "variant": "", "shots": None, "metric": "f1"}
    rows = [like | {"simulated": False, "strictest": True, "gap": gap} for gap in (0.2, 0.1, 0.0, -0.1)]
    assert over_datasets(pl.DataFrame(rows)).select("sets", "above").row(0) == (4, 2)


def test_samples_and_clusters_are_listed_with_the_largest_first():
    sizes = {"small": 2, "large": 6, "middle": 4}
    names = [name for name, n in sizes.items() for _ in range(n)]
    obs = pd.DataFrame({"sample": names, "cluster": names, "p_resistant": 0.5}, index=map(str, range(len(names))))
    adata = AnnData(np.ones((len(names), 1), dtype=np.float32), obs=obs)
    adata.uns["scdrugmap"] = {"prediction": {"sample_column": "sample", "n_cells_in_reference": 0}}
    found = summary(adata)
    for table in ("by_sample", "by_cluster"):
        assert [row["group"] for row in found[table]] == ["large", "middle", "small"]
        assert [row["share"] for row in found[table]] == [1, 1, 1]  # a cell at the threshold is called resistant
    assert found["resistant"]["share"] == 1


# ---- colours that stand for better and worse -----------------------------------------------------------------------
def hue(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return "orange" if 0.04 < colorsys.rgb_to_hls(red, green, blue)[0] < 0.12 else "blue" if blue > red else colour


def test_the_words_legend_and_colours_of_better_and_worse_agree():
    assert "blue is better, orange worse" in glossary.tip("transfer")
    frame = pl.DataFrame({"shade": [-0.3, 0.2]})
    for ink in (palette.LIGHT, palette.DARK):
        assert [hue(ink.worse_to_better[end]) for end in (0, -1)] == ["orange", "blue"]
        colour = transfer._shade(frame, "the constant", ink).to_dict()
        assert colour["scale"]["domain"] == sorted(colour["scale"]["domain"])
        assert colour["scale"]["range"] == list(ink.worse_to_better)
        assert "datum.value < 0 ? ' worse' : ' better'" in colour["legend"]["labelExpr"]


def test_a_reports_matrix_is_blue_above_the_constant_and_orange_below_it():
    rows = pl.DataFrame({"train": ["a", "b"], "test": ["b", "a"], "value": [0.7, 0.3], "better": [0.2, -0.2]})
    figure = sections._matrix(rows.with_columns(state=pl.lit("measured"), crosses=False), "m", "here")
    assert "blue is above the constant classifier, orange below" in figure.alt
    assert [hue(palette.LIGHT.worse_to_better[end]) for end in (0, -1)] == ["orange", "blue"]
    stops = re.findall(r"stop-color=.rgb\((\d+), (\d+), (\d+)\)", figure.svg)
    drawn = ["#" + "".join(f"{int(part):02X}" for part in stops[end]) for end in (0, -1)]
    assert drawn == [palette.LIGHT.worse_to_better[end] for end in (0, -1)]
