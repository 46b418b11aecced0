from __future__ import annotations

import anndata
import numpy as np
import pytest
import scipy.sparse as sp
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st

from scdrugmap.data.dedupe import barcode_core, cell_hashes, duplicate_groups, fingerprint
from scdrugmap.data.simulate import simulate

GENES = [f"GENE{place}" for place in range(6)]


def of(dense: np.ndarray, genes: list[str]) -> AnnData:
    adata = AnnData(sp.csr_matrix(dense.astype(np.float32)))
    adata.var_names = genes
    return adata


matrices = st.lists(st.lists(st.integers(0, 9), min_size=6, max_size=6), min_size=1, max_size=5).map(np.array)


@settings(max_examples=60, deadline=None)
@given(dense=matrices, order=st.permutations(range(6)))
def test_gene_order_and_absent_genes_do_not_matter(dense, order):
    hashes = cell_hashes(of(dense, GENES))
    reordered = of(dense[:, order], [GENES[place] for place in order])
    widened = of(np.hstack([dense, np.zeros((len(dense), 1), int)]), [*GENES, "ABSENT"])
    assert np.array_equal(hashes, cell_hashes(reordered))
    assert np.array_equal(hashes, cell_hashes(widened))
    assert fingerprint(of(dense, GENES)) == fingerprint(reordered)


@settings(max_examples=60, deadline=None)
@given(first=matrices, second=matrices)
def test_same_content_and_only_that_gives_the_same_hash(first, second):
    hashes = cell_hashes(of(np.vstack([first, second]), GENES))
    rows = [tuple(row) for row in np.vstack([first, second])]
    for i, one in enumerate(rows):
        for j, other in enumerate(rows):
            assert (hashes[i] == hashes[j]) == (one == other)


def test_values_swapped_between_genes_differ():
    hashes = cell_hashes(of(np.array([[1, 2, 0, 0, 0, 0], [2, 1, 0, 0, 0, 0], [3, 0, 0, 0, 0, 0]]), GENES))
    assert len(set(hashes)) == 3


def test_hash_is_stable_over_machines_and_versions():
    adata = of(np.array([[1, 0, 2, 0, 0, 0], [0, 0, 0, 0, 0, 0]]), GENES)
    assert cell_hashes(adata).tolist() == [b"7e93e26721068da489d799aa17ba891f", b"0" * 32]
    assert fingerprint(adata) == "sha256:ca0a43d867ab2e7e3e680b914b5c248c61e96448eadff73486581318b21443f6"


def test_storage_does_not_matter(cells):
    hashes = cell_hashes(cells)
    dense, columns, doubles = cells.copy(), cells.copy(), cells.copy()
    dense.X, columns.X, doubles.X = cells.X.toarray(), cells.X.tocsc(), cells.X.astype(np.float64)
    for other in (dense, columns, doubles, cells[:, ::-1]):
        assert np.array_equal(cell_hashes(other), hashes)
    assert cell_hashes(cells[:0]).shape == (0,)


def test_fingerprint_sees_content_order_and_genes_but_not_obs(cells):
    mark = fingerprint(cells)
    relabelled, edited, renamed = cells.copy(), cells.copy(), cells.copy()
    relabelled.obs["response"] = "sensitive"
    relabelled.obs_names = [f"other{place}" for place in range(cells.n_obs)]
    edited.X.data[3] += 1
    renamed.var_names = [*cells.var_names[:-1], "OTHER"]
    assert mark.startswith("sha256:")
    assert fingerprint(relabelled) == mark
    assert len({mark, fingerprint(edited), fingerprint(renamed), fingerprint(cells[::-1]), fingerprint(cells[1:])}) == 5


def test_finds_cells_that_data_sets_share():
    adata = simulate(n_cells=200, n_genes=300, n_samples=4, n_datasets=2, duplicates=9, seed=5)
    counts = np.asarray(adata.X.sum(axis=1)).ravel()
    groups = duplicate_groups(cell_hashes(adata), counts=counts, barcodes=adata.obs_names.to_numpy(str))
    assert len(groups) == 9
    for group in groups:
        assert sorted(adata.obs["dataset"].iloc[group]) == ["simulated-1", "simulated-2"]
        assert len({barcode_core(name) for name in adata.obs_names[group]}) == 1
    assert [group[0] for group in groups] == sorted(group[0] for group in groups)


def test_content_decides_where_barcodes_differ(cells):
    twice = anndata.concat([cells, cells], index_unique="-")
    twice.obs_names = [f"cell{place}" for place in range(twice.n_obs)]
    groups = duplicate_groups(cell_hashes(twice), counts=np.asarray(twice.X.sum(axis=1)).ravel())
    assert len(groups) == cells.n_obs
    assert all(group.tolist() == [place, place + cells.n_obs] for place, group in enumerate(groups))


def test_nearly_empty_cells_need_a_barcode_that_agrees():
    dense = np.zeros((6, 6), int)
    dense[:4, 0] = 1  # four cells with one molecule of one gene; two empty ones
    adata = of(dense, GENES)
    hashes, counts = cell_hashes(adata), dense.sum(axis=1)
    names = np.array(["a_ACGTACGTAC-1", "b_ACGTACGTAC-2", "GGGTACGTAC", "cell4", "ACGTTTTTTT", "x-ACGTTTTTTT"])
    assert duplicate_groups(hashes, counts=counts) == []
    groups = duplicate_groups(hashes, counts=counts, barcodes=names)
    assert [group.tolist() for group in groups] == [[0, 1], [4, 5]]
    assert [group.tolist() for group in duplicate_groups(hashes)] == [[0, 1, 2, 3]]


def test_no_cells_and_no_duplicates_give_no_groups(cells):
    assert duplicate_groups(cell_hashes(cells[:0])) == []
    assert duplicate_groups(cell_hashes(cells)) == []


@pytest.mark.parametrize(
    ("name", "core"),
    [
        ("AAACCTGAGCAGCGTA-1", "AAACCTGAGCAGCGTA"),
        ("GSM4494348_CGGACATTTTTC", "CGGACATTTTTC"),
        ("simulated-1_aaacctgagcagcgta-1-2", "AAACCTGAGCAGCGTA"),
        ("cell_12", ""),
        ("ACGT", ""),
        ("", ""),
    ],
)
def test_core_of_a_barcode(name, core):
    assert barcode_core(name) == core
