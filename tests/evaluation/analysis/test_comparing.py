from __future__ import annotations

import sys

import numpy as np
import polars as pl
import pytest
from make_results import make_environment, make_predictions
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from scdrugmap.evaluation.analysis.few_shot_curves import CURVES, curves
from scdrugmap.evaluation.analysis.leaderboard import by_facet, leaderboard, won
from scdrugmap.evaluation.analysis.scores import averaged, per_dataset, with_constant
from scdrugmap.evaluation.analysis.transfer_matrix import (
    MATRIX,
    difference,
    entries,
    held_out,
    margins,
    matrix,
    ordered,
)
from scdrugmap.evaluation.experiment import Experiment
from scdrugmap.evaluation.metrics.bootstrap import bootstrap
from scdrugmap.evaluation.metrics.metrics import METRICS, score
from scdrugmap.evaluation.metrics.reliability import BINS, reliability
from scdrugmap.evaluation.results.run_record import FoldScores, Outcome, Run
from scdrugmap.evaluation.results.score_predictions import score_all
from scdrugmap.evaluation.results.store import SCORES, build_scores, read_runs, write_run
from scdrugmap.settings import CHECKOUT

CROSS = {"protocol": "cross-data", "split_by": "dataset", "shots": 0, "facet": "all"}


def scores_of(rows: list[dict]) -> pl.DataFrame:
    plain = {"model": "m", "strategy": "freeze", "head": "mlp", "seed": 0, "metric": "auroc", "n": 100, "fold": "all"}
    plain |= {"prevalence": 0.5, "source": "measured", "simulated": False, "facet_value": "", **CROSS}
    full = [plain | {"run_id": f"{i:016x}"} | row for i, row in enumerate(rows)]
    for row in full:
        row |= {side: [row[side]] if isinstance(row[side], str) else row[side] for side in ("train", "test")}
    return pl.DataFrame([{name: row.get(name) for name in SCORES} for row in full], schema=SCORES)


def pair(train: str | list[str], test: str, value: float | None, **more) -> dict:
    bounds = {} if value is None else {"ci_low": value - 0.1, "ci_high": value + 0.1}
    return {"train": train, "test": test, "value": value, **bounds, **more}


@pytest.fixture(scope="module")
def made_up() -> pl.DataFrame:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(CHECKOUT / "scripts")
        from simulate_scores import simulate_scores

        return simulate_scores(10, metrics=("auroc", "brier"))


# ---- scores of one data set ----------------------------------------------------------------------------------------


def test_a_score_of_one_data_set_counts_once_however_a_run_holds_it():
    run = {"run_id": "a" * 16, "test": "b", "train": "a", "value": 0.7}
    rows = scores_of([run | {"fold": fold} for fold in ("all", "b")] + [run | {"fold": "all", "test": [*"bc"]}])
    assert per_dataset(rows).select("dataset", "others", "fold").rows() == [("b", ["a"], "b")]


def test_shots_do_not_name_the_target_as_its_own_teacher():
    rows = scores_of([pair([*"ab"], "b", 0.7, shots=5, fold="b"), pair([*"abc"], "c", 0.7, fold="dataset:c")])
    assert per_dataset(rows)["others"].to_list() == [["a"], ["a", "b"]]


def test_a_data_set_of_a_held_out_study_was_not_taught_by_its_study():
    run = {"run_id": "a" * 16, "split_by": "study", "value": 0.7}
    folds = [("all", [*"abcd"], [*"abcd"]), ("S1", [*"cd"], [*"ab"]), ("S2", [*"ab"], "c"), ("S3", [*"abc"], "d")]
    folds += [(f"dataset:{name}", [*"abcd"], name) for name in "abcd"]
    rows = scores_of([run | {"fold": fold, "train": train, "test": test} for fold, train, test in folds])
    table = per_dataset(rows).sort("dataset")
    assert table["others"].to_list() == [[*"cd"], [*"cd"], [*"ab"], [*"abc"]]
    assert table["fold"].str.starts_with("dataset:").all()


def test_a_pooled_run_of_one_data_set_trains_on_nothing_else():
    pooled = {"protocol": "pooled", "split_by": "sample", "shots": None}
    rows = scores_of([pair("a", "a", 0.7, **pooled), pair("a", "a", 0.6, fold="3", **pooled)])
    assert per_dataset(rows).select("dataset", "others", "value").rows() == [("a", [], 0.7)]


def test_the_constant_follows_from_the_prevalence():
    rows = scores_of([pair("a", "b", 0.5, metric="f1", prevalence=share) for share in (0.5, 0.25, None)])
    expected = [METRICS["f1"].constant(0.5), METRICS["f1"].constant(0.25), None]
    assert with_constant(rows)["constant"].to_list() == expected


# ---- tables of many ------------------------------------------------------------------------------------------------


