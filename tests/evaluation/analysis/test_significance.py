from __future__ import annotations

import gc
import math

import numpy as np
import polars as pl
import pytest
from scipy import stats

from scdrugmap.errors import InvalidInput
from scdrugmap.evaluation.analysis.score_matrix import ScoreMatrix, score_matrix, with_names
from scdrugmap.evaluation.analysis.significance import (
    agreement,
    compare,
    compare_blocks,
    critical_difference,
    median_interval,
    ranks_of,
    signed_rank,
)
from scdrugmap.evaluation.results.store import SCORES

# AUC of C4.5 and three ways of tuning it on 14 data sets (Demsar 2006, table 6). The last but one is
# printed as 0.975 twice; the ranks beside it, 2 and 3, say that the first was higher.
DEMSAR = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.97501, 0.975],
        [0.957, 0.978, 0.946, 0.970],
    ]
)
VIEW = {"protocol": "pooled", "split_by": "sample"}


def table_of(values: np.ndarray, metric: str = "auroc") -> ScoreMatrix:
    columns = {"model": [f"m{i}" for i in range(values.shape[1])], "head": "mlp", "strategy": "freeze"}
    columns |= {"variant": "", "shots": None}
    entries = with_names(pl.DataFrame(columns, schema_overrides={"shots": pl.Int64}))
    datasets = tuple(f"d{i}" for i in range(len(values)))
    return ScoreMatrix(metric, entries, datasets, values, pl.DataFrame())


def scores_of(rows: list[dict]) -> pl.DataFrame:
    plain = {"strategy": "freeze", "head": "mlp", "facet": "all", "seed": 0, "metric": "auroc", "n": 100, "fold": "all"}
    plain |= {"prevalence": 0.5, "source": "measured", "simulated": False, **VIEW}
    full = [
        plain | {"run_id": f"{i:016x}", "train": row["test"], "facet_value": row["test"]} | row
        for i, row in enumerate(rows)
    ]
    for row in full:
        row |= {side: [row[side]] for side in ("train", "test")}
    return pl.DataFrame([{name: row.get(name) for name in SCORES} for row in full], schema=SCORES)


def grid(n_models: int, n_datasets: int, seed: int = 0, **more) -> list[dict]:
    rng = np.random.default_rng(seed)
    return [
        {"model": f"m{i}", "test": f"d{j}", "value": float(rng.uniform()), **more}
        for i in range(n_models)
        for j in range(n_datasets)
    ]


def test_demsars_example_is_reproduced():
    found = compare_blocks(table_of(DEMSAR))
    ranks = found.ranks.sort("model")["mean_rank"].to_numpy()
    assert ranks.round(3).tolist() == [3.143, 2.000, 2.893, 1.964]
    n, k = DEMSAR.shape
    assert 12 * n / (k * (k + 1)) * (np.sum(ranks**2) - k * (k + 1) ** 2 / 4) == pytest.approx(9.28, abs=0.01)
    assert found.critical_difference == pytest.approx(1.25, abs=0.005)
    assert critical_difference(k, n, alpha=0.10) == pytest.approx(1.12, abs=0.005)
    assert found.chi_square >= 9.28  # scipy corrects for ties
    assert found.p_friedman == stats.friedmanchisquare(*DEMSAR.T).pvalue < 0.05
    assert found.n_datasets == 14


def test_demsars_signed_ranks_are_reproduced():
    d = DEMSAR[:, 1] - DEMSAR[:, 0]
    direct = stats.wilcoxon(np.round(d, 6), zero_method="zsplit", method="asymptotic")
    assert direct.statistic == 12  # T of the paper: R+ = 93, R- = 12
    assert signed_rank(d[:, None])[0] == pytest.approx(direct.pvalue)
    row = compare_blocks(table_of(DEMSAR)).pairs.filter(
        pl.col("a").is_in(["m0 + mlp", "m1 + mlp"]) & pl.col("b").is_in(["m0 + mlp", "m1 + mlp"])
    )
    assert row.select("a", "won", "lost", "tied").row(0) == ("m1 + mlp", 10, 2, 2)
    assert row["p_wilcoxon"].item() == pytest.approx(direct.pvalue)


def test_critical_values_are_those_of_the_published_table():
    # q of Nemenyi's test at 0.05 for 2, 5 and 10 entries (Demsar 2006, table 5a)
    for k, q in ((2, 1.960), (5, 2.728), (10, 3.164)):
        assert critical_difference(k, 20) / math.sqrt(k * (k + 1) / 120) == pytest.approx(q, abs=0.001)


@pytest.mark.parametrize("n", [5, 9, 20, 60])
def test_signed_ranks_are_scipys_where_there_are_no_ties(n):
    d = np.random.default_rng(n).normal(0.3, 1, size=(n, 4))
    expected = [stats.wilcoxon(d[:, i]).pvalue for i in range(4)]
    assert signed_rank(d) == pytest.approx(expected)


