from __future__ import annotations

import dataclasses
import json
import logging
import re

import numpy as np
import polars as pl
import pytest
from anndata import AnnData

from scdrugmap.data.simulate import simulate
from scdrugmap.errors import Cancelled, InvalidInput, LabelsMissing, UnknownName
from scdrugmap.evaluation.benchmark import benchmark
from scdrugmap.evaluation.cells.labelled_cells import LabelledData, load_labelled
from scdrugmap.evaluation.experiment import BASELINES, Experiment
from scdrugmap.evaluation.plan.expand import expand_grid
from scdrugmap.evaluation.results.store import SCORES, build_scores, read_predictions, runs
from scdrugmap.evaluation.run import parallel
from scdrugmap.evaluation.run.evaluate import evaluate
from scdrugmap.evaluation.splits.cross_validate import CrossValidation
from scdrugmap.models import MODELS

FOUNDATION = next(card.key for card in MODELS.values() if not card.fitted)


def cohort(n_cells=160, n_genes=300, n_samples=8, **options) -> AnnData:
    return simulate(n_cells=n_cells, n_genes=n_genes, n_samples=n_samples, **options)


def overall(scores, metric="auroc"):
    rows = scores.filter(fold="all", metric=metric)
    return {(row["model"], row["head"]): row["value"] for row in rows.to_dicts()}


def material(*adatas):
    return LabelledData.from_datasets(load_labelled(adatas))


def experiment(of: LabelledData, **changes):
    asked = Experiment("hvg", "logistic", tuple(source.name for source in of.sources))
    return dataclasses.replace(asked, **changes)


def test_benchmark_records_every_experiment_and_returns_its_scores(settings):
    scores = benchmark([cohort()], ["constant", "hvg"], heads=["logistic", "knn"])
    assert scores.columns == list(SCORES)
    assert set(overall(scores)) == {("constant", "constant"), ("hvg", "logistic"), ("hvg", "knn")}
    assert set(scores["fold"]) == {"all", *"01234"}
    assert scores.sort("run_id", maintain_order=True).equals(build_scores(settings.results))
    found = list(runs(settings.results))
    assert len(found) == 3
    for run in found:
        assert run.outcome.state == "done"
        assert run.environment.data == {"simulated-1": load_labelled([cohort()])[0].fingerprint}
        rows = read_predictions(run.run_id, settings)
        assert rows.height == run.outcome.n_cells == 160
        assert rows.group_by("split").len().height == 5
    assert (settings.results / "scores.parquet").is_file()


def test_what_is_done_is_not_done_again(settings):
    first = benchmark([cohort()], ["hvg"], heads=["logistic"])
    path = next((settings.results / "runs").iterdir())
    before = path.stat().st_mtime_ns
    assert benchmark([cohort()], ["hvg"], heads=["logistic"]).equals(first)
    assert path.stat().st_mtime_ns == before
    relabelled = cohort()
    relabelled.obs["response"] = relabelled.obs["response"].to_numpy()[::-1]
    other = benchmark([relabelled], ["hvg"], heads=["logistic"])
    assert set(other["run_id"]).isdisjoint(first["run_id"])


def test_a_lost_run_comes_back_equal(settings, tmp_path):
    once = benchmark([cohort()], ["hvg-pca"], split_by="sample")
    again = benchmark([cohort()], ["hvg-pca"], split_by="sample", cache=tmp_path / "elsewhere")
    assert again.equals(once)


def test_processes_give_the_records_of_the_plain_loop(settings, tmp_path):
    asked = {"datasets": [cohort()], "models": ["constant", "hvg"], "heads": ["logistic"], "split_by": "sample"}
    one = benchmark(**asked, workers="1", cache=tmp_path / "one")
    two = benchmark(**asked, workers="2", cache=tmp_path / "two")
    assert two.equals(one)
    outcomes = [{run.run_id: run.outcome for run in runs(tmp_path / name / "results")} for name in ("one", "two")]
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("workers", ["0", "-1", "many", "localhost"])
def test_workers_are_a_number_or_an_address(workers):
    with pytest.raises(InvalidInput, match="neither a number of processes nor the address"):
        parallel.run(abs, [1], workers=workers)


def test_a_dask_scheduler_is_named_by_its_address():
    assert [parallel.backend(workers) for workers in ("1", "8", "tcp://host:8786")] == ["loop", "processes", "dask"]


