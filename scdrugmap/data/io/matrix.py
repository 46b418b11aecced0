"""Matrices that may hold the counts: looked at by a few rows, and read whole only when chosen.

A stored matrix is dense, CSR or CSC in an HDF5 file, of any numeric type. It is read in slabs, turned to float32 CSR on
the way and never densified; every value is checked while it passes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

from scdrugmap.data.io.checks import ValidationReport
from scdrugmap.data.io.hdf5_guard import Hdf5Guard, attribute, native

SLAB = 2**23  # values that pass at a time
N_BLOCKS, BLOCK_ROWS = 20, 25  # rows looked at to judge the values: blocks all over the file
LARGEST = float(np.finfo(np.float32).max)


@dataclass
class Scan:
    """Extremes and oddities of all values of a matrix, collected slab by slab."""

    n_negative: int = 0
    n_fractional: int = 0
    largest: float = 0.0
    first_bad: tuple[int, float] | None = None  # place among the stored values, and the value
    first_negative: tuple[int, float] | None = None

    def see(self, values: np.ndarray, start: int) -> None:
        """Look at a slab that begins at place `start`; its extremes tell whether a second look is needed."""
        if not values.size:
            return
        lowest, largest = float(values.min()), float(values.max())  # NaN where there is one
        self.largest = max(self.largest, largest)
        if not -LARGEST <= lowest <= largest <= LARGEST:
            self.first_bad = self.first_bad or _first(~(np.abs(values) <= LARGEST), values, start)
        if not lowest >= 0:
            negative = values < 0
            self.n_negative += int(np.count_nonzero(negative))
            if negative.any():
                self.first_negative = self.first_negative or _first(negative, values, start)
        if values.dtype.kind == "f":
            self.n_fractional += int(np.count_nonzero(values != np.floor(values)))


def _first(mask: np.ndarray, values: np.ndarray, start: int) -> tuple[int, float]:
    place = int(mask.argmax())
    return start + place, float(values[place])


class Matrix(Protocol):
    """Cells x genes, not read yet; all of the readers give these."""

    where: str
    var: pd.DataFrame  # (G,)

    @property
    def shape(self) -> tuple[int, int]:
        """Cells, genes."""

    def sample(self) -> sp.csr_matrix:
        """Return some rows as float64, at most N_BLOCKS * BLOCK_ROWS of them."""

    def load(self) -> tuple[sp.csr_matrix, Scan]:
        """Return all rows as float32 CSR without stored zeros, and what was seen of the values."""

    def locate(self, place: int) -> tuple[int, int]:
        """Row and column of the stored value number `place`."""


def sample_starts(n_rows: int) -> list[int]:
    """First rows of the blocks that are looked at, spread over the file."""
    if n_rows <= N_BLOCKS * BLOCK_ROWS:
        return list(range(0, n_rows, BLOCK_ROWS))
    return np.linspace(0, n_rows - BLOCK_ROWS, N_BLOCKS).astype(int).tolist()


@dataclass
class HeldMatrix:
    """A matrix in memory: what 10x files, triplets and text tables become."""

    where: str
    var: pd.DataFrame
    values: sp.csr_matrix

    @property
    def shape(self) -> tuple[int, int]:
        """Cells, genes."""
        return self.values.shape

    def sample(self) -> sp.csr_matrix:
        """Return some rows as float64."""
        parts = [self.values[start : start + BLOCK_ROWS] for start in sample_starts(self.shape[0])]
        return sp.vstack(parts, format="csr").astype(np.float64)

    def load(self) -> tuple[sp.csr_matrix, Scan]:
        """Return all rows as float32, checked."""
        scan = Scan()
        for start in range(0, self.values.nnz, SLAB):
            scan.see(self.values.data[start : start + SLAB], start)
        with np.errstate(over="ignore"):  # too large a value was noted by the scan
            values = self.values.astype(np.float32)
        return _tidy(values), scan

    def locate(self, place: int) -> tuple[int, int]:
        """Row and column of the stored value number `place`."""
        return _cell(self.values, place)


@dataclass
class StoredMatrix:
    """A matrix in an HDF5 file: a data set (dense) or a group of data, indices and indptr (CSR or CSC)."""

    where: str
    var: pd.DataFrame
    item: h5py.Dataset | h5py.Group
    layout: str  # "dense", "csr" or "csc"
    shape: tuple[int, int]
    report: ValidationReport
    _pointers: np.ndarray | None = field(default=None, repr=False)
    _loaded: tuple[sp.csr_matrix, Scan] | None = field(default=None, repr=False)

    @property
    def n_stored(self) -> int:
        """Values that the file keeps, zeros of a dense matrix included."""
        return int(np.prod(self.shape)) if self.layout == "dense" else self.item["data"].shape[0]

    def sample(self) -> sp.csr_matrix:
        """Return some rows as float64; a CSC matrix must be read whole for that."""
        if self.layout == "csc":
            self._loaded = self._loaded or self.load()
            return HeldMatrix(self.where, self.var, self._loaded[0]).sample()
        parts = [self._rows(start, min(start + BLOCK_ROWS, self.shape[0])) for start in sample_starts(self.shape[0])]
        return sp.vstack(parts, format="csr")

    def load(self) -> tuple[sp.csr_matrix, Scan]:
        """Return all rows as float32, checked."""
        if self._loaded is None:
            self._loaded = self._dense() if self.layout == "dense" else self._sparse()
        return self._loaded

    def locate(self, place: int) -> tuple[int, int]:
        """Row and column of the stored value number `place`."""
        if self.layout == "dense":
            return _cell(self.load()[0], place)
        major = int(np.searchsorted(self._indptr(), place, side="right")) - 1
        minor = int(self.item["indices"][place])
        return (major, minor) if self.layout == "csr" else (minor, major)

    def _indptr(self) -> np.ndarray:
        if self._pointers is None:
            pointers = self.item["indptr"][()].astype(np.int64)
            n_major = self.shape[0] if self.layout == "csr" else self.shape[1]
            if pointers.shape != (n_major + 1,) or pointers[0] != 0 or pointers[-1] != self.n_stored:
                message = f"{self.where}/indptr does not fit {self.n_stored} values"
                raise ValueError(message)
            if (np.diff(pointers) < 0).any():
                message = f"{self.where}/indptr decreases"
                raise ValueError(message)
            self._pointers = pointers
        return self._pointers

    def _rows(self, start: int, stop: int) -> sp.csr_matrix:
        """Return rows `start` to `stop` of a dense or CSR matrix as float64."""
        if self.layout == "dense":
            return _compressed(self.item[start:stop].astype(np.float64))
        pointers = self._indptr()[start : stop + 1]
        part = slice(int(pointers[0]), int(pointers[-1]))
        indices = _checked(self.item["indices"][part], self.shape[1], self.where)
        values = self.item["data"][part].astype(np.float64)
        return sp.csr_matrix((values, indices, pointers - pointers[0]), (stop - start, self.shape[1]))

    def _sparse(self) -> tuple[sp.csr_matrix, Scan]:
        scan, n = Scan(), self.n_stored
        wide = max(*self.shape, n) >= 2**31
        data, indices = np.empty(n, np.float32), np.empty(n, np.int64 if wide else np.int32)
        n_minor = self.shape[1] if self.layout == "csr" else self.shape[0]
        for start in range(0, n, SLAB):
            part = slice(start, min(start + SLAB, n))
            values = self.item["data"][part]
            scan.see(values, start)
            with np.errstate(over="ignore", invalid="ignore"):  # noted by the scan
                data[part] = values
            indices[part] = _checked(self.item["indices"][part], n_minor, self.where)
        make = sp.csr_matrix if self.layout == "csr" else sp.csc_matrix
        matrix = make((data, indices, self._indptr().astype(indices.dtype)), shape=self.shape)
        return _tidy(matrix.tocsr()), scan

    def _dense(self) -> tuple[sp.csr_matrix, Scan]:
        scan, parts, n = Scan(), [], 0
        for start, stop in self._slabs():
            block = _compressed(self.item[start:stop])
            scan.see(block.data, n)
            with np.errstate(over="ignore", invalid="ignore"):  # noted by the scan
                parts.append(block.astype(np.float32))
            n += block.nnz
            self.report.within(f"The number of values in {self.where}", n, self.report.limits.nonzeros)
        return sp.vstack(parts, format="csr"), scan

    def _slabs(self) -> Iterator[tuple[int, int]]:
        """Row ranges of about SLAB values that hold whole chunks, so that no chunk is unpacked twice."""
        per_chunk = self.item.chunks[0] if self.item.chunks else 1
        step = max(1, SLAB // max(self.shape[1], 1) // per_chunk) * per_chunk
        for start in range(0, self.shape[0], step):
            yield start, min(start + step, self.shape[0])


def _compressed(block: np.ndarray) -> sp.csr_matrix:
    """Return a dense block as CSR of its own type, several times faster than scipy's constructor."""
    block = native(block)
    flat = np.flatnonzero(block)
    pointers = np.searchsorted(flat, np.arange(len(block) + 1) * block.shape[1])
    indices = (flat % max(block.shape[1], 1)).astype(np.int32)
    return sp.csr_matrix((block.ravel()[flat], indices, pointers), shape=block.shape)


