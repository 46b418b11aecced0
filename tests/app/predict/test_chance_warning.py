"""A reference that cannot be told from a classifier that looks at nothing says so wherever its predictions stand."""

from __future__ import annotations

import json
import sys
from copy import deepcopy
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import streamlit as st
from make_jobs import make_job, predicted
from opened_pages import opened

from scdrugmap.app.jobs.service import service
from scdrugmap.app.predict import report
from scdrugmap.app.predict import text as predict_text
from scdrugmap.cli import main
from scdrugmap.data.simulate import simulate
from scdrugmap.prediction.pipeline import predict, predict_file, summary
from scdrugmap.prediction.reference import held_out as heldout
from scdrugmap.prediction.reference.fit import Reference, find_reference, load_reference

MODEL = "hvg-pca"
NOT_TOLD = "could not be told from a classifier that looks at nothing"
WORSE = "did worse than a classifier that looks at nothing"
# name -> value, low and high of the held-out score, what the verdict says, and what the page warns of
SIDES = {
    "above": (0.70, 0.61, 0.80, "Better than chance", ""),
    "hardly above": (0.70, 0.51, 0.80, "Better than chance", ""),
    "low end at the constant": (0.60, 0.50, 0.70, "Not distinguishable from chance", NOT_TOLD),
    "around": (0.56, 0.41, 0.70, "Not distinguishable from chance", NOT_TOLD),
    "high end at the constant": (0.40, 0.30, 0.50, "Not distinguishable from chance", NOT_TOLD),
    "below": (0.30, 0.20, 0.40, "Worse than chance", WORSE),
}
WARNED = {name: bool(warning) for name, (*_, warning) in SIDES.items()}


@pytest.fixture(autouse=True)
def _fresh_caches():
    st.cache_data.clear()
    st.cache_resource.clear()
    yield
    st.cache_resource.clear()


@pytest.fixture(params=SIDES, ids=str)
def side(request) -> str:
    return request.param


def told_at(side: str) -> dict:
    """What a card says about a reference whose held-out score lies on this side of its constant."""
    value, low, high, verdict, _ = SIDES[side]
    headline = {"metric": "auroc_within", "value": value, "low": low, "high": high, "constant": 0.5, "units": ["GSE1"]}
    return {"headline": headline, "verdict": f"{verdict} on studies that it had not seen."}


def reference_at(side: str) -> Reference:
    """The bundled reference, with the card of one that scored so on held-out studies."""
    fitted = load_reference(find_reference(MODEL))
    held_out = {**fitted.card.held_out, **told_at(side)}
    return replace(fitted, card=replace(fitted.card, name="mine", held_out=held_out, bundled=False))


def cells_at(side: str) -> ad.AnnData:
    return predict(simulate(n_cells=60, n_genes=400, seed=3), MODEL, reference=reference_at(side))


def job_at(settings, side: str) -> str:
    """A finished job of made-up predictions, by a reference that scored so on held-out studies."""
    adata = predicted(60, labels=False)
    told = told_at(side)
    provenance = deepcopy(adata.uns["scdrugmap"]["prediction"])
    headline = {key: value for key, value in told["headline"].items() if key != "units"}
    provenance["held_out"] |= {**headline, "verdict": told["verdict"]}
    adata.uns["scdrugmap"]["prediction"] = provenance
    return make_job(settings, "done", adata)


# ---- the page of a result -------------------------------------------------------------------------------------------
def test_the_result_warns_unless_the_reference_is_above_its_constant(settings, side):
    app = opened("predict", job=job_at(settings, side))
    assert not app.exception
    warning = SIDES[side][-1]
    assert [warning in each.value for each in app.warning] == ([True] if warning else [])


def test_the_warning_says_how_to_read_what_follows(settings):
    (warning,) = opened("predict", job=job_at(settings, "around")).warning
    assert warning.value.startswith("On studies that it had not seen, this reference")
    assert warning.value.endswith("as a demonstration, not as evidence about these cells.")


