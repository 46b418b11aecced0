from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from anndata import AnnData, read_h5ad
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

from scdrugmap.data.simulate import example, parameters, simulate
from scdrugmap.errors import InvalidInput

COLUMNS = {
    "response", "dataset", "study", "sample", "patient_or_line", "tissue", "cancer_type", "drug", "drug_type",
    "time_point", "collection",
}  # fmt: skip


def auroc(adata: AnnData, train: np.ndarray, test: np.ndarray) -> float:
    values = adata.X.toarray()
    values = np.log1p(1e4 * values / np.maximum(values.sum(axis=1, keepdims=True), 1))
    resistant = (adata.obs["response"] == "resistant").to_numpy()
    middle, width = values[train].mean(axis=0), values[train].std(axis=0) + 0.1
    values = (values - middle) / width
    model = LogisticRegression(C=0.01, max_iter=300).fit(values[train], resistant[train])
    return roc_auc_score(resistant[test], model.predict_proba(values[test])[:, 1])


def by_cell(adata: AnnData) -> float:
    folds = StratifiedKFold(3, shuffle=True, random_state=0).split(adata.X, adata.obs["response"])
    return float(np.mean([auroc(adata, train, test) for train, test in folds]))


def by_sample(adata: AnnData) -> float:
    """Every second sample of each class trains, the others test: both halves are balanced."""
    first = adata.obs.groupby("sample", observed=True)["response"].first()
    trains = [name for label in ("sensitive", "resistant") for name in first.index[first == label][::2]]
    train = adata.obs["sample"].isin(trains).to_numpy()
    return auroc(adata, np.flatnonzero(train), np.flatnonzero(~train))


def test_makes_curated_data_that_says_it_is_simulated(cells):
    assert sp.issparse(cells.X)
    assert cells.X.format == "csr"
    assert cells.X.dtype == np.float32
    assert np.array_equal(cells.X.data, np.round(cells.X.data))
    assert cells.X.data.min() >= 1
    assert set(cells.obs) >= COLUMNS
    assert cells.obs_names.is_unique
    assert cells.var_names.is_unique
    assert cells.var["ensembl_id"].str.fullmatch(r"ENSG\d{11}").all()
    assert cells.uns["scdrugmap"]["simulated"] is True
    assert cells.obs["dataset"].str.startswith("simulated-").all()


def test_is_repeatable_and_follows_the_seed():
    first, again, other = (simulate(n_cells=60, n_genes=80, n_samples=3, seed=seed) for seed in (1, 1, 2))
    assert (first.X != again.X).nnz == 0
    assert first.obs.equals(again.obs)
    assert (first.X != other.X).nnz > 0


def test_counts_look_like_the_droplets_they_were_fitted_on():
    adata = simulate(n_cells=400, n_genes=5000, batch=0, effect=0)
    fitted = parameters().libraries["droplet"]
    seen = np.log(np.asarray(adata.X.sum(axis=1)).ravel())
    covered = np.log(np.exp(parameters().profiles).sum(axis=1).mean())  # the genes hold that share of all molecules
    assert seen.mean() == pytest.approx(fitted["log_mean"] + covered, abs=0.1)
    assert seen.std() == pytest.approx(fitted["log_sd"], rel=0.15)
    dense = adata.X.toarray()
    mean, variance = dense.mean(axis=0), dense.var(axis=0)
    assert np.mean(variance[mean > 0.5] > mean[mean > 0.5]) > 0.99  # more than Poisson


def test_no_effect_is_chance_and_effect_is_found():
    kinds = {"n_cells": 400, "n_genes": 500, "batch": 0.3}
    assert np.mean([by_cell(simulate(effect=0, seed=seed, **kinds)) for seed in range(3)]) == pytest.approx(
        0.5, abs=0.05
    )
    scores = [by_cell(simulate(effect=effect, seed=3, **kinds)) for effect in (0.5, 1.0, 2.0)]
    assert scores == sorted(scores)
    assert scores[1] > 0.7


def test_confounded_labels_look_learnt_by_cell_and_are_chance_by_sample():
    sets = [
        simulate(n_cells=480, n_genes=500, n_samples=16, effect=0, batch=0.6, confounded=True, seed=seed)
        for seed in range(5)
    ]
    labels = sets[0].obs.groupby("sample", observed=True)["response"].nunique()
    assert (labels == 1).all()
    cell, sample = np.mean([by_cell(adata) for adata in sets]), np.mean([by_sample(adata) for adata in sets])
    assert cell > 0.8
    assert sample == pytest.approx(0.5, abs=0.1)


