"""How many cells are sensitive and how many resistant is drawn and written the right way round."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
import pytest
import streamlit as st
from opened_pages import charts_on, opened, text_of

from scdrugmap.app.datasets import queries as datasets_queries
from scdrugmap.app.datasets import tables
from scdrugmap.app.ui import format, queries
from scdrugmap.data.catalog.catalog import DATASETS
from scdrugmap.plots import catalogue, palette

COUNTED = [card for card in DATASETS.values() if card.cells_sensitive and card.cells_resistant]
MORE_SENSITIVE = next(card.key for card in COUNTED if card.cells_sensitive > 1.5 * card.cells_resistant)
MORE_RESISTANT = next(card.key for card in COUNTED if card.cells_resistant > 1.5 * card.cells_sensitive)
MORE_SENSITIVE_SAMPLES = next(card.key for card in COUNTED if card.samples_sensitive > card.samples_resistant)
MORE_RESISTANT_SAMPLES = next(card.key for card in COUNTED if card.samples_resistant > card.samples_sensitive)


@pytest.fixture(autouse=True)
def _fresh_caches():
    st.cache_data.clear()
    yield
    st.cache_data.clear()


def rows_of(layer: dict[str, Any], spec: dict[str, Any]) -> list[dict[str, Any]]:
    return spec["datasets"][layer["data"]["name"]]


def check_balance(spec: dict[str, Any], sensitive: int, resistant: int) -> None:
    """Check that the bar begins with the sensitive cells, ends with the resistant ones, and that both ends say so."""
    total = sensitive + resistant
    bars, *texts = spec["layer"]
    assert bars["mark"]["type"] == "bar"
    assert (bars["encoding"]["x"]["field"], bars["encoding"]["x2"]["field"]) == ("start", "end")
    assert bars["encoding"]["color"]["field"] == "response"
    parts = {row["response"]: row for row in rows_of(bars, spec)}
    assert (parts["sensitive"]["start"], parts["sensitive"]["end"]) == (0, sensitive)
    assert (parts["resistant"]["start"], parts["resistant"]["end"]) == (sensitive, total)
    assert {name: row["cells"] for name, row in parts.items()} == {"sensitive": sensitive, "resistant": resistant}
    said = {text["mark"]["align"]: rows_of(text, spec)[0] for text in texts}
    assert said["left"]["label"] == f"{100 * sensitive / total:.0f} % sensitive"
    assert said["right"]["label"] == f"{100 * resistant / total:.0f} % resistant"
    assert (texts[0]["encoding"]["x"]["field"], texts[1]["encoding"]["x"]["field"]) == ("start", "end")


@pytest.mark.parametrize(("sensitive", "resistant"), [(30, 90), (90, 30), (0, 5), (5, 0)])
def test_the_bar_divides_sensitive_from_resistant(sensitive, resistant):
    drawn = json.loads(catalogue.balance(sensitive, resistant, palette.LIGHT).to_json())
    check_balance(drawn, sensitive, resistant)


@pytest.mark.parametrize("key", [MORE_SENSITIVE, MORE_RESISTANT])
def test_the_card_of_a_data_set_draws_and_says_its_own_balance(key, settings):
    app, card = opened("datasets", dataset=key), DATASETS[key]
    bar = next(chart for chart in charts_on(app) if "layer" in chart)
    check_balance(bar, card.cells_sensitive, card.cells_resistant)
    counts = f"{format.count(card.cells_sensitive)} sensitive, {format.count(card.cells_resistant)} resistant"
    assert counts in text_of(app)
    assert f"{card.samples_sensitive} sensitive and {card.samples_resistant} resistant samples" in text_of(app)


@pytest.mark.parametrize("key", [MORE_SENSITIVE_SAMPLES, MORE_RESISTANT_SAMPLES])
def test_the_dots_are_the_samples_of_each_response(key, settings):
    card = DATASETS[key]
    dots = next(chart for chart in charts_on(opened("datasets", dataset=key)) if "layer" not in chart)
    (rows,) = dots["datasets"].values()
    drawn = {name: sum(row["response"] == name for row in rows) for name in ("sensitive", "resistant")}
    assert drawn == {"sensitive": card.samples_sensitive, "resistant": card.samples_resistant}


def test_the_catalogue_writes_the_share_of_sensitive_cells():
    table = tables.catalogue(queries.catalogue())
    for key in (MORE_SENSITIVE, MORE_RESISTANT, MORE_SENSITIVE_SAMPLES, MORE_RESISTANT_SAMPLES):
        card, row = DATASETS[key], table.row(by_predicate=pl.col("key") == key, named=True)
        assert row["sensitive"] == pytest.approx(
            100 * card.cells_sensitive / (card.cells_sensitive + card.cells_resistant)
        )
        assert row["samples"] == f"{card.samples_sensitive} / {card.samples_resistant}"


def test_the_bars_of_a_group_count_its_sensitive_and_its_resistant_cells(settings):
    rows = queries.catalogue().filter(pl.col("key").is_in([MORE_SENSITIVE]))
    (group,) = datasets_queries.cells_by(rows, "cancer_group").to_dicts()
    card = DATASETS[MORE_SENSITIVE]
    assert (group["sensitive"], group["resistant"]) == (card.cells_sensitive, card.cells_resistant)
    drawn = json.loads(catalogue.cells_by(pl.DataFrame([group]), palette.LIGHT).to_json())
    bars = rows_of(drawn["layer"][0], drawn)
    assert {row["response"]: row["cells"] for row in bars} == {
        "sensitive": card.cells_sensitive,
        "resistant": card.cells_resistant,
    }