def _cell(matrix: sp.csr_matrix, place: int) -> tuple[int, int]:
    """Row and column of the value number `place`."""
    return int(np.searchsorted(matrix.indptr, place, side="right")) - 1, int(matrix.indices[place])


def _checked(indices: np.ndarray, n: int, where: str) -> np.ndarray:
    if indices.size and (indices.min() < 0 or indices.max() >= n):
        message = f"{where}/indices leaves the matrix"
        raise ValueError(message)
    return indices


def _tidy(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """Sort, add up and drop what a canonical CSR matrix does not hold."""
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix


def stored(guard: Hdf5Guard, path: str, where: str, var: pd.DataFrame) -> StoredMatrix | None:
    """Describe the matrix at `path` from metadata, or return None where there is none (an empty X is no matrix)."""
    item = guard.file[path]
    if isinstance(item, h5py.Dataset):
        layout, shape = "dense", item.shape
        if len(shape) != 2:
            return None
    else:
        kind = attribute(item, "encoding-type") or attribute(item, "h5sparse_format")
        layout = kind.removesuffix("_matrix")
        if layout not in ("csr", "csc") or not {"data", "indices", "indptr"} <= set(item):
            if kind != "null":  # an AnnData without X
                guard.report.warn(f"{where} is stored as '{kind[:40]}' or incomplete: it was not read.")
            return None
        name = "shape" if "shape" in item.attrs else "h5sparse_shape"
        if item.attrs.get_id(name).shape != (2,):
            guard.report.stop(f"{where} does not tell its shape.", "Write it anew with adata.write_h5ad('new.h5ad').")
        shape = tuple(int(n) for n in item.attrs[name])
    admit_shape(guard.report, shape, where)
    guard.admit(item)
    kind = (item if layout == "dense" else item["data"]).dtype.kind
    if kind not in "biuf":
        guard.report.stop(f"{where} holds text, not numbers.", "Convert it: adata.X = adata.X.astype('float32').")
    matrix = StoredMatrix(where, var, item, layout, (int(shape[0]), int(shape[1])), guard.report)
    if layout != "dense":
        guard.report.within(f"The number of values in {where}", matrix.n_stored, guard.report.limits.nonzeros)
    elif item.chunks:
        limits = guard.report.limits
        slab_mb = item.chunks[0] * item.shape[1] * item.dtype.itemsize / 2**20
        remedy = "Write it anew: adata.X = scipy.sparse.csr_matrix(adata.X); adata.write_h5ad('new.h5ad')."
        guard.report.within(f"A band of whole chunks of {where} (MB)", slab_mb, 2 * limits.chunk_mb, remedy)
    return matrix


def admit_shape(report: ValidationReport, shape: tuple[int, ...], where: str) -> None:
    """Refuse sizes that no limit admits, and matrices without cells or genes."""
    if len(shape) != 2 or min(shape) < 0:
        report.stop(f"{where} has shape {shape}, not cells x genes.", "Pass a matrix with a row for each cell.")
    report.within(f"The number of cells in {where}", shape[0], report.limits.cells)
    report.within(f"The number of genes in {where}", shape[1], report.limits.genes)
    if shape[0] == 0 or shape[1] == 0:
        empty = "cells" if shape[0] == 0 else "genes"
        report.stop(f"{where} holds no {empty} ({shape[0]} cells x {shape[1]} genes).", "Look at the filtering step.")
