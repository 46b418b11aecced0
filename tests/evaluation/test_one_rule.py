"""Rules that several parts follow stand in one place: on a hard case, all of them give one answer."""

from __future__ import annotations

import anndata
import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
from anndata import AnnData
from scipy.stats import binomtest

from scdrugmap.data.simulate import simulate
from scdrugmap.errors import InvalidInput
from scdrugmap.evaluation.audit.audit import audit
from scdrugmap.evaluation.cells.labelled_cells import LabelledData, load_labelled
from scdrugmap.evaluation.experiment import Experiment
from scdrugmap.evaluation.metrics.bootstrap import BootstrapWeights, bootstrap
from scdrugmap.evaluation.metrics.metrics import score
from scdrugmap.evaluation.metrics.reliability import reliability
from scdrugmap.evaluation.splits.cross_validate import CrossValidation
from scdrugmap.evaluation.splits.protocols import splits
from scdrugmap.models import MODELS, load_model
from scdrugmap.prediction.reference.calibration import losses
from scdrugmap.prediction.reference.fit import fit_reference
from scdrugmap.prediction.reference.held_out import score_held_out
from scdrugmap.prediction.summary import share_interval
from scdrugmap.prompting.examples import draw_examples
from scdrugmap.prompting.settings import PromptSettings

# Pairs of cells with the same genes and values, one in each of two data sets, by their place in both.
SHARED, CONTRARY, NEARLY_EMPTY, NEARLY_EMPTY_COPY, NEARLY_EMPTY_NAMELESS = PAIRS = range(5)
COPIES = (SHARED, CONTRARY, NEARLY_EMPTY_COPY)


@pytest.fixture(scope="module")
def pair() -> list[AnnData]:
    """Two data sets of 60 cells of one study."""
    both = [simulate(n_cells=60, n_genes=400, n_samples=6, effect=2.0, seed=seed) for seed in (0, 1)]
    counts, labels = ([part(adata) for adata in both] for part in (lambda a: a.X.toarray(), response))
    counts[1][[SHARED, CONTRARY]] = counts[0][[SHARED, CONTRARY]]
    labels[1][PAIRS] = labels[0][PAIRS]
    labels[1][CONTRARY] = "resistant" if labels[0][CONTRARY] == "sensitive" else "sensitive"
    for number, adata in enumerate(both):
        names = [f"{number}_{name}" for name in adata.obs_names]
        names[NEARLY_EMPTY_COPY], names[NEARLY_EMPTY_NAMELESS] = f"{number}_ACGTACGTACGT-1", f"cell{number}"
        for place in (NEARLY_EMPTY, NEARLY_EMPTY_COPY, NEARLY_EMPTY_NAMELESS):
            counts[number][place] = np.arange(400) == place  # one molecule of one gene
        adata.obs_names, adata.X = names, sp.csr_matrix(counts[number])
        adata.obs["response"], adata.obs["dataset"], adata.obs["study"] = labels[number], f"set-{number}", "GSE1"
    return both


def response(adata: AnnData) -> np.ndarray:
    return adata.obs["response"].to_numpy(object).copy()


def prompt_settings() -> PromptSettings:
    return PromptSettings.from_card(MODELS["gpt-4o-mini"], {"top_k": 5})


def test_an_evaluation_drops_copies_and_all_cells_of_contrary_labels(pair):
    of = LabelledData.from_datasets(load_labelled(pair))
    folds = CrossValidation.from_experiment(Experiment("hvg", "logistic", ("set-0", "set-1")), of)
    assert set(range(120)) - set(folds.rows.tolist()) == {60 + SHARED, 60 + NEARLY_EMPTY_COPY, CONTRARY, 60 + CONTRARY}
    assert folds.removed == 4


def test_a_reference_is_fitted_on_the_cells_that_an_evaluation_keeps(pair):
    card = fit_reference(pair, load_model("hvg-pca", device="cpu")).card
    assert (card.n_duplicates, card.n_cells) == (4, 116)
    kept = [row["n_sensitive"] + row["n_resistant"] for row in card.trained_on]
    assert kept == [59, 57]


def test_an_audit_counts_the_same_cells_as_shared(pair):
    shared = audit(pair).shared.filter(a="set-0", b="set-1").row(0, named=True)
    assert (shared["cells"], shared["same_label"], shared["contrary"]) == (3, 2, 1)


def test_the_same_cells_are_never_told_to_a_language_model_that_judges_their_copies(pair):
    drawn = draw_examples(pair[0], 3, judged=pair[1], settings=prompt_settings(), seed=0)
    assert drawn.n_left_out == len(COPIES)


