from __future__ import annotations

import ast
import dataclasses
import tomllib

import polars as pl
import pytest
import streamlit as st
from contrast import contrast
from make_jobs import make_job, predicted
from make_results import make_run
from places import ROOT
from streamlit.testing.v1 import AppTest

from scdrugmap.app.jobs.service import service
from scdrugmap.app.models import queries as models_queries
from scdrugmap.app.pages import PAGES
from scdrugmap.app.predict import text
from scdrugmap.app.ui import board, format, glossary, queries, sentence
from scdrugmap.data.catalog.catalog import DATASETS
from scdrugmap.evaluation.experiment import Experiment
from scdrugmap.evaluation.results.store import write_run, write_scores
from scdrugmap.models import MODELS
from scdrugmap.plots import palette

CONFIG = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text())


@pytest.fixture(autouse=True)
def _fresh_caches():
    st.cache_data.clear()
    st.cache_resource.clear()
    yield
    st.cache_resource.clear()


@pytest.fixture
def measured(filled_results):
    """Made-up runs under the name of real cells, so that they count as measured."""
    for (model, head), effects in {("scgpt", "mlp"): (2.0, 0.4), ("hvg", "logistic"): (1.8, 0.5)}.items():
        for split_by, effect in zip(("cell", "sample"), effects, strict=True):
            experiment = Experiment(model, head, ("two-patients",), split_by=split_by, folds=4)
            write_run(filled_results.precomputed, *make_run(experiment, effect))
    write_scores(filled_results.precomputed)
    return filled_results


def opened(page: str, **query: str | list[str]) -> AppTest:
    """Run a page alone, as a deep link does; Home goes through app.py, since it links to other pages."""
    file = "app.py" if PAGES[page].default else PAGES[page].file
    app = AppTest.from_file(str(ROOT / file), default_timeout=60)
    for key, value in query.items():
        app.query_params[key] = value
    return app.run()


def text_of(app: AppTest) -> str:
    kinds = ("title", "header", "subheader", "markdown", "caption", "info", "warning", "error", "code", "metric")
    return "\n".join(str(element.value) for kind in kinds for element in app.get(kind))


# ---- every page ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("page", PAGES)
def test_page_runs_on_an_empty_results_folder(page, settings):
    app = opened(page)
    assert not app.exception
    assert not app.error


@pytest.mark.parametrize("page", PAGES)
def test_page_runs_on_filled_results(page, measured):
    app = opened(page)
    assert not app.exception
    assert not app.error


@pytest.mark.parametrize("page", [key for key, page in PAGES.items() if not page.default])
def test_page_opens_after_a_switch_from_home(page, measured):
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()
    app.switch_page(PAGES[page].file).run()
    assert not app.exception
    assert app.title[0].value == PAGES[page].title


def test_pages_and_files_agree():
    assert {page.file for page in PAGES.values()} == {f"pages/{path.name}" for path in (ROOT / "pages").glob("*.py")}


@pytest.mark.parametrize("path", sorted((ROOT / "pages").glob("*.py")), ids=lambda path: path.name)
def test_pages_stay_scripts(path):
    assert len(path.read_text().splitlines()) <= 80
    modules = {node.module for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)}
    assert all(
        name.startswith(("__future__", "scdrugmap.app.", "scdrugmap.plots", "scdrugmap.errors")) for name in modules
    )


def test_every_word_of_a_help_tip_is_defined():
    for path in (ROOT / "scdrugmap" / "app").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "tip":
                assert not isinstance(node.args[0], ast.Constant) or node.args[0].value in glossary.WORDS


# ---- Home ----------------------------------------------------------------------------------------------------------
def test_home_says_what_to_run_when_nothing_was_measured(settings):
    shown = text_of(opened("home"))
    assert "Nothing has been measured" in shown
    assert "scdrugmap benchmark run" in shown


