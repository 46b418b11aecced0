"""Text tables: a row for each cell and a column for each gene, or the other way round, comma, tab or semicolon.

Columns that hold text (`Cell_barcode`, `Condition`, ...) and numeric columns with the names of quality measures or
labels become obs; the rest is the matrix. A table of genes x cells is recognised by its names and transposed.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scdrugmap.data.io.checks import MB, ValidationReport
from scdrugmap.data.io.gene_columns import looks_transposed
from scdrugmap.data.io.h5ad_file import RawDataset
from scdrugmap.data.io.matrix import HeldMatrix, admit_shape
from scdrugmap.data.io.streams import Member

HEADER_MB = 64
SNIFFED_ROWS = 20
CELLS_AT_ONCE = 2**22  # table cells that are parsed at a time
_INDEX_NAMES = {
    "", "index", "barcode", "barcodes", "cell", "cells", "cell_barcode", "cell_id", "cellid", "gene", "genes",
    "gene_id", "gene_name", "gene_symbol", "symbol", "unnamed: 0",
}  # fmt: skip
ABOUT_CELLS = {
    "n_counts", "n_genes", "n_genes_by_counts", "total_counts", "pct_counts_mt", "percent.mt", "percent_mt",
    "percent.mito", "ncount_rna", "nfeature_rna", "leiden", "louvain", "seurat_clusters", "cluster", "batch", "sample",
    "patient", "donor", "label", "labels", "response", "condition", "sensitive", "resistant", "s.score", "g2m.score",
}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """Which column of a text table is what."""

    separator: str
    names: list[str]
    index: int | None
    text: list[int]
    numbers: list[int]


def read_delimited(path: Path, report: ValidationReport) -> RawDataset:
    """Read a text table, packed with gzip or not."""
    member = Member(path.name, path, path.stat().st_size)
    with report.translated("a text table"):
        layout = _layout(member, report)
        matrix, labels = _body(member, layout, report)
    rows = labels.index.to_numpy(object)
    columns = np.array([layout.names[place] for place in layout.numbers], dtype=object)
    if looks_transposed(rows, columns):
        report.warn("The table is genes x cells: it was transposed.")
        admit_shape(report, matrix.shape[::-1], "the table")
        held = HeldMatrix("table", labels, matrix.T.tocsr())
        return RawDataset(pd.DataFrame(index=pd.Index(columns).map(str)), [held], kind="text table")
    admit_shape(report, matrix.shape, "the table")
    return RawDataset(labels, [HeldMatrix("table", pd.DataFrame(index=columns), matrix)], kind="text table")


def _layout(member: Member, report: ValidationReport) -> Layout:
    """Tell the columns apart by the header and the first rows."""
    with member.open(report) as stream:
        lines = [_line(stream, report) for _ in range(SNIFFED_ROWS + 1)]
    head, *body = [line for line in lines if line.strip()]
    if not body:
        report.stop("holds a header only: 0 cells.", "Look at the step that wrote it.")
    separator = max("\t,;", key=head.count)
    names, *rows = csv.reader([head, *body], delimiter=separator)
    if len(rows[0]) == len(names) + 1:  # R's write.table leaves the corner out
        names = ["", *names]
    report.within("The number of columns", len(names), max(report.limits.genes, report.limits.cells))
    wrong = next((number for number, row in enumerate(rows, start=2) if len(row) != len(names)), None)
    if wrong is not None:
        report.stop(
            f"line {wrong} has {len(rows[wrong - 2])} fields, the header {len(names)}.", "Write the table anew."
        )
    is_text = [any(not _is_number(row[place]) for row in rows) for place in range(len(names))]
    index = 0 if is_text[0] or names[0].strip().lower() in _INDEX_NAMES else None
    about = [text or name.strip().lower() in ABOUT_CELLS for text, name in zip(is_text, names, strict=True)]
    text = [place for place, is_about in enumerate(about) if is_about and place != index]
    numbers = [place for place, is_about in enumerate(about) if not is_about and place != index]
    report.within("The number of columns of text", len(text), report.limits.columns, "Leave only numbers in it.")
    if not numbers:
        report.stop("holds no column of numbers.", "Pass a table with a row for each cell and a column for each gene.")
    return Layout(separator, names, index, text, numbers)


def _line(stream: BinaryIO, report: ValidationReport) -> str:
    line = stream.readline(HEADER_MB * MB)
    if len(line) == HEADER_MB * MB:
        report.stop(f"has a line of more than {HEADER_MB} MB.", "Save the counts as .h5ad instead.")
    return line.decode("utf-8-sig", "replace")


def _is_number(field: str) -> bool:
    if not field.strip():
        return True
    try:
        float(field)
    except ValueError:
        return field.strip().upper() in {"NA", "N/A", "NULL"}
    return True


def _body(member: Member, layout: Layout, report: ValidationReport) -> tuple[sp.csr_matrix, pd.DataFrame]:
    """Parse in bands of rows; return the numbers (rows x columns) and the text columns by row name."""
    places = range(len(layout.names))
    about = [place for place in (layout.index, *layout.text) if place is not None]
    types = {place: str if place in set(about) else np.float32 for place in places}
    bands: list[sp.csr_matrix] = []
    texts: list[pd.DataFrame] = []
    n_rows, n_values = 0, 0
    with member.open(report) as stream:
        _line(stream, report)
        reader = pd.read_csv(
            stream, sep=layout.separator, header=None, names=places, dtype=types, index_col=False,
            chunksize=max(1, CELLS_AT_ONCE // len(layout.names)), encoding_errors="replace", skip_blank_lines=True,
        )  # fmt: skip
        for band in reader:
            texts.append(band[about].astype(object))
            bands.append(sp.csr_matrix(band[layout.numbers].to_numpy(np.float32)))
            n_rows, n_values = n_rows + len(band), n_values + bands[-1].nnz
            report.within("The number of rows", n_rows, max(report.limits.cells, report.limits.genes))
            report.within("The number of values", n_values, report.limits.nonzeros)
    frame = pd.concat(texts, ignore_index=True)
    names = frame[layout.index] if layout.index is not None else pd.Series(np.arange(n_rows))
    labels = frame[layout.text].set_axis([layout.names[place] for place in layout.text], axis=1)
    labels.index = pd.Index(names.astype(str).to_numpy(object))
    return sp.vstack(bands, format="csr"), labels
