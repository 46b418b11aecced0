"""An .h5ad file: its tables, and the matrices that may hold the counts. `uns`, `obsp`, `varm` and the rest stay unread.

Counts are looked for in the layers whose names promise them, in X and in raw. Other layers ("unspliced", "scaled",
"imputed", ...) hold something else even where it is whole numbers, and are left alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from scdrugmap.data.io.checks import ValidationReport
from scdrugmap.data.io.frames import read_frame
from scdrugmap.data.io.hdf5_guard import Hdf5Guard, native, open_hdf5
from scdrugmap.data.io.matrix import Matrix, stored

COUNT_LAYERS = ("counts", "raw_counts", "count", "raw", "umi", "umis", "UMI", "UMIs")
PART_LAYERS = ("spliced",)  # a part of the counts: taken, with a warning, where nothing else holds counts
OBSM_COLUMNS = 10_000


@dataclass
class RawDataset:
    """What a file or an AnnData holds before it is checked: cells, and matrices in order of preference."""

    obs: pd.DataFrame  # (n_cells,)
    matrices: list[Matrix]
    obsm: dict[str, np.ndarray] = field(default_factory=dict)  # (n_cells, k) each
    kind: str = "AnnData"
    simulated: bool = False


@contextlib.contextmanager
def open_anndata(path: Path, report: ValidationReport) -> Iterator[RawDataset]:
    """Open an .h5ad file; the matrices can be read while the context is open."""
    with open_hdf5(path, report) as guard:
        with report.translated("h5ad"):
            dataset = _raw_dataset(guard)
        yield dataset


def _raw_dataset(guard: Hdf5Guard) -> RawDataset:
    file, report = guard.file, guard.report
    if "obs" not in file or "var" not in file:
        report.stop(
            f"holds no AnnData: there is no {'obs' if 'obs' not in file else 'var'} in it (found {_listed(file)}).",
            "Save it from Python with adata.write_h5ad('new.h5ad').",
        )
    obs, var = read_frame(guard, "obs"), read_frame(guard, "var")
    candidates: list[Matrix | None] = [stored(guard, path, path, var) for path in _layers(file, COUNT_LAYERS)]
    if "X" in file:
        candidates.append(stored(guard, "X", "X", var))
    candidates.extend(_raw(guard))
    candidates.extend(stored(guard, path, path, var) for path in _layers(file, PART_LAYERS))
    matrices = [matrix for matrix in candidates if matrix is not None]
    if not matrices:
        report.stop(
            "holds no matrix in X, raw or a layer called 'counts'.",
            "Put the raw counts in X, or in adata.layers['counts'], and write the file anew.",
        )
    for matrix in matrices:
        _fits(report, matrix, len(obs))
    return RawDataset(obs, matrices, _obsm(guard, len(obs)), simulated=_simulated(file))


def _listed(file: h5py.File) -> str:
    names = [str(name)[:40] for name in file]
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "") if names else "nothing"


def _layers(file: h5py.File, names: tuple[str, ...]) -> list[str]:
    layers = file.get("layers")
    return [f"layers/{name}" for name in names if isinstance(layers, h5py.Group) and name in layers]


def _raw(guard: Hdf5Guard) -> list[Matrix | None]:
    """Return raw/X with the genes of raw; before anndata 0.7 both lay at the top level."""
    for x, var in (("raw/X", "raw/var"), ("raw.X", "raw.var")):
        if x in guard.file and var in guard.file:
            return [stored(guard, x, "raw/X", read_frame(guard, var))]
    return []


def _fits(report: ValidationReport, matrix: Matrix, n_cells: int) -> None:
    expected = (n_cells, len(matrix.var))
    if matrix.shape != expected:
        remedy = "Write the file anew with adata.write_h5ad('new.h5ad')."
        if matrix.shape == expected[::-1] and n_cells != len(matrix.var):
            remedy = "The matrix lies on its side: transpose it before it goes into the AnnData."
        report.stop(f"{matrix.where} is {matrix.shape[0]} x {matrix.shape[1]}, but obs and var are {expected}.", remedy)


def _obsm(guard: Hdf5Guard, n_cells: int) -> dict[str, np.ndarray]:
    """Read the embeddings and coordinates that are plain numeric arrays; others are left out."""
    group = guard.file.get("obsm")
    arrays = {}
    for key, item in group.items() if isinstance(group, h5py.Group) else ():
        plain = isinstance(item, h5py.Dataset) and item.ndim == 2 and item.dtype.kind in "biuf"
        if plain and item.shape[0] == n_cells and 0 < item.shape[1] <= OBSM_COLUMNS:
            guard.admit(item)
            arrays[str(key)] = native(item[()])
    return arrays


def _simulated(file: h5py.File) -> bool:
    """Tell whether our own simulator wrote the cells: the one thing that is looked at in uns."""
    item = file.get("uns/scdrugmap/simulated")
    return isinstance(item, h5py.Dataset) and item.shape == () and item.dtype.kind == "b" and bool(item[()])