def test_a_cell_that_has_both_labels_is_no_example_of_either(pair):
    cells = simulate(n_cells=40, n_genes=400, n_samples=4, seed=2)
    rare = response(cells)[0]
    cells = cells[
        np.r_[0, np.flatnonzero(response(cells) != rare), np.flatnonzero(response(cells) == rare)[1:8]]
    ].copy()
    how = {"judged": pair[1], "settings": prompt_settings(), "seed": 0}
    assert len(draw_examples(cells, 8, **how).examples) == 2 * 8
    dense = cells.X.toarray()
    dense[1] = dense[0]  # of the other label
    cells.X = sp.csr_matrix(dense)
    with pytest.raises(InvalidInput, match=f"8 examples of each class are wanted, and there are 7 {rare}"):
        draw_examples(cells, 8, **how)


def test_a_reference_knows_its_cells_by_content_and_never_a_nearly_empty_one(pair):
    fitted = fit_reference(pair[:1], load_model("hvg-pca", device="cpu"))
    assert np.flatnonzero(~fitted.taught_by(pair[0])).tolist() == list(PAIRS[NEARLY_EMPTY:])
    assert np.flatnonzero(fitted.taught_by(pair[1])).tolist() == [SHARED, CONTRARY]


EDGES = np.array([0.0, 0.1, 0.2, 0.3, 0.7, 0.9, 1.0, np.nextafter(0.3, 0), np.nextafter(0.7, 1), 1e-9, 0.55, 0.55])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_calibration_errors_of_a_score_a_bootstrap_a_curve_and_a_reference_are_one_number(dtype):
    p = EDGES.astype(dtype)
    resistant = np.arange(len(p)) % 3 == 0
    labels = np.where(resistant, "resistant", "sensitive")
    bins = np.minimum(np.floor(p.astype(float) * 10), 9)
    by_hand = sum(abs((p[bins == b].astype(float) - resistant[bins == b]).sum()) for b in range(10)) / len(p)
    cells = {"cell": labels, "dataset": labels, "sample": labels, "split": labels, "label": labels}
    predictions = pl.DataFrame({**cells, "p_resistant": p})
    found = [
        score(labels, p)["ece"],
        BootstrapWeights(np.ones((1, len(p)))).on(~resistant, p.astype(float)).ece[0],
        BootstrapWeights(np.ones((1, 4)), np.arange(len(p)) % 4).on(~resistant, p.astype(float)).ece[0],
        reliability(predictions, draws=5).ece,
        losses(p, resistant, np.full(len(p), 1 / len(p)))["ece"],
    ]
    assert found == pytest.approx([by_hand] * 5, rel=1e-12)


def test_a_weighted_calibration_error_is_that_of_cells_drawn_so_often():
    resistant, times = np.arange(len(EDGES)) % 3 == 0, np.arange(len(EDGES)) % 4
    labels = np.where(resistant, "resistant", "sensitive")
    drawn = score(np.repeat(labels, times), np.repeat(EDGES, times))["ece"]
    assert losses(EDGES, resistant, times / times.sum())["ece"] == pytest.approx(drawn, rel=1e-12)
    assert BootstrapWeights(times[None].astype(float)).on(~resistant, EDGES).ece[0] == pytest.approx(drawn, rel=1e-12)


@pytest.fixture(scope="module")
def samples_of_their_own() -> tuple[np.ndarray, np.ndarray]:
    """Whether each of 600 cells is resistant, and its sample: twelve of unequal size that differ much."""
    rng = np.random.default_rng(3)
    sample = rng.choice(list("abcdefghijkl"), 600, p=np.arange(1, 13) / 78)
    shares = dict(zip("abcdefghijkl", np.linspace(0.05, 0.95, 12), strict=True))
    return np.array([rng.random() < shares[name] for name in sample]), sample


def test_the_interval_of_a_share_is_that_of_the_accuracy_of_cells_that_are_right_so_often(samples_of_their_own):
    resistant, sample = samples_of_their_own
    part = share_interval(resistant, sample)
    labels = np.full(600, "resistant")
    drawn = bootstrap(labels, resistant.astype(float), sample, metrics=["accuracy"])  # right where P is 1
    assert (part["unit"], part["n_units"]) == (drawn.unit, drawn.n_units) == ("sample", 12)
    assert (part["low"], part["high"]) == pytest.approx(drawn.interval["accuracy"], rel=1e-12)
    assert part["high"] - part["low"] > 0.2