def test_home_shows_both_splits_and_the_constant(measured, monkeypatch):
    monkeypatch.setattr(queries, "samples_of", lambda run_ids: 4)
    shown = text_of(opened("home"))
    rows = board.headline(queries.board(), metric="f1")
    assert rows["on"].unique().to_list() == ["two-patients"]
    best = rows.filter(pl.col("kind") != "baseline").row(0, named=True)
    assert f"{format.count(best['n'])} cells / 4 samples / 1 data set · " in shown
    for value in (best["by_cell"], best["safe"], best["constant"]):
        assert format.number(value) in shown


def test_the_samples_of_a_figure_are_those_of_its_runs():
    done = queries.runs().filter(pl.col("n_samples") > 1)  # those that the repository carries
    most = done.sort("n_samples")[-1]
    assert queries.samples_of(done["run_id"]) == most["n_samples"].item()
    assert queries.samples_of(pl.Series(["no-such-run"])) == 0
    assert sentence.extent(1234, 0, ["a", "b"]) == "1\u202f234 cells"
    assert sentence.extent(5, 1, ["a", "b"]) == "5 cells / 1 sample / 2 data sets"


def test_simulated_runs_never_make_the_headline(filled_results):
    assert board.headline(queries.board(), metric="f1").is_empty()
    assert "Nothing has been measured" in text_of(opened("home"))


# ---- Datasets ------------------------------------------------------------------------------------------------------
def test_datasets_filters_come_from_the_url(settings):
    app = opened("datasets", collection="external", search="melanoma")
    table = app.dataframe[0].value
    assert 0 < len(table) < len(DATASETS)
    assert set(table["key"]) == {
        key for key, card in DATASETS.items() if card.collection == "external" and "elanoma" in repr(card.to_row())
    }


def test_a_filter_that_nothing_passes_says_so(settings):
    assert "No data set has all of these" in text_of(opened("datasets", search="no such words"))


def kinds_of_cards() -> list[str]:
    """One key of each kind of card: flags, basis, whether cells are counted, corrections, notes."""
    kinds = {
        (c.flags, c.label_basis, c.cells is None, bool(c.notes), c.regimen is None): k for k, c in DATASETS.items()
    }
    return sorted(kinds.values())


@pytest.mark.parametrize("key", kinds_of_cards())
def test_dataset_card_opens_with_its_warnings(key, settings):
    app = opened("datasets", dataset=key)
    assert not app.exception
    card = DATASETS[key]
    assert [warning.value for warning in app.warning] == list(card.warnings)
    assert card.accession in text_of(app)


def test_an_unknown_dataset_is_one_sentence_and_a_remedy(settings):
    app = opened("datasets", dataset="gse0")
    assert not app.exception
    assert "no data set called 'gse0'" in app.error[0].value


def test_a_built_dataset_is_called_so(settings):
    key = next(iter(DATASETS))
    settings.data.mkdir(parents=True)
    (settings.data / f"{key}.h5ad").touch()
    assert queries.catalogue().filter(pl.col("built"))["key"].to_list() == [key]
    assert "They are on this machine" in text_of(opened("datasets", dataset=key))


# ---- Models --------------------------------------------------------------------------------------------------------
def test_models_starts_leak_safe_on_what_was_measured(measured):
    app = opened("models")
    assert [box.value for box in app.selectbox] == ["pooled", "all", "two-patients", "sample", "freeze", "F1"]
    assert list(app.dataframe[0].value["title"]) == ["HVG + logistic", "scGPT + MLP"]


def test_models_pickers_come_from_the_url(measured):
    app = opened("models", split_by="cell", metric="MCC")
    assert "split by cell" in text_of(app)
    assert "**MCC**" in text_of(app)


def test_simulated_numbers_appear_only_when_asked_for(measured):
    assert app_sources(opened("models", on="simulated-a")) == set()
    assert app_sources(opened("models", on="simulated-a", simulated="true")) == {"simulated"}


def app_sources(app: AppTest) -> set[str]:
    return {source for frame in app.dataframe if "source" in frame.value for source in frame.value["source"]}


