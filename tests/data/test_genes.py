from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scdrugmap.data.genes import HOW, gene_table, harmonise
from scdrugmap.errors import InvalidInput
from scdrugmap.settings import PACKAGE


@pytest.mark.parametrize(
    ("name", "symbol", "ensembl_id", "how"),
    [
        ("TP53", "TP53", "ENSG00000141510", "symbol"),
        ("ENSG00000141510", "TP53", "ENSG00000141510", "ensembl"),
        ("ENSG00000141510.18", "TP53", "ENSG00000141510", "ensembl"),
        ("ENSG00000182378.15_PAR_Y", "PLCXD1", "ENSG00000182378", "ensembl"),
        ("TP53_ENSG00000141510", "TP53", "ENSG00000141510", "ensembl"),
        ("ENSG00000141510_TP53", "TP53", "ENSG00000141510", "ensembl"),
        ("ENSG00000310526.1", "WASH7P", "ENSG00000310526", "ensembl"),
        ("FAM64A", "PIMREG", "ENSG00000129195", "previous"),
        ("QARS", "QARS1", "ENSG00000172053", "previous"),
        ("SEPT2", "SEPTIN2", "ENSG00000168385", "previous"),
        ("2-Sep", "SEPTIN2", "ENSG00000168385", "previous"),
        ("C1ORF50", "C1orf50", "ENSG00000164008", "symbol"),
        ("HLA.A", "HLA-A", "ENSG00000206503", "symbol"),
        ("MT-ND1", "MT-ND1", "ENSG00000198888", "symbol"),
        ("GRCh38_TP53", "TP53", "ENSG00000141510", "symbol"),
        ("hg19_ENSG00000141510", "TP53", "ENSG00000141510", "ensembl"),
        ("TP53|7157", "TP53", "ENSG00000141510", "symbol"),
        ("TP53 (7157)", "TP53", "ENSG00000141510", "symbol"),
        ("GSTT1", "GSTT1", "ENSG00000277656", "symbol"),
        ("Y_RNA", "Y_RNA", "", "symbol"),
        ("1-Mar", "", "", "none"),  # MARCHF1 or MTARC1
        ("NA", "", "", "none"),  # an alias of XK
        ("ERCC-00002", "", "", "none"),
        ("", "", "", "none"),
    ],
)
def test_reads_what_matrices_call_their_genes(name, symbol, ensembl_id, how):
    match = harmonise([name])
    assert (match.symbol[0], match.ensembl_id[0], match.how[0]) == (symbol, ensembl_id, how)
    assert match.var_names[0] == (symbol or name)


MOUSE = ["Trp53", "Cd4", "mt-Nd1", "Actb", "H2-K1", "4930401J01Rik", "ENSMUSG00000059552.3", "C3"]


def test_mouse_names_become_human_symbols_in_a_mouse_matrix():
    match = harmonise(MOUSE)
    assert match.organism == "mouse"
    assert match.symbol.tolist() == ["TP53", "CD4", "MT-ND1", "ACTB", "", "", "TP53", "C3"]
    assert match.how.tolist() == ["mouse"] * 4 + ["none"] * 2 + ["mouse"] * 2


def test_mouse_names_stay_unknown_in_a_human_matrix():
    human = list(gene_table().ensembl_of)[1000:1100]
    match = harmonise([*human, *MOUSE[:4], "mm10___Trp53"])
    assert match.organism == "human"
    assert match.how.tolist()[-5:] == ["none"] * 5
    forced = harmonise([*human, *MOUSE[:4], "mm10___Trp53"], organism="mouse")
    assert forced.symbol.tolist()[-5:] == ["TP53", "CD4", "MT-ND1", "ACTB", "TP53"]
    assert harmonise(MOUSE, organism="human").counts()["mouse"] == 0