def test_the_interval_of_a_calibration_curve_is_that_of_the_score(samples_of_their_own):
    resistant, sample = samples_of_their_own
    labels, p = np.where(resistant, "resistant", "sensitive"), np.linspace(0, 1, 600).astype(np.float32)
    cells = {"cell": sample, "dataset": sample, "sample": sample, "split": sample, "label": labels}
    curve = reliability(pl.DataFrame({**cells, "p_resistant": p}), draws=200)
    interval = bootstrap(labels, p, sample, metrics=["ece"], draws=200).interval["ece"]
    assert (curve.ece_low, curve.ece_high) == pytest.approx(interval, rel=1e-12)


@pytest.mark.parametrize(("count", "n"), [(0, 1), (1, 1), (3, 7), (300, 300)])
def test_cells_of_one_sample_have_wilsons_interval_wherever_their_share_is_told(count, n):
    resistant = np.arange(n) < count
    part = share_interval(resistant, np.full(n, "a"))
    labels = np.where(resistant, "resistant", "sensitive")
    cells = dict.fromkeys(("cell", "dataset", "sample", "split"), np.full(n, "a")) | {"label": labels}
    row = reliability(pl.DataFrame({**cells, "p_resistant": np.full(n, 0.55)}), draws=5).bins.row(5, named=True)
    expected = binomtest(count, n).proportion_ci(0.95, method="wilson")
    assert (part["low"], part["high"]) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert (row["low"], row["high"]) == (part["low"], part["high"])


def several(**columns: str) -> list[AnnData]:
    """Three data sets of 40 cells: two of one study, of which one is sensitive only, and one of another study."""
    whole = simulate(n_cells=120, n_genes=400, n_samples=12, n_datasets=3, n_studies=3, effect=2.0)
    parts = [whole[whole.obs["dataset"] == name].copy() for name in whole.obs["dataset"].unique()]
    for part, study in zip(parts, ("GSE1", "GSE1", "GSE2"), strict=True):
        for column, value in {"study": study, **columns}.items():
            part.obs[column] = value
    parts[0] = parts[0][response(parts[0]) == "sensitive"].copy()
    return parts


@pytest.mark.parametrize(
    ("columns", "held_out", "question"),
    [
        ({}, "study", {"protocol": "cross-data", "split_by": "study"}),
        ({"study": "GSE1"}, "dataset", {"protocol": "cross-data", "split_by": "dataset"}),
        ({"study": "GSE1", "dataset": "a", "sample": "s"}, "cell", {"protocol": "pooled", "split_by": "cell"}),
    ],
)
def test_a_reference_is_tested_on_the_folds_of_an_evaluation(columns, held_out, question, monkeypatch):
    parts = several(**columns)
    whole = anndata.concat(parts, uns_merge="first") if len(columns) > 1 else None
    of = LabelledData.from_datasets(load_labelled([whole] if whole else parts))
    names = tuple(source.name for source in of.sources)
    folds = CrossValidation.from_experiment(Experiment("hvg", "logistic", names, **question), of)
    seen = []

    def spy(cells, embedding, encoder, head, seed, split):
        seen.append((split.train.tolist(), split.test.tolist()))
        return np.full(len(split.test), 0.5, dtype=np.float32)

    monkeypatch.setattr("scdrugmap.prediction.reference.held_out._score_one", lambda _, *rest: spy(*rest))
    found = score_held_out([source.adata for source in of.sources], of.table, np.zeros((len(of.table), 1)), None, "", 0)
    assert found.unit == held_out
    assert seen == [(split.train.tolist(), split.test.tolist()) for split in folds.splits if not split.reason]
    assert len(seen) >= 2


def test_a_unit_that_leaves_one_class_to_learn_from_is_held_out_by_neither():
    parts = several()
    parts[2].obs["study"] = "GSE1"
    parts[1].obs["study"] = "GSE2"  # the only one with both classes
    parts[2] = parts[2][response(parts[2]) == "sensitive"].copy()
    of = LabelledData.from_datasets(load_labelled(parts))
    reasons = {split.name: bool(split.reason) for split in splits(of.table, "cross-data", "study", 5, 0)}
    assert reasons == {"GSE1": False, "GSE2": True}
    embedding = np.random.default_rng(0).normal(size=(len(of.table), 3)).astype(np.float32)
    found = score_held_out(parts, of.table, embedding, load_model("scgpt-mini", device="cpu"), "logistic", 0)
    assert found.unit == "sample"  # of studies, and of data sets, only sensitive cells could be scored
    assert found.scored.all()