def test_the_number_that_equals_the_constant_is_called_out(settings):
    shown = text_of(opened("models", protocol="cross-data", facet="tissue", on="Tumor tissue (primary)"))
    assert "reported 0.774" in shown
    assert "2p/(1+p) = **0.774**" in shown


@pytest.mark.parametrize("key", MODELS)
def test_model_card_opens(key, measured):
    app = opened("models", model=key)
    assert not app.exception
    assert not app.error
    shown = text_of(app)
    assert MODELS[key].weights.licence in shown
    if models_queries.state_of(key) == "needs weights":
        assert all(command in shown for command in queries.commands_for(MODELS[key]))
    if not (queries.has_reference(key) or MODELS[key].prompted):
        assert f"scdrugmap reference fit --model {key}" in shown


def test_a_run_opens_with_its_provenance(measured):
    run_id = models_queries.ranking(
        {
            "protocol": "pooled",
            "facet": "all",
            "on": "two-patients",
            "split_by": "sample",
            "strategy": "freeze",
            "metric": "F1",
        }
    )["run_id"][0]
    app = opened("models", run=run_id)
    assert not app.exception
    assert "two-patients" in text_of(app)
    assert len(app.json) == 1


@pytest.mark.parametrize("run_id", ["../../etc/passwd", "0" * 16])
def test_a_run_that_is_not_there_is_said_so(run_id, settings):
    app = opened("models", run=run_id)
    assert not app.exception
    assert app.error


# ---- Predict -------------------------------------------------------------------------------------------------------
def test_predict_says_what_happens_to_a_file_before_it_is_brought(settings):
    app = opened("predict")
    assert "What happens to your file" in text_of(app)
    assert [button.label for button in app.button] == ["Try the example"]


def test_the_promise_about_a_file_knows_of_models_that_are_asked():
    assert "agree to what it is sent" in text.privacy(24, public=False)
    assert "Nothing is sent anywhere else. " in text.privacy(24, public=True)


def test_a_wrong_job_link_is_said_so(settings):
    app = opened("predict", job="../../../etc/passwd")
    assert not app.exception
    assert "no such job" in app.error[0].value


def test_checked_job_offers_models_and_escapes_what_the_file_says(settings):
    app = opened("predict", job=make_job(settings, "checked"))
    assert not app.exception
    lists = [element.proto.body for element in app.get("html")]
    assert any("&lt;kept&gt;" in body for body in lists)
    assert not any("<kept>" in body for body in lists)


def test_a_stopping_check_offers_no_run(settings):
    stop = ({"level": "stop", "message": "z-scores in X", "remedy": "Give raw counts."},)
    job_id = make_job(settings, "failed", checks=stop, error="z-scores in X", remedy="Give raw counts.")
    app = opened("predict", job=job_id)
    assert "z\\-scores" in app.error[0].value or "z-scores" in app.error[0].value
    assert "Run" not in [button.label for button in app.button]


def test_an_interrupted_job_can_be_run_again(settings):
    app = opened("predict", job=make_job(settings, "running", work="predict"))
    assert not app.exception
    assert "interrupted" in app.error[0].value


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("samples", [True, False])
@pytest.mark.parametrize("novel", [0.0, 0.2, 1.0])
def test_result_is_drawn(labels, samples, novel, settings):
    adata = predicted(labels=labels, samples=samples, novel=novel)
    app = opened("predict", job=make_job(settings, "done", adata))
    assert not app.exception
    assert not app.error
    shown = text_of(app)
    assert "What it is not" in shown
    assert "Research use only" in shown
    assert ("Against your labels" in [tab.label for tab in app.tabs]) == labels
    share = float((adata.obs["p_resistant"] >= 0.5).mean())
    assert format.percent(share) in shown


def test_headline_leaves_novel_cells_out_when_asked(settings):
    adata = predicted(novel=0.3)
    app = opened("predict", job=make_job(settings, "done", adata), known="true")
    known = adata.obs[~adata.obs["novel"]]
    assert app.metric[0].value.startswith(format.percent(float((known["p_resistant"] >= 0.5).mean())))