def test_averaging_gives_the_mean_of_each_group(made_up):
    table = averaged(made_up)
    one = table.filter(pl.col("seeds") == 3).row(5, named=True)
    rows = made_up.filter(pl.col("run_id").is_in(one["run_ids"]), fold="all", metric=one["metric"])
    assert one["value"] == pytest.approx(rows["value"].mean())
    assert table.filter(metric="brier")["constant"].max() <= 0.25


def test_a_view_of_the_leaderboard_is_part_of_the_whole(made_up):
    where = {"protocol": "pooled", "facet": "tissue", "facet_value": "Blood"}
    whole = leaderboard(made_up, "auroc", split_by="sample").filter(**where)
    assert leaderboard(made_up, "auroc", split_by="sample", **where).equals(whole)
    assert whole.height == 24


def test_panels_of_a_facet_rank_their_own_entries(made_up):
    table = by_facet(made_up, "auroc", "tissue", split_by="sample", protocol="pooled")
    assert table["panel"].n_unique() == 5
    for _, panel in table.group_by("panel"):
        assert panel["place"].to_list() == list(range(1, 25))
        assert panel["value"].is_sorted(descending=True)


def test_panels_that_share_a_value_are_told_apart_by_their_cells():
    rows = [
        pair("a", "a", 0.7, facet="tissue", facet_value="Blood"),
        pair("b", "b", 0.7, facet="tissue", facet_value="Blood"),
    ]
    table = by_facet(scores_of(rows), "auroc", "tissue", split_by="dataset")
    assert table["panel"].to_list() == ["Blood (a)", "Blood (b)"]


def test_wins_are_shared_and_count_a_data_set_once():
    values = {"a": (0.9, 0.8, 0.7), "b": (0.8, 0.8, 0.1), "c": (0.5, 0.6, None), "d": (0.5, None, None)}
    rows = [
        pair("x", test, value, model=f"m{i}")
        for test, three in values.items()
        for i, value in enumerate(three)
        if value is not None
    ]
    rows += [pair("y", "a", value, model=f"m{i}") for i, value in enumerate((0.1, 0.2))]
    table = won(scores_of(rows), "auroc").sort("model")
    assert table["won"].to_list() == [1.0, 2.0, 0.0]  # a: half each for the two teachers; b: shared; c: m1
    assert table["scored"].to_list() == [4, 3, 2]
    assert table["compared"].to_list() == [3, 3, 2]


# ---- transfer ------------------------------------------------------------------------------------------------------


def test_a_matrix_has_every_pair_and_says_why_one_is_empty():
    rows = [pair("a", "b", 0.8), pair("b", "a", 0.55), pair("a", "c", None, prevalence=0.0), pair([*"ab"], "c", 0.9)]
    failed = pl.DataFrame(
        {
            "run_id": ["f" * 16, "e" * 16, "d" * 16],
            "protocol": "cross-data",
            "state": ["failed", "failed", "done"],
            "train": [["c"], ["b"], ["c"]],
            "datasets": [["a", "c"], ["b", "c"], ["a", "b", "c"]],
            "reason": ["The other data sets have resistant cells only.", "confounded (label = sample): ...", ""],
            "unscored": [[], [], [{"test": "b", "reason": "Cells of study S train, and 'b' is of the same study."}]],
        }
    )
    table = matrix(scores_of(rows), "auroc", failed=failed)
    assert dict(table.schema) == {name: kind() for name, kind in MATRIX.items()}
    states = {(row["train"], row["test"]): row["state"] for row in table.iter_rows(named=True)}
    assert states == {
        ("a", "a"): "itself", ("b", "b"): "itself", ("c", "c"): "itself",
        ("a", "b"): "measured", ("b", "a"): "measured", ("a", "c"): "one class",
        ("c", "a"): "one class", ("b", "c"): "confounded", ("c", "b"): "failed",
    }  # fmt: skip
    first = table.row(by_predicate=(pl.col("train") == "a") & (pl.col("test") == "b"), named=True)
    assert (first["value"], first["constant"], first["n"], first["seeds"]) == (0.8, 0.5, 100, 1)
    assert first["better"] == pytest.approx(0.3)
    assert not first["crosses"]
    assert table.filter(train="b", test="a")["crosses"].item()
    assert "of the same study" in table.filter(train="c", test="b")["reason"].item()
    assert matrix(scores_of(rows), "auroc").filter(train="c", test="b")["state"].item() == "not run"
    assert "resistant cells only" in table.filter(train="c", test="a")["reason"].item()


