"""The order of a model's genes: the var_names of an .h5ad, or a text file of one symbol a line.

Read with h5py alone. AnnData has kept the names of variables in three ways: a column of a compound data set, an array
named by the attribute `_index`, or a group that holds such an array as categories or with a mask.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from scdrugmap.errors import WeightsInvalid


def read_gene_order(path: Path, n_genes: int) -> list[str]:
    """Give the `n_genes` symbols of `path`; raises `WeightsInvalid` where they are not that many or not unique."""
    names = _from_h5ad(path) if path.suffix == ".h5ad" else _from_text(path)
    if len(names) != n_genes:
        raise _invalid(path, f"names {len(names)} genes where the checkpoint's gene table has {n_genes}")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise _invalid(path, f"names the gene '{twice}' more than once")
    return names


def _from_text(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split()
    except (OSError, ValueError) as error:
        raise _invalid(path, f"cannot be read as text ({error})") from error


def _from_h5ad(path: Path) -> list[str]:
    try:
        with h5py.File(path, "r") as file:
            return [_text(name) for name in _index(file["var"])]
    except (OSError, LookupError, TypeError, ValueError) as error:
        raise _invalid(path, f"cannot be read as an .h5ad with var_names ({error})") from error


def _index(var: Any) -> np.ndarray:
    """Names of the variables in any of AnnData's encodings."""
    if isinstance(var, h5py.Dataset):
        fields = list(var.dtype.names or ["index"])
        return _plain(var)["index" if "index" in fields else fields[0]]
    return _values(var[_text(var.attrs["_index"])])


def _values(node: Any) -> np.ndarray:
    if isinstance(node, h5py.Dataset):
        return _plain(node)
    if "categories" in node:
        return _plain(node["categories"])[_plain(node["codes"])]
    return _plain(node["values"])


def _plain(data: Any) -> np.ndarray:
    """Content of a data set that keeps it in the file itself."""
    if data.external or data.is_virtual:
        message = "its names lie in another file"
        raise ValueError(message)
    return np.asarray(data[()])


def _text(name: Any) -> str:
    return name.decode("utf-8") if isinstance(name, bytes) else str(name)


def _invalid(path: Path, what: str) -> WeightsInvalid:
    return WeightsInvalid(f"'{path}' {what}.", "Use the gene order that belongs to the weights.")