def test_a_split_by_cell_is_inflated_by_samples_and_a_split_by_sample_is_not():
    of = material(cohort(n_cells=400, n_samples=10, effect=0.0, batch=1.0, confounded=True))
    runs_by = {
        split: evaluate(experiment(of, split_by=split), of)[0] for split in ("cell", "sample", "patient_or_line")
    }
    auroc = {split: run.outcome.parts[0].values["auroc_within"] for split, run in runs_by.items()}
    assert auroc["cell"] > 0.8  # expression says nothing of the label: the samples are recognised
    assert auroc["sample"] < 0.65
    assert auroc["patient_or_line"] < 0.65
    assert any(text.startswith("leaks: every sample has one label") for text in runs_by["cell"].outcome.warnings)
    assert not any(text.startswith("leaks") for text in runs_by["sample"].outcome.warnings)


def test_planted_copies_count_once_and_never_straddle_a_split(settings):
    adata = cohort(n_cells=300, n_samples=6, n_datasets=3, n_studies=3, duplicates=20, effect=2.0)
    pooled = benchmark([adata], ["constant"], split_by="cell")
    run = next(runs(settings.results))
    assert run.outcome.duplicates_removed == 40
    assert pooled.filter(fold="all")["n"].unique().to_list() == [260]
    assert {f"dataset:simulated-{i}" for i in (1, 2, 3)} < set(pooled["fold"])
    crossed = benchmark([adata], ["hvg"], heads=["logistic"], protocol="cross-data", split_by="study")
    assert set(crossed["shots"]) == {0}
    sizes = {row["fold"]: row["n"] for row in crossed.filter(metric="auroc").to_dicts()}
    assert sizes["all"] == 300  # each study is tested with all its cells, those that it shares included
    run = next(run for run in runs(settings.results) if run.experiment.protocol == "cross-data")
    folds = [part for part in run.outcome.parts if part.n_train]
    assert len(folds) == 3
    assert all(part.n + part.n_train == 300 - 40 for part in folds)  # 20 copies of its cells in each other study


def test_cross_data_names_what_trained_and_what_tested(settings):
    adata = cohort(n_cells=200, n_samples=4, n_datasets=2, n_studies=2, effect=2.0)
    scores = benchmark([adata], ["hvg"], heads=["logistic"], protocol="cross-data", split_by="dataset")
    rows = scores.filter(metric="auroc").select("fold", "train", "test", "ci_low").rows_by_key("fold", named=True)
    (first,) = rows["simulated-1"]
    assert (first["train"], first["test"]) == (["simulated-2"], ["simulated-1"])
    assert first["ci_low"] is not None
    (whole,) = rows["all"]
    assert whole["train"] == whole["test"] == ["simulated-1", "simulated-2"]


def test_what_labels_do_not_allow_is_recorded_with_its_reason(settings, caplog):
    confounded = cohort(n_cells=80, n_samples=2, confounded=True)
    with pytest.raises(LabelsMissing, match=r"confounded \(label = sample\)"):
        benchmark([confounded], ["hvg"], heads=["logistic"], split_by="sample")
    (run,) = runs(settings.results)
    assert (run.outcome.state, run.outcome.error, run.outcome.parts) == ("failed", "LabelsMissing", ())
    assert run.outcome.remedy
    assert build_scores(settings.results).is_empty()
    benchmark([confounded], ["hvg"], heads=["logistic"], split_by="cell")
    by_cell = next(run for run in runs(settings.results) if run.outcome.state == "done")
    assert any("confounded (label = sample)" in text for text in by_cell.outcome.warnings)
    assert any("interval over cells" in text for text in by_cell.outcome.warnings)


def test_one_failed_experiment_does_not_stop_the_others(settings, caplog):
    scaled = zscores(cohort())
    with caplog.at_level(logging.WARNING):
        scores = benchmark([scaled], ["hvg", FOUNDATION], heads=["logistic"])
    assert set(scores["model"]) == {"hvg"}
    failed = next(run for run in runs(settings.results) if run.outcome.state == "failed")
    assert failed.experiment.model == FOUNDATION
    assert failed.outcome.reason in caplog.text


def zscores(adata: AnnData) -> AnnData:
    X = np.log1p(adata.X.toarray())
    X = (X - X.mean(axis=0)) / (X.std(axis=0) + 1e-6)
    scaled = AnnData(X.astype(np.float32), obs=adata.obs, var=adata.var)
    scaled.uns["scdrugmap"] = {"input": {"value_type": "zscore"}}
    return scaled


