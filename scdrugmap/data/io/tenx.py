"""What Cell Ranger writes: the .h5 matrix of versions 2 and 3, and the rule which of its features are genes."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

from scdrugmap.data.io.checks import ValidationReport
from scdrugmap.data.io.h5ad_file import RawDataset
from scdrugmap.data.io.hdf5_guard import Hdf5Guard, open_hdf5, strings
from scdrugmap.data.io.matrix import HeldMatrix, StoredMatrix, admit_shape

EXPRESSION = "Gene Expression"
HUMAN = re.compile(r"^(GRCh3[78]|hg19|hg38|human)", re.IGNORECASE)


@contextlib.contextmanager
def open_tenx(path: Path, report: ValidationReport) -> Iterator[RawDataset]:
    """Open a 10x .h5; its only matrix is in memory."""
    with open_hdf5(path, report) as guard:
        with report.translated("10x HDF5"):
            dataset = _table(guard)
        yield dataset


def _table(guard: Hdf5Guard) -> RawDataset:
    group = _group(guard)
    for item in group.values():
        if isinstance(item, h5py.Dataset):
            guard.admit(item)
    if group["shape"].shape != (2,):
        guard.report.stop("does not tell the shape of its matrix.", "Run Cell Ranger's last step again.")
    n_genes, n_cells = (int(n) for n in group["shape"][()])
    admit_shape(guard.report, (n_cells, n_genes), group.name)
    guard.report.within("The number of values", group["data"].shape[0], guard.report.limits.nonzeros)
    features = _features(guard, group)
    barcodes = strings(group["barcodes"])
    if (len(barcodes), len(features)) != (n_cells, n_genes):
        guard.report.stop(
            f"{len(barcodes)} barcodes and {len(features)} features for {n_cells} cells x {n_genes} genes.",
            "Copy the file again, or run Cell Ranger's last step again.",
        )
    # columns of 10x's genes x cells are cells: read as rows, the same arrays are cells x genes
    matrix = StoredMatrix(group.name, features, group, "csr", (n_cells, n_genes), guard.report)
    return expression_dataset(matrix.load()[0], barcodes, features, guard.report, kind="10x .h5")


def _group(guard: Hdf5Guard) -> h5py.Group:
    """Return the group of the matrix: version 3 has one called matrix, version 2 one for each genome."""
    groups = {str(name): item for name, item in guard.file.items() if isinstance(item, h5py.Group) and "data" in item}
    human = [name for name in groups if HUMAN.match(name)]
    if "matrix" in groups:
        return groups["matrix"]
    if len(groups) == 1:
        return next(iter(groups.values()))
    if len(human) != 1:
        names = ", ".join(sorted(groups)[:5])
        guard.report.stop(
            f"holds several genomes ({names}), and not exactly one of them is human.",
            "Read one with scanpy.read_10x_h5(path, genome=...) and save it with adata.write_h5ad('new.h5ad').",
        )
    others = ", ".join(sorted(set(groups) - set(human))[:5])
    guard.report.warn(f"Several genomes: only {human[0]} was read, not {others}.")
    return groups[human[0]]


def _features(guard: Hdf5Guard, group: h5py.Group) -> pd.DataFrame:
    """Return gene_ids and, where the file tells, feature_types and genome of every feature, indexed by name."""
    if "features" not in group:
        return pd.DataFrame({"gene_ids": strings(group["genes"])}, index=strings(group["gene_names"]))
    inner = group["features"]
    known = {"id": "gene_ids", "feature_type": "feature_types", "genome": "genome"}
    present = [name for name in ("name", *known) if name in inner]
    for name in present:
        guard.admit(inner[name])
    columns = {known[name]: strings(inner[name]) for name in present if name != "name"}
    return pd.DataFrame(columns, index=strings(inner["name"]))


def expression_dataset(
    matrix: sp.csr_matrix, barcodes: np.ndarray, features: pd.DataFrame, report: ValidationReport, *, kind: str
) -> RawDataset:
    """Keep genes: antibodies, guides and other features of a 10x run go, and of several genomes the human one stays."""
    keep = np.ones(len(features), dtype=bool)
    if "feature_types" in features:
        types = features["feature_types"].to_numpy(str)
        if EXPRESSION in types:
            keep &= types == EXPRESSION
            if not keep.all():
                others = ", ".join(sorted(set(types) - {EXPRESSION})[:5])
                report.warn(f"Features that are no genes: {(~keep).sum():,} ({others}). They were left out.")
    if "genome" in features:
        genomes = features["genome"].to_numpy(str)
        human = np.array([HUMAN.match(name) is not None for name in genomes])
        other = sorted(set(genomes[keep & ~human]) - {""})
        if other and (keep & human).any():
            report.warn(f"Several genomes: {', '.join(other[:5])} was left out (features: {(keep & ~human).sum():,}).")
            keep &= human
    var = features[keep]
    obs = pd.DataFrame(index=pd.Index(barcodes).map(str))
    return RawDataset(obs, [HeldMatrix("matrix", var, matrix if keep.all() else matrix[:, keep])], kind=kind)
