"""The loader: `read_h5ad` turns a file of any accepted kind into checked cells, X on a linear scale, genes known.

In this order: the kind of file is told by its bytes (`sniff`); sizes and structure are checked before anything is
allocated (`hdf5_guard`, `streams` and the module of each kind); raw counts are looked for in layers, X and raw; the
type of the values is inferred and logarithms are brought back to the linear scale (`value_type`); genes get current
symbols (`gene_columns`). Everything met on the way is a check in the result.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from scdrugmap.data.io.checks import Check, InputRefused, Limits, ValidationReport
from scdrugmap.data.io.gene_columns import GeneColumns, add_up, looks_transposed, name_genes
from scdrugmap.data.io.h5ad_file import PART_LAYERS, RawDataset, open_anndata
from scdrugmap.data.io.in_memory import raw_dataset_of
from scdrugmap.data.io.matrix import SLAB, Matrix, Scan
from scdrugmap.data.io.mtx import read_triplet
from scdrugmap.data.io.sniff import recognise
from scdrugmap.data.io.tenx import open_tenx
from scdrugmap.data.io.text_table import read_delimited
from scdrugmap.data.io.value_type import ValueType, infer_value_type, refine, to_linear

__all__ = ["ACCEPTED", "Check", "InputRefused", "Limits", "check_anndata", "read_h5ad"]

ACCEPTED = ("counts", "cpm", "log1p")
_ORDER = ("counts", "cpm", "log1p", "log2p1", "log10p1", "zscore")  # from the best to the least useful
LOGS = ("log1p", "log2p1", "log10p1")
FEW_GENES = 200  # a cell with fewer detected genes is usually an empty droplet or a dying cell
_ROWS = 500  # looked at again where the first look met empty cells only
UNFILTERED = "This looks like an unfiltered matrix: use filtered_feature_bc_matrix instead."
KEEP_COUNTS = "Keep the counts before you normalise or scale: adata.layers['counts'] = adata.X.copy()."


@dataclass(frozen=True)
class ChosenMatrix:
    """The matrix that was taken from a file, on the linear scale (z-scores as they are), and what its values were."""

    where: str
    var: pd.DataFrame
    values: sp.csr_matrix  # (n_cells, n_names) float32
    value_type: ValueType


def read_h5ad(path: str | Path, *, limits: Limits | None = None, accept: Sequence[str] = ACCEPTED) -> AnnData:
    """Return the cells of a file, checked and ready for every model: X CSR float32 on a linear scale.

    Reads .h5ad, 10x .h5, a folder or zip of matrix.mtx + features + barcodes, and .csv/.tsv(.gz), told apart by
    content. Raw counts are taken from a layer called "counts" (or alike), X or raw, whichever has most genes; without
    counts, normalised values are taken, and logarithms undone with a warning. var_names become current HGNC symbols
    (names of one gene added up) with `var["ensembl_id"]` and `var["original_name"]`; genes that nobody knows keep their
    name. obs is as in the file, except that repeated barcodes are made unique; obsm comes along, other layers, uns,
    obsp and varm do not. `uns["scdrugmap"]["input"]` says what was found: file, value_type, found_in, identifier,
    organism, n_cells, n_genes, n_genes_known and the checks.

    Parameters
    ----------
    limits
        The largest sizes that are read; see `Limits`.
    accept
        Kinds of values to take: "counts", "cpm" (any linear normalisation), "log1p" (logarithms of any base) and, only
        if asked for, "zscore", which stay as they are, negatives included.

    Raises
    ------
    InputRefused
        An `InvalidInput` with one line of what is wrong, a remedy, and `.checks`, what was found until then.
    """
    path = Path(path)
    report = ValidationReport(path.name, limits or Limits())
    if not path.exists():
        report.stop("there is no such file.", f"Looked for {path}; check the spelling.")
    with _open(path, report) as dataset:
        return _validate(dataset, report, tuple(accept))


def check_anndata(
    adata: AnnData, *, name: str = "AnnData", limits: Limits | None = None, accept: Sequence[str] = ACCEPTED
) -> AnnData:
    """Return a new AnnData from one in memory, as `read_h5ad` returns it from a file; same rules, same errors."""
    report = ValidationReport(name, limits or Limits())
    return _validate(raw_dataset_of(adata, report), report, tuple(accept))


def _validate(dataset: RawDataset, report: ValidationReport, accept: tuple[str, ...]) -> AnnData:
    """Return checked cells: the best matrix of a data set, its genes under current names, its barcodes unique."""
    _check_orientation(dataset, report)
    chosen = _choose(dataset, report, accept)
    named = _name_genes(chosen, report)
    X = add_up(chosen.values, named, average=chosen.value_type.kind == "zscore")
    adata = AnnData(X, obs=_unique_barcodes(dataset.obs, report), var=named.var, obsm=dataset.obsm)
    _check_cells(adata, chosen.value_type, report)
    record = _record(chosen, named, adata.shape, report)
    adata.uns["scdrugmap"] = {"input": record} | ({"simulated": True} if dataset.simulated else {})
    return adata


@contextlib.contextmanager
def _open(path: Path, report: ValidationReport) -> Iterator[RawDataset]:
    """Open a file of any accepted kind; matrices stored in HDF5 can be read inside the context only."""
    kind = recognise(path, report)
    openers = {"h5ad": open_anndata, "10x": open_tenx}
    if kind in openers:
        with openers[kind](path, report) as dataset:
            yield dataset
    else:
        yield {"triplet": read_triplet, "text": read_delimited}[kind](path, report)


def _check_orientation(dataset: RawDataset, report: ValidationReport) -> None:
    """Refuse genes x cells; tables without labels of their own were turned by their reader already."""
    var = dataset.matrices[0].var
    if looks_transposed(dataset.obs.index.to_numpy(object), var.index.to_numpy(object)) and _known_columns(var) < 0.1:
        report.stop(
            "lies on its side: its obs_names are genes and its var_names are not.",
            "Transpose it: adata = adata.T; adata.write_h5ad('new.h5ad').",
        )


def _known_columns(var: pd.DataFrame) -> float:
    return float(name_genes(var.iloc[:500]).match.known.mean())


def _choose(dataset: RawDataset, report: ValidationReport, accept: tuple[str, ...]) -> ChosenMatrix:
    """Infer each matrix's type of values from some rows, and read the best type with most genes whole."""
    candidates: list[tuple[Matrix, ValueType]] = []
    for matrix in sorted(dataset.matrices, key=_breadth):
        with report.translated(dataset.kind):
            rows = matrix.sample()
        candidates.append((matrix, infer_value_type(rows)))
        if candidates[-1][1].kind == "counts" and not _is_part(matrix):
            break  # those that follow have no more genes and can be no better
    matrix, value_type = min(candidates, key=lambda pair: _rank(*pair))
    with report.translated(dataset.kind):
        values, scan = matrix.load()
    report.ok(f"{matrix.shape[0]:,} cells x {matrix.shape[1]:,} genes ({dataset.kind})")
    if value_type.kind == "empty" and values.nnz:  # unfiltered: hardly a barcode holds anything
        value_type = infer_value_type(values[np.flatnonzero(np.diff(values.indptr))[:_ROWS]].astype(np.float64))
    value_type = refine(value_type, scan.largest)
    _check_values(matrix, scan, value_type, report)
    _check_kind(matrix, value_type, accept, report)
    _note_value_type(matrix, scan, value_type, report)
    return ChosenMatrix(matrix.where, matrix.var, to_linear(values, value_type), value_type)


