from __future__ import annotations

import json
from typing import Any

import polars as pl
import pytest
from make_jobs import predicted

from scdrugmap.app.datasets import queries as datasets_queries
from scdrugmap.app.models import frames
from scdrugmap.app.ui import board as entries
from scdrugmap.app.ui import queries
from scdrugmap.evaluation.results.reported import reported
from scdrugmap.plots import base as charts
from scdrugmap.plots import catalogue, palette
from scdrugmap.plots import cells as cell_plots
from scdrugmap.plots import scores as scores_

INKS = [palette.LIGHT, palette.DARK]
MODELS = pl.DataFrame(
    {
        "model": ["a", "b", "hvg"],
        "title": ["Model A", "Model B", "HVG"],
        "kind": ["foundation", "foundation", "baseline"],
    }
)


@pytest.fixture(params=INKS, ids=["light", "dark"])
def ink(request):
    return request.param


def scores(*rows: dict[str, Any]) -> pl.DataFrame:
    base = {
        "run_id": "r", "model": "a", "strategy": "freeze", "shots": None, "head": "mlp", "protocol": "pooled",
        "split_by": "cell", "facet": "all", "facet_value": "", "train": ["set"], "test": ["set"], "fold": "all",
        "seed": 0, "metric": "f1", "value": 0.9, "ci_low": 0.8, "ci_high": 0.95, "n": 100, "prevalence": 0.5,
        "source": "measured", "simulated": False, "variant": "", "design": "",
    }  # fmt: skip
    return pl.DataFrame([{**base, **row} for row in rows], schema=reported().select(list(base)).schema)


def both_ways() -> pl.DataFrame:
    return scores(
        {"model": "a", "value": 0.95},
        {"model": "a", "value": 0.60, "split_by": "sample"},
        {"model": "hvg", "head": "logistic", "value": 0.90},
        {"model": "hvg", "head": "logistic", "value": 0.70, "split_by": "sample"},
        {"model": "constant", "head": "constant", "value": 2 / 3},
        {"model": "b", "value": 0.99},
    )


def spec(chart) -> dict[str, Any]:
    return json.loads(chart.to_json())


def cells(n: int = 200, **options) -> pl.DataFrame:
    adata = predicted(n, **options)
    frame = pl.from_pandas(adata.obs.reset_index(drop=True)).with_columns(
        pl.col(pl.Categorical, pl.Enum).cast(pl.String)
    )
    umap = adata.obsm["X_umap"]
    return frame.with_columns(cell=pl.Series(adata.obs_names.to_list()), x=umap[:, 0], y=umap[:, 1])


# ---- boards -----------------------------------------------------------------------------------------------
def test_ranking_measures_against_the_best_baseline_and_the_split_by_cell():
    rows = frames.ranking(
        both_ways(), MODELS, metric="f1", split_by="sample", protocol="pooled", facet="all", on="set", strategy="freeze"
    )
    assert rows["title"].to_list() == ["HVG + logistic", "Model A + MLP"]
    assert rows["delta"].to_list() == pytest.approx([0.0, -0.10])
    assert rows["gap"].to_list() == pytest.approx([0.20, 0.35])
    assert rows["constant"].to_list() == pytest.approx([2 / 3, 2 / 3])


def test_the_constant_classifier_is_a_column_and_never_an_entry():
    assert "constant" not in entries.tidy(both_ways(), MODELS)["model"].to_list()


def test_pairs_need_both_splits():
    rows = entries.pairs(entries.tidy(both_ways(), MODELS), metric="f1")
    assert rows["title"].to_list() == ["HVG + logistic", "Model A + MLP"]
    assert rows["gap"].to_list() == pytest.approx([0.20, 0.35])


def test_headline_keeps_models_and_the_best_baseline():
    rows = entries.headline(entries.tidy(both_ways(), MODELS), metric="f1")
    assert rows["title"].to_list() == ["Model A + MLP", "HVG + logistic"]


