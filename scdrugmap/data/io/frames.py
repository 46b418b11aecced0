"""Tables of cells (obs) and genes (var) out of an HDF5 file, in every encoding that anndata has written.

Since 0.7 a table is a group with an array for each column (categories beside it or, later, inside the column); before,
it was one array of compound type. Only columns that are plain are read; what newer writers may have invented is left
out by name and never stops the file.
"""

from __future__ import annotations

from typing import TypeAlias

import h5py
import numpy as np
import pandas as pd

from scdrugmap.data.io.checks import MB
from scdrugmap.data.io.hdf5_guard import Hdf5Guard, as_text, attribute, native, strings

_INDEX_NAMES = ("_index", "index", "barcodes", "CellID", "obs_names", "var_names", "cell_id", "barcode")
Values: TypeAlias = np.ndarray | pd.Categorical
NULLABLE = ("nullable-integer", "nullable-boolean", "nullable-string-array")


def read_frame(guard: Hdf5Guard, path: str) -> pd.DataFrame:
    """Read the table at `path`; its index is text, one row a cell or gene."""
    item = guard.file[path]
    return _compound(guard, item) if isinstance(item, h5py.Dataset) else _columns(guard, item, path)


def _columns(guard: Hdf5Guard, item: h5py.Group, path: str) -> pd.DataFrame:
    guard.report.within(f"The number of columns of {path}", len(item), guard.report.limits.columns)
    name = _index_name(item)
    if not name:
        guard.report.stop(
            f"{path} names no index (looked for {', '.join(_INDEX_NAMES)}).",
            "Write the file anew with adata.write_h5ad('new.h5ad').",
        )
    guard.admit(item[name])
    index = pd.Index(as_text(np.asarray(_values(item[name]), dtype=object))).map(str)
    columns: dict[str, Values] = {}
    left_out: list[str] = []
    for key, child in item.items():
        if key == name or key.startswith("__"):
            continue
        values = _column(guard, item, child)
        if values is None or len(values) != len(index):
            left_out.append(key)
        else:
            columns[key] = values
    if left_out:
        shown = ", ".join(sorted(left_out)[:5]) + (", ..." if len(left_out) > 5 else "")
        guard.report.warn(f"Columns of {path} of a kind that is not read: {shown}.")
    return pd.DataFrame(columns, index=index)[_order(guard, item, columns)]


def _compound(guard: Hdf5Guard, item: h5py.Dataset) -> pd.DataFrame:
    guard.admit(item, compound=True)
    records = item[()]
    if records.dtype.names is None:
        guard.report.stop(f"{item.name} is an array, not a table.", "Write it with adata.write_h5ad('new.h5ad').")
    columns = {
        name: as_text(records[name]) if records[name].dtype.kind == "S" else native(records[name])
        for name in records.dtype.names
    }
    index = next((name for name in _INDEX_NAMES if name in columns), records.dtype.names[0])
    frame = pd.DataFrame(columns).set_index(index)
    frame.index = frame.index.map(str).rename(None)
    return frame


def _index_name(group: h5py.Group) -> str:
    named = attribute(group, "_index")
    return next((name for name in (named, *_INDEX_NAMES) if name and name in group), "")


def _order(guard: Hdf5Guard, group: h5py.Group, columns: dict[str, Values]) -> list[str]:
    """Return the order that the file asks for, where it asks for one; reading it must not read much text."""
    n, most = len(columns), guard.report.limits.strings_mb * MB
    if "column-order" not in group.attrs or group.attrs.get_id("column-order").shape != (n,):
        return list(columns)
    if n * guard.heap_bytes > most:  # each name could be as long as all text of the file
        return list(columns)
    wanted = [str(name) for name in as_text(np.asarray(group.attrs["column-order"]))]
    return wanted if sorted(wanted) == sorted(columns) else list(columns)


def _column(guard: Hdf5Guard, group: h5py.Group, item: h5py.Dataset | h5py.Group) -> Values | None:
    """Return the values of one column, or None for a kind that is not known."""
    if isinstance(item, h5py.Group):
        if attribute(item, "encoding-type") not in ("categorical", *NULLABLE):
            return None
        guard.admit(item)
        return _values(item)
    text = h5py.check_string_dtype(item.dtype) is not None
    if item.ndim != 1 or not (text or item.dtype.kind in "biuf"):
        return None
    guard.admit(item)
    if "categories" in item.attrs:  # anndata 0.7: codes here, categories in a group of the table
        categories = group.get("__categories", {}).get(item.name.rsplit("/", 1)[-1])
        if categories is None:
            return None
        guard.admit(categories)
        return _categorical(item[()], _values(categories), ordered=False)
    return _values(item)


def _values(item: h5py.Dataset | h5py.Group) -> Values:
    """Decode an admitted column."""
    if isinstance(item, h5py.Dataset):
        return strings(item) if item.dtype.kind in "SO" else native(item[()])
    if "categories" in item:
        ordered = attribute(item, "ordered") in ("True", "1")
        return _categorical(item["codes"][()], _values(item["categories"]), ordered=ordered)
    return pd.Series(_values(item["values"]), dtype=object).mask(item["mask"][()]).infer_objects().to_numpy()


def _categorical(codes: np.ndarray, categories: Values, *, ordered: bool) -> pd.Categorical:
    return pd.Categorical.from_codes(codes.astype(np.int64), pd.Index(categories), ordered=ordered)
