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
            return [_text(name) for name in _index(_child(file, "var"))]
    except (OSError, LookupError, TypeError, ValueError) as error:
        raise _invalid(path, f"cannot be read as an .h5ad with var_names ({error})") from error


def _index(var: Any) -> np.ndarray:
    """Names of the variables in any of AnnData's encodings."""
    if isinstance(var, h5py.Dataset):
        fields = list(var.dtype.names or ["index"])
        return _plain(var)["index" if "index" in fields else fields[0]]
    names = _child(var, _text(var.attrs["_index"]))
    if isinstance(names, h5py.Dataset):
        return _plain(names)
    if "categories" in names:
        return _plain(_child(names, "categories"))[_plain(_child(names, "codes"))]
    return _plain(_child(names, "values"))


def _child(group: Any, name: str) -> Any:
    """Give a member of a group that lies in this file."""
    if not isinstance(group.get(name, getlink=True), h5py.HardLink | None):
        message = f"'{name}' is a link"
        raise ValueError(message)
    return group[name]


def _plain(data: Any) -> np.ndarray:
    """Give the content of a data set that keeps it in this file."""
    if data.external or data.is_virtual:
        message = "the names lie in another file"
        raise ValueError(message)
    return np.asarray(data[()])


def _text(name: Any) -> str:
    return name.decode("utf-8") if isinstance(name, bytes) else str(name)


def _invalid(path: Path, what: str) -> WeightsInvalid:
    return WeightsInvalid(f"'{path}' {what}.", "Use the gene order that belongs to the weights.")
