from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from scdrugmap.errors import InvalidInput
from scdrugmap.prediction.reference.calibration import (
    HOTTEST,
    MIN_STUDIES_ISOTONIC,
    Calibration,
    balanced_weights,
    fit_calibration,
    losses,
)


def overconfident(n_studies: int, factor: float = 4.0, n: int = 600, seed: int = 0):
    """Scores whose logits are `factor` times too large, in studies of equal size."""
    rng = np.random.default_rng(seed)
    p = rng.uniform(0.05, 0.95, n)
    resistant = rng.random(n) < p
    return expit(logit(p) * factor), resistant, np.arange(n) % n_studies


def test_temperature_undoes_overconfidence():
    scores, resistant, studies = overconfident(3, factor=4.0, n=6000)
    calibration, report = fit_calibration(scores, resistant, studies)
    assert calibration.method == "temperature"
    assert calibration.temperature == pytest.approx(4.0, rel=0.15)
    assert report.after["ece"] < report.before["ece"] / 3
    assert report.after["nll"] < report.before["nll"]


def test_scores_without_information_become_a_shrug():
    rng = np.random.default_rng(1)
    scores, resistant = rng.random(2000), rng.random(2000) < 0.3
    calibration, _ = fit_calibration(scores, resistant, np.arange(2000) % 3)
    assert np.ptp(calibration.apply(np.array([0.01, 0.99]))) < 0.1
    assert calibration.apply(np.array([0.5])) == pytest.approx(0.5)


def test_scores_that_mislead_are_not_turned_round():
    rng = np.random.default_rng(2)
    resistant = rng.random(900) < 0.5
    scores = np.clip(0.5 - 0.4 * (resistant - 0.5) + rng.normal(0, 0.05, 900), 0, 1)
    calibration, _ = fit_calibration(scores, resistant, np.arange(900) % 3)
    assert calibration.temperature == pytest.approx(HOTTEST, rel=0.01)
    assert np.all(np.diff(calibration.apply(np.linspace(0, 1, 50))) >= 0)


@pytest.mark.parametrize("n_studies", [1, 2, MIN_STUDIES_ISOTONIC - 1])
def test_few_studies_never_sharpen(n_studies):
    scores, resistant, studies = overconfident(n_studies, factor=0.3, n=3000)
    calibration, report = fit_calibration(scores, resistant, studies)
    assert report.method == "temperature"
    assert calibration.temperature == pytest.approx(1.0, abs=1e-3)
    assert calibration.temperature >= 1.0
    assert report.nested == (n_studies > 1)


def test_many_studies_may_sharpen():
    scores, resistant, studies = overconfident(8, factor=0.3, n=6000)
    calibration, report = fit_calibration(scores, resistant, studies)
    assert report.after["nll"] < report.before["nll"]
    assert calibration.apply(np.array([0.7]))[0] > 0.75


def test_isotonic_is_taken_where_temperature_cannot_help():
    rng = np.random.default_rng(3)
    p = rng.uniform(0.02, 0.98, 8000)
    resistant = rng.random(8000) < np.where(p < 0.8, 0.1, 0.9)  # a step far from 0.5: no temperature moves it
    calibration, report = fit_calibration(p, resistant, np.arange(8000) % 8)
    assert report.method == calibration.method == "isotonic"
    low, high = calibration.apply(np.array([0.5, 0.95]))
    share = resistant.mean()  # the classes weigh the same, so 0.1 and 0.9 are re-weighted
    wanted = [(q / share) / (q / share + (1 - q) / (1 - share)) for q in (0.1, 0.9)]
    assert [low, high] == pytest.approx(wanted, abs=0.05)
    edges = calibration.apply(np.array([0.0, 1.0]))
    assert 0 < edges[0] < edges[1] < 1


def test_every_study_and_class_weighs_the_same():
    resistant = np.array([True] * 90 + [False] * 10 + [True] * 5)
    studies = np.array(["big"] * 100 + ["small"] * 5)
    weights = balanced_weights(resistant, studies)
    assert weights.sum() == pytest.approx(1)
    assert weights[resistant].sum() == pytest.approx(0.5)
    assert weights[studies == "small"].sum() == pytest.approx(0.25)


def test_losses_agree_with_the_definitions():
    p, resistant = np.array([0.8, 0.2, 0.6]), np.array([True, False, False])
    found = losses(p, resistant, np.full(3, 1 / 3))
    assert found["brier"] == pytest.approx((0.04 + 0.04 + 0.36) / 3)
    assert found["nll"] == pytest.approx(-(np.log(0.8) + np.log(0.8) + np.log(0.4)) / 3)
    assert found["ece"] == pytest.approx((0.2 + 0.2 + 0.6) / 3)


@hypothesis_settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 7))
def test_any_calibration_is_monotone_bounded_and_survives_storage(seed, n_studies):
    rng = np.random.default_rng(seed)
    scores, resistant = rng.random(80), rng.random(80) < 0.5
    resistant[:2] = [True, False]
    calibration, _ = fit_calibration(scores, resistant, np.arange(80) % n_studies)
    grid = np.linspace(0, 1, 201)
    p = calibration.apply(grid)
    assert p.dtype == np.float32
    assert np.all(np.diff(p) >= 0)
    assert np.all((p >= 0) & (p <= 1))
    again = Calibration.from_state(calibration.method, calibration.state())
    np.testing.assert_array_equal(again.apply(grid), p)


def test_one_class_cannot_be_calibrated():
    with pytest.raises(InvalidInput, match="sensitive and resistant"):
        fit_calibration([0.1, 0.9], [True, True], ["a", "b"])


@pytest.mark.parametrize("bad", [[0.2, 1.2], [0.2, np.nan]])
def test_scores_that_are_no_probabilities_are_refused(bad):
    with pytest.raises(InvalidInput, match=r"\[0, 1\]"):
        fit_calibration(bad, [True, False], ["a", "b"])


def test_a_state_that_is_not_monotone_is_refused():
    state = {"temperature": np.array([1.0]), "knots": np.array([[0.0, 1.0], [0.9, 0.1]])}
    with pytest.raises(InvalidInput, match="not usable"):
        Calibration.from_state("isotonic", state)
    with pytest.raises(InvalidInput, match="not usable"):
        Calibration.from_state("platt", Calibration().state())
