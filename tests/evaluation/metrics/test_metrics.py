from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from scdrugmap.errors import InvalidInput, LabelsMissing
from scdrugmap.evaluation.metrics import resampled
from scdrugmap.evaluation.metrics.bootstrap import BootstrapWeights, bootstrap, draw_weights, resampling_unit
from scdrugmap.evaluation.metrics.metrics import METRICS, constants, score
from scdrugmap.evaluation.metrics.resampled import CellBootstrap


def words(sensitive):
    return np.where(sensitive, "sensitive", "resistant").astype(object)


def cells(n=400, seed=0, effect=1.0, share=0.4):
    rng = np.random.default_rng(seed)
    sensitive = rng.random(n) < share
    p = 1 / (1 + np.exp(-(rng.normal(size=n) + effect * np.where(sensitive, -1, 1))))
    return sensitive, np.round(p, 2)  # rounding makes ties


def with_sklearn(sensitive, p, weights):
    called = p < 0.5
    f1 = [sk.f1_score(sensitive, called, pos_label=side, sample_weight=weights) for side in (True, False)]
    return {
        "f1": f1[0],
        "f1_resistant": f1[1],
        "f1_macro": np.mean(f1),
        "auroc": sk.roc_auc_score(~sensitive, p, sample_weight=weights),
        "auprc": sk.average_precision_score(sensitive, -p, sample_weight=weights),
        "accuracy": sk.accuracy_score(sensitive, called, sample_weight=weights),
        "balanced_accuracy": sk.balanced_accuracy_score(sensitive, called, sample_weight=weights),
        "precision": sk.precision_score(sensitive, called, sample_weight=weights),
        "recall": sk.recall_score(sensitive, called, sample_weight=weights),
        "mcc": sk.matthews_corrcoef(sensitive, called, sample_weight=weights),
        "brier": sk.brier_score_loss(~sensitive, p, sample_weight=weights),
    }


@pytest.mark.parametrize("seed", range(3))
def test_weighted_metrics_equal_sklearn_for_every_draw(seed):
    sensitive, p = cells(seed=seed)
    weights = draw_weights(np.arange(len(p)), 5, np.random.default_rng(seed))
    ours = CellBootstrap(sensitive, p, weights)
    for draw in range(5):
        for key, value in with_sklearn(sensitive, p, weights[draw]).items():
            assert getattr(ours, key)[draw] == pytest.approx(value, abs=1e-12), key


@pytest.mark.parametrize("key", METRICS)
def test_score_equals_the_weighted_form_at_unit_weights(key):
    sensitive, p = cells()
    folds = np.arange(len(p)) % 5
    ours = CellBootstrap(sensitive, p, np.ones((1, len(p))), folds=folds)
    assert score(words(sensitive), p, folds=folds)[key] == pytest.approx(getattr(ours, key)[0], abs=1e-12)


def test_calibration_error_is_what_its_definition_says():
    sensitive, p = cells()
    expected = 0.0
    for low in range(10):
        inside = (p >= low / 10) & ((p < (low + 1) / 10) | ((low == 9) & (p == 1)))
        if inside.any():
            expected += inside.mean() * abs(p[inside].mean() - (~sensitive[inside]).mean())
    assert score(words(sensitive), p)["ece"] == pytest.approx(expected)


def test_auroc_within_compares_cells_of_one_fold_only():
    sensitive, p = cells()
    folds = np.arange(len(p)) % 4
    shifted = p / 10 + 0.2 * folds  # each fold on a scale of its own
    labels = words(sensitive)
    assert score(labels, shifted, folds=folds)["auroc_within"] == score(labels, p, folds=folds)["auroc_within"]
    assert score(labels, shifted)["auroc"] < score(labels, p)["auroc"]
    assert score(labels, p)["auroc_within"] == score(labels, p)["auroc"]


CONSTANT_SCORES = {
    "every cell called sensitive": lambda p: 0.0,
    "every cell called resistant": lambda p: 1.0,
    "every cell called the commoner class": lambda p: float(p < 0.5),
    "every cell given the same score": lambda p: 0.3,
    "every cell given the share of resistant cells as its P(resistant)": lambda p: 1 - p,
}


@pytest.mark.parametrize("key", METRICS)
@pytest.mark.parametrize("n_sensitive", [1, 37, 63, 99])
def test_constant_value_is_what_its_rule_scores(key, n_sensitive):
    sensitive = np.arange(100) < n_sensitive
    prevalence = n_sensitive / 100
    p = np.full(100, CONSTANT_SCORES[METRICS[key].constant_rule](prevalence))
    assert constants(prevalence)[key] == pytest.approx(score(words(sensitive), p)[key], abs=1e-12)


def test_the_papers_best_cross_data_f1_is_the_constant_classifier():
    assert constants(44122 / 69875)["f1"] == pytest.approx(0.774, abs=5e-4)  # tumour tissue, primary collection


def test_one_class_has_no_ranking_score_and_no_crash():
    values = score(words(np.zeros(10, dtype=bool)), np.linspace(0.2, 0.9, 10))
    undefined = {key for key, value in values.items() if np.isnan(value)}
    assert undefined == {"f1_macro", "auroc", "auroc_within", "auprc", "balanced_accuracy", "recall", "mcc"}
    assert values["accuracy"] == pytest.approx(0.6)