def test_ids_of_which_most_are_no_genes_are_not_trusted():
    names = ["TP53", "CD8A", "GZMB", "ACTB"]
    by_chance = "ENSG00000254647"  # INS
    made_up = [by_chance, "ENSG00000999991", "ENSG00000999992", "ENSG00000999993"]
    assert harmonise(names, made_up).symbol.tolist() == names
    half = ["ENSG00000254647", "ENSG00000153563", "ENSG00000999992", "ENSG00000999993"]
    assert harmonise(names, half).symbol.tolist() == ["INS", "CD8A", "GZMB", "ACTB"]


def test_an_ensembl_id_goes_before_the_name():
    match = harmonise(["TBCE", "TBCE", "odd", "TP53"], ["ENSG00000285053", "ENSG00000284770", "ENSG00000141510.2", ""])
    assert match.ensembl_id.tolist() == ["ENSG00000285053", "ENSG00000284770", "ENSG00000141510", "ENSG00000141510"]
    assert match.symbol[2] == "TP53"
    assert match.how.tolist() == ["ensembl", "symbol", "ensembl", "symbol"]
    with pytest.raises(InvalidInput, match="2 Ensembl ids were given for 1 gene names"):
        harmonise(["TP53"], ["a", "b"])


def test_a_number_that_made_a_name_unique_is_dropped_only_beside_the_name():
    assert harmonise(["MATR3", "MATR3-1", "MATR3.1"]).symbol.tolist() == ["MATR3"] * 3
    assert harmonise(["MATR3-1", "MATR3.1"]).symbol.tolist() == ["", ""]
    assert harmonise(["nobody", "nobody-1"]).n_known == 0


def test_foreign_names_are_kept_and_counted():
    match = harmonise(["ERCC-00002", "gene_7", "nan"])
    assert match.organism == "unknown"
    assert match.var_names.tolist() == ["ERCC-00002", "gene_7", "nan"]
    assert match.counts() == dict.fromkeys(HOW, 0) | {"none": 3}
    assert harmonise([]).symbol.shape == (0,)


NAMES = st.lists(
    st.one_of(st.text(max_size=12), st.sampled_from(["TP53", "SEPT2", "ENSG00000141510.1", "Trp53", "HLA.A", "A2M-1"])),
    max_size=20,
)


@settings(max_examples=60, deadline=None)
@given(NAMES)
def test_any_names_give_consistent_answers_that_are_their_own_answers(names):
    match = harmonise(names)
    assert match.name.tolist() == names
    assert set(match.how) <= set(HOW)
    assert ((match.symbol != "") == match.known).all()
    assert sum(match.counts().values()) == len(names)
    again = harmonise(match.symbol[match.known])
    assert again.symbol.tolist() == match.symbol[match.known].tolist()


def test_the_table_is_unambiguous():
    table = gene_table()
    assert not set(table.previous) & set(table.ensembl_of)
    assert set(table.previous.values()) <= set(table.ensembl_of)
    assert set(table.mouse.values()) <= set(table.ensembl_of)
    assert set(table.symbol_of.values()) <= set(table.ensembl_of)
    assert all(table.symbol_of[ensembl] == symbol for symbol, ensembl in table.ensembl_of.items() if ensembl)
    assert "GENCODE 48" in table.source
    assert "HGNC" in table.source


def test_the_table_is_compact_and_quick():
    assert (PACKAGE / "data" / "genes.tsv.gz").stat().st_size < 1_500_000
    table = gene_table()
    symbols = list(table.ensembl_of)[:15000]
    names = [*symbols, *list(table.previous)[:11000], *(f"unheard-{n}" for n in range(10000))]
    ids = [f"{ensembl}.7" for ensembl in list(table.symbol_of)[:36000]]
    match = harmonise(names)
    assert match.n_known == 26000
    assert np.array_equal(match.symbol[:15000], symbols)
    assert min(cpu_seconds(names) for _ in range(3)) < 0.5
    assert min(cpu_seconds(ids) for _ in range(3)) < 0.5


def cpu_seconds(names):
    started = time.process_time()
    harmonise(names)
    return time.process_time() - started
