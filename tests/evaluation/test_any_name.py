"""A data set may be called anything: no name is taken apart, and none says by itself that its cells are simulated."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import polars as pl
import pytest
import streamlit as st
from make_results import REAL, SETS, make_failure, make_transfer
from streamlit.testing.v1 import AppTest

from scdrugmap.data.simulate import simulate
from scdrugmap.evaluation.analysis.few_shot_curves import curves
from scdrugmap.evaluation.analysis.leaderboard import leaderboard
from scdrugmap.evaluation.analysis.scores import chosen
from scdrugmap.evaluation.analysis.transfer_matrix import held_out, matrix
from scdrugmap.evaluation.benchmark import benchmark
from scdrugmap.evaluation.report.document import write_report
from scdrugmap.evaluation.results.run_record import Run
from scdrugmap.evaluation.results.store import SCORES, build_scores, read_runs, read_scores, write_scores
from scdrugmap.settings import CHECKOUT, Settings

NAMES = ("PC9+erlotinib", 'a/b "c" µ', "simulated lung")
FOUR = (*NAMES, "dataset:x | y")
TRAINED = {"protocol": "cross-data", "split_by": "dataset", "heads": ["logistic"]}


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """No answer of another test's results is remembered."""
    st.cache_data.clear()
    st.cache_resource.clear()
    yield
    st.cache_data.clear()
    st.cache_resource.clear()


@pytest.fixture(scope="module")
def renamed():
    adata = simulate(n_cells=360, n_genes=400, n_samples=6, n_datasets=3, n_studies=3, effect=2.0, seed=1)
    adata.obs["dataset"] = adata.obs["dataset"].map({f"simulated-{i + 1}": name for i, name in enumerate(NAMES)})
    return adata


@pytest.fixture
def measured(settings, renamed):
    for name in NAMES:
        benchmark([renamed], ["hvg"], train=[name], settings=settings, **TRAINED)
    benchmark([renamed], ["hvg"], shots=[0, 5], settings=settings, **TRAINED)
    return settings


@pytest.fixture
def made(settings):
    make_transfer(settings.precomputed, FOUR)
    return settings


def page(name: str, **parameters: str) -> str:
    app = AppTest.from_file(str(CHECKOUT / "pages" / f"{name}.py"), default_timeout=60)
    app.query_params.update(parameters)
    app.run()
    assert not app.exception
    parts = [*app.markdown, *app.caption, *app.subheader]
    return "\n".join(str(part.value) for part in parts)


# ---- a benchmark over simulated cells that were given other names ----------------------------------------------------
def test_every_pair_of_names_is_scored_and_counts_as_simulated(measured):
    scores, entry = read_scores(measured), {"model": "hvg", "shots": 0}
    table = matrix(scores, "auroc", simulated=True, **entry)
    assert table.filter(state="measured").height == 6
    assert set(table["train"]) == set(NAMES)
    assert matrix(scores, "auroc", **entry).is_empty()
    bars = held_out(scores, "auroc", simulated=True, **entry)
    assert {row["test"]: set(row["train"]) for row in bars.to_dicts()} == {n: set(NAMES) - {n} for n in NAMES}
    points = curves(scores, "auroc", simulated=True)
    assert {(row["test"], row["point"]) for row in points.to_dicts()} == {(n, p) for n in NAMES for p in ("0", "5")}
    board = leaderboard(scores, "auroc", split_by="dataset", protocol="cross-data", shots=5)
    assert [sorted(row) for row in board["test"].to_list()] == [sorted(NAMES)]
    assert board["simulated"].to_list() == [True]


def test_a_report_and_the_pages_show_them(measured, tmp_path):
    write_scores(measured.results)
    write_report(tmp_path / "report", measured)
    text = (tmp_path / "report" / "report.html").read_text()
    assert "Transfer (simulated cells)" in text
    assert "PC9+erlotinib" in text
    assert "6 pairs" in page("transfer", simulated="true").replace("**", "").replace("measured pairs", "pairs")
    assert "simulated, not measured on real cells" in page("transfer", simulated="true")
    assert "No model was trained on one data set" in page("transfer")
    few = page("models", view="Few-shot", protocol="cross-data", simulated="true", target=NAMES[0])
    assert f"cells of {NAMES[0]}" in few
    assert "trained on 2 other data sets" in few


