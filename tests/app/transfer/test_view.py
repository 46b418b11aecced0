"""The transfer page: what its matrix shows, what its pairs say, alone and through the app's own page."""

from __future__ import annotations

import json

import polars as pl
import pytest
import streamlit as st
from make_results import REAL, SETS, make_crossed, make_transfer
from places import ROOT
from streamlit.testing.v1 import AppTest

from scdrugmap.app.transfer import frames, view
from scdrugmap.app.transfer import queries as transfer_queries
from scdrugmap.app.ui import queries as ui_queries
from scdrugmap.evaluation.analysis.transfer_matrix import difference
from scdrugmap.evaluation.experiment import Experiment
from scdrugmap.evaluation.metrics import roc_and_confusion
from scdrugmap.evaluation.plan.plan_file import read_plan
from scdrugmap.evaluation.results.run_record import Run
from scdrugmap.evaluation.results.store import read_predictions, runs, write_run, write_scores
from scdrugmap.plots import palette, predictions, transfer

INKS = [palette.LIGHT, palette.DARK]
ENTRY = {"model": "hvg", "head": "logistic", "strategy": "freeze", "split_by": "dataset", "shots": 0}
OTHER = ENTRY | {"model": "scgpt-mini", "head": "mlp"}


@pytest.fixture(autouse=True)
def _fresh_caches():
    st.cache_data.clear()
    yield
    st.cache_data.clear()


@pytest.fixture(params=INKS, ids=["light", "dark"])
def ink(request):
    return request.param


def opened(**query: str) -> AppTest:
    app = AppTest.from_file(str(ROOT / "pages" / "transfer.py"), default_timeout=60)
    for key, value in query.items():
        app.query_params[key] = value
    return app.run()


def said(app: AppTest) -> str:
    kinds = ("title", "subheader", "markdown", "caption", "warning", "error", "code")
    return "\n".join(str(element.value) for kind in kinds for element in app.get(kind))


def drawn(chart) -> dict:
    return json.loads(chart.to_json())


def layers(spec: dict, mark: str) -> list[dict]:
    return [layer for layer in spec["layer"] if layer["mark"]["type"] == mark]


def rows_of(spec: dict, layer: dict) -> list[dict]:
    name = layer.get("data", spec.get("data"))["name"]
    return spec["datasets"][name]


# ---- the page --------------------------------------------------------------------------------------------------------
def test_an_empty_folder_says_which_command_fills_it(settings):
    app = opened()
    assert not app.exception
    assert "scdrugmap benchmark run --plan" in said(app)


def test_the_plan_of_the_empty_state_can_be_read(tmp_path):
    (tmp_path / "transfer.toml").write_text(view.PLAN)
    asked = read_plan(tmp_path / "transfer.toml").ask[0]
    assert (asked.train, asked.protocol) == ("each", "cross-data")


def test_the_sentence_counts_the_pairs(crossed):
    app = opened()
    assert not app.exception
    table = transfer_queries.matrix("f1", simulated=False, **ENTRY)
    measured = table.filter(state="measured")
    sure = measured.filter(~pl.col("crosses"))
    assert measured.height == len(REAL[:-1]) * (len(REAL) - 1)
    assert f"Of **{measured.height}** measured pairs, **{sure.filter(pl.col('better') > 0).height}** clear" in said(app)
    assert f"{len(REAL) - 1} one class" in said(app)
    assert "HVG + logistic" in said(app)


def test_pickers_come_from_the_url(crossed):
    app = opened(entry="scGPT-mini + MLP", metric="MCC", order="name", **{"with": "HVG + logistic"})
    assert not app.exception
    assert "**MCC** of **scGPT-mini + MLP**" in said(app)
    assert "the difference to **HVG + logistic**" in said(app)


def test_simulated_pairs_are_shown_only_when_asked_for(settings):
    make_transfer(settings.precomputed, SETS[:3])
    assert "No model was trained on one data set" in said(opened())
    shown = said(opened(simulated="true"))
    assert "measured pairs" in shown
    assert "simulated, not measured on real cells" in shown


def test_a_pair_shows_its_score_its_constant_and_its_record(crossed):
    app = opened(train=REAL[0], test=REAL[1])
    assert not app.exception
    row = transfer_queries.matrix("f1", simulated=False, **ENTRY).filter(train=REAL[0], test=REAL[1]).row(0, named=True)
    shown = said(app)
    assert f"{row['value']:.2f}" in shown
    assert f"{row['constant']:.2f}" in shown
    assert "120 cells" in shown
    button = app.get("link_button")[0].proto
    assert button.url == f"models?run={row['run_id']}"
    assert len(app.get("vega_lite_chart")) + len(app.get("arrow_vega_lite_chart")) == 4


