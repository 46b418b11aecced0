"""Which of a matrix's names are genes, and one column a gene: symbols where known, repeats added up."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scdrugmap.data.genes import GeneMatch, harmonise

SYMBOL_COLUMNS = (
    "feature_name", "gene_symbols", "gene_symbol", "gene_name", "gene_names", "gene_short_name", "symbol", "symbols",
    "hgnc_symbol", "external_gene_name", "original_name", "features", "genes", "gene", "name", "names",
)  # fmt: skip
ID_COLUMNS = ("ensembl_id", "gene_ids", "gene_id", "ensembl_ids", "ensembl", "feature_id", "ensembl_gene_id", "ensg")
LOOKED_AT = 400  # names by which a column is judged
ENSEMBL = re.compile(r"^ENS[A-Z]*G\d{11}")


@dataclass(frozen=True)
class GeneColumns:
    """How the names of a matrix become columns: one for each gene, under its current symbol where that is known."""

    match: GeneMatch
    source: str  # "var_names" or the var column that held the names
    var: pd.DataFrame  # (genes,) unique names; ensembl_id, original_name
    column_of: np.ndarray  # (n_names,) which row of `var` each name of the matrix became

    @property
    def n_merged(self) -> int:
        """Names that were added to another one."""
        return len(self.column_of) - len(self.var)

    @property
    def identifier(self) -> str:
        """What most of the known names are: "symbol", "ensembl", "mouse", "previous", or "none"."""
        counts = {how: n for how, n in self.match.counts().items() if how != "none"}
        return max(counts, key=lambda how: counts[how]) if any(counts.values()) else "none"


def name_genes(var: pd.DataFrame) -> GeneColumns:
    """Find where `var` keeps gene names, recognise them and plan the columns of the result."""
    candidates = {"var_names": var.index.to_numpy(object)} | _columns(var, SYMBOL_COLUMNS)
    shares = {source: known_share(names) for source, names in candidates.items()}
    best = max(shares, key=lambda source: shares[source])
    source = "var_names" if shares["var_names"] >= 0.9 * shares[best] else best
    ids = _ensembl_ids(var)
    match = harmonise(_text(candidates[source]), ids)
    names = np.array([name or f"unnamed-{place}" for place, name in enumerate(match.var_names)], dtype=object)
    column_of, unique = pd.factorize(names)
    first = np.unique(column_of, return_index=True)[1]
    kept = pd.DataFrame(
        {"ensembl_id": match.ensembl_id[first], "original_name": match.name[first]}, index=unique.astype(str)
    )
    return GeneColumns(match, source, kept, column_of)


def add_up(matrix: sp.csr_matrix, named: GeneColumns, *, average: bool = False) -> sp.csr_matrix:
    """Add the columns that mean one gene (average them where the values are no amounts), float32 (cells, genes)."""
    n_names, n_genes = len(named.column_of), len(named.var)
    if n_names == n_genes:
        return matrix
    weights = np.ones(n_names, dtype=np.float32)
    if average:
        weights /= np.bincount(named.column_of)[named.column_of]
    sums = sp.csr_matrix((weights, (np.arange(n_names), named.column_of)), shape=(n_names, n_genes))
    return (matrix @ sums).tocsr()


def known_share(names: Sequence[object] | np.ndarray) -> float:
    """Share of names that are genes, by a few hundred of them."""
    if len(names) == 0:
        return 0.0
    places = np.unique(np.linspace(0, len(names) - 1, LOOKED_AT).astype(int))
    return float(harmonise([str(names[place]) for place in places]).known.mean())


def looks_transposed(rows: Sequence[object] | np.ndarray, columns: Sequence[object] | np.ndarray) -> bool:
    """Tell whether the names of the rows, ten or more of them, are genes and those of the columns are not."""
    return len(rows) >= 10 and known_share(columns) < 0.1 and known_share(rows) > 0.3


def _columns(var: pd.DataFrame, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    by_name = {str(column).lower(): column for column in var.columns}
    return {by_name[name]: var[by_name[name]].to_numpy(object) for name in names if name in by_name}


def _ensembl_ids(var: pd.DataFrame) -> list[str] | None:
    """Ensembl ids beside the names: the index or a column, where most of it looks like them."""
    for values in ({"": var.index.to_numpy(object)} | _columns(var, ID_COLUMNS)).values():
        texts = _text(values)
        looked_at = texts[:: max(1, len(texts) // LOOKED_AT)]
        if np.mean([ENSEMBL.match(text) is not None for text in looked_at]) > 0.5:
            return texts
    return None


def _text(values: np.ndarray) -> list[str]:
    return ["" if pd.isna(value) else str(value) for value in values]