def test_without_batch_there_is_nothing_to_leak():
    adata = simulate(n_cells=400, n_genes=500, n_samples=8, effect=0, batch=0, confounded=True)
    assert by_cell(adata) == pytest.approx(0.5, abs=0.1)


def test_pairs_share_a_patient():
    adata = simulate(n_cells=80, n_genes=50, n_samples=8, n_datasets=2, confounded=True, paired=True)
    patients = adata.obs.drop_duplicates("sample").groupby("patient_or_line", observed=True)["time_point"].agg(sorted)
    assert patients.to_list() == [["post", "pre"]] * 4


def test_effect_shows_in_the_program_genes():
    adata = simulate(n_cells=800, n_genes=500, effect=2, batch=0)
    dense, resistant = adata.X.toarray(), (adata.obs["response"] == "resistant").to_numpy()
    rise = dense[resistant].mean(axis=0) / dense[~resistant].mean(axis=0).clip(1e-3)
    program = parameters().program[:500]
    rise /= np.median(rise[program == 0])
    assert np.median(rise[program > 0]) > 1.3
    assert np.median(rise[program < 0]) < 0.8


def test_data_sets_studies_prevalence_and_duplicates():
    adata = simulate(n_cells=300, n_genes=300, n_samples=6, n_datasets=3, n_studies=2, prevalence=0.3, duplicates=5)
    nesting = adata.obs.groupby("dataset", observed=True)["study"].nunique()
    assert (nesting == 1).all()
    assert adata.obs["dataset"].nunique() == 3
    assert adata.obs["study"].nunique() == 2
    assert (adata.obs["response"] == "sensitive").mean() == pytest.approx(0.3, abs=0.02)
    barcodes = adata.obs_names.str.rsplit("_").str[-1]
    copies = barcodes[barcodes.duplicated()].unique()
    assert len(copies) == 5
    for barcode in copies:
        same = adata[barcodes == barcode]
        assert same.obs["dataset"].nunique() == 3
        assert set(same.obs["response"]) == {"sensitive"}
        assert (same.X[0] != same.X[1]).nnz == 0


def test_dropout_loses_small_counts_first():
    full, thin = (simulate(n_cells=100, n_genes=400, dropout=dropout) for dropout in (0.0, 0.6))
    assert thin.X.nnz < 0.8 * full.X.nnz
    assert thin.X.max() == full.X.max()


def test_plate_cells_hold_more_molecules():
    plate, droplet = (simulate(n_cells=60, n_genes=200, protocol=name).X.sum() for name in ("plate", "droplet"))
    assert plate > 4 * droplet


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"n_genes": 10**6}, "n_genes=1000000"),
        ({"n_cells": 3}, "n_cells=3"),
        ({"n_datasets": 8}, "n_samples=6: this plan needs at least 8"),
        ({"n_studies": 2}, "n_studies=2 with n_datasets=1"),
        ({"duplicates": 3}, "n_datasets is 1"),
        ({"duplicates": 300, "n_datasets": 2}, "has 150 sensitive cells"),
        ({"prevalence": 1.5}, "prevalence=1.5"),
        ({"protocol": "bulk"}, "protocol='bulk'"),
    ],
)
def test_refuses_what_cannot_be_met(options, says):
    with pytest.raises(InvalidInput, match=says) as caught:
        simulate(**options)
    assert caught.value.remedy


def test_example_hides_the_truth_unless_asked(tmp_path):
    plain, labelled = example(), example(labelled=True)
    assert plain.shape == labelled.shape == (1200, 3000)
    assert (plain.X != labelled.X).nnz == 0
    assert "response" not in plain.obs
    assert plain.uns["scdrugmap"] == {"simulated": True}
    assert plain.obs["sample"].nunique() == 6
    assert set(labelled.obs["response"].dropna()) == {"sensitive", "resistant"}
    assert labelled.obs.loc[labelled.obs["cell_type"] == "immune", "response"].isna().all()
    labelled.write_h5ad(tmp_path / "example.h5ad")
    back = read_h5ad(tmp_path / "example.h5ad")
    assert back.obs["response"].isna().sum() == labelled.obs["response"].isna().sum()