def test_scaled_values_are_not_put_together_with_counts():
    other = zscores(cohort(seed=1))
    other.obs["dataset"] = "scaled"
    with pytest.raises(InvalidInput, match="z-scores in 'scaled' and none in the others"):
        material(cohort(), other)


def test_a_baseline_never_sees_the_test_side():
    of = material(cohort(n_cells=100, n_samples=4))
    asked = experiment(of, model="hvg-pca", head="logistic", split_by="sample", folds=4)
    _, before = evaluate(asked, of)
    fold = before.filter(split="0")
    changed = of.sources[0].adata.copy()
    others = ~changed.obs_names.isin(fold["cell"].to_list())
    shuffled = changed.X.toarray()
    tested = np.flatnonzero(~others)
    shuffled[tested] = shuffled[tested][::-1]
    changed.X = type(of.sources[0].adata.X)(shuffled)
    _, after = evaluate(asked, LabelledData((dataclasses.replace(of.sources[0], adata=changed),), of.table))
    now = dict(after.filter(split="0").select("cell", "p_resistant").iter_rows())
    mirrored = dict(zip(of.table.name[tested], of.table.name[tested][::-1], strict=True))
    for cell, p in fold.select("cell", "p_resistant").iter_rows():
        assert now[mirrored[cell]] == pytest.approx(p, abs=1e-6)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"shots": 0}, "for cross-data"),
        ({"reserve": 5}, "for cross-data"),
        ({"train": ("simulated-1",)}, "for cross-data"),
        ({"protocol": "cross-data", "split_by": "dataset", "shots": 5}, "5 shots a class .* reserve of 0"),
    ],
)
def test_what_cannot_be_asked_is_recorded_with_its_reason(change, reason):
    of = material(cohort(n_cells=60, n_samples=4))
    run, predictions = evaluate(experiment(of, **change), of)
    assert (run.outcome.state, run.outcome.error) == ("failed", "InvalidInput")
    assert re.search(reason, run.outcome.reason)
    assert run.outcome.remedy
    assert predictions is None


@dataclasses.dataclass
class Broken:
    """A learner with a bug."""

    device: str = "cpu"
    precision: str = "float32"
    weights: str = "w"
    chooses_epoch: bool = False
    may_abstain: bool = False
    spent: dict = dataclasses.field(default_factory=dict)

    def fit(self, train, labels, validation, *, fold):
        raise ZeroDivisionError(f"in fold {fold}")


def test_a_bug_in_one_experiment_is_a_failed_record_and_a_traceback_in_the_log(monkeypatch, caplog):
    of = material(cohort(n_cells=60, n_samples=4))
    monkeypatch.setattr("scdrugmap.evaluation.run.evaluate.make_strategy", lambda *_, **__: Broken())
    run, predictions = evaluate(experiment(of), of)
    assert (run.outcome.state, run.outcome.error, run.outcome.reason) == ("failed", "ZeroDivisionError", "in fold 0")
    assert run.outcome.remedy
    assert run.environment.device == "cpu"
    assert predictions is None
    assert "Traceback" in caplog.text


@dataclasses.dataclass
class Silent(Broken):
    """A learner that is sure of each cell but the first two of a fold, of which it says nothing."""

    of: LabelledData | None = None

    def fit(self, train, labels, validation, *, fold):
        return self

    @property
    def notes(self):
        return ()

    def predict(self, rows):
        p = (self.of.table.label[rows] == "resistant").astype(np.float32)
        p[:2] = np.nan
        return p


def test_a_cell_without_an_answer_counts_as_wrong_where_a_strategy_may_have_none():
    of = material(cohort(n_cells=60, n_samples=4))
    question = experiment(of, split_by="cell", folds=5)
    outcome, predictions = CrossValidation.from_experiment(question, of).score(Silent(of=of, may_abstain=True), ())
    wrong = predictions.filter((pl.col("p_resistant") >= 0.5) != (pl.col("label") == "resistant"))
    assert (len(predictions), len(wrong)) == (60, 10)
    assert wrong["p_resistant"].is_between(0.4999, 0.5).all()  # and is sure of none of them
    assert outcome.parts[0].values["accuracy"] == pytest.approx(50 / 60)