def _rank(matrix: Matrix, value_type: ValueType) -> tuple[int, tuple[bool, int]]:
    """Sort key: kind of values, then whole counts and most genes (the data set's order breaks ties)."""
    return _ORDER.index(value_type.kind) if value_type.kind in _ORDER else len(_ORDER), _breadth(matrix)


def _breadth(matrix: Matrix) -> tuple[bool, int]:
    return _is_part(matrix), -matrix.shape[1]


def _is_part(matrix: Matrix) -> bool:
    return matrix.where.removeprefix("layers/") in PART_LAYERS


def _check_values(matrix: Matrix, scan: Scan, value_type: ValueType, report: ValidationReport) -> None:
    """Refuse NaN, infinities and negatives with the first place where they stand."""
    if scan.first_bad is not None:
        place, value = scan.first_bad
        remedy = "Find out where it comes from (a division by zero?), or set such values to 0, and write the file anew."
        report.stop(f"{matrix.where} holds {_bad_value(value)} at {_position(matrix, place)}.", remedy)
    if scan.first_negative is not None and value_type.kind != "zscore":
        place, value = scan.first_negative
        at = f"the first, {value:.4g}, at {_position(matrix, place)}"
        report.stop(f"{matrix.where} holds {scan.n_negative:,} negative values ({at}); counts never are.", KEEP_COUNTS)


def _bad_value(value: float) -> str:
    return "NaN (or an empty field)" if np.isnan(value) else f"{value:.4g}, which is not a count,"


def _position(matrix: Matrix, place: int) -> str:
    row, column = matrix.locate(place)
    return f"row {row}, column {column} ('{str(matrix.var.index[column])[:40]}')"


def _check_kind(matrix: Matrix, value_type: ValueType, accept: tuple[str, ...], report: ValidationReport) -> None:
    """Refuse a kind of values that was not asked for, saying what was seen."""
    kind = value_type.kind
    if kind == "empty":
        report.stop(f"{matrix.where} holds only zeros.", "Look at the step that wrote it.")
    if kind in ("negative", "scaled01") or not {kind, "log1p" if kind in LOGS else kind} & set(accept):
        wanted = f" Accepted here: {', '.join(accept)}." if kind in _ORDER else ""
        report.stop(f"{matrix.where} holds {value_type.description}, not counts.", KEEP_COUNTS + wanted)


