"""The real cells that our bundled models may see: every set of a folder but held-out studies and z-scores.

The folder holds `SOURCES.csv` (name, accession, value_type, ...) and one `<name>.h5ad` a row. Shared by
pretrain_scgpt_mini.py and fit_hvg_baselines.py; no cell ever enters the repository.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import anndata as ad
import numpy as np

from scdrugmap.data.genes import harmonise

HELD_OUT = frozenset({"GSE120575"})  # benchmarked by patient: no bundled model sees its cells, only its gene names


def sources(folder: Path) -> list[dict[str, str]]:
    """Rows of SOURCES.csv that are sets of cells."""
    with (folder / "SOURCES.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["cells"]]


def allowed(folder: Path) -> list[dict[str, str]]:
    """Rows whose cells may be seen: expression, not z-scores, and no held-out study."""
    return [row for row in sources(folder) if row["accession"] not in HELD_OUT and "z-score" not in row["value_type"]]


def read_all(folder: Path) -> Iterator[tuple[dict[str, str], ad.AnnData]]:
    """Every allowed set with current HGNC symbols; of columns that share a symbol the first is kept."""
    for row in allowed(folder):
        adata = ad.read_h5ad(folder / f"{row['name']}.h5ad")
        adata.var_names = symbols(adata.var_names.tolist())
        yield row, adata[:, ~adata.var_names.duplicated()].copy()


def held_out_genes(folder: Path) -> list[str]:
    """Gene names, and nothing else, of the held-out studies."""
    names = []
    for row in sources(folder):
        if row["accession"] in HELD_OUT:
            names += symbols(ad.read_h5ad(folder / f"{row['name']}.h5ad", backed="r").var_names.tolist())
    return sorted(set(names))


def symbols(names: list[str]) -> list[str]:
    """Current symbol of each name, the name itself where the gene table knows none."""
    found = harmonise(np.array(names, dtype=object)).symbol
    return [str(new) if new else old for new, old in zip(found, names, strict=True)]
