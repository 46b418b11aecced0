from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scdrugmap.data.catalog.catalog import DATASETS
from scdrugmap.data.io.read import InputRefused
from scdrugmap.data.load import COLUMNS, load_dataset
from scdrugmap.data.simulate import simulate
from scdrugmap.errors import InvalidInput, UnknownName

KEY = "gse149214"


def plain(cells: AnnData, **columns: object) -> AnnData:
    """The same counts with other obs columns, as a user's file has them."""
    obs = pd.DataFrame({name: columns[name] for name in columns}, index=cells.obs_names)
    return AnnData(cells.X, obs=obs, var=cells.var)


def test_all_columns_are_there_and_can_be_written(cells, tmp_path):
    adata = load_dataset(cells)
    assert tuple(adata.obs.columns[: len(COLUMNS)]) == COLUMNS
    assert adata.obs["response"].cat.categories.tolist() == ["sensitive", "resistant"]
    for column in COLUMNS[1:]:
        assert adata.obs[column].map(type).eq(str).all()
    adata.write_h5ad(tmp_path / "curated.h5ad")
    again = load_dataset(tmp_path / "curated.h5ad")
    assert again.obs[list(COLUMNS)].astype(str).equals(adata.obs[list(COLUMNS)].astype(str))
    assert (again.X != cells.X).nnz == 0


def test_what_files_call_otherwise_is_renamed(cells, tmp_path):
    given = plain(cells, accession="GSE1", cell_line_or_patient="A375", timepoint="pre", response="Responder", x=1)
    given.obs["timepoint"] = pd.Categorical(given.obs["timepoint"])
    given.write_h5ad(tmp_path / "my.file.h5ad")
    obs = load_dataset(tmp_path / "my.file.h5ad").obs
    first = obs.iloc[0].to_dict()
    assert first == {
        "response": "sensitive", "dataset": "my.file", "study": "GSE1", "sample": "my.file", "patient_or_line": "A375",
        "tissue": "unknown", "cancer_type": "unknown", "drug": "unknown", "drug_type": "unknown", "time_point": "pre",
        "collection": "user", "x": 1,
    }  # fmt: skip


def test_a_column_of_the_right_name_goes_before_its_aliases(cells):
    obs = load_dataset(plain(cells, study="GSE2", accession="GSE1", patient="P1", donor="D1")).obs
    assert set(obs["study"]) == {"GSE2"}
    assert set(obs["patient_or_line"]) == {"P1"}
    assert set(obs["donor"]) == {"D1"}


def test_gaps_are_filled_from_what_is_known(cells):
    sample = ["s1", None, "", " ", np.nan, *["s2"] * (cells.n_obs - 5)]
    obs = load_dataset(plain(cells, sample=sample, dataset=["d"] * cells.n_obs)).obs
    assert obs["sample"].iloc[:6].tolist() == ["s1", "d", "d", "d", "d", "s2"]
    assert obs["patient_or_line"].equals(obs["sample"].rename("patient_or_line"))
    assert set(obs["study"]) == {"d"}


def test_labels_are_read_in_any_spelling_and_may_be_missing(cells):
    spelled = ["NR", "Responder", "unlabelled", None] * (cells.n_obs // 4)
    labels = load_dataset(plain(cells, response=spelled)).obs["response"]
    assert labels.iloc[:2].tolist() == ["resistant", "sensitive"]
    assert labels.iloc[2:4].isna().all()
    assert load_dataset(plain(cells)).obs["response"].isna().all()


def test_labels_that_cannot_be_read_are_refused_with_the_data_set(cells, tmp_path):
    plain(cells, response=[0, 1] * (cells.n_obs // 2)).write_h5ad(tmp_path / "coded.h5ad")
    with pytest.raises(InvalidInput, match=r"obs\['response'\] of 'coded'") as caught:
        load_dataset(tmp_path / "coded.h5ad")
    assert caught.value.remedy


def test_a_key_reads_the_cache_and_takes_facts_from_its_card(cells, settings):
    settings.data.mkdir(parents=True)
    plain(cells, response="sensitive").write_h5ad(settings.data / f"{KEY}.h5ad")
    obs, card = load_dataset(KEY).obs, DATASETS[KEY]
    expected = {"dataset": KEY, "study": card.accession, "tissue": card.tissue, "cancer_type": card.cancer_type}
    expected |= {"drug": card.regimen, "drug_type": card.drug_type, "collection": card.collection}
    assert obs.iloc[0][list(expected)].to_dict() == expected


def test_a_key_whose_cells_are_elsewhere_says_how_to_get_them(settings):
    with pytest.raises(InvalidInput, match=f"'{KEY}' are not on this machine") as caught:
        load_dataset(KEY, settings=settings)
    assert caught.value.remedy.startswith(f"Save them as {settings.data / KEY}.h5ad (")
    assert caught.value.remedy.endswith(f"scdrugmap data show {KEY}).")


def test_names_of_nothing_are_told_from_missing_files(settings):
    with pytest.raises(UnknownName, match="Did you mean 'gse149214'"):
        load_dataset("gse14921")
    with pytest.raises(InputRefused, match="no such file"):
        load_dataset("folder/cells.h5ad")


def test_stems_of_packed_tables_and_folders(cells, tmp_path):
    cells.to_df().to_csv(tmp_path / "my.table.csv.gz")
    assert set(load_dataset(tmp_path / "my.table.csv.gz").obs["dataset"]) == {"my.table"}


def test_an_anndata_is_checked_unless_it_was_and_never_changed(cells):
    foreign = plain(cells, response="resistant")
    foreign.X = np.log1p(cells.X.toarray())
    loaded = load_dataset(foreign)
    assert loaded.uns["scdrugmap"]["input"]["value_type"] == "log1p"
    assert (loaded.X != cells.X).nnz == 0
    assert list(foreign.obs) == ["response"]
    trusted = load_dataset(loaded)
    assert trusted.X is loaded.X
    before = cells.obs.copy()
    load_dataset(cells).obs["response"] = "changed"
    assert cells.obs.equals(before)
    with pytest.raises(InputRefused, match="z-scores"):
        load_dataset(plain_scaled(cells))


def plain_scaled(cells: AnnData) -> AnnData:
    dense = np.log1p(cells.X.toarray())
    scaled = plain(cells, response="resistant")
    scaled.X = (dense - dense.mean(axis=0)) / dense.std(axis=0).clip(1e-3)
    return scaled


def test_z_scores_are_accepted_only_when_asked_for_each_time(cells):
    accepted = load_dataset(plain_scaled(cells), accept=("zscore",))
    assert accepted.X.min() < 0
    assert load_dataset(accepted, accept=("zscore",)).n_obs == cells.n_obs
    with pytest.raises(InputRefused, match="z-scores"):
        load_dataset(accepted)


def test_simulated_sets_keep_their_names():
    adata = load_dataset(simulate(n_cells=40, n_genes=50, n_samples=4, n_datasets=2))
    assert set(adata.obs["dataset"]) == {"simulated-1", "simulated-2"}
    assert adata.uns["scdrugmap"]["simulated"] is True