def test_each_seed_of_a_pair_has_its_figures(crossed):
    for seed in (1, 2):
        asked = Experiment("hvg", "logistic", REAL, train=REAL[:1], shots=0, seed=seed, protocol="cross-data",
                           split_by="dataset")  # fmt: skip
        write_run(crossed.precomputed, *make_crossed(asked, 1.0))
    write_scores(crossed.precomputed)
    app = opened(train=REAL[0], test=REAL[1], seed="2")
    assert not app.exception
    found = ui_queries.seeds(
        transfer_queries.matrix("f1", simulated=False, **ENTRY)["run_id"].drop_nulls()[0], "f1", REAL[1]
    )
    assert found["seed"].to_list() == [0, 1, 2]
    assert app.get("link_button")[0].proto.url == f"models?run={found['run_id'][2]}"
    assert "one of 3 seeds" in said(app)


def test_only_warnings_of_the_pair_stand_beside_it(crossed):
    run_id = (
        transfer_queries.matrix("f1", simulated=False, **ENTRY).filter(train=REAL[0], test=REAL[1])["run_id"].item()
    )
    path = crossed.precomputed / "runs" / f"{run_id}.json"
    record = json.loads(path.read_text())
    record["outcome"]["warnings"] = [f"'{REAL[1]}': about it", f"'{REAL[2]}': about another", "about all"]
    path.write_text(json.dumps(record))
    warnings = [str(one.value) for one in opened(train=REAL[0], test=REAL[1]).warning]
    assert len(warnings) == 1
    assert "about it" in warnings[0]
    assert "about all" in warnings[0]
    assert "about another" not in warnings[0]


def test_bars_follow_the_choice_of_data_sets(settings):
    names = ("gse164897-vemurafenib", "gse164897-vemurafenib-cobimetinib", "gse149214", "gse131984-jq1")
    make_transfer(settings.precomputed, tuple(f"simulated-{name}" for name in names))
    whole, part = (opened(simulated="true", **query) for query in ({}, {"sets": "cancer: Melanoma"}))
    assert not part.exception
    for app, n in ((whole, 4), (part, 2)):
        assert f"All {n} bars as a table" in [block.label for block in app.expander]
        bars = next(frame.value for frame in app.dataframe if "run" in frame.value)
        assert len(bars) == n
        assert bars["run"].str.startswith("models?run=").all()


def test_a_pair_that_could_not_be_run_says_why(crossed):
    app = opened(train=REAL[-1], test=REAL[0])
    assert not app.exception
    shown = said(app).replace("\\", "")
    assert "one class cannot be learnt" in shown
    assert "**What to do:** Add data sets of both classes." in shown


def test_a_pair_of_other_words_is_said_so(crossed):
    app = opened(train="../../etc", test=REAL[0])
    assert not app.exception
    assert "no such pair" in said(app)


# ---- the frames ------------------------------------------------------------------------------------------------------
def test_cells_that_trained_come_from_the_record(crossed):
    table = transfer_queries.trained(transfer_queries.matrix("f1", simulated=False, **ENTRY))
    assert table.filter(state="measured")["n_train"].to_list() == [120] * 9


def test_means_are_of_the_measured_pairs_only(crossed):
    table = transfer_queries.matrix("f1", simulated=False, **ENTRY)
    frame = frames.drawn(table)
    mean = frame.filter(state="mean", test="mean", train=REAL[0])["value"].item()
    assert mean == pytest.approx(table.filter(state="measured", train=REAL[0])["value"].mean())
    assert frame.filter(state="mean", train=REAL[-1]).is_empty()  # it never trained


def test_a_difference_is_dotted_where_intervals_overlap(crossed):
    one, two = (
        transfer_queries.matrix("f1", simulated=False, datasets=list(REAL), **entry) for entry in (ENTRY, OTHER)
    )
    frame = frames.compared(difference(one, two, "f1")).filter(state="measured")
    for row in frame.iter_rows(named=True):
        a, b = (t.filter(train=row["train"], test=row["test"]).row(0, named=True) for t in (one, two))
        assert row["shade"] == pytest.approx(a["value"] - b["value"])
        assert row["crosses"] == (a["ci_low"] <= b["ci_high"] and b["ci_low"] <= a["ci_high"])


def test_bars_are_of_one_run_that_left_each_out(crossed):
    bars = frames.left_out(transfer_queries.held_out("f1", simulated=False, **ENTRY))
    assert sorted(bars["title"]) == sorted(REAL)


def test_data_sets_are_ordered_by_what_the_catalogue_knows():
    table = pl.DataFrame({"train": ["gse149214", "gse131984-jq1", "simulated-gse149214"]})
    table = table.with_columns(test="train", better=pl.lit(0.0))
    assert transfer_queries.facts("simulated-gse149214") == transfer_queries.facts("gse149214")
    assert transfer_queries.ordered(table, "cancer") == ["gse131984-jq1", "gse149214", "simulated-gse149214"]
    assert transfer_queries.facts("my own") == {}


def test_data_sets_that_share_a_cancer_can_be_looked_at_alone():
    names = ["gse164897-vemurafenib", "gse164897-vemurafenib-cobimetinib", "gse149214", "my own"]
    groups = transfer_queries.groups(names)
    assert groups["cancer: Melanoma"] == names[:2]
    assert all(1 < len(own) < len(names) for own in groups.values())
    assert transfer_queries.groups(["my own", "another"]) == {}


