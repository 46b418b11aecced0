"""A matrix.mtx with its features (or genes) and barcodes, in a folder or a zip, packed or not."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scdrugmap.data.io.checks import MB, Journal
from scdrugmap.data.io.h5ad_file import Table
from scdrugmap.data.io.matrix import admit_shape
from scdrugmap.data.io.streams import Member, members
from scdrugmap.data.io.tenx import expression_table

LINES = 2**21  # of the matrix, read at a time
FEATURES, BARCODES = ("features.tsv", "genes.tsv"), ("barcodes.tsv",)


def read_triplet(path: Path, journal: Journal) -> Table:
    """Read the only triplet in a folder or zip."""
    with journal.translated("a matrix.mtx triplet"):
        found = members(path, journal)
        matrix = _one(found, ("matrix.mtx", ".mtx"), "matrix.mtx", None, journal)
        features = _features(_one(found, FEATURES, "features.tsv (or genes.tsv)", matrix, journal), journal)
        barcodes = _lines(_one(found, BARCODES, "barcodes.tsv", matrix, journal), journal)[0].to_numpy(object)
        return _table(_matrix(matrix, journal), barcodes, features, journal)


def _one(found: list[Member], ends: tuple[str, ...], noun: str, near: Member | None, journal: Journal) -> Member:
    """Return the member whose name ends so; of several, the one beside `near` and called like it."""
    fitting = [item for item in found if item.base.endswith(ends)]
    if near is not None and len(fitting) > 1:
        stem = near.name[: -len(near.name.replace("\\", "/").rsplit("/", 1)[-1]) or None] if "/" in near.name else ""
        prefix = near.base.removesuffix("matrix.mtx")
        fitting = [item for item in fitting if item.name.startswith(stem) and item.base.startswith(prefix)]
    if len(fitting) == 1:
        return fitting[0]
    names = ", ".join(item.name[-60:] for item in (fitting or found)[:5]) or "nothing"
    if fitting:
        journal.stop(
            f"holds {len(fitting)} files like {noun} ({names}).", "Zip one sample's three files by themselves."
        )
    journal.stop(f"holds no {noun} (found {names}).", "Zip matrix.mtx, features.tsv and barcodes.tsv together.")


def _lines(member: Member, journal: Journal) -> pd.DataFrame:
    with member.open(journal, journal.limits.strings_mb * MB) as stream:
        frame = pd.read_csv(
            stream,
            sep="\t",
            header=None,
            dtype=str,
            keep_default_na=False,
            quoting=csv.QUOTE_NONE,
            encoding_errors="replace",
        )
    journal.within(f"The number of lines of {member.base}", len(frame), max(journal.limits.cells, journal.limits.genes))
    return frame


def _features(member: Member, journal: Journal) -> pd.DataFrame:
    """Columns are id, name and type; a file with one column holds names."""
    frame = _lines(member, journal)
    if frame.shape[1] == 1:
        return pd.DataFrame(index=frame[0].to_numpy(object))
    columns = {"gene_ids": frame[0].to_numpy(object)}
    if frame.shape[1] > 2:
        columns["feature_types"] = frame[2].to_numpy(object)
    return pd.DataFrame(columns, index=frame[1].to_numpy(object))


def _matrix(member: Member, journal: Journal) -> sp.csr_matrix:
    """Parse a coordinate matrix as float32, in the orientation of the file."""
    with member.open(journal) as stream:
        n_rows, n_columns, n_values = _header(stream, journal)
        admit_shape(journal, tuple(sorted((n_rows, n_columns), reverse=True)), member.base)
        journal.within("The number of values", n_values, journal.limits.nonzeros)
        rows, columns = np.empty(n_values, np.int32), np.empty(n_values, np.int32)
        data, done = np.empty(n_values, np.float32), 0
        types = {0: np.int64, 1: np.int64, 2: np.float64}
        for part in pd.read_csv(stream, sep=r"\s+", header=None, names=[0, 1, 2], dtype=types, chunksize=LINES):
            stop = done + len(part)
            with np.errstate(over="ignore"):  # infinities are refused with the other values
                rows[done:stop], columns[done:stop], data[done:stop] = part[0] - 1, part[1] - 1, part[2]
            done = stop
    if done != n_values:
        journal.stop(f"{member.base} ends after {done:,} of {n_values:,} values.", "Copy or download it again.")
    return sp.coo_matrix((data, (rows, columns)), shape=(n_rows, n_columns)).tocsr()


def _header(stream: BinaryIO, journal: Journal) -> tuple[int, int, int]:
    """Read the banner, skip comments, return rows, columns and number of values."""
    banner = stream.readline(1024).decode("ascii", "replace").lower().split()
    if banner[:3] != ["%%matrixmarket", "matrix", "coordinate"] or banner[3:] not in (
        ["integer", "general"],
        ["real", "general"],
    ):
        remedy = "Write it with scipy.io.mmwrite(path, scipy.sparse.coo_matrix(counts))."
        journal.stop(f"the matrix is '{' '.join(banner)[:80]}', not coordinate integer (or real) general.", remedy)
    line = stream.readline(4096)
    while line.startswith(b"%"):
        line = stream.readline(4096)
    n_rows, n_columns, n_values = (int(word) for word in line.split())
    return n_rows, n_columns, n_values


def _table(matrix: sp.csr_matrix, barcodes: np.ndarray, features: pd.DataFrame, journal: Journal) -> Table:
    """Turn the matrix to cells x genes by the lengths of its names (10x writes genes x cells)."""
    if matrix.shape == (len(features), len(barcodes)):
        matrix = matrix.T.tocsr()
    elif matrix.shape != (len(barcodes), len(features)):
        message = f"the matrix is {matrix.shape[0]} x {matrix.shape[1]}, with {len(features)} features and "
        journal.stop(f"{message}{len(barcodes)} barcodes.", "Zip the three files of one sample.")
    admit_shape(journal, matrix.shape, "the matrix")
    return expression_table(matrix, barcodes, features, journal, kind="matrix.mtx triplet")
