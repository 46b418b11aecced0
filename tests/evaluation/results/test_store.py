from __future__ import annotations

import dataclasses
import os

import polars as pl
import pytest
from make_results import DRAWS, make_failure, make_predictions, make_run

from scdrugmap.errors import InvalidInput, UnknownName
from scdrugmap.evaluation.analysis.leaderboard import leaderboard
from scdrugmap.evaluation.analysis.leakage_gap import leakage_gap
from scdrugmap.evaluation.analysis.scores import averaged
from scdrugmap.evaluation.experiment import FACETS, PROTOCOLS, SPLITS, STRATEGIES, Experiment
from scdrugmap.evaluation.metrics.metrics import METRICS, score
from scdrugmap.evaluation.results.reported import reported
from scdrugmap.evaluation.results.score_predictions import score_all, score_fold
from scdrugmap.evaluation.results.store import (
    PREDICTIONS,
    SCORES,
    build_scores,
    read_predictions,
    read_run,
    read_runs,
    read_scores,
    runs,
    write_run,
    write_scores,
)
from scdrugmap.settings import CHECKOUT, Settings

EXPERIMENT = Experiment("hvg", "logistic", ("simulated-a",), facet_value="simulated-a")


def test_scores_have_the_columns_of_the_contract(filled_results):
    contract = (
        "run_id, model, strategy, shots, head, protocol, split_by, facet, facet_value, train, test, fold, seed, "
        "metric, value, ci_low, ci_high, n, prevalence, source"
    )
    scores = read_scores(filled_results)
    assert scores.columns == [*contract.split(", "), "simulated", "variant", "design"]
    assert dict(scores.schema) == SCORES
    assert set(scores["source"]) == {"measured", "reported"}
    assert set(scores["metric"]) == set(METRICS)


def test_scores_are_rebuilt_byte_for_byte(filled_results):
    table = filled_results.precomputed / "scores.parquet"
    first = table.read_bytes()
    table.unlink()
    write_scores(filled_results.precomputed)
    assert table.read_bytes() == first


def test_every_metric_can_be_recomputed_from_the_predictions(filled_results):
    for run in runs(filled_results.precomputed):
        if run.outcome.state == "done":
            rows = read_predictions(run.run_id, filled_results)
            recorded = {part.fold: part for part in run.outcome.parts}
            again = score_all(rows, run.experiment.datasets, draws=DRAWS)
            again += [score_fold(rows.filter(split=fold), fold, run.experiment.datasets, n_train=90) for fold in "0123"]
            assert {part.fold: part for part in again} == recorded


def test_only_out_of_fold_rows_have_intervals_and_they_hold_the_value(filled_results):
    scores = build_scores(filled_results.precomputed)
    pooled = pl.col("fold").str.contains("all|dataset:")
    assert scores.filter(~pooled)["ci_low"].null_count() == scores.filter(~pooled).height
    inside = scores.filter(pooled, pl.col("value").is_not_null(), pl.col("model") != "constant", metric="auroc")
    assert inside.filter(pl.col("value").is_between("ci_low", "ci_high")).height == inside.height > 0


def test_predictions_have_the_columns_of_the_contract(filled_results):
    run_id = build_scores(filled_results.precomputed)["run_id"][0]
    assert dict(read_predictions(run_id, filled_results).schema) == {name: kind() for name, kind in PREDICTIONS.items()}


def test_a_run_is_written_once(tmp_path):
    run, rows = make_run(EXPERIMENT, 1.0)
    assert write_run(tmp_path, run, rows)
    path = tmp_path / "runs" / f"{run.run_id}.json"
    before = path.read_text()
    other, _ = make_run(EXPERIMENT, 0.1)
    assert not write_run(tmp_path, other, rows)
    assert path.read_text() == before