def test_the_map_is_coloured_by_any_column_of_the_file(settings):
    app = opened("predict", job=make_job(settings, "done", predicted()))
    options = app.selectbox(key="colour").options
    assert {"P(resistant)", "prediction", "novelty", "cluster", "sample", "cell type [x]"} <= set(options)
    for option in options:
        app.selectbox(key="colour").set_value(option).run()
        assert not app.exception


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_a_result_outlives_a_later_run_that_did_not_end(state, settings):
    job_id = make_job(settings, state, predicted(), work="predict", run="b", stage="embed", error="No memory.")
    app = opened("predict", job=job_id)
    assert "What it is not" not in text_of(app)
    app.button(key="restore").click().run()
    assert not app.exception
    assert "What it is not" in text_of(app)
    assert service().status(job_id).state == "done"


def test_files_that_a_run_may_have_mixed_are_not_shown(settings):
    job_id = make_job(settings, "failed", predicted(), work="predict", stage="write", error="No disk.")
    assert "restore" not in [button.key for button in opened("predict", job=job_id).button]
    service().restore(job_id)
    assert service().status(job_id).state == "failed"


def test_delete_removes_the_job(settings):
    job_id = make_job(settings, "done", predicted())
    app = opened("predict", job=job_id)
    app.button(key="delete").click().run()
    assert not app.exception
    assert not (settings.jobs / job_id).exists()
    assert "What happens to your file" in text_of(app)


# ---- house ---------------------------------------------------------------------------------------------------------
def test_server_is_closed_by_default():
    assert CONFIG["browser"]["gatherUsageStats"] is False
    assert CONFIG["server"]["enableXsrfProtection"] is True
    assert CONFIG["client"]["showErrorDetails"] == "none"
    assert CONFIG["client"]["toolbarMode"] == "minimal"


def test_upload_limits_agree(settings):
    assert CONFIG["server"]["maxUploadSize"] == settings.max_upload_mb


def test_sizes_of_downloads():
    assert [format.megabytes(size) for size in (84, 16_070)] == ["84\u202fMB", "16.1\u202fGB"]


@pytest.mark.parametrize(("theme", "ink"), [("light", palette.LIGHT), ("dark", palette.DARK)])
def test_colours_can_be_read(theme, ink):
    paper = CONFIG["theme"][theme]["backgroundColor"]
    assert ink.paper == paper
    assert ink.text == CONFIG["theme"][theme]["textColor"]
    assert contrast(ink.text, paper) > 7
    assert contrast(ink.soft, paper) > 4.5
    assert contrast(CONFIG["theme"][theme]["linkColor"], paper) > 4.5
    assert contrast(CONFIG["theme"][theme]["primaryColor"], "#FFFFFF") > 4
    for mark in (palette.SENSITIVE_COLOUR, palette.RESISTANT_COLOUR, palette.UNKNOWN_COLOUR, ink.accent):
        assert contrast(mark, paper) > 2.9
    for stop in palette.DIVERGING:
        assert contrast(stop, paper) > 2


@pytest.mark.parametrize(
    ("value", "shown"),
    [(3.21, "3.2 s"), (42.0, "42 s"), (240.0, "4 min"), (9000.0, "2.5 h"), (None, "–")],
)
def test_durations(value, shown):
    assert format.duration(value) == shown


def test_numbers():
    assert format.number(-0.123) == "−0.12"
    assert format.count(495237) == "495\u202f237"
    assert format.percent(0.414) == "41\u202f%"
    assert format.parameters(52_500_000) == "52.5\u202fM"
    assert format.plain("[a](b) *c*") == r"\[a\]\(b\) \*c\*"


def test_statuses_have_fields_that_the_page_reads(settings):
    job_id = make_job(settings, "checked")
    assert dataclasses.is_dataclass(service().status(job_id))
