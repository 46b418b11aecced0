"""A model that is asked, in the app: off without a key, consent and a price before it runs, no novelty after it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import anndata
import polars as pl
import pytest
import streamlit as st
from make_jobs import make_job
from scripted_endpoint import KEY, edits, says, serving
from streamlit.testing.v1 import AppTest

from scdrugmap.app import asked, jobs, jobs_store, jobs_work, queries, report
from scdrugmap.data.simulate import simulate
from scdrugmap.errors import ConsentMissing, InvalidInput

ROOT = Path(__file__).resolve().parent.parent
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
    assert "GPT-4o mini" in text_of(app)
    assert "OPENAI_API_KEY is not set" in text_of(app)


def test_on_a_shared_server_it_is_off_and_says_why(endpoint, settings, monkeypatch):
    monkeypatch.setenv("SCDRUGMAP_PUBLIC", "1")
    app = opened(checked(settings))
    assert not any("asked" in option for option in app.radio(key="predictor").options)
    assert "nobody's key is used on a shared server" in text_of(app)
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
    assert queued == [
        ("predict", {"model": MODEL, "reference": None, "sample": None, "consent": True, "max_cost": 0.5})
    ]
    assert not endpoint.asked


def finished(settings) -> str:
    """Do in this process what a worker does for a job."""
    job_id = make_job(settings, "queued", run="a", work="predict", options={"model": MODEL})
    job = settings.jobs / job_id
    simulate(n_cells=14, n_genes=400, n_samples=4, seed=2).write_h5ad(jobs_store.upload(job))
    options = {"model": MODEL, "reference": None, "sample": None, "consent": True, "max_cost": 1.0}
    jobs_work.work(str(job), "predict", options, settings)
    return job_id


def test_a_result_is_drawn_without_novelty(endpoint, settings):
    endpoint.default = edits(lambda found: found[1:])  # the first cell of each of two requests is never answered
    job_id = finished(settings)
    status = jobs_store.read_status(settings.jobs / job_id)
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
    told = queries.summary(job_id)
    assert pl.read_csv(settings.jobs / job_id / "result.csv")["p_resistant"].null_count() == told["n_failed"] == 2
    assert KEY not in json.dumps(told)


def test_the_files_of_a_result_can_be_read_back(endpoint, settings):
    endpoint.default = edits(lambda found: found[1:])
    job_id = finished(settings)
    files = queries.service().results(job_id)
    table, back = pl.read_csv(files["csv"]), anndata.read_h5ad(files["h5ad"])
    assert table["cell"].to_list() == back.obs_names.to_list()
    answered = table["p_resistant"].is_not_null()
    assert answered.sum() == 12
    assert table.filter(answered)["p_resistant"].to_list() == pytest.approx(back.obs["p_resistant"].dropna().to_list())
    called = table.filter(answered).select((pl.col("p_resistant") >= 0.5) == (pl.col("response") == "resistant"))
    assert called.to_series().all()
    assert {"novelty", "novel"}.isdisjoint(table.columns)
    told = back.uns["scdrugmap"]["prediction"]
    assert (told["model"], told["asked"]["n_failed"]) == (MODEL, 2)
    text = report.markdown(jobs_store.read_status(settings.jobs / job_id), queries.summary(job_id))
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


def test_answers_go_with_the_upload(endpoint, settings):
    job = settings.jobs / finished(settings)
    assert list((job / "prompts").glob("*/*.json"))
    jobs_store.drop_upload(job)
    assert not (job / "prompts").exists()
    assert (job / "result.csv").is_file()


def test_the_stages_of_asking_are_those_of_the_pipeline():
    from scdrugmap.app import steps
    from scdrugmap.prediction.pipeline import STAGES, STAGES_ASKED

    assert tuple(stage for stage in steps.LOCAL if stage) == STAGES
    assert tuple(stage for stage in steps.ASKED if stage) == STAGES_ASKED


def test_the_report_says_who_was_asked(endpoint, settings):
    from scdrugmap.app import report

    job_id = finished(settings)
    text = report.markdown(jobs_store.read_status(settings.jobs / job_id), queries.summary(job_id))
    assert f"asked at {endpoint.host}" in text
    assert "Asking cost" in text
    assert "reference" not in text.split("##")[0]
    assert asked.is_asked(MODEL)
    assert not asked.is_asked("hvg")
    assert not asked.is_asked("")


def test_an_amount_below_a_cent_is_not_nothing():
    assert [asked.usd(amount) for amount in (0.0, 0.0034, 0.05, 1.5)] == [
        "0.00 USD",
        "0.0034 USD",
        "0.0500 USD",
        "1.50 USD",
    ]
