"""The best models stand on the first page, best first, whether more or less of a metric is better."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
import pytest
import streamlit as st
from make_results import make_run
from opened_pages import charts_on, opened, text_of

from scdrugmap.app.models import frames
from scdrugmap.app.ui import board, format, queries
from scdrugmap.evaluation.experiment import Experiment
from scdrugmap.evaluation.results.reported import reported
from scdrugmap.evaluation.results.store import write_run, write_scores
from scdrugmap.plots import palette
from scdrugmap.plots import scores as scores_

# From best to worst where each sample is kept whole; split by cell the order is the other way round.
MODELS = ("excellent", "good", "middling", "poor", "worst")
BASELINES = ("good-baseline", "poor-baseline")
KNOWN = pl.DataFrame(
    {
        "model": [*MODELS, *BASELINES],
        "title": [*MODELS, *BASELINES],
        "kind": ["foundation"] * len(MODELS) + ["baseline"] * len(BASELINES),
    }
)
# leak-safe scores of the models and of the baselines, best first
SAFE = {
    "f1": (0.9, 0.8, 0.7, 0.6, 0.5, 0.75, 0.55),
    "mcc": (0.8, 0.5, 0.2, 0.0, -0.3, 0.4, -0.1),
    "brier": (0.1, 0.15, 0.2, 0.25, 0.3, 0.18, 0.28),
    "ece": (0.01, 0.05, 0.1, 0.2, 0.4, 0.08, 0.3),
}
MORE_IS_BETTER = {"f1": True, "mcc": True, "brier": False, "ece": False}


@pytest.fixture(autouse=True)
def _fresh_caches():
    st.cache_data.clear()
    st.cache_resource.clear()
    yield
    st.cache_resource.clear()


def scores(metric: str) -> pl.DataFrame:
    """A made-up table of scores: every entry by cell and by sample, written down from worst to best."""
    base: dict[str, Any] = {
        "run_id": "r", "strategy": "freeze", "shots": None, "head": "logistic", "protocol": "pooled", "facet": "all",
        "facet_value": "", "train": ["set"], "test": ["set"], "fold": "all", "seed": 0, "metric": metric,
        "ci_low": None, "ci_high": None, "n": 100, "prevalence": 0.5, "source": "measured", "simulated": False,
        "variant": "", "design": "",
    }  # fmt: skip
    names = [*MODELS, *BASELINES]
    by_cell = (*reversed(SAFE[metric][: len(MODELS)]), *reversed(SAFE[metric][len(MODELS) :]))
    rows = [
        {**base, "model": name, "split_by": split_by, "value": value}
        for name, safe, cell in reversed(list(zip(names, SAFE[metric], by_cell, strict=True)))
        for split_by, value in (("cell", cell), ("sample", safe))
    ]
    columns = list(reported().columns)
    return pl.DataFrame(rows, schema=reported().schema).select(columns)


@pytest.fixture(params=SAFE, ids=str)
def metric(request) -> str:
    return request.param


def test_the_headline_has_the_best_models_best_first_and_then_the_best_baseline(metric):
    rows = board.headline(board.tidy(scores(metric), KNOWN), metric=metric)
    assert rows["model"].to_list() == ["excellent", "good", "middling", "good-baseline"]
    assert rows["safe"].to_list() == [*SAFE[metric][:3], SAFE[metric][len(MODELS)]]


def test_one_model_is_the_best_one(metric):
    rows = board.headline(board.tidy(scores(metric), KNOWN), metric=metric, best=1)
    assert rows["model"].to_list() == ["excellent", "good-baseline"]


def test_the_leaderboard_begins_with_the_best(metric):
    view = {"protocol": "pooled", "facet": "all", "on": "set", "strategy": "freeze"}
    rows = frames.ranking(scores(metric), KNOWN, metric=metric, split_by="sample", **view)
    assert rows["value"].to_list() == sorted(SAFE[metric], reverse=MORE_IS_BETTER[metric])
    assert rows["rank"].to_list() == list(range(1, len(rows) + 1))
    assert rows["model"][0] == "excellent"
    assert rows["model"][-1] == "worst"


def test_the_split_that_matters_is_sorted_by_the_leak_safe_side(metric):
    rows = board.pairs(board.tidy(scores(metric), KNOWN), metric=metric)
    assert rows["safe"].to_list() == sorted(SAFE[metric], reverse=MORE_IS_BETTER[metric])


def test_the_figure_keeps_the_order_of_its_rows(metric):
    rows = board.headline(board.tidy(scores(metric), KNOWN), metric=metric)
    drawn = json.loads(scores_.dumbbell(rows, metric, palette.LIGHT).to_json())
    orders = [layer["encoding"]["y"]["sort"] for layer in drawn["layer"] if "sort" in layer["encoding"].get("y", {})]
    assert orders
    assert all(order == rows["title"].to_list() for order in orders)


# ---- the first page itself ------------------------------------------------------------------------------------------
# How far the scores of real models tell the classes apart: by cell, and with each sample kept whole.
EFFECTS = {
    ("uce", "mlp"): (2.4, 0.0),
    ("scgpt", "mlp"): (2.2, 0.3),
    ("geneformer", "mlp"): (2.0, 0.6),
    ("scfoundation", "mlp"): (1.8, 0.9),
    ("tgpt", "mlp"): (1.6, 1.2),
    ("hvg", "logistic"): (1.4, 0.8),
    ("hvg-pca", "logistic"): (1.5, 0.2),
}


@pytest.fixture
def first_page(filled_results):
    for (model, head), effects in EFFECTS.items():
        for split_by, effect in zip(("cell", "sample"), effects, strict=True):
            experiment = Experiment(model, head, ("two-patients",), split_by=split_by, folds=4)
            write_run(filled_results.precomputed, *make_run(experiment, effect))
    write_scores(filled_results.precomputed)
    return opened("home")


def test_the_first_page_names_the_best_model_and_the_best_baseline(first_page):
    assert not first_page.exception
    safe = board.pairs(queries.board().filter(pl.col("on") == "two-patients"), metric="f1")
    score = dict(zip(safe["model"], safe["safe"], strict=True))
    assert max(score, key=score.__getitem__) == "tgpt"
    shown = text_of(first_page)
    title = queries.model("tgpt").title
    assert f"Split by cell, as in the paper, **{title} + MLP** scores" in shown
    assert f"kept whole it scores **{format.number(score['tgpt'])}**" in shown
    assert f"The best baseline, HVG + logistic, reaches {format.number(score['hvg'])}." in shown


def test_the_figure_on_the_first_page_shows_the_best_models_from_above(first_page):
    (figure,) = charts_on(first_page)
    (order,) = {
        tuple(layer["encoding"]["y"]["sort"]) for layer in figure["layer"] if "sort" in layer["encoding"].get("y", {})
    }
    rows = {row["title"]: row for table in figure["datasets"].values() for row in table}
    assert {row["model"] for row in rows.values()} == {"tgpt", "scfoundation", "geneformer", "hvg"}
    assert rows[order[0]]["model"] == "tgpt"
    safe = [rows[title]["safe"] for title in order]
    assert safe == sorted(safe, reverse=True)