def test_what_a_run_could_not_score_reaches_the_matrix(tmp_path, settings):
    experiment = Experiment("m", "mlp", ("a", "b", "c"), protocol="cross-data", split_by="study", shots=0, train=("a",))
    rows = make_predictions(("b",), 1.0)
    left_out = FoldScores(
        "c", ("a",), ("c",), 10, 10, None, reason="Cells of study S train, and 'c' is of the same study."
    )
    outcome = Outcome("done", (*score_all(rows, ["a"], draws=20), left_out))
    write_run(settings.results, Run(experiment, outcome, make_environment()), rows)
    table = matrix(build_scores(settings.results), "auroc", failed=read_runs(settings), model="m", split_by="study")
    assert table.filter(train="a", test="b")["state"].item() == "measured"
    assert table.filter(train="a", test="c").select("state", "reason").row(0) == ("failed", left_out.reason)


def test_a_matrix_takes_means_over_seeds_and_the_cells_without_a_reserve():
    rows = [pair("a", "b", 0.8, seed=0), pair("a", "b", 0.6, seed=1), pair("a", "b", 0.1, seed=0, n=60)]
    row = matrix(scores_of(rows), "auroc").filter(train="a", test="b").row(0, named=True)
    assert (row["value"], row["seeds"], row["n"]) == (pytest.approx(0.7), 2, 100)


def test_lower_is_better_in_a_matrix_where_the_metric_says_so():
    table = matrix(scores_of([pair("a", "b", 0.2, metric="brier")]), "brier", datasets=["b", "a"])
    assert table["train"].to_list() == ["b", "b", "a", "a"]
    assert table.filter(state="measured")["better"].item() == pytest.approx(0.05)


def test_margins_are_means_of_what_was_measured():
    rows = [pair("a", "b", 0.8), pair("a", "c", 0.6), pair("b", "c", 0.5)]
    teachers, pupils = margins(matrix(scores_of(rows), "auroc"))
    assert teachers.select("name", "value", "pairs").rows() == [
        ("a", pytest.approx(0.7), 2),
        ("b", 0.5, 1),
        ("c", None, 0),
    ]
    assert pupils.filter(name="c")["value"].item() == pytest.approx(0.55)


def test_two_matrices_are_compared_pair_by_pair():
    one = matrix(scores_of([pair("a", "b", 0.9), pair("b", "a", 0.6)]), "auroc")
    two = matrix(scores_of([pair("a", "b", 0.6), pair("b", "a", None, prevalence=1.0)]), "auroc")
    table = difference(one, two, "auroc")
    row = table.filter(train="a", test="b").row(0, named=True)
    assert (row["difference"], row["apart"], row["state"]) == (pytest.approx(0.3), True, "measured")
    assert table.filter(train="b", test="a")["state"].item() == "one class"


def test_similar_data_sets_are_neighbours():
    good, bad = ("a", "c", "e"), ("b", "d")
    rows = [pair(x, y, 0.9 if (x in good) == (y in good) else 0.5) for x in "abcde" for y in "abcde" if x != y]
    order = ordered(matrix(scores_of(rows), "auroc"), "similarity")
    assert {*order[:2]} == set(bad) or {*order[3:]} == set(bad)
    table = matrix(scores_of(rows), "auroc")
    assert ordered(table, "name") == list("abcde")
    assert ordered(table, "drug_type", {"e": "x", "a": "y"}) == list("eabcd")


def test_entries_with_pairs_are_listed():
    rows = scores_of(
        [pair("a", "b", 0.9), pair("b", "a", 0.6), pair([*"ab"], "c", 0.5), pair("a", "b", 0.6, model="n")]
    )
    assert entries(rows).select("model", "pairs").rows() == [("m", 2), ("n", 1)]


def test_what_several_data_sets_teach_stands_apart():
    rows = [
        pair("a", "b", 0.9),
        pair([*"ab"], "c", 0.5),
        pair([*"abc"], "c", 0.5, fold="dataset:c", run_id="0" * 15 + "1"),
    ]
    table = held_out(scores_of(rows), "auroc")
    assert table.select("train", "test", "value", "n").rows() == [([*"ab"], "c", 0.5, 100)]


# ---- few shots -----------------------------------------------------------------------------------------------------


def few(shots: int | None, value: float, seed: int = 0, n: int = 80, **more) -> dict:
    return pair([*"ab"] if shots else "a", "b", value, shots=shots, seed=seed, n=n, fold="b", **more)