def test_a_missing_probability_of_any_other_strategy_is_no_score():
    of = material(cohort(n_cells=60, n_samples=4))
    with pytest.raises(InvalidInput, match="P\\(resistant\\) runs from nan to nan"):
        CrossValidation.from_experiment(experiment(of), of).score(Silent(of=of, may_abstain=False), ())


def test_cancelling_passes_through(settings):
    def stop(done, total):
        raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        benchmark([cohort()], ["constant"], progress=stop)
    assert len(list(runs(settings.results))) == 1


def test_progress_counts_experiments(settings):
    seen = []
    benchmark([cohort()], ["constant", "hvg"], heads=["logistic"], progress=lambda *step: seen.append(step))
    assert seen == [(1, 2), (2, 2)]


def test_facets_group_data_sets_and_name_the_group(settings):
    first, second = (cohort(seed=seed, tissue=tissue) for seed, tissue in ((1, "Cell line"), (2, "Tumor tissue")))
    second.obs["dataset"] = "simulated-other"
    scores = benchmark([first, second], ["constant"], facet="tissue")
    whole = scores.filter(fold="all", metric="f1").sort("facet_value").select("facet", "facet_value", "test").rows()
    assert whole == [("tissue", "Cell line", ["simulated-1"]), ("tissue", "Tumor tissue", ["simulated-other"])]
    together = benchmark([first, second], ["constant"]).filter(fold="all", metric="f1")
    assert together["facet_value"].to_list() == ["simulated-1+simulated-other"]


def test_remarks_stand_in_the_record(settings):
    benchmark([cohort()], ["constant"], remarks={"simulated-1": "made up", "another": "not here"})
    (run,) = runs(settings.results)
    assert run.outcome.warnings[0] == "simulated-1: made up"
    assert not any("not here" in text for text in run.outcome.warnings)
    assert json.loads(run.to_json())["outcome"]["warnings"][0] == "simulated-1: made up"


def test_short_training_is_said(settings):
    benchmark([cohort()], ["hvg"], heads=["mlp"])
    (run,) = runs(settings.results)
    assert any(text.startswith("short training: 10 epochs") for text in run.outcome.warnings)


def test_a_question_is_checked_before_anything_runs(settings):
    for wrong, error in (
        ({"models": ["hvgg"]}, UnknownName),
        ({"heads": ["forest"]}, UnknownName),
        ({"models": "hvg"}, InvalidInput),
        ({"split_by": "donor"}, InvalidInput),
        ({"protocol": "loo"}, InvalidInput),
        ({"datasets": []}, InvalidInput),
        ({"datasets": [cohort(), cohort()]}, InvalidInput),
    ):
        with pytest.raises(error) as caught:
            benchmark(**{"datasets": [cohort()], "models": ["hvg"], **wrong})
        assert caught.value.remedy
    assert not (settings.results / "runs").exists()


def test_unlabelled_cells_are_left_out_and_a_set_without_labels_is_named(settings):
    adata = cohort()
    adata.obs["response"] = adata.obs["response"].astype(object)
    adata.obs.iloc[:40, adata.obs.columns.get_loc("response")] = None
    assert benchmark([adata], ["constant"]).filter(fold="all")["n"].unique().to_list() == [120]
    adata.obs["response"] = None
    with pytest.raises(LabelsMissing, match="'simulated-1' has no labelled cell among its 160"):
        benchmark([adata], ["constant"])


def test_baselines_have_their_own_heads():
    of = load_labelled([cohort()])
    question = Experiment("", "", ())
    found = {
        (one.model, one.head) for one in expand_grid(question, of, [*BASELINES, FOUNDATION], None, ["freeze"], [0])
    }
    assert found == {(model, head) for model, heads in BASELINES.items() for head in heads} | {(FOUNDATION, "mlp")}


def test_cells_that_a_model_saw_in_pretraining_are_named(settings):
    card = next(card for card in MODELS.values() if card.pretrained_accessions and card.kind == "bundled")
    adata = cohort(n_cells=40, n_samples=4, n_genes=2000)
    adata.obs["study"] = study = min(card.pretrained_accessions)
    benchmark([adata], [card.key, "hvg"], heads=["logistic"])
    said = {run.experiment.model: run.outcome.warnings for run in runs(settings.results)}
    assert f"seen before: {card.key} was pretrained on cells of {study}" in said[card.key]
    assert not any("seen before" in text for text in said["hvg"])  # fitted anew on each training side