def test_a_failed_run_gives_way_to_a_later_attempt(tmp_path):
    failed = make_failure()
    done, rows = make_run(failed.experiment, 1.0)
    assert write_run(tmp_path, failed)
    assert build_scores(tmp_path).is_empty()
    assert write_run(tmp_path, done, rows)
    assert not write_run(tmp_path, failed)
    assert build_scores(tmp_path).height > 0


def test_scores_follow_a_run_that_came_after_the_table(filled_results):
    before = read_scores(filled_results)
    newer = Experiment("hvg", "knn", ("simulated-a",), facet_value="simulated-a")
    write_run(filled_results.precomputed, *make_run(newer, 1.0))
    table = filled_results.precomputed / "scores.parquet"
    os.utime(table, (table.stat().st_atime, table.stat().st_mtime - 10))
    added = set(read_scores(filled_results)["run_id"]) - set(before["run_id"])
    assert added == {newer.run_id}


def test_local_and_precomputed_runs_are_read_together_and_count_once(filled_results):
    before = read_scores(filled_results)
    shared = next(run for run in runs(filled_results.precomputed) if run.outcome.state == "done")
    local = Experiment("hvg", "knn", ("simulated-a",), facet_value="simulated-a")
    write_run(filled_results.results, shared, read_predictions(shared.run_id, filled_results))
    write_run(filled_results.results, *make_run(local, 1.0))
    write_scores(filled_results.results)
    after = read_scores(filled_results)
    assert set(after["run_id"]) - set(before["run_id"]) == {local.run_id}
    assert not after.select("run_id", "fold", "metric").is_duplicated().any()
    assert read_run(local.run_id, filled_results).experiment == local


def test_an_empty_folder_has_the_reported_numbers_only(settings):
    scores = read_scores(settings)
    assert set(scores["source"]) == {"reported"}
    assert read_runs(settings).is_empty()


def test_runs_are_listed_with_the_failed_ones_and_their_reason(filled_results):
    table = read_runs(filled_results)
    failed = table.filter(state="failed")
    assert "confounded" in failed["reason"].item()
    assert table.height == failed.height + build_scores(filled_results.precomputed)["run_id"].n_unique()


@pytest.mark.parametrize("run_id", ["../../etc/passwd", "0" * 16, "0123456789ABCDEF", "", "reported-12345678"])
def test_a_foreign_run_id_is_never_a_path(filled_results, run_id):
    for read in (read_run, read_predictions):
        with pytest.raises(UnknownName, match="no run called"):
            read(run_id, filled_results)


def test_reported_numbers_speak_our_words():
    table = reported()
    assert table.height == 20
    assert table["run_id"].n_unique() == 20
    for column, known in (("strategy", STRATEGIES), ("protocol", PROTOCOLS), ("split_by", SPLITS), ("facet", FACETS)):
        assert set(table[column]) <= set(known)
    assert set(table["metric"]) <= set(METRICS)
    assert table["reference"].str.contains("2505.05612|s41467-025-67481-2").all()
    assert (table["read_from"].str.len_chars() > 0).all()


def test_the_papers_zero_shot_is_a_frozen_encoder_on_other_data_sets():
    stated = reported().filter(stated_strategy="zero-shot")
    scgpt = stated.row(by_predicate=pl.col("model") == "scgpt", named=True)
    assert (scgpt["strategy"], scgpt["protocol"], scgpt["shots"], scgpt["value"]) == ("freeze", "cross-data", 0, 0.858)
    assert set(stated.filter(pl.col("model") != "scgpt")["strategy"]) == {"prompt"}


def test_reported_prevalence_gives_the_constant_beside_the_number():
    uce = reported().filter(model="uce", facet_value="Tumor tissue").row(0, named=True)
    assert METRICS["f1"].constant(uce["prevalence"]) == pytest.approx(uce["value"], abs=5e-4)