def test_a_curve_runs_over_shots_on_the_same_cells():
    rows = [few(0, 0.4, n=100), few(0, 0.5), few(1, 0.6), few(10, 0.8), few(10, 0.7, seed=1), few(0, 0.55, seed=1)]
    pooled = {"protocol": "pooled", "split_by": "sample", "shots": None}
    rows.append(pair("b", "b", 0.95, n=100, **pooled))
    table = curves(scores_of(rows), "auroc")
    assert dict(table.schema) == {name: kind() if isinstance(kind, type) else kind for name, kind in CURVES.items()}
    assert table["point"].to_list() == ["0", "1", "10", "all"]
    zero = table.filter(point="0").row(0, named=True)
    assert (zero["value"], zero["seeds"], zero["n"]) == (pytest.approx(0.525), 2, 80)
    ten = table.filter(point="10").row(0, named=True)
    low, high = stats.t.interval(0.95, 1, 0.75, stats.sem([0.8, 0.7]))
    assert (ten["low"], ten["high"], ten["interval"]) == (pytest.approx(low), pytest.approx(high), "seeds")
    one = table.filter(point="1").row(0, named=True)
    assert (one["low"], one["interval"]) == (pytest.approx(0.5), "run")
    assert table.filter(point="all")["train"].to_list() == [[]]
    assert table.filter(pl.col("point") != "all")["same_cells"].all()
    assert curves(scores_of(rows), "auroc", all_by=None)["point"].to_list() == ["0", "1", "10"]


def test_a_point_on_other_cells_says_so():
    table = curves(scores_of([few(0, 0.4, n=100), few(1, 0.6), few(5, 0.6)]), "auroc")
    assert table["same_cells"].to_list() == [False, True, True]


def test_one_number_of_shots_is_no_curve():
    assert curves(scores_of([few(0, 0.4), pair("a", "c", 0.5)]), "auroc").is_empty()


# ---- calibration ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("one_sample", [False, True])
def test_calibration_agrees_with_the_metrics(one_sample):
    rows = make_predictions(("simulated-a",), 0.8)
    rows = rows.with_columns(sample=pl.lit("s")) if one_sample else rows
    found = reliability(rows, draws=300)
    values = score(rows["label"], rows["p_resistant"].to_numpy())
    assert found.ece == pytest.approx(values["ece"])
    assert found.brier == pytest.approx(values["brier"])
    assert found.unit == ("cell" if one_sample else "sample")
    drawn = bootstrap(rows["label"], rows["p_resistant"].to_numpy(), rows["sample"], metrics=["ece"], draws=300)
    near = 0.04 if one_sample else 1e-12  # cells are drawn by another way, samples by the same
    assert (found.ece_low, found.ece_high) == pytest.approx(drawn.interval["ece"], abs=near)
    table = found.bins
    assert dict(table.schema) == {name: kind() for name, kind in BINS.items()}
    assert table["n"].sum() == rows.height
    inside = rows.filter(pl.col("p_resistant").is_between(0.9, 1))
    assert table["mean_p"][9] == pytest.approx(inside["p_resistant"].mean(), abs=1e-6)
    assert table["observed"][9] == pytest.approx((inside["label"] == "resistant").mean())
    known = table.drop_nulls()
    assert (known["low"] <= known["observed"] + 1e-12).all()
    assert (known["high"] >= known["observed"] - 1e-12).all()
    if one_sample:
        count = round(table["observed"][9] * table["n"][9])
        low, high = proportion_confint(count, table["n"][9], method="wilson")
        assert (table["low"][9], table["high"][9]) == pytest.approx((low, high))


def test_a_bin_without_cells_is_empty_not_zero():
    rows = make_predictions(("simulated-a",), 0.0)  # every cell at 0.5
    table = reliability(rows, draws=20).bins
    assert table.filter(pl.col("n") == 0).select("mean_p", "observed", "low", "high").null_count().row(0) == (9,) * 4
    assert table["observed"][5] == 0.5


def test_being_too_sure_is_seen():
    rows = make_predictions(("simulated-a",), 0.0).with_columns(
        p_resistant=pl.Series(np.tile([0.05, 0.95], 60), dtype=pl.Float32)
    )
    found = reliability(rows, draws=20)
    assert found.overconfident > 0.3
    assert found.brier_constant == 0.25 < found.brier


# ---- the made-up table ---------------------------------------------------------------------------------------------


def test_made_up_scores_are_never_taken_for_measured_ones(made_up):
    assert dict(made_up.schema) == SCORES
    assert set(made_up["source"]) == {"simulated"}
    assert made_up["test"].explode().str.starts_with("simulated").all()
    assert made_up["train"].explode().str.starts_with("simulated").all()
    assert not made_up.select("run_id", "fold", "metric").is_duplicated().any()
    assert made_up["simulated"].all()
    assert matrix(made_up, "auroc", model="scgpt").is_empty()
    assert matrix(made_up, "auroc", model="scgpt", strategy="freeze", simulated=True).height == 100


def test_made_up_scores_are_the_same_for_the_same_seed(made_up, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(CHECKOUT / "scripts")
    from simulate_scores import main

    main([str(tmp_path / "x" / "scores.parquet"), "--datasets", "10"])
    again = pl.read_parquet(tmp_path / "x" / "scores.parquet")
    assert f"{again.height} made-up rows" in capsys.readouterr().out
    assert again.filter(pl.col("metric").is_in(["auroc", "brier"])).height == made_up.height
    assert "simulate_scores" in sys.modules
