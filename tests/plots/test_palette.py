"""Blue is sensitive and orange is resistant, wherever a colour says so; the colours are written out here once more."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import polars as pl
import pytest
import streamlit as st
from make_jobs import make_job, predicted
from opened_pages import ROOT, charts_on, colour_scales, opened

from scdrugmap.app.datasets import tables
from scdrugmap.app.predict import tables as predict_tables
from scdrugmap.data.catalog.catalog import DATASETS
from scdrugmap.plots import catalogue, palette, predictions
from scdrugmap.plots import cells as cell_plots

BLUE, ORANGE, GREY = "#2F7FC1", "#DB7316", "#8B95A1"
MEANING = {"sensitive": BLUE, "resistant": ORANGE}
# P(resistant) of 0, 1/4, 1/2, 3/4 and 1
BLUE_TO_ORANGE = {"0": "#1F66A8", "0.25": "#5A91C2", "0.5": "#A3ADB7", "0.75": "#D08B55", "1": "#C9650E"}


@pytest.fixture(autouse=True)
def _fresh_caches():
    st.cache_data.clear()
    st.cache_resource.clear()
    yield
    st.cache_resource.clear()


@pytest.fixture(params=[palette.LIGHT, palette.DARK], ids=["light", "dark"])
def ink(request) -> palette.Ink:
    return request.param


def spec(chart) -> dict[str, Any]:
    return json.loads(chart.to_json())


def is_blue(colour: str) -> bool:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return blue > green > red


def is_orange(colour: str) -> bool:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return red > green > blue


def cells(novel: float = 0.2) -> pl.DataFrame:
    adata = predicted(200, novel=novel)
    frame = pl.from_pandas(adata.obs.reset_index(drop=True))
    frame = frame.with_columns(pl.col(pl.Categorical, pl.Enum).cast(pl.String), rank=pl.lit(0.5))
    umap = adata.obsm["X_umap"]
    places = {"cell": pl.Series(adata.obs_names.to_list()), "x": umap[:, 0], "y": umap[:, 1]}
    return frame.rename({"rank": cell_plots.RANK}).with_columns(**places)


# ---- the palette ----------------------------------------------------------------------------------------------------
def test_sensitive_is_blue_and_resistant_is_orange():
    assert palette.SENSITIVE_COLOUR == BLUE
    assert palette.RESISTANT_COLOUR == ORANGE
    assert palette.UNKNOWN_COLOUR == GREY
    assert palette.RESPONSE == MEANING
    assert is_blue(BLUE)
    assert is_orange(ORANGE)


def test_p_resistant_runs_from_the_blue_of_sensitive_to_the_orange_of_resistant():
    assert list(palette.DIVERGING) == list(BLUE_TO_ORANGE.values())
    assert all(map(is_blue, palette.DIVERGING[:2]))
    assert all(map(is_orange, palette.DIVERGING[3:]))


def test_streamlits_own_scale_runs_the_same_way():
    config = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text())
    scale = config["theme"]["chartDivergingColors"]
    assert (scale[0], scale[-1]) == (palette.DIVERGING[0], palette.DIVERGING[-1])


def test_better_is_blue_and_worse_is_orange(ink):
    assert is_orange(ink.worse_to_better[0])
    assert is_blue(ink.worse_to_better[-1])
    assert ink.worse_to_better[2] == ink.faint


def test_the_documentation_says_what_the_colours_mean():
    page = (ROOT / "docs" / "pages.md").read_text()
    assert "| blue, orange (cells and their labels) | sensitive, resistant;" in page
    assert "| blue, faint, orange (Transfer) | better than the constant classifier" in page


# ---- every chart in which a colour is a response --------------------------------------------------------------------
def by_group(ink: palette.Ink):
    frame = {"group": ["Melanoma"], "datasets": [2], "sensitive": [3], "resistant": [9], "uncounted": [0]}
    return catalogue.cells_by(pl.DataFrame(frame), ink)


def by_sample(ink: palette.Ink):
    quantiles = {f"p{q}": [q / 200, q / 100] for q in (5, 25, 50, 75, 95)}
    frame = {"sample": ["a", "b"], "label": ["sensitive", "resistant"], "n": [5, 6], **quantiles}
    return predictions.by_sample(pl.DataFrame(frame), 0.5, ink)


TWO_COLOURS = {
    "cells by cancer": by_group,
    "label balance": lambda ink: catalogue.balance(3, 9, ink),
    "samples": lambda ink: catalogue.samples(
        pl.DataFrame({"response": ["sensitive", "resistant"], "sample": [0, 0]}), ink
    ),
    "spread by sample": by_sample,
    "map by prediction": lambda ink: cell_plots.cell_map(cells(), "response", "prediction", ink),
    "map by the file's labels": lambda ink: cell_plots.cell_map(cells(), "response_given", "response given", ink),
    "histogram": lambda ink: cell_plots.histogram(cells(novel=0.0), 0.5, ink),
}


@pytest.mark.parametrize("chart", TWO_COLOURS)
def test_a_chart_draws_sensitive_blue_and_resistant_orange(chart, ink):
    scales = list(colour_scales(spec(TWO_COLOURS[chart](ink))))
    assert scales
    assert all(scale == MEANING for scale in scales)


def test_each_row_of_the_map_is_coloured_by_its_own_prediction(ink):
    drawn = spec(cell_plots.cell_map(cells(), "response", "prediction", ink))
    rows = [row for table in drawn["datasets"].values() for row in table]
    assert {row["shade"] for row in rows} == {"sensitive", "resistant"}
    assert all((row["shade"] == "resistant") == (row["p_resistant"] >= 0.5) for row in rows)


def test_a_file_with_one_class_keeps_its_colour(ink):
    resistant = cells().filter(pl.col("response") == "resistant")
    drawn = spec(cell_plots.cell_map(resistant, "response", "prediction", ink))
    assert next(colour_scales(drawn))["resistant"] == ORANGE


def test_the_histogram_colours_each_side_of_the_threshold(ink):
    drawn = spec(cell_plots.histogram(cells(), 0.35, ink))
    assert list(colour_scales(drawn)) == [{**MEANING, "novel": GREY}]
    rows = next(table for table in drawn["datasets"].values() if "side" in table[0])
    for row in rows:
        assert row["side"] in ("sensitive", "resistant", "novel")
        if row["side"] == "sensitive":
            assert row["left"] < 0.35
        if row["side"] == "resistant":
            assert row["right"] > 0.35


@pytest.mark.parametrize("by", ["p_resistant", cell_plots.RANK])
def test_the_map_of_p_resistant_is_blue_at_0_and_orange_at_1(by, ink):
    drawn = spec(cell_plots.cell_map(cells(novel=0.0), by, "P(resistant)", ink))
    assert list(colour_scales(drawn)) == [BLUE_TO_ORANGE]


def test_shares_of_resistant_cells_are_blue_at_0_and_orange_at_1(ink):
    frame = {"group": ["1", "2"], "share_resistant": [0.2, 0.8], "low": [0.1, 0.7], "high": [0.3, 0.9]}
    drawn = spec(cell_plots.shares(pl.DataFrame({**frame, "n_cells": [10, 20]}), ink))
    assert list(colour_scales(drawn)) == [BLUE_TO_ORANGE]


def test_the_bars_in_tables_have_the_colour_of_what_they_count():
    sensitive, resistant = tables.catalogue_columns()["sensitive"], predict_tables.group_columns("sample")["resistant"]
    assert sensitive["label"] == "% sensitive"
    assert sensitive["type_config"]["color"] == BLUE
    assert resistant["label"] == "% resistant"
    assert resistant["type_config"]["color"] == ORANGE


# ---- what stands on the pages ---------------------------------------------------------------------------------------
def responses_on(page: str, **query: str) -> list[dict[str, str]]:
    """Return each colour scale of a page that names a response."""
    app = opened(page, **query)
    assert not app.exception
    return [scale for chart in charts_on(app) for scale in colour_scales(chart) if MEANING.keys() & scale.keys()]


def test_the_pages_draw_sensitive_blue_and_resistant_orange(settings):
    job_id = make_job(settings, "done", predicted())
    on_pages = [
        responses_on("datasets"),
        responses_on("datasets", dataset=next(key for key, card in DATASETS.items() if card.cells_resistant)),
        responses_on("predict", job=job_id, colour="prediction"),
    ]
    assert [len(scales) for scales in on_pages] == [1, 2, 2 + 1]  # novel cells are a layer of their own on the map
    for scales in on_pages:
        assert all(scale == MEANING | ({"novel": GREY} if "novel" in scale else {}) for scale in scales)