# ---- the charts ------------------------------------------------------------------------------------------------------
def a_matrix(crossed, ink) -> dict:
    table = transfer_queries.trained(transfer_queries.matrix("f1", simulated=False, **ENTRY))
    frame = frames.drawn(table)
    return drawn(transfer.matrix(frame, list(REAL), "F1", ink, against="the constant", undecided="unclear"))


def test_colour_is_centred_on_the_constant_from_orange_to_blue(crossed, ink):
    spec = a_matrix(crossed, ink)
    scale = next(layer["encoding"]["color"]["scale"] for layer in layers(spec, "rect") if "color" in layer["encoding"])
    assert scale["range"] == list(ink.worse_to_better)
    assert scale["domain"][2] == 0
    assert scale["domain"][0] == -scale["domain"][-1]


def test_every_pair_is_drawn_and_what_has_no_score_is_hatched_and_named(crossed, ink):
    spec = a_matrix(crossed, ink)
    rows = rows_of(spec, layers(spec, "rect")[0])
    assert {(row["train"], row["test"]) for row in rows} >= {(a, b) for a in REAL for b in REAL}
    signs = layers(spec, "point")
    shown = {row["sign"] for layer in signs for row in rows_of(spec, layer)}
    assert "one class" in shown
    assert shown <= {*transfer.HATCHED, "unclear"}
    scale = signs[0]["encoding"]["shape"]["scale"]
    assert set(scale["domain"]) == shown
    assert len(set(scale["range"])) == len(scale["domain"])


def test_the_tooltip_has_what_a_reader_must_know(crossed, ink):
    spec = a_matrix(crossed, ink)
    titles = {tip["title"] for tip in layers(spec, "rect")[-1]["encoding"]["tooltip"]}
    assert titles >= {"trained on", "tested on", "F1", "from", "to", "constant", "cells trained on", "cells tested on",
                      "copies removed", "why"}  # fmt: skip
    assert layers(spec, "rect")[-1]["mark"]["opacity"] == 0
    assert spec["params"][0]["name"] == transfer.PAIR


def test_sixty_data_sets_carry_no_numbers_in_their_cells(ink):
    names = [f"set-{i}" for i in range(60)]
    frame = pl.DataFrame({"train": names, "test": names[1:] + names[:1]}).with_columns(
        state=pl.lit("measured"), value=pl.lit(0.7), shade=pl.lit(0.1), crosses=pl.lit(False)
    )
    spec = drawn(transfer.matrix(frame, names, "F1", ink, against="the constant", undecided="unclear"))
    assert layers(spec, "text") == []
    assert spec["height"] < 1400


def a_run(crossed) -> tuple[Run, str]:
    found = next(run for run in runs(crossed.precomputed) if run.outcome.state == "done" and run.experiment.train)
    return found, next(name for name in found.experiment.datasets if name not in found.experiment.train)


def test_a_difference_shows_differences_in_its_cells(crossed, ink):
    one, two = (
        transfer_queries.matrix("f1", simulated=False, datasets=list(REAL), **entry) for entry in (ENTRY, OTHER)
    )
    frame = frames.compared(difference(one, two, "f1"))
    chart = transfer.matrix(frame, list(REAL), "F1", ink, against="the other", undecided="overlap", number="shade")
    text = layers(drawn(chart), "text")[0]["encoding"]["text"]
    assert (text["field"], text["format"]) == ("shade", "+.2f")


@pytest.mark.parametrize("one_class", [False, True])
def test_the_figures_of_a_pair_follow_from_its_predictions(crossed, ink, one_class):
    run, test = a_run(crossed)
    cells = read_predictions(run.run_id, crossed).filter(dataset=test)
    cells = cells.filter(label="resistant") if one_class else cells
    table = roc_and_confusion.confusion(cells, 0.5)
    assert table["cells"].sum() == cells.height
    called = cells.filter(pl.col("p_resistant") >= 0.5, label="resistant").height
    assert table.filter(label="resistant", called="resistant")["cells"].item() == called
    assert drawn(predictions.confusion(table, ink))["layer"]
    spread = roc_and_confusion.by_sample(cells)
    assert spread["n"].sum() == cells.height
    spec = drawn(predictions.by_sample(spread, 0.5, ink))
    assert len(rows_of(spec, layers(spec, "bar")[0])) == spread.height
    assert roc_and_confusion.roc(cells).is_empty() == one_class
    assert roc_and_confusion.precision_recall(cells).is_empty() == one_class


def test_curves_are_those_of_their_scores(crossed):
    run, test = a_run(crossed)
    part = next(part for part in run.outcome.parts if part.test == (test,) and part.n_train)
    roc = roc_and_confusion.roc(read_predictions(run.run_id, crossed).filter(dataset=test))
    area = sum(
        (b["x"] - a["x"]) * (a["y"] + b["y"]) / 2
        for a, b in zip(roc.to_dicts()[:-1], roc.to_dicts()[1:], strict=True)
    )  # fmt: skip
    assert area == pytest.approx(part.values["auroc"], abs=1e-6)
