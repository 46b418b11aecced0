"""A matrix.mtx with its features (or genes) and barcodes, in a folder or a zip, packed or not."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scdrugmap.data.io.checks import MB, ValidationReport
from scdrugmap.data.io.h5ad_file import RawDataset
from scdrugmap.data.io.matrix import admit_shape
from scdrugmap.data.io.streams import Member, members
from scdrugmap.data.io.tenx import expression_dataset

LINES = 2**21  # of the matrix, read at a time
FEATURES, BARCODES = ("features.tsv", "genes.tsv"), ("barcodes.tsv",)


def read_triplet(path: Path, report: ValidationReport) -> RawDataset:
    """Read the only triplet in a folder or zip."""
    with report.translated("a matrix.mtx triplet"):
        candidates = members(path, report)
        matrix = _only_member(candidates, ("matrix.mtx", ".mtx"), "matrix.mtx", None, report)
        features = _features(_only_member(candidates, FEATURES, "features.tsv (or genes.tsv)", matrix, report), report)
        barcodes = _lines(_only_member(candidates, BARCODES, "barcodes.tsv", matrix, report), report)[0].to_numpy(
            object
        )
        return _raw_dataset(_matrix(matrix, report), barcodes, features, report)


def _only_member(
    candidates: list[Member], ends: tuple[str, ...], noun: str, near: Member | None, report: ValidationReport
) -> Member:
    """Return the member whose name ends so; of several, the one beside `near` and called like it."""
    fitting = [item for item in candidates if item.base.endswith(ends)]
    if near is not None and len(fitting) > 1:
        stem = near.name[: -len(near.name.replace("\\", "/").rsplit("/", 1)[-1]) or None] if "/" in near.name else ""
        prefix = near.base.removesuffix("matrix.mtx")
        fitting = [item for item in fitting if item.name.startswith(stem) and item.base.startswith(prefix)]
    if len(fitting) == 1:
        return fitting[0]
    names = ", ".join(item.name[-60:] for item in (fitting or candidates)[:5]) or "nothing"
    if fitting:
        report.stop(f"holds {len(fitting)} files like {noun} ({names}).", "Zip one sample's three files by themselves.")
    report.stop(f"holds no {noun} (found {names}).", "Zip matrix.mtx, features.tsv and barcodes.tsv together.")


def _lines(member: Member, report: ValidationReport) -> pd.DataFrame:
    with member.open(report, report.limits.strings_mb * MB) as stream:
        frame = pd.read_csv(
            stream,
            sep="\t",
            header=None,
            dtype=str,
            keep_default_na=False,
            quoting=csv.QUOTE_NONE,
            encoding_errors="replace",
        )
    report.within(f"The number of lines of {member.base}", len(frame), max(report.limits.cells, report.limits.genes))
    return frame


def _features(member: Member, report: ValidationReport) -> pd.DataFrame:
    """Columns are id, name and type; a file with one column holds names."""
    frame = _lines(member, report)
    if frame.shape[1] == 1:
        return pd.DataFrame(index=frame[0].to_numpy(object))
    columns = {"gene_ids": frame[0].to_numpy(object)}
    if frame.shape[1] > 2:
        columns["feature_types"] = frame[2].to_numpy(object)
    return pd.DataFrame(columns, index=frame[1].to_numpy(object))


def _matrix(member: Member, report: ValidationReport) -> sp.csr_matrix:
    """Parse a coordinate matrix as float32, in the orientation of the file."""
    with member.open(report) as stream:
        n_rows, n_columns, n_values = _header(stream, report)
        admit_shape(report, tuple(sorted((n_rows, n_columns), reverse=True)), member.base)
        report.within("The number of values", n_values, report.limits.nonzeros)
        rows, columns = np.empty(n_values, np.int32), np.empty(n_values, np.int32)
        data, done = np.empty(n_values, np.float32), 0
        types = {0: np.int64, 1: np.int64, 2: np.float64}
        for part in pd.read_csv(stream, sep=r"\s+", header=None, names=[0, 1, 2], dtype=types, chunksize=LINES):
            stop = done + len(part)
            with np.errstate(over="ignore"):  # infinities are refused with the other values
                rows[done:stop], columns[done:stop], data[done:stop] = part[0] - 1, part[1] - 1, part[2]
            done = stop
    if done != n_values:
        report.stop(f"{member.base} ends after {done:,} of {n_values:,} values.", "Copy or download it again.")
    return sp.coo_matrix((data, (rows, columns)), shape=(n_rows, n_columns)).tocsr()


def _header(stream: BinaryIO, report: ValidationReport) -> tuple[int, int, int]:
    """Read the banner, skip comments, return rows, columns and number of values."""
    banner = stream.readline(1024).decode("ascii", "replace").lower().split()
    if banner[:3] != ["%%matrixmarket", "matrix", "coordinate"] or banner[3:] not in (
        ["integer", "general"],
        ["real", "general"],
    ):
        remedy = "Write it with scipy.io.mmwrite(path, scipy.sparse.coo_matrix(counts))."
        report.stop(f"the matrix is '{' '.join(banner)[:80]}', not coordinate integer (or real) general.", remedy)
    line = stream.readline(4096)
    while line.startswith(b"%"):
        line = stream.readline(4096)
    n_rows, n_columns, n_values = (int(word) for word in line.split())
    return n_rows, n_columns, n_values


def _raw_dataset(
    matrix: sp.csr_matrix, barcodes: np.ndarray, features: pd.DataFrame, report: ValidationReport
) -> RawDataset:
    """Turn the matrix to cells x genes by the lengths of its names (10x writes genes x cells)."""
    if matrix.shape == (len(features), len(barcodes)):
        matrix = matrix.T.tocsr()
    elif matrix.shape != (len(barcodes), len(features)):
        message = f"the matrix is {matrix.shape[0]} x {matrix.shape[1]}, with {len(features)} features and "
        report.stop(f"{message}{len(barcodes)} barcodes.", "Zip the three files of one sample.")
    admit_shape(report, matrix.shape, "the matrix")
    return expression_dataset(matrix, barcodes, features, report, kind="matrix.mtx triplet")