def test_a_new_record_says_which_data_sets_are_simulated(settings, renamed):
    real = simulate(n_cells=120, n_genes=400, n_samples=4, effect=2.0, seed=2)
    real.obs["dataset"] = "simulated lung 2"
    del real.uns["scdrugmap"]
    known = benchmark([renamed], ["constant"], settings=settings)
    unknown = benchmark([real], ["constant"], settings=settings)
    assert (known["simulated"].all(), unknown["simulated"].any()) == (True, False)
    records = [Run.from_json(path.read_text()) for path in (settings.results / "runs").glob("*.json")]
    marked = {run.environment.simulated for run in records}
    assert marked == {tuple(sorted(NAMES)), ()}
    assert read_runs(settings).sort("n_cells")["simulated"].to_list() == [False, True]
    for run in records:
        assert Run.from_json(run.to_json()) == run


# ---- real data sets of such names ------------------------------------------------------------------------------------
def test_real_data_sets_may_be_called_anything(made):
    scores, entry = read_scores(made), {"model": "hvg", "shots": 0, "split_by": "dataset"}
    table = matrix(scores, "f1", failed=read_runs(made), **entry)
    assert set(table["train"]) == set(FOUR)
    assert table.filter(state="measured").height == 9
    assert set(table.filter(train=FOUR[-1])["state"]) == {"one class", "itself"}
    assert not scores["simulated"].any()
    assert held_out(scores, "f1", **entry).height == 4
    assert set(curves(scores, "f1", model="hvg")["point"]) == {"0", "50", "all"}


def test_the_pages_open_real_data_sets_of_any_name(made):
    assert "9 pairs of 4 data sets" in page("transfer")
    pair = page("transfer", train=FOUR[0], test=FOUR[1])
    assert f"{FOUR[0]} → {FOUR[1]}" in pair
    assert "measured here on" in pair
    ranking = page("models", protocol="pooled", on=FOUR[0])
    assert f"on {FOUR[0]}" in ranking
    run_id = read_scores(made).filter(chosen("test", FOUR[0]), protocol="pooled", fold="all")["run_id"][0]
    assert f"on {FOUR[0]}" in page("models", run=run_id)
    assert "simulated, not measured" not in page("models", view="Few-shot", protocol="cross-data", target=FOUR[2])


# ---- what earlier versions wrote -------------------------------------------------------------------------------------
def of_schema_1(scores: pl.DataFrame) -> pl.DataFrame:
    return scores.drop("simulated").with_columns(pl.col("train", "test").list.join("+"))


def only_scores(settings: Settings, sets: tuple[str, ...], *, keep_runs: bool) -> pl.DataFrame:
    """Write the table of an earlier version, newer than its records where these stay; return what it must read as."""
    make_transfer(settings.precomputed, sets)
    scores = build_scores(settings.precomputed)
    if not keep_runs:
        shutil.rmtree(settings.precomputed / "runs")
    of_schema_1(scores).write_parquet(settings.precomputed / "scores.parquet")
    return scores


@pytest.mark.parametrize(
    ("sets", "keep_runs"),
    [
        pytest.param(SETS, False, id="simulated, without records"),
        pytest.param(REAL, False, id="real, without records"),
        pytest.param(SETS, True, id="simulated, with records"),
        pytest.param(FOUR, True, id="any names, with records"),
    ],
)
def test_a_table_of_an_earlier_version_is_read(settings, sets, keep_runs):
    expected = only_scores(settings, sets, keep_runs=keep_runs)
    found = read_scores(settings).filter(pl.col("source") != "reported")
    assert found.equals(expected)
    assert found["simulated"].to_list() == [sets is SETS] * found.height


def test_a_table_that_lacks_more_columns_and_has_no_records_is_empty(settings):
    only_scores(settings, SETS, keep_runs=False)
    path = settings.precomputed / "scores.parquet"
    pl.read_parquet(path).drop("variant").write_parquet(path)
    found = read_scores(settings).filter(pl.col("source") != "reported")
    assert found.is_empty()
    assert dict(found.schema) == SCORES


def test_an_earlier_record_is_simulated_by_the_simulators_names_alone():
    def of(*names: str) -> Run:
        run = make_failure()
        return dataclasses.replace(run, experiment=dataclasses.replace(run.experiment, datasets=names))

    assert "simulated" not in json.loads(of("simulated-a").to_json())["environment"]
    assert of("simulated-a").is_simulated(["simulated-a"])
    assert not of("simulated lung").is_simulated(["simulated lung"])
    assert of("melanoma", "simulated-a").is_simulated(["melanoma", "simulated-a"])


def test_two_folders_give_a_run_once(settings, tmp_path):
    make_transfer(settings.precomputed, SETS)
    shutil.copytree(settings.precomputed, settings.results, dirs_exist_ok=True)
    found = read_scores(settings).filter(pl.col("source") != "reported")
    assert found.equals(build_scores(Path(settings.precomputed)))