def test_leaderboard_ranks_entries_on_the_same_cells(filled_results):
    scores = read_scores(filled_results)
    board = leaderboard(scores, "auroc", split_by="sample", protocol="pooled", facet_value="simulated-a")
    assert board["rank"].to_list() == [1, 2, 3, 4, 5, 6]
    assert board["value"].is_sorted(descending=True)
    best = board.filter(pl.col("model").is_in(["constant", "hvg", "hvg-pca"]))["value"].max()
    assert (board["delta"] - (board["value"] - best)).abs().max() < 1e-12
    assert board.filter(pl.col("model") != "constant")["gap"].min() > 0  # planted: the split by cell scores higher
    by_cell = leaderboard(scores, "auroc", split_by="cell", protocol="pooled", facet_value="simulated-a")
    assert by_cell["gap"].null_count() == by_cell.height


def test_leaderboard_turns_metrics_where_less_is_better(filled_results):
    board = leaderboard(read_scores(filled_results), "brier", split_by="cell", facet_value="simulated-a")
    assert board["value"].is_sorted()
    assert board["constant"].to_list() == [0.25] * 6
    assert board["delta"][0] >= 0


def test_reported_numbers_have_their_constant_but_no_baseline(filled_results):
    board = leaderboard(read_scores(filled_results), "f1", split_by="dataset", facet_value="Tumor tissue", shots=0)
    assert board.select("model", "rank").rows() == [("scgpt", 1), ("uce", 2)]
    assert board["constant"].round(3).to_list() == [0.774, 0.774]
    assert board["delta"].null_count() == 2


def test_seeds_are_averaged(tmp_path):
    for seed in range(3):
        write_run(tmp_path, *make_run(dataclasses.replace(EXPERIMENT, seed=seed), 1.0))
    scores = build_scores(tmp_path)
    row = averaged(scores).row(by_predicate=pl.col("metric") == "f1", named=True)
    assert row["seeds"] == 3
    assert set(row["run_ids"]) == set(scores["run_id"])
    assert row["value"] == pytest.approx(scores.filter(fold="all", metric="f1")["value"].mean())


def test_simulated_rows_are_told_apart(filled_results):
    scores = read_scores(filled_results)
    assert scores.filter(simulated=True).height == scores.filter(source="measured").height > 0


def test_leakage_gap_is_paired_over_samples_and_seeds():
    leaky = [make_predictions(("simulated-a",), 1.5, seed) for seed in range(3)]
    safe = [make_predictions(("simulated-a",), 0.3, seed) for seed in range(3)]
    gap = next(gap for gap in leakage_gap(leaky, safe) if gap.metric == "auroc")
    expected = [score(table["label"], table["p_resistant"].to_numpy())["auroc"] for table in (*leaky, *safe)]
    assert gap.value == pytest.approx(sum(expected[:3]) / 3 - sum(expected[3:]) / 3)
    assert (gap.unit, gap.n_units, gap.n_seeds) == ("sample", 8, 3)
    assert 0 < gap.low < gap.value < gap.high
    assert all(gap.low <= gap.value == 0 <= gap.high for gap in leakage_gap(safe, [table.reverse() for table in safe]))


def test_leakage_gap_is_of_the_same_cells_only():
    one, other = make_predictions(("simulated-a",), 1.5), make_predictions(("simulated-b",), 1.5)
    with pytest.raises(InvalidInput, match="not of the same cells"):
        leakage_gap([one], [other])


def test_precomputed_results_are_what_their_records_and_predictions_say():
    root = CHECKOUT / "cache" / "results"
    assert pl.read_parquet(root / "scores.parquet").equals(build_scores(root))
    folder = Settings(cache=root.parent, precomputed=root)
    done = [run for run in runs(root) if run.outcome.state == "done"]
    assert done
    for run in done:
        rows = read_predictions(run.run_id, folder)
        assert rows.columns == list(PREDICTIONS)
        again = score_fold(rows, "all", run.experiment.datasets)
        recorded = run.outcome.parts[0]
        assert (again.n, again.prevalence, again.constants) == (recorded.n, recorded.prevalence, recorded.constants)
        assert again.values == pytest.approx(recorded.values, abs=1e-12)
