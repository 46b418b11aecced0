"""Every warning of the app and of a prediction, on both sides: said where it is true, and not said where it is not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from make_results import make_environment

from scdrugmap.app.jobs import endpoints, prompt_options
from scdrugmap.app.models import card, text
from scdrugmap.app.predict import text as predict_text
from scdrugmap.app.runs import text as runs_text
from scdrugmap.app.transfer import text as transfer_text
from scdrugmap.evaluation.experiment import Experiment
from scdrugmap.evaluation.results.run_record import FoldScores, Outcome, Run
from scdrugmap.prediction.reference.calibration import fit_calibration
from scdrugmap.prediction.reference.fit import _notes
from scdrugmap.prediction.reference.held_out import OutOfFoldScores, measure
from scdrugmap.prediction.reference.novelty import Novelty
from scdrugmap.prediction.summary import label_metrics, share_interval
from scdrugmap.prompting.cost import Estimate

DEMONSTRATION = " Read what follows as a demonstration, not as evidence about these cells."
BESIDE = {"metric": "auroc_within", "protocol": "leave-one-study-out", "verdict": "So it is."}
ASKED: dict[str, Any] = {
    "name": "gpt", "served": "", "host": "api", "n_failed": 0, "n_cells": 90, "sources": [], "prompt": 1,
}  # fmt: skip


# ---- what stands behind a reference --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("held_out", "warning"),
    [
        pytest.param({"value": 0.7, "low": 0.6, "high": 0.8}, "", id="better than chance: no warning"),
        pytest.param({"value": 0.6, "low": 0.5, "high": 0.7}, "could not be told from", id="its interval begins at it"),
        pytest.param({"value": 0.6, "low": 0.4, "high": 0.8}, "could not be told from", id="its interval holds chance"),
        pytest.param({"value": 0.4, "low": 0.3, "high": 0.5}, "could not be told from", id="its interval ends at it"),
        pytest.param({"value": 0.3, "low": 0.2, "high": 0.4}, "did worse than", id="worse than chance"),
        pytest.param({"value": 0.7}, "could not be told from", id="a score without an interval"),
    ],
)
def test_a_reference_that_was_not_shown_to_beat_chance_carries_a_warning(held_out, warning):
    said = predict_text.no_evidence({"held_out": {"constant": 0.5} | held_out})
    whole = f"On studies that it had not seen, this reference {warning} a classifier that looks at nothing."
    assert said == (whole + DEMONSTRATION if warning else "")


def test_a_reference_that_could_not_be_tested_carries_a_warning():
    assert predict_text.no_evidence({"held_out": {}}) == "No study was left to test this reference on." + DEMONSTRATION


@pytest.mark.parametrize(
    ("found", "number", "beside"),
    [
        pytest.param({"value": 0.7, "constant": 0.5}, "0.70", "AUROC within folds; constant 0.50", id="tested"),
        pytest.param({}, "not tested", "no study was left to test it on", id="not tested"),
    ],
)
def test_the_held_out_score_stands_beside_its_constant_or_says_that_there_is_none(found, number, beside):
    provenance = {"held_out": BESIDE | found, "trained_on": ["a"], "calibration": "isotonic", "model": "m"}
    assert predict_text.held_out(provenance) == (number, beside)
    said = predict_text.what_it_is(provenance | {"share_genes": 1, "share_counts": 1})
    assert ("a classifier that looks at nothing scores 0.50. So it is." in said) == bool(found)
    assert ("**How far to trust it.** So it is." in said) == (not found)


def cohort(lines: int) -> tuple[OutOfFoldScores, pd.DataFrame, np.ndarray]:
    """Two studies with so many patients a class, five cells each; true where a cell is resistant."""
    rows = [(study, f"{study}-{label}-{line}", label)
            for study in ("a", "b") for label in ("sensitive", "resistant") for line in range(lines)
            for _ in range(5)]  # fmt: skip
    obs = pd.DataFrame(rows, columns=["study", "patient_or_line", "response"])
    folds = OutOfFoldScores("study", obs["study"].to_numpy(str), np.full(len(obs), 0.5, dtype=np.float32))
    return folds, obs, (obs["response"] == "resistant").to_numpy()


UNSEEN = "chance on studies that it had not seen"
CAVEAT = ", but there a class is a single patient or line: this may tell lines apart, not responses"


@pytest.mark.parametrize(
    ("lines", "turn", "verdict"),
    [
        pytest.param(4, 1, f"Better than {UNSEEN}.", id="resistant cells score higher"),
        pytest.param(4, -1, f"Worse than {UNSEEN}: its order of cells does not carry over.", id="they score lower"),
        pytest.param(4, 0, f"Not distinguishable from {UNSEEN}.", id="all cells score alike"),
        pytest.param(1, 0, f"Not distinguishable from {UNSEEN}{CAVEAT}.", id="alike, and a class is a single line"),
    ],
)
def test_the_verdict_of_a_reference_says_on_which_side_of_chance_it_is(lines, turn, verdict):
    folds, obs, resistant = cohort(lines)
    assert measure(folds, 0.5 + turn * (resistant - 0.5) * 0.8, obs)["verdict"] == verdict


def test_the_verdict_is_unknown_where_no_study_has_both_classes():
    folds, obs, _ = cohort(2)
    one = ((obs["study"] == "a") == (obs["response"] == "resistant")).to_numpy()
    few = OutOfFoldScores("study", folds.unit_of[one], folds.raw[one])
    found = measure(few, np.full(one.sum(), 0.5), obs[one])
    assert found["verdict"] == "Unknown: none of the studies that it had not seen has both classes."


@pytest.mark.parametrize(
    ("sources", "confounded", "note"),
    [
        pytest.param({"resistant": 2}, True, ["s: only resistant cells."], id="no sensitive cell"),
        pytest.param({"sensitive": 2}, True, ["s: only sensitive cells."], id="no resistant cell"),
        pytest.param({"sensitive": 1, "resistant": 2}, True,
                     ["s: a class stands in a single patient or line, so label and line cannot be told apart."],
                     id="one patient of a class"),
        pytest.param({"sensitive": 2, "resistant": 2}, False, [], id="two patients of each class"),
    ],
)  # fmt: skip
def test_the_card_of_a_reference_notes_what_a_study_cannot_show(sources, confounded, note):
    row = {"name": "s", "n_classes": len(sources), "confounded": confounded, "patients_or_lines": sources}
    encoder: Any = SimpleNamespace(card=SimpleNamespace(pretrained_accessions=frozenset(), fitted=False))
    assert _notes({"by_unit": [row]}, encoder, pd.DataFrame({"study": ["s"]})) == note


@pytest.mark.parametrize(
    ("studies", "note"),
    [
        pytest.param(1, "One held-out unit only", id="one study"),
        pytest.param(4, "Fewer than 5 held-out studies with both classes: temperature only", id="four studies"),
        pytest.param(5, " had the lowest nested log loss.", id="five studies"),
    ],
)
def test_the_calibration_says_where_studies_were_too_few(studies, note):
    rng = np.random.default_rng(0)
    resistant = np.arange(40 * studies) % 2 == 0
    p = np.clip(0.5 + 0.3 * (resistant - 0.5) + rng.normal(0, 0.1, len(resistant)), 0, 1)
    _, report = fit_calibration(p, resistant, np.repeat(np.arange(studies), 40))
    assert note in report.note


# ---- what a prediction says ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("taught", "caveat"),
    [
        pytest.param(0, "", id="the reference saw none of these cells"),
        pytest.param(2, "The reference was fitted on 2 of these 4 cells: for them this is no test.", id="it saw two"),
    ],
)
def test_scores_against_labels_say_whether_the_labels_taught_the_reference(taught, caveat):
    labels = ["sensitive", "resistant"] * 2
    metrics = label_metrics(pd.DataFrame({"response_given": labels, "p_resistant": [0.1, 0.9, 0.2, 0.8]}), None, taught)
    assert metrics["caveat"] == caveat
    assert predict_text.untaught(metrics) == ("" if caveat else "nothing was learnt from these labels")


@pytest.mark.parametrize(
    ("samples", "unit"),
    [
        pytest.param("aabb", "95 % interval over 4 cells", id="two samples are too few to draw"),
        pytest.param("aabc", "95 % interval over 3 samples", id="three samples are drawn"),
        pytest.param("a", "95 % interval over 1 cell", id="one cell is called one cell"),
    ],
)
def test_an_interval_says_what_it_was_drawn_over(samples, unit):
    part = share_interval(np.arange(len(samples)) % 2 == 0, np.array(list(samples)))
    assert predict_text.share_unit(part) == unit


def test_a_cell_is_novel_above_the_threshold_and_not_at_it():
    one = np.ones(1, dtype=np.float32)
    known = Novelty(one, one, np.ones((1, 1), dtype=np.float16), np.array([0, 1], dtype=np.float32), threshold=0.5)
    assert known.flag(np.array([0.4, 0.5, 0.6], dtype=np.float32)).tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        pytest.param(10, "10 of 20 cells drawn, chosen at random", id="some are drawn"),
        pytest.param(20, "all 20 cells drawn", id="all are drawn"),
    ],
)
def test_a_map_says_whether_it_shows_all_cells(shown, said):
    assert predict_text.drawn(shown, 20) == said


@pytest.mark.parametrize(("groups", "said"), [(40, ""), (41, "the 40 largest are drawn")], ids=["40 are all", "41"])
def test_groups_that_are_not_drawn_are_told(groups, said):
    assert predict_text.only_the_largest(groups) == said


# ---- models that are asked -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("failed", [0, 7], ids=["every cell was answered", "seven cells were not"])
def test_a_result_of_a_model_that_is_asked_is_a_demonstration_and_names_cells_without_an_answer(failed):
    said = endpoints.warning({"asked": ASKED | {"n_failed": failed}})
    assert DEMONSTRATION in said
    assert ("7 of 90 cells got no readable answer" in said) == bool(failed)


def test_consent_says_what_is_told_and_what_more_it_may_cost():
    estimate = Estimate("api", "gpt", 90, 9, 0, 100, 10, 0.5, "gene names", "1 USD")
    nothing, each, same = (
        " ".join(endpoints.lines(estimate, about)) for about in ("", f"Drug: {prompt_options.OWN}.", "Drug: x.")
    )
    assert "Nothing is told about drug, cancer type and tissue." in nothing
    assert all("Nothing is told about" not in said for said in (each, same))
    assert ["there may be a few more" in said for said in (nothing, each, same)] == [False, True, False]
    assert all("not calibrated, and there is no measure of novelty" in said for said in (nothing, each, same))


@pytest.mark.parametrize(
    ("answers", "said"),
    [(0, []), (1, "1 answer of earlier runs kept"), (2, "2 answers of earlier runs kept")],
    ids=["none is kept", "one is kept", "two are kept"],
)
def test_answers_that_are_kept_are_told(answers, said):
    found = endpoints.kept(answers)
    assert found == said or found[0].startswith(said)


@pytest.mark.parametrize(
    ("limit", "over"),
    [(0.4, True), (0.5, False), (0.6, False)],
    ids=["a limit below the estimate", "a limit at the estimate", "a limit above the estimate"],
)
def test_a_limit_that_would_send_nothing_is_told(limit, over):
    said = endpoints.over_limit(0.5, limit)
    assert said.startswith("The estimate of 0.50 USD is over this limit") if over else said == ""


@pytest.mark.parametrize(
    ("value", "columns", "examples", "said"),
    [
        pytest.param("obs", [], [], "The file has no column 'drug'", id="a column that is not there"),
        pytest.param("obs", ["drug"], ["erlotinib"], "", id="a column that is there"),
        pytest.param("obs", ["drug"], ["GSE120575"], "must not reach a language model", id="a column of accessions"),
        pytest.param("erlotinib", [], [], "", id="a drug"),
        pytest.param("GSE120575", [], [], "must not reach a language model", id="an accession"),
    ],
)
def test_what_cannot_be_told_to_a_model_is_said(value, columns, examples, said):
    found = prompt_options.problem("drug", value, columns, examples)
    assert said in found
    assert bool(found) == bool(said)


# ---- captions and cards --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("unit", "said"),
    [
        pytest.param("sample", "95 % bootstrap interval over 3 samples", id="an interval was drawn"),
        pytest.param("", "no interval was drawn", id="none was drawn"),
    ],
)
def test_captions_say_whether_an_interval_was_drawn(unit, said):
    part = FoldScores("all", ("a",), ("b",), 10, 20, 0.5, unit=unit, n_units=3)
    run = Run(Experiment("hvg", "logistic", ("b",), split_by="sample"), Outcome("done", (part,)), make_environment())
    row = {"test": "b", "seeds": 1}
    assert said in runs_text.run_caption(part, run)
    assert said in transfer_text.pair_caption(
        row, {"split_by": "study", "shots": "0"}, part, "2026-01-01", simulated=False
    )


@pytest.mark.parametrize("seeds", [1, 3], ids=["one seed", "three seeds"])
def test_figures_of_one_seed_beside_a_mean_are_told(seeds):
    part = FoldScores("all", ("a",), ("b",), 10, 20, 0.5)
    said = transfer_text.pair_caption(
        {"test": "b", "seeds": seeds}, {"split_by": "study", "shots": "0"}, part, "", simulated=False
    )
    assert ("figures and table: one of 3 seeds; the sentence: their mean" in said) == (seeds == 3)


@pytest.mark.parametrize(
    ("source", "low", "mark", "interval"),
    [
        pytest.param("measured", 0.5, "filled: measured here", "whisker: 95 % bootstrap", id="measured here"),
        pytest.param("reported", None, "hollow: reported by the paper", "no intervals were published", id="reported"),
        pytest.param("simulated", 0.5, "dashed: simulated cells", "whisker: 95 % bootstrap", id="simulated cells"),
    ],
)
def test_measured_reported_and_simulated_numbers_are_never_called_the_same(source, low, mark, interval):
    rows = pl.DataFrame(
        [{"n": 10, "test": ["a"], "source": source, "ci_low": low}], schema_overrides={"ci_low": pl.Float64}
    )
    picks = {"metric": "F1", "on": "a", "protocol": "pooled", "split_by": "cell", "shots": "all"}
    said = text.ranking_caption(rows, picks, "", "all sensitive", 0)
    assert said[3] == mark
    assert said[4].startswith(interval)
    facet = rows.with_columns(panel=pl.lit("a"))
    assert text.facet_caption(facet, picks | {"facet": "tissue"}, "", 8)[3] == mark.split(" ")[0] + " " + source


@pytest.mark.parametrize(
    ("simulated", "source"),
    [
        pytest.param(True, "simulated, not measured on real cells", id="simulated cells"),
        pytest.param(False, "measured here", id="real cells of a data set that is called simulated"),
    ],
)
def test_scores_of_simulated_cells_are_called_so(simulated, source):
    rows = pl.DataFrame({"title": ["simulated lung"], "split_by": ["study"], "n": [10]})
    said = transfer_text.left_out_caption(rows, {"metric": "F1", "entry": "HVG"}, "", simulated=simulated)[-1]
    assert said == source


def test_a_licence_that_restricts_says_so_and_one_that_does_not_says_nothing():
    assert "may not be used in a product" in card.restriction("CC BY-NC 4.0 (non-commercial)")
    assert card.restriction("MIT") == ""