def test_ties_and_zeros_are_tried_out_where_data_sets_are_few():
    d = np.array([0.1, 0.1, 0.2, 0.0, 0.3, -0.1])
    signs = np.array(np.meshgrid(*[[-1, 1]] * 6)).reshape(6, -1).T
    ranks = stats.rankdata(np.abs(d)) * (d != 0)
    expected = np.mean(np.abs(signs @ ranks) >= abs(np.sign(d) @ ranks))
    assert signed_rank(d[:, None])[0] == pytest.approx(expected)
    assert signed_rank(np.zeros((6, 1)))[0] == 1
    assert signed_rank(np.zeros((20, 1)))[0] == 1


def test_equal_differences_count_as_ties_however_they_were_computed():
    d = np.array([[0.3 - 0.1], [0.2], [0.1 + 0.1], [-0.2]])
    assert signed_rank(d) == pytest.approx(signed_rank(np.array([[0.2], [0.2], [0.2], [-0.2]])))


@pytest.mark.parametrize(("n", "coverage"), [(6, 0.95), (15, 0.95), (40, 0.95)])
def test_the_interval_of_the_median_covers_it(n, coverage):
    d = np.random.default_rng(0).normal(1, 1, size=(n, 4000))
    low, high = median_interval(d)
    assert np.mean((low <= 1) & (high >= 1)) >= coverage - 0.01


def test_fewer_than_six_data_sets_have_no_interval_of_the_median():
    assert np.isnan(median_interval(np.ones((5, 2)))).all()
    assert compare_blocks(table_of(DEMSAR[:5])).pairs["low"].null_count() == 6


def test_few_data_sets_say_that_nothing_can_be_shown():
    values = np.linspace(0.5, 0.6, 4)[:, None] + np.array([0.0, 0.1, 0.3])
    found = compare_blocks(table_of(values))
    assert found.smallest_p == 0.125 == found.pairs["p_wilcoxon"].min()
    assert found.smallest_p_holm == pytest.approx(0.375)
    assert not found.pairs["different"].any()
    assert any("With 4 data sets the smallest possible p" in said for said in found.remarks)


def test_a_clear_order_is_found_and_named():
    noise = np.random.default_rng(1).normal(0, 0.01, size=(20, 4))
    found = compare_blocks(table_of(0.6 + noise + np.array([0.0, 0.1, 0.2, 0.2])))
    assert found.ranks["model"].to_list()[2:] == ["m1", "m0"]
    assert set(found.groups[0]) == {"m2 + mlp", "m3 + mlp"}
    worst = found.ranks.row(by_predicate=pl.col("model") == "m0", named=True)
    assert (worst["rank_low"], worst["rank_high"], worst["first"], worst["won"]) == (4, 4, 0, 0)
    assert found.ranks["first"].sum() == pytest.approx(1)
    assert found.ranks["won"].sum() == pytest.approx(20)
    assert found.pairs.filter(pl.col("b") == "m0 + mlp")["different"].all()


def test_lower_is_better_where_the_metric_says_so():
    values = np.random.default_rng(2).uniform(size=(8, 3))
    up, down = compare_blocks(table_of(values)), compare_blocks(table_of(values, "brier"))
    assert up.ranks["mean_rank"].to_numpy() == pytest.approx(4 - down.ranks["mean_rank"].to_numpy()[::-1])
    assert (down.pairs["rank_difference"] <= 0).all()
    assert ranks_of(table_of(values, "brier"))[0].argmin() == values[0].argmin()