def test_the_strictest_leak_safe_split_stands_for_the_leak_safe_side():
    more = pl.concat([both_ways(), scores({"model": "a", "value": 0.4, "split_by": "study"})])
    rows = entries.pairs(entries.tidy(more, MODELS), metric="f1")
    assert dict(zip(rows["title"], rows["safe_name"], strict=True))["Model A + MLP"] == "study"


def test_simulated_runs_are_named_so():
    board = entries.tidy(scores({"simulated": True}), MODELS)
    assert board["source"].to_list() == ["simulated"]


def test_uce_on_tumour_tissue_is_the_constant_classifier():
    same = frames.at_constant(entries.tidy(reported().select(scores({}).columns), queries.models()))
    assert same["value"].to_list() == [0.774]
    assert same["model"].to_list() == ["uce"]
    assert same["constant"][0] == pytest.approx(0.774, abs=5e-4)


# ---- charts -----------------------------------------------------------------------------------------------
def test_ranking_chart_tells_measured_from_reported(ink):
    rows = scores({"value": 0.9}, {"value": 0.8, "source": "reported", "model": "b", "ci_low": None, "ci_high": None})
    board = entries.tidy(rows, MODELS)
    drawn = spec(scores_.ranking(board, "F1", ink))
    dots = next(layer for layer in drawn["layer"] if layer["mark"]["type"] == "point")
    fill = dots["encoding"]["fill"]["scale"]
    assert dict(zip(fill["domain"], fill["range"], strict=True)) == {
        "measured": ink.accent,
        "reported": ink.paper,
        "simulated": ink.paper,
    }
    assert dots["encoding"]["strokeDash"]["scale"]["range"][2] != [1, 0]
    assert any(layer["mark"]["type"] == "tick" for layer in drawn["layer"])


def test_axes_span_every_mark(ink):
    board = entries.tidy(scores({"value": 0.2, "ci_low": -0.3, "ci_high": 0.4, "metric": "mcc"}), MODELS)
    drawn = spec(scores_.ranking(board, "MCC", ink))
    dots = next(layer for layer in drawn["layer"] if layer["mark"]["type"] == "point")
    low, high = dots["encoding"]["x"]["scale"]["domain"]
    assert low < -0.3
    assert high > 0.4


def test_the_best_stands_first_where_less_is_better(ink):
    rows = scores(*({"model": model, "metric": "brier", "value": value} for model, value in (("a", 0.3), ("b", 0.1))))
    view = {"protocol": "pooled", "facet": "all", "on": "set", "strategy": "freeze"}
    board = frames.ranking(rows, MODELS, metric="brier", split_by="cell", **view)
    drawn = spec(scores_.ranking(board, "Brier", ink))
    assert drawn["layer"][0]["encoding"]["y"]["sort"] == ["Model B + MLP", "Model A + MLP"]
    said = next(layer for layer in drawn["layer"] if layer["mark"]["type"] == "text")
    assert [row["label"] for row in drawn["datasets"][said["data"]["name"]]] == ["constant"]


def test_long_names_break_in_two_and_short_ones_stay():
    axis = charts.in_two_lines(["short", "sadefeldman_melanoma_ici_tcells", "UCE, lora · Tumor tissue", "x" * 40])
    for name, halves in (
        ("sadefeldman_melanoma_ici_tcells", ["sadefeldman_", "melanoma_ici_tcells"]),
        ("UCE, lora · Tumor tissue", ["UCE, lora", "Tumor tissue"]),
    ):
        assert f"{json.dumps(name)}: {json.dumps(halves)}" in axis["labelExpr"]
        assert json.dumps(name)[1:-1] in axis["labelOffset"]["condition"]["test"]
    assert '"short"' not in axis["labelExpr"]
    assert "xxx" not in axis["labelExpr"]
    assert charts.in_two_lines(["short"]) == {}


def test_words_on_axes_can_be_read(ink):
    config = spec(scores_.ranking(entries.tidy(both_ways(), MODELS), "F1", ink))["config"]
    assert {config[part][word] for part in ("axis", "legend") for word in ("labelColor", "titleColor")} == {ink.soft}