def _note_value_type(matrix: Matrix, scan: Scan, value_type: ValueType, report: ValidationReport) -> None:
    """Note what the values are, and what was done about it."""
    description = f"{value_type.description} in {matrix.where}"
    if value_type.kind == "counts":
        report.ok(description)
        if not value_type.doubt and scan.n_fractional and "fractional" not in value_type.description:
            report.warn(f"Fractional values among the counts: {scan.n_fractional:,}.")
    elif value_type.base is not None:
        remark = "undone to whole counts" if value_type.whole else "undone; raw counts would be better"
        report.warn(f"{description}: {remark}.", "" if value_type.whole else KEEP_COUNTS)
    else:
        report.warn(f"{description}; raw counts would be better.", KEEP_COUNTS)
    if value_type.doubt:
        report.warn(f"{value_type.doubt[0].upper()}{value_type.doubt[1:]}.")
    if _is_part(matrix):
        report.warn(f"{matrix.where} is a part of the counts only.", "Add layers['counts'] with all of them.")


def _name_genes(chosen: ChosenMatrix, report: ValidationReport) -> GeneColumns:
    """Recognise the genes and note how many; refuse a matrix in which there are none."""
    named = name_genes(chosen.var)
    match, n = named.match, len(named.match.name)
    shown = ", ".join(str(name)[:30] for name in match.name[:4])
    if match.n_known == 0:
        remedy = "Name the genes by HGNC symbol or Ensembl id in adata.var_names, or in a var column 'gene_symbols'."
        report.stop(f"none of its {n:,} gene names is known (the first are {shown}).", remedy)
    how = f"by {named.identifier}" + ("" if named.source == "var_names" else f" in var['{named.source}']")
    message = f"{match.n_known:,} of {n:,} genes are known ({match.n_known / n:.0%}, {how})"
    if match.n_known < 0.5 * n:
        report.warn(message + ".", "Unknown names are kept, but no model knows them; are they human genes?")
    else:
        report.ok(message)
    if named.identifier == "mouse":
        report.warn("The genes are mouse genes: they were read as their human orthologs.")
    if named.n_merged:
        done = "averaged" if chosen.value_type.kind == "zscore" else "added up"
        report.warn(f"Names of a gene that has another column too: {named.n_merged:,}. They were {done}.")
    return named


def _unique_barcodes(obs: pd.DataFrame, report: ValidationReport) -> pd.DataFrame:
    """Make repeated barcodes unique by numbering them, as anndata does."""
    n_repeated = int(obs.index.duplicated().sum())
    if not n_repeated:
        return obs
    report.warn(f"Repeated barcodes: {n_repeated:,}. They were numbered.")
    taken, names = set(obs.index), []
    counts: dict[str, int] = {}
    for name, repeated in zip(obs.index, obs.index.duplicated(), strict=True):
        new = name
        while repeated and new in taken:
            counts[name] = counts.get(name, 0) + 1
            new = f"{name}-{counts[name]}"
        taken.add(new)
        names.append(new)
    return obs.set_axis(pd.Index(names))


def _check_cells(adata: AnnData, value_type: ValueType, report: ValidationReport) -> None:
    """Note empty cells, poor cells and genes that no cell shows; all are kept."""
    if value_type.kind == "zscore":
        return
    detected = np.diff(adata.X.indptr)
    n_empty, n_poor = int((detected == 0).sum()), int((detected < FEW_GENES).sum())
    if n_empty:
        remedy = UNFILTERED if n_empty > 0.5 * adata.n_obs else ""
        report.warn(f"Empty cells: {n_empty:,}. They are kept, but nothing can be said about them.", remedy)
    if n_poor > n_empty and adata.n_vars >= 5 * FEW_GENES:
        report.warn(f"Cells with fewer than {FEW_GENES} genes: {n_poor - n_empty:,}. They are kept, but uncertain.")
    shown = np.zeros(adata.n_vars, dtype=bool)
    for start in range(0, adata.X.nnz, SLAB):
        shown[adata.X.indices[start : start + SLAB]] = True
    n_silent = int((~shown).sum())
    if n_silent:
        report.ok(f"Genes that are zero in all cells: {n_silent:,}")


def _record(
    chosen: ChosenMatrix, named: GeneColumns, shape: tuple[int, int], report: ValidationReport
) -> dict[str, object]:
    """Return what h5ad can store: plain scalars and arrays of text."""
    return {
        "file": report.file,
        "value_type": chosen.value_type.kind,
        "found_in": chosen.where,
        "identifier": named.identifier,
        "organism": named.match.organism,
        "n_cells": int(shape[0]),
        "n_genes": int(shape[1]),
        "n_genes_known": len(set(named.match.symbol[named.match.known])),
        "checks_level": np.array([check.level for check in report.checks], dtype=object),
        "checks_message": np.array([check.message for check in report.checks], dtype=object),
        "checks_remedy": np.array([check.remedy for check in report.checks], dtype=object),
    }
