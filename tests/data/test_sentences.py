"""What the catalogue and the loader say of a data set: each warning on both sides of the number that decides it."""

from __future__ import annotations

import pytest
from anndata import AnnData

from scdrugmap.data.catalog.catalog import DATASETS
from scdrugmap.data.io.checks import Limits, ValidationReport
from scdrugmap.data.io.read import FEW_GENES, InputRefused, check_anndata
from scdrugmap.data.simulate import simulate


# ---- the card of a data set ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("cells", "said"),
    [
        pytest.param((99, 100), "Only 99 sensitive cells: a score of that class", id="few sensitive cells"),
        pytest.param((100, 99), "Only 99 resistant cells: a score of that class", id="few resistant cells"),
        pytest.param((100, 100), "", id="enough of both"),
        pytest.param((None, None), "", id="nobody says how many"),
    ],
)
def test_a_card_warns_of_a_small_class(cells, said):
    card = DATASETS["gse149214"].model_copy(
        update=dict(zip(("cells_sensitive", "cells_resistant"), cells, strict=True))
    )
    found = [warning for warning in card.warnings if warning.startswith("Only ")]
    assert len(found) == bool(said)
    assert all(warning.startswith(said) for warning in found)


@pytest.mark.parametrize(
    ("basis", "samples", "confidence", "confounded"),
    [
        pytest.param("sample response", (3, 3), "high", (), id="judged, three samples a class"),
        pytest.param("sample response", (2, 3), "moderate", (), id="judged, two sensitive samples"),
        pytest.param("sample response", (3, 2), "moderate", (), id="judged, two resistant samples"),
        pytest.param("sample response", (1, 3), "low", ("sample",), id="judged, one sensitive sample"),
        pytest.param("sample response", (3, 1), "low", ("sample",), id="judged, one resistant sample"),
        pytest.param("time point", (3, 3), "low", ("time point",), id="a time point, three samples a class"),
        pytest.param("time point", (3, 1), "very low", ("sample", "time point"), id="a time point, one sample"),
    ],
)
def test_a_card_says_how_far_its_label_can_be_trusted(basis, samples, confidence, confounded):
    names = ("label_basis", "samples_sensitive", "samples_resistant")
    card = DATASETS["gse149214"].model_copy(update=dict(zip(names, (basis, *samples), strict=True)))
    assert (card.confidence, card.confounded) == (confidence, confounded)
    starts = {(): "", ("sample",): "Label = sample: one", ("time point",): "Label = time point:",
              ("sample", "time point"): "Label = sample = time point:"}  # fmt: skip
    found = [warning for warning in card.warnings if warning.startswith("Label = ")]
    assert len(found) == bool(confounded)
    assert all(warning.startswith(starts[confounded]) for warning in found)


# ---- the loader ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("value", [9, 10, 11], ids=["below the limit", "at the limit", "above the limit"])
def test_the_door_stops_what_is_above_its_limit(value):
    report = ValidationReport("a.h5ad", Limits())
    if value <= 10:
        report.within("The number of cells", value, 10)
        assert report.checks == []
    else:
        with pytest.raises(InputRefused, match="The number of cells is 11; the limit is 10"):
            report.within("The number of cells", value, 10)
        assert [check.level for check in report.checks] == ["stop"]


def checks(adata: AnnData) -> dict[str, str]:
    record = check_anndata(adata).uns["scdrugmap"]["input"]
    return dict(zip(record["checks_message"], record["checks_level"], strict=True))


@pytest.mark.parametrize(
    ("known", "level"), [(200, "ok"), (199, "warning")], ids=["half of the genes are known", "fewer than half are"]
)
def test_the_door_warns_where_most_genes_are_unknown(cells, known, level):
    cells.uns.clear()
    cells.var = cells.var[[]]
    cells.var_names = [*cells.var_names[:known], *(f"what-{i}" for i in range(400 - known))]
    found = {said: at for said, at in checks(cells).items() if " genes are known" in said}
    assert list(found.values()) == [level]
    assert next(iter(found)).startswith(f"{known} of 400 genes are known")


@pytest.mark.parametrize(
    ("genes", "said"),
    [
        pytest.param(FEW_GENES, "", id="a cell with just enough genes"),
        pytest.param(FEW_GENES - 1, "Cells with fewer than 200 genes: 1. They are kept, but uncertain.", id="too few"),
        pytest.param(0, "Empty cells: 1. They are kept, but nothing can be said about them.", id="an empty cell"),
    ],
)
def test_the_door_warns_of_cells_with_few_genes_and_of_empty_ones(genes, said):
    cells = simulate(n_cells=20, n_genes=5 * FEW_GENES, n_samples=4, seed=1)
    counts = cells.X.toarray() + 1
    counts[0, genes:] = 0
    found = checks(AnnData(counts, var=cells.var[[]]))
    assert [line for line in found if line.startswith(("Cells with fewer", "Empty cells"))] == ([said] if said else [])