@pytest.mark.parametrize("constant", [0.5, None])
def test_ranking_chart_survives_a_missing_constant(constant, ink):
    board = entries.tidy(scores({"prevalence": constant}), MODELS)
    assert spec(scores_.ranking(board, "F1", ink))["layer"]


def test_dumbbell_draws_both_splits(ink):
    drawn = spec(scores_.dumbbell(entries.headline(entries.tidy(both_ways(), MODELS), metric="f1"), "F1", ink))
    fields = {layer["encoding"]["x"]["field"] for layer in drawn["layer"] if layer["mark"]["type"] == "point"}
    assert fields == {"by_cell", "safe"}


@pytest.mark.parametrize("column", ["cancer_group", "tissue", "drug_type"])
def test_catalogue_bars_add_up(column, ink):
    rows = queries.catalogue().filter(pl.col("collection") == "primary")
    sums = datasets_queries.cells_by(rows, column)
    assert sums["datasets"].sum() == rows.height
    assert spec(catalogue.cells_by(sums, ink))["layer"]


def test_other_catalogue_charts_draw(ink):
    rows = queries.catalogue()
    assert spec(catalogue.coverage(rows, ink))["layer"]
    drawn = spec(catalogue.timeline(rows, ink))
    assert len(next(iter(drawn["datasets"].values()))) == rows.height
    assert spec(catalogue.balance(0, 5, ink))["layer"]


@pytest.mark.parametrize("by", ["p_resistant", "response", "novelty", "cluster", "n_genes_by_counts", "cell type [x]"])
@pytest.mark.parametrize("novel", [0.0, 0.3, 1.0])
def test_map_is_coloured_by_anything(by, novel, ink):
    frame = cells(novel=novel)
    drawn = spec(cell_plots.cell_map(frame, by, "P(resistant)" if by == "p_resistant" else by, ink))
    assert sum(len(rows) for rows in drawn["datasets"].values()) == frame.height
    field = drawn["layer"][0]["encoding"]["color"]["field"]
    assert field == "shade"  # never the file's own name, which may hold brackets or dots


def test_probability_runs_from_blue_over_grey_to_orange(ink):
    drawn = spec(cell_plots.cell_map(cells(), "p_resistant", "P(resistant)", ink))
    scale = drawn["layer"][0]["encoding"]["color"]["scale"]
    assert scale["range"] == list(palette.DIVERGING)
    assert scale["domain"][2] == 0.5


def test_histogram_counts_every_cell_on_its_side(ink):
    frame = cells(novel=0.2)
    drawn = spec(cell_plots.histogram(frame, 0.35, ink))
    rows = next(rows for rows in drawn["datasets"].values() if "side" in rows[0])
    counts = pl.DataFrame(rows).group_by("side").agg(pl.col("cells").sum())
    found = dict(zip(counts["side"], counts["cells"], strict=True))
    known = frame.filter(~pl.col("novel"))
    assert found["novel"] == int(frame["novel"].sum())
    assert found["resistant"] == int((known["p_resistant"] >= 0.35).sum())
    assert sum(found.values()) == frame.height


def test_the_legend_names_novel_cells_only_where_there_are_some(ink):
    for novel in (0.0, 0.2):
        drawn = spec(cell_plots.histogram(cells(novel=novel), 0.5, ink))
        sides = drawn["layer"][0]["encoding"]["color"]["scale"]["domain"]
        assert ("novel" in sides) == bool(novel)


def test_large_files_are_sampled_for_drawing_only():
    frame = pl.DataFrame({"x": range(50_000)})
    shown = cell_plots.sample_cells(frame)
    assert shown.height == cell_plots.DRAWN
    assert shown["x"].is_sorted()
    assert shown.equals(cell_plots.sample_cells(frame))
    assert cell_plots.sample_cells(frame.head(10)).height == 10


def test_shares_chart_draws_each_group(ink):
    frame = pl.DataFrame(
        {"group": ["1", "2"], "share_resistant": [0.2, 0.8], "low": [0.1, 0.7], "high": [0.3, 0.9], "n_cells": [10, 20]}
    )
    assert spec(cell_plots.shares(frame, ink))["layer"]
