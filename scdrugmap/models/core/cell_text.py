"""Cell sentences: the one rule by which cells become text, for models that embed text and for those that are asked.

A sentence names a cell's expressed genes from the highest value to the lowest. Within one cell the order of
normalised values is the order of counts, so depth plays no part in it; equal values stand in the order of their
symbols, so the order of columns plays none either. Genes without a count are never named, and nothing but gene
symbols is: a column counts as a gene where its Ensembl id is known (`read_h5ad` finds it), or, in a matrix without
ids, where its name looks like a symbol. Names of data sets, studies and samples never reach a text.

Rules: "names" writes the symbols ("CD8A GZMB ..."); "values" writes each with its log1p count per 10,000 ("CD8A 3.1
GZMB 2.4 ..."); "upstream" is the text of scDrugMap's published Llama script, kept for comparison: every column in the
file's order, name and raw value without a space between them, the zeros that it meant to leave out included.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from scdrugmap.errors import InvalidInput
from scdrugmap.models.core.cells import ABOUT, Cells

RULES = ("names", "values", "upstream")
_SYMBOL = re.compile(r"[A-Za-z][A-Za-z0-9@._-]{0,24}")
_ENSEMBL = re.compile(r"ENS[A-Z]*[EGPT]\d{11}(\.\d+)?")
_ACCESSION = re.compile(r"\b(?:GSE|GSM|SCP|SRP|SRR|PRJ[A-Z]{2}|EGA[A-Z]|phs|E-[A-Z]{4}-)\d+", re.IGNORECASE)


def top_genes(cells: Cells, k: int) -> list[list[str]]:
    """Give the `k` highest expressed genes of each cell, highest first; fewer where a cell expresses fewer.

    Raises `InvalidInput` for a `k` below 1 and for z-scores, which do not say which genes a cell expresses.
    """
    return [cells.symbols[columns].tolist() for columns, _ in _ranked(cells, k)]


def sentences(cells: Cells, k: int, rule: str = "names") -> list[str]:
    """Write each cell as text by one of `RULES`, with its `k` highest expressed genes ("upstream" takes all columns).

    A cell that expresses no gene is an empty text. Raises `InvalidInput` as `top_genes` does and for another rule.
    """
    if rule not in RULES:
        message = f"There is no text rule called '{rule}'."
        raise InvalidInput(message, f"Give one of {', '.join(RULES)}.")
    if rule == "upstream":
        return list(_upstream(cells))
    if rule == "names":
        return [" ".join(genes) for genes in top_genes(cells, k)]
    return [
        " ".join(f"{gene} {value:.1f}" for gene, value in zip(cells.symbols[columns], values, strict=True))
        for columns, values in _ranked(cells, k)
    ]


def metadata_line(drug: str = "", cancer_type: str = "", tissue: str = "") -> str:
    """Say what is known about a cell beside its genes ("Drug: erlotinib. Tissue: lung."), "" where nothing is.

    Raises `InvalidInput` for a value that holds the accession of a study: a language model may have read about it.
    """
    given = dict(zip(ABOUT, (drug, cancer_type, tissue), strict=True))
    for name, value in given.items():
        accession = _ACCESSION.search(value)
        if accession:
            message = f"{name}='{value}' holds the accession {accession[0]}, which must not reach a language model."
            raise InvalidInput(message, "Name the drug, cancer type or tissue alone, or leave it out.")
    words = {name.replace("_", " ").capitalize(): value.strip() for name, value in given.items()}
    return " ".join(f"{name}: {value}." for name, value in words.items() if value)


def gene_columns(cells: Cells) -> np.ndarray:
    """Tell which columns are genes that a text may name, (G,) bool: those that have a symbol (see the module)."""
    ids = cells.ensembl_ids
    named = np.array([not _ENSEMBL.fullmatch(name) for name in cells.symbols.tolist()], dtype=bool)
    if ids is not None:
        return named & np.array([bool(_ENSEMBL.fullmatch(name)) for name in ids.tolist()], dtype=bool)
    return named & np.array([bool(_SYMBOL.fullmatch(name)) for name in cells.symbols.tolist()], dtype=bool)


def _ranked(cells: Cells, k: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Columns and log1p counts per 10,000 of each cell's `k` highest genes, both (n,), n <= k."""
    if not isinstance(k, int) or k < 1:
        message = f"{k!r} is not a number of genes."
        raise InvalidInput(message, "Give a whole number of at least 1.")
    if cells.value_type == "zscore":
        message = "The matrix holds z-scores, which do not say which genes a cell expresses."
        raise InvalidInput(message, "Use counts or log-normalised values.")
    columns = np.flatnonzero(gene_columns(cells))
    alphabetical = np.argsort(np.argsort(cells.symbols[columns]))  # place of each of these columns among the symbols
    counts = cells.counts[:, columns]
    for start, end in zip(counts.indptr[:-1], counts.indptr[1:], strict=True):
        genes, values = counts.indices[start:end], counts.data[start:end].astype(np.float64)
        first = np.lexsort((alphabetical[genes], -values))[:k]
        yield columns[genes[first]], np.log1p(values[first] * 1e4 / values.sum())  # no gene, no division


def _upstream(cells: Cells) -> Iterator[str]:
    """Give the text of scDrugMap's dataset_making.py (e3a44b9), whose test for zeros compares text and number."""
    for cell in range(len(cells)):
        values = cells.counts[cell].toarray()[0]
        yield "".join(f"{name}{value:.7g} " for name, value in zip(cells.symbols, values.tolist(), strict=True))
