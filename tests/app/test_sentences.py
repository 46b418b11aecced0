"""Cell sentences: what may stand in them, in which order, and what never does."""

from __future__ import annotations

from dataclasses import replace

import anndata as ad
import numpy as np
import pytest
from scipy import sparse

from scdrugmap.errors import InvalidInput
from scdrugmap.models.core.cell_text import RULES, gene_columns, metadata_line, sentences, top_genes
from scdrugmap.models.core.cells import Cells

GENES = ["GAPDH", "CD8A", "ENSG00000230021", "ACTB", "TP53", "ERCC-00002"]
IDS = ["ENSG00000111640", "ENSG00000153563", "ENSG00000230021", "ENSG00000075624", "ENSG00000141510", ""]
COUNTS = [[5, 2, 99, 5, 0, 50], [0, 0, 7, 0, 0, 3], [1, 1, 0, 1, 30, 0]]


@pytest.fixture
def few() -> Cells:
    adata = ad.AnnData(sparse.csr_matrix(np.array(COUNTS, dtype=np.float32)))
    adata.var_names = GENES
    adata.var["ensembl_id"] = IDS
    return Cells.from_anndata(adata)


def test_the_highest_genes_come_first_and_ties_in_the_order_of_symbols(few):
    assert top_genes(few, 10) == [["ACTB", "GAPDH", "CD8A"], [], ["TP53", "ACTB", "CD8A", "GAPDH"]]
    assert top_genes(few, 2) == [["ACTB", "GAPDH"], [], ["TP53", "ACTB"]]


@pytest.mark.parametrize("rule", ["names", "values"])
def test_the_order_of_columns_does_not_matter(cells, rule):
    order = np.random.default_rng(0).permutation(cells.n_vars)
    assert sentences(Cells.from_anndata(cells[:, order].copy()), 50, rule) == sentences(
        Cells.from_anndata(cells), 50, rule
    )


@pytest.mark.parametrize("rule", RULES)
def test_a_text_depends_on_its_cell_alone(cells, rule):
    whole = sentences(Cells.from_anndata(cells), 30, rule)
    assert [sentences(Cells.from_anndata(cells[row].copy()), 30, rule)[0] for row in range(5)] == whole[:5]


def test_depth_does_not_change_the_order(cells):
    deeper = cells.copy()
    deeper.X = sparse.csr_matrix(cells.X) * 7
    assert top_genes(Cells.from_anndata(deeper), 40) == top_genes(Cells.from_anndata(cells), 40)
    assert sentences(Cells.from_anndata(deeper), 40, "values") == sentences(Cells.from_anndata(cells), 40, "values")


def test_only_expressed_genes_are_named(cells):
    seen = Cells.from_anndata(cells)
    for row, genes in enumerate(top_genes(seen, seen.counts.shape[1])):
        expressed = set(seen.symbols[seen.counts[row].indices])
        assert set(genes) == expressed
        assert len(genes) == len(expressed)


def test_names_and_values(few):
    assert sentences(few, 3) == ["ACTB GAPDH CD8A", "", "TP53 ACTB CD8A"]
    one = np.log1p(1e4 / 33)
    assert sentences(few, 2, "values")[2] == f"TP53 {np.log1p(30e4 / 33):.1f} ACTB {one:.1f}"


def test_columns_without_a_symbol_are_no_words(few):
    assert gene_columns(few).tolist() == [True, True, False, True, True, False]
    without = replace(few, ensembl_ids=None)
    assert gene_columns(without).tolist() == [True, True, False, True, True, True]
    spaced = replace(few, ensembl_ids=None, symbols=np.array(["TP53 tumour", "12", "", "HLA-A", "NKX2-1", "H2AC6"]))
    assert gene_columns(spaced).tolist() == [False, False, False, True, True, True]


def test_upstreams_text_has_its_zeros_and_its_order(few):
    assert sentences(few, 1, "upstream")[0] == "GAPDH5 CD8A2 ENSG0000023002199 ACTB5 TP530 ERCC-0000250 "
    half = replace(few, counts=few.counts * np.float32(0.5))
    assert sentences(half, 1, "upstream")[1] == "GAPDH0 CD8A0 ENSG000002300213.5 ACTB0 TP530 ERCC-000021.5 "


@pytest.mark.parametrize("k", [0, -1, 2.5, "ten"])
def test_a_number_of_genes_is_a_whole_number(few, k):
    with pytest.raises(InvalidInput, match="not a number of genes"):
        top_genes(few, k)


def test_zscores_and_unknown_rules_are_refused(few):
    with pytest.raises(InvalidInput, match="z-scores"):
        top_genes(replace(few, value_type="zscore"), 5)
    with pytest.raises(InvalidInput, match="no text rule called 'poem'") as caught:
        sentences(few, 5, "poem")
    assert all(rule in caught.value.remedy for rule in RULES)


def test_what_is_known_about_a_cell():
    assert metadata_line() == ""
    assert metadata_line("erlotinib", tissue=" lung ") == "Drug: erlotinib. Tissue: lung."
    assert metadata_line("a", "b", "c") == "Drug: a. Cancer type: b. Tissue: c."


@pytest.mark.parametrize("value", ["GSE120575", "lung (gse149214)", "SCP542 tumour", "E-MTAB-8410", "PRJNA12345"])
def test_an_accession_never_reaches_a_text(value):
    with pytest.raises(InvalidInput, match="must not reach a language model"):
        metadata_line(tissue=value)