@pytest.mark.parametrize("side", ["above", "around"])
def test_a_real_prediction_brings_the_warning_to_the_page(settings, side):
    app = opened("predict", job=make_job(settings, "done", cells_at(side)))
    assert not app.exception
    assert any(NOT_TOLD in each.value for each in app.warning) == WARNED[side]


def test_the_bundled_references_are_warned_of(settings):
    adata = predict(simulate(n_cells=60, n_genes=400, seed=3), MODEL)
    app = opened("predict", job=make_job(settings, "done", adata))
    assert any(NOT_TOLD in each.value for each in app.warning)


def test_a_reference_that_was_never_tested_is_warned_of():
    said = predict_text.no_evidence({"held_out": {"verdict": "Unknown: no study has both classes."}})
    assert said.startswith("No study was left to test this reference on.")


# ---- what leaves the page: the verdict, and the numbers that it rests on --------------------------------------------
def test_every_output_of_a_prediction_carries_the_verdict_and_its_numbers(side, tmp_path):
    source, target = tmp_path / "cells.h5ad", tmp_path / "out.h5ad"
    simulate(n_cells=60, n_genes=400, seed=3).write_h5ad(source)
    returned = predict_file(source, target, model=MODEL, reference=reference_at(side))
    value, low, high, verdict, _ = SIDES[side]
    for adata in (returned, ad.read_h5ad(target)):
        found = summary(adata)["provenance"]["held_out"]
        assert found["verdict"].startswith(verdict)
        assert (found["value"], found["low"], found["high"], found["constant"]) == (value, low, high, 0.5)
        assert bool(predict_text.no_evidence({"held_out": found})) == WARNED[side]


def test_the_report_states_the_verdict_beside_the_constant(settings, side):
    job_id = job_at(settings, side)
    written = json.loads(service().results(job_id)["summary"].read_text())
    text = report.markdown(service().status(job_id), written)
    assert f"a classifier that looks at nothing scores 0.50. {SIDES[side][3]}" in text


def typed(monkeypatch, capsys, *words: object) -> str:
    """Type `scdrugmap ...`; give back what it prints."""
    monkeypatch.setattr(sys, "argv", ["scdrugmap", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    return capsys.readouterr().out


@pytest.mark.parametrize("side", ["above", "around"])
def test_the_command_line_prints_the_verdict_of_references_and_predictions(
    settings, side, monkeypatch, capsys, tmp_path
):
    reference_at(side).save(settings.references / MODEL / "mine")
    rows = json.loads(typed(monkeypatch, capsys, "reference", "list", "--json"))
    assert next(row for row in rows if row["name"] == "mine")["verdict"].startswith(SIDES[side][3])
    source = tmp_path / "cells.h5ad"
    simulate(n_cells=60, n_genes=400, seed=3).write_h5ad(source)
    words = ("--model", MODEL, "--reference", "mine", "--output", tmp_path / "out.csv", "--json")
    found = json.loads(typed(monkeypatch, capsys, "predict", source, *words))["provenance"]["held_out"]
    assert found["verdict"].startswith(SIDES[side][3])
    assert found["constant"] == 0.5


# ---- where the verdict comes from -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("shift", "verdict"),
    [(0.3, "Better than chance"), (0.0, "Not distinguishable from chance"), (-0.3, "Worse than chance")],
)
def test_the_verdict_follows_the_held_out_scores(shift, verdict):
    rng = np.random.default_rng(0)
    resistant = np.tile(np.repeat([False, True], 4), 30)  # 8 patients, of whom 4 resist, 30 cells each, in each study
    patient = np.tile(np.arange(8), 30).astype(str)
    studies = np.repeat(["GSE1", "GSE2"], len(resistant))
    labels = np.where(np.tile(resistant, 2), "resistant", "sensitive")
    obs = pd.DataFrame({"response": labels, "study": studies, "patient_or_line": np.tile(patient, 2)})
    p = np.clip(0.5 + shift * np.where(labels == "resistant", 1, -1) + rng.normal(0, 0.2, len(obs)), 0, 1)
    measured = heldout.measure(heldout.OutOfFoldScores("study", studies, p.astype(np.float32)), p, obs)
    assert measured["verdict"].startswith(verdict)
