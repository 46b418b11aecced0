"""P(resistant) is what the calibration makes of the head's score, and no calibration sees the study that it scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from scipy.special import expit, logit

from scdrugmap.data.simulate import simulate
from scdrugmap.models import load_model
from scdrugmap.prediction.pipeline import predict, predict_file
from scdrugmap.prediction.reference import fit as reference
from scdrugmap.prediction.reference import held_out
from scdrugmap.prediction.reference.calibration import Calibration, fit_calibration
from scdrugmap.prediction.reference.fit import Reference, fit_reference, load_reference

MODEL = "hvg-pca"
SOFT = Calibration("temperature", temperature=3.0)
# a staircase that calls nearly all cells sensitive: with the head's own score many would be called resistant
STRICT = Calibration("isotonic", knots=np.array([[0.0, 0.9, 1.0], [0.05, 0.2, 0.9]]))


@pytest.fixture(scope="module")
def encoder():
    return load_model(MODEL, device="cpu")


@pytest.fixture(scope="module")
def studies() -> list:
    """Three simulated studies, both classes in several patients of each, and an effect that they share in part."""
    whole = simulate(n_cells=240, n_genes=400, n_samples=12, n_datasets=3, n_studies=3, seed=0, effect=0.7)
    return [whole[whole.obs["study"] == name].copy() for name in whole.obs["study"].unique()]


@pytest.fixture(scope="module")
def fitted(studies, encoder) -> Reference:
    return fit_reference(studies, encoder, name="test")


# ---- what a reference hands out -------------------------------------------------------------------------------------
def test_p_resistant_is_the_calibrated_score_and_raw_the_heads_own(fitted, studies, encoder):
    embedding = encoder.embed(studies[0])
    heads_own = fitted.head.predict_proba(embedding)
    scores = replace(fitted, calibration=SOFT).score(embedding)
    np.testing.assert_allclose(scores.raw, heads_own, rtol=1e-6)
    np.testing.assert_allclose(scores.p_resistant, expit(logit(np.clip(heads_own, 1e-6, 1 - 1e-6)) / 3), atol=1e-6)
    assert np.abs(scores.p_resistant - scores.raw).max() > 0.1


def test_a_staircase_is_applied_as_well(fitted, studies, encoder):
    scores = replace(fitted, calibration=STRICT).score(encoder.embed(studies[0]))
    np.testing.assert_allclose(scores.p_resistant, np.interp(scores.raw, *STRICT.knots), atol=1e-6)
    assert (scores.raw >= 0.5).any()
    assert (scores.p_resistant[scores.raw < 0.9] <= 0.2).all()


@pytest.mark.parametrize("calibration", [SOFT, STRICT], ids=["temperature", "isotonic"])
def test_a_reference_read_from_disk_still_applies_its_calibration(fitted, studies, encoder, tmp_path, calibration):
    card = replace(fitted.card, calibration={**fitted.card.calibration, "method": calibration.method})
    stored = replace(fitted, card=card, calibration=calibration).save(tmp_path / MODEL / "mine")
    scores = load_reference(stored).score(encoder.embed(studies[0]))
    np.testing.assert_allclose(scores.p_resistant, calibration.apply(scores.raw), atol=1e-6)
    assert np.abs(scores.p_resistant - scores.raw).max() > 0.1


def test_the_calibration_that_was_fitted_is_the_one_that_is_kept(fitted):
    assert fitted.card.calibration["method"] == "temperature"
    assert fitted.calibration.temperature == fitted.card.calibration["temperature"]
    assert fitted.calibration.temperature > 1.05


def test_a_prediction_writes_the_calibrated_score_and_calls_cells_by_it(fitted):
    cells = predict(simulate(n_cells=90, n_genes=400, seed=3), MODEL, reference=replace(fitted, calibration=STRICT))
    heads_own = fitted.head.predict_proba(cells.obsm[f"X_{MODEL}"])
    np.testing.assert_allclose(cells.obs["p_resistant"], np.interp(heads_own, *STRICT.knots), atol=1e-5)
    assert ((heads_own >= 0.5) & (cells.obs["response"] == "sensitive")).any()
    assert ((cells.obs["response"] == "resistant") == (cells.obs["p_resistant"] >= 0.5)).all()


def test_the_table_on_disk_holds_the_calibrated_score(fitted, tmp_path):
    source, table = tmp_path / "cells.h5ad", tmp_path / "out.csv"
    simulate(n_cells=60, n_genes=400, seed=3).write_h5ad(source)
    cells = predict_file(source, table, model=MODEL, reference=replace(fitted, calibration=STRICT))
    heads_own = fitted.head.predict_proba(cells.obsm[f"X_{MODEL}"])
    np.testing.assert_allclose(pl.read_csv(table)["p_resistant"], np.interp(heads_own, *STRICT.knots), atol=1e-5)


def test_a_bundled_reference_that_cannot_tell_hardly_moves_from_a_half():
    cells = predict(simulate(n_cells=90, n_genes=600, seed=3), MODEL)
    scores = load_reference(reference.find_reference(MODEL)).score(cells.obsm[f"X_{MODEL}"])
    assert np.ptp(scores.raw) > 0.2
    assert np.ptp(cells.obs["p_resistant"]) < 0.1


# ---- nested calibration: no study is calibrated by itself -----------------------------------------------------------
def overconfident(n_studies: int, n: int = 400, seed: int = 0):
    """Scores whose logits are too large by a factor that differs between studies: each teaches something else."""
    rng = np.random.default_rng(seed)
    study = np.repeat(np.arange(n_studies), n)
    p = rng.uniform(0.05, 0.95, len(study))
    return expit(logit(p) * (1.5 + study)), rng.random(len(study)) < p, study.astype(str)


def staircase(n_studies: int, n: int = 400, seed: int = 3):
    """Scores that no temperature can mend, so that isotonic calibration is chosen; the step differs between studies."""
    rng = np.random.default_rng(seed)
    study = np.repeat(np.arange(n_studies), n)
    p = rng.uniform(0.02, 0.98, len(study))
    resistant = rng.random(len(study)) < np.where(p < 0.7 + 0.02 * study, 0.1, 0.9)
    return p, resistant, study.astype(str)


MADE_UP = {
    "temperature, few studies": (*overconfident(3), "temperature"),
    "temperature, many studies": (*overconfident(7), "temperature"),
    "isotonic": (*staircase(8), "isotonic"),
}


@pytest.fixture(params=MADE_UP, ids=str)
def out_of_fold(request):
    return MADE_UP[request.param]


def test_each_study_is_calibrated_by_what_the_others_alone_teach(out_of_fold):
    scores, resistant, study, method = out_of_fold
    calibration, report = fit_calibration(scores, resistant, study)
    assert report.method == method
    moved = 0.0
    for name in np.unique(study):
        own = study == name
        others, of_others = fit_calibration(scores[~own], resistant[~own], study[~own])
        assert of_others.method == method
        np.testing.assert_allclose(report.p_held_out[own], others.apply(scores[own]), atol=1e-6)
        moved = max(moved, np.abs(report.p_held_out[own] - calibration.apply(scores[own])).max())
    assert moved > 0.01  # the calibrator that saw all studies would have said something else


def test_the_labels_of_a_study_do_not_touch_its_own_calibrated_scores(out_of_fold):
    scores, resistant, study, method = out_of_fold
    own = study == "0"
    other_labels = resistant.copy()
    other_labels[own] = np.random.default_rng(5).permutation(resistant[own])
    before, after = (fit_calibration(scores, labels, study)[1] for labels in (resistant, other_labels))
    assert before.method == after.method == method
    np.testing.assert_array_equal(before.p_held_out[own], after.p_held_out[own])
    assert (before.p_held_out[~own] != after.p_held_out[~own]).any()


def test_the_error_after_calibration_is_measured_on_nested_scores(out_of_fold):
    scores, resistant, study, _ = out_of_fold
    _, report = fit_calibration(scores, resistant, study)
    p = np.clip(report.p_held_out.astype(float), 1e-6, 1 - 1e-6)
    groups = [(study == name) & (resistant == label) for name in np.unique(study) for label in (False, True)]
    assert report.after["brier"] == pytest.approx(np.mean([((p - resistant)[group] ** 2).mean() for group in groups]))
    assert report.nested


def test_the_card_of_a_reference_is_measured_on_nested_scores(studies, encoder, monkeypatch):
    given, measured = [], []
    fit, measure = reference.fit_calibration, held_out.measure
    monkeypatch.setattr(reference, "fit_calibration", lambda *scores: given.append(scores) or fit(*scores))
    monkeypatch.setattr(held_out, "measure", lambda folds, p, obs: measured.append(p) or measure(folds, p, obs))
    card = fit_reference(studies, encoder).card
    (raw, resistant, study), (p_held_out,) = given[0], measured
    assert sorted(set(study)) == card.studies
    for name in card.studies:
        own = study == name
        others, _ = fit_calibration(raw[~own], resistant[~own], study[~own])
        np.testing.assert_allclose(p_held_out[own], others.apply(raw[own]), atol=1e-6)
    assert card.calibration["nested"]
    seen_itself, _ = fit_calibration(raw, resistant, study)
    assert np.abs(p_held_out - seen_itself.apply(raw)).max() > 0.005
    assert np.abs(p_held_out - raw).max() > 0.05