@pytest.fixture
def no_old_garbage():
    """Let statsmodels, which collects garbage at each call, look at new objects only."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("no_old_garbage")
def test_the_false_positive_rate_is_kept_under_no_difference():
    rng = np.random.default_rng(0)
    friedman, family, repeats = 0, 0, 300
    for _ in range(repeats):
        values = rng.normal(size=(10, 1)) + rng.normal(size=(10, 4))
        found = compare_blocks(table_of(values), draws=1)
        friedman += found.p_friedman <= 0.05
        family += found.pairs["different"].any()
    most = stats.binom.ppf(0.999, repeats, 0.05)
    assert friedman <= most
    assert family <= most


def test_entries_that_are_all_alike_are_not_told_apart():
    found = compare_blocks(table_of(np.ones((8, 3))))
    assert (found.chi_square, found.p_friedman) == (0, 1)
    assert found.groups == (("m0 + mlp", "m1 + mlp", "m2 + mlp"),)
    assert (found.pairs["p_holm"] == 1).all()


def test_two_entries_have_no_friedman_test():
    found = compare_blocks(table_of(np.random.default_rng(0).uniform(size=(8, 2))))
    assert found.p_friedman is None
    assert found.pairs.height == 1


def test_what_was_not_run_everywhere_is_left_out_and_named():
    rows = [row for row in grid(4, 6) if (row["model"], row["test"]) not in {("m1", "d3")}]
    rows += [{"model": "new", "test": "d0", "value": 0.5}, {"model": "m0", "test": "d9", "value": 0.5}]
    table = score_matrix(scores_of(rows), "auroc", **VIEW)
    assert table.values.shape == (5, 4)
    assert table.datasets == ("d0", "d1", "d2", "d4", "d5")
    assert set(table.dropped.select("what", "name").rows()) == {
        ("data set", "d9"),
        ("data set", "d3"),
        ("entry", "new + mlp"),
    }
    assert table.dropped.filter(name="d3")["reason"].item() == "no score by m1 + mlp"
    found = compare(scores_of(rows), "auroc", **VIEW)
    assert found.remarks[-1] == "Left out, since they were not scored everywhere: 2 data sets and 1 entry."


def test_an_undefined_score_is_a_gap():
    rows = grid(3, 4)
    rows[5]["value"] = None
    table = score_matrix(scores_of(rows), "auroc", **VIEW)
    assert len(table.datasets) == 3


def test_seeds_and_training_sides_are_averaged_over_those_in_common():
    cross = {"protocol": "cross-data", "split_by": "dataset", "shots": 0}
    rows = []
    for test in ("b", "c"):
        for train, values in (("a", (0.9, 0.7)), ("x", (0.5, 0.3)), ("y", (0.1, None))):
            for model, value in zip(("m0", "m1"), values, strict=True):
                if value is not None:
                    rows.append(
                        {"model": model, "test": test, "train": train, "value": value, "facet_value": "", **cross}
                    )
    table = score_matrix(scores_of(rows), "auroc", protocol="cross-data", split_by="dataset")
    assert table.values == pytest.approx(np.array([[0.7, 0.5], [0.7, 0.5]]))
    twice = scores_of([*grid(2, 3, seed=1), *grid(2, 3, seed=2, run_id="f" * 16)])
    both = [np.array([row["value"] for row in grid(2, 3, seed=seed)]).reshape(2, 3).T for seed in (1, 2)]
    assert score_matrix(twice, "auroc", **VIEW).values == pytest.approx(np.mean(both, axis=0))


def test_a_view_of_several_splits_is_refused():
    rows = [*grid(2, 3), *grid(2, 3, split_by="cell")]
    with pytest.raises(InvalidInput, match="several values of split_by: 'cell', 'sample'"):
        score_matrix(scores_of(rows), "auroc", protocol="pooled")


def test_one_entry_is_no_comparison():
    with pytest.raises(InvalidInput, match="there is no comparison"):
        compare(scores_of(grid(1, 5)), "auroc", **VIEW)
    with pytest.raises(InvalidInput, match="there is no comparison"):
        compare(scores_of([]), "auroc", **VIEW)


def test_simulated_and_reported_scores_stay_apart():
    rows = [*grid(3, 4), *[row | {"simulated": True} for row in grid(3, 5)]]
    rows += [row | {"source": "reported"} for row in grid(3, 6)]
    assert len(score_matrix(scores_of(rows), "auroc", **VIEW).datasets) == 4
    assert len(score_matrix(scores_of(rows), "auroc", simulated=True, **VIEW).datasets) == 5


def test_agreement_of_splits_is_kendalls_tau_of_mean_ranks():
    by_sample, by_cell = grid(5, 7, seed=1), grid(5, 7, seed=2, split_by="cell")
    row = agreement(scores_of([*by_sample, *by_cell]), "auroc", protocol="pooled").row(0, named=True)
    sides = [
        stats.rankdata(-np.array([one["value"] for one in rows]).reshape(5, 7), axis=0).mean(axis=1)
        for rows in (by_cell, by_sample)
    ]
    expected = stats.kendalltau(*sides)
    assert (row["a"], row["b"], row["n_entries"], row["n_datasets"]) == ("cell", "sample", 5, 7)
    assert (row["tau"], row["p"]) == pytest.approx((expected.statistic, expected.pvalue))


def test_agreement_with_itself_is_complete_and_without_ranks_is_unknown():
    rows = [row | {"seed": number // 12} for number, row in enumerate([*grid(4, 3), *grid(4, 3)])]
    assert agreement(scores_of(rows), "auroc", "seed", **VIEW)["tau"].item() == pytest.approx(1)
    flat = [row | {"value": 0.5} for row in rows]
    assert agreement(scores_of(flat), "auroc", "seed", **VIEW)["tau"].item() is None
    assert agreement(scores_of(rows[:12]), "auroc", "seed", **VIEW).is_empty()


def test_names_tell_strategies_and_shots_where_they_differ():
    rows = pl.DataFrame({"model": "m", "head": "mlp", "strategy": ["freeze", "lora"], "variant": "", "shots": [0, 10]})
    assert with_names(rows)["entry"].to_list() == ["m + mlp, freeze, 0 shots", "m + mlp, lora, 10 shots"]
    assert with_names(rows[:1])["entry"].to_list() == ["m + mlp"]