def test_precision_is_undefined_where_no_cell_is_called_sensitive():
    sensitive, _ = cells()
    values = score(words(sensitive), np.full(len(sensitive), 0.9))
    assert np.isnan(values["precision"])
    assert values["f1"] == 0
    assert values["mcc"] == 0


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 10_000))
@settings(max_examples=50, deadline=None)
def test_scores_stay_in_their_range(n_sensitive, n_resistant, seed):
    sensitive = np.repeat([True, False], [n_sensitive, n_resistant])
    p = np.random.default_rng(seed).random(len(sensitive))
    for key, value in score(words(sensitive), p).items():
        assert np.isnan(value) or (-1 if key == "mcc" else 0) <= value <= 1


@pytest.mark.parametrize(
    ("p", "message"), [([0.1, 1.2], "runs from"), ([0.1, np.nan], "runs from"), ([0.1], "2 labels"), ([], "2 labels")]
)
def test_foreign_scores_are_refused(p, message):
    with pytest.raises(InvalidInput, match=message):
        score(["sensitive", "resistant"], np.array(p))
    with pytest.raises(LabelsMissing):
        score(["sensitive", None], np.array([0.1, 0.2]))


def test_bootstrap_draws_samples_where_there_are_several_and_says_so():
    sensitive, p = cells()
    patients = np.arange(len(p)) % 20
    result = bootstrap(words(sensitive), p, patients)
    assert (result.unit, result.n_units, result.draws) == ("sample", 20, 1000)
    low, high = result.interval["auroc"]
    assert low < score(words(sensitive), p)["auroc"] < high
    assert result.undefined == {}


@pytest.mark.parametrize("samples", [None, "aaaaaa", "aabbab", "aabbbc"])
def test_bootstrap_draws_cells_where_samples_are_too_few(samples):
    labels = words(np.array([True, True, False, False, False, False]))
    assert resampling_unit(labels, samples and list(samples))[0] == "cell"
    assert resampling_unit(labels, list("abbcca"))[0] == "sample"


def test_clustered_interval_is_wider_where_cells_of_a_sample_agree():
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(20), 30)
    sensitive = patient % 2 == 0
    p = np.clip(0.5 + 0.15 * rng.normal(size=20)[patient] - 0.1 * np.where(sensitive, 1, -1), 0, 1)
    by_sample, by_cell = (bootstrap(words(sensitive), p, groups).interval["auroc"] for groups in (patient, None))
    assert by_sample[1] - by_sample[0] > 2 * (by_cell[1] - by_cell[0])


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(2, 80),
    units=st.integers(1, 12),
    levels=st.sampled_from([2, 5, 1000]),
    n_folds=st.integers(1, 4),
    seed=st.integers(0, 10_000),
)
def test_counting_over_units_is_weighting_their_cells(n, units, levels, n_folds, seed):
    rng = np.random.default_rng(seed)
    sensitive, p = rng.random(n) < 0.6, rng.integers(0, levels, n) / levels
    unit, folds = rng.integers(0, units, n), rng.integers(0, n_folds, n).astype(str)
    weights = rng.multinomial(units, np.full(units, 1 / units), size=6).astype(float)
    by_unit = BootstrapWeights(weights, unit).on(sensitive, p, 0.4, folds)
    by_cell = BootstrapWeights(weights[:, unit]).on(sensitive, p, 0.4, folds)
    for key in METRICS:
        assert getattr(by_unit, key) == pytest.approx(getattr(by_cell, key), nan_ok=True, abs=1e-9), key


def test_scores_are_counted_in_parts_of_any_size(monkeypatch):
    sensitive, p = cells(300)
    unit, weights = np.arange(300) % 7, np.random.default_rng(0).integers(0, 3, size=(4, 7)).astype(float)
    whole = BootstrapWeights(weights, unit).on(sensitive, p)
    expected = {key: getattr(whole, key) for key in METRICS}
    monkeypatch.setattr(resampled, "_BLOCK", 7 * 11)
    for key in METRICS:
        assert getattr(BootstrapWeights(weights, unit).on(sensitive, p), key) == pytest.approx(expected[key]), key


def test_bootstrap_interval_covers_what_it_says():
    truth = score(words(cells(200_000)[0]), cells(200_000)[1])["auroc"]
    inside = 0
    for seed in range(100):
        sensitive, p = cells(150, seed=seed + 1)
        low, high = bootstrap(words(sensitive), p, metrics=["auroc"], draws=300, seed=seed).interval["auroc"]
        inside += low <= truth <= high
    assert 88 <= inside <= 99


def test_draws_of_one_class_are_left_out_and_counted():
    sensitive = np.arange(12) < 1
    p = np.linspace(0.1, 0.9, 12)
    result = bootstrap(words(sensitive), p)
    assert 200 < result.undefined["auroc"] < 500  # (11/12)^12 = 0.35 of the draws miss the one sensitive cell
    assert "accuracy" not in result.undefined
    assert np.isfinite(result.interval["auroc"]).all()
    one_class = bootstrap(words(np.zeros(5, dtype=bool)), p[:5])
    assert one_class.undefined["auroc"] == one_class.draws
    assert np.isnan(one_class.interval["auroc"]).all()


def test_bootstrap_repeats_itself_and_is_fast():
    sensitive, p = cells(10_000)
    groups = np.arange(10_000) % 50
    start = time.perf_counter()
    first = bootstrap(words(sensitive), p, groups)
    assert time.perf_counter() - start < 20
    assert bootstrap(words(sensitive), p, groups, metrics=["f1"]).interval["f1"] == first.interval["f1"]


def test_every_metric_says_what_it_is():
    for metric in METRICS.values():
        assert metric.title
        assert metric.definition
        assert metric.constant_rule in CONSTANT_SCORES
