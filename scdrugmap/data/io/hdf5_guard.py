"""The first look at an HDF5 file: links are walked unfollowed, nothing is allocated by what the file claims.

External links, external storage and virtual data sets would read other files of the server; soft links and cycles can
lead a reader in circles; compound, opaque and reference types, unknown filters and huge chunks are what libhdf5's own
bugs are made of. All of it is refused before anndata sees the file.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from h5py import h5o, h5t, h5z

from scdrugmap.data.io.checks import GB, MB, ValidationReport

PLAIN = {h5t.INTEGER: "integer", h5t.FLOAT: "float", h5t.STRING: "string", h5t.ENUM: "enum"}
RESAVE = "Write it anew with adata.write_h5ad('new.h5ad'), which makes no such thing."


@contextlib.contextmanager
def open_hdf5(path: Path, report: ValidationReport) -> Iterator[Hdf5Guard]:
    """Open a file read-only, walk all of it and yield the guard through which its parts are read."""
    with report.translated("HDF5"):
        file = h5py.File(path, "r", locking=False)
    with file:
        with report.translated("HDF5"):
            stored = _walk(file, report)
        yield Hdf5Guard(file, report, heap_bytes=max(path.stat().st_size - stored, 0))


def _walk(file: h5py.File, report: ValidationReport) -> int:
    """Visit every object once; return the bytes that data sets occupy."""
    waiting: list[tuple[h5py.Group, int]] = [(file["/"], 0)]
    seen: set[object] = {_address(waiting[0][0])}
    n_objects, stored = 0, 0
    while waiting:
        group, depth = waiting.pop()
        n_objects += len(group)
        report.within("The number of groups and arrays", n_objects, report.limits.objects)
        report.within("The depth of nested groups", depth, report.limits.depth)
        for name in group:
            item = _hard(group, name, report)
            if isinstance(item, h5py.Group):
                if _address(item) in seen:
                    report.stop(f"group {item.name!r} is linked twice or holds itself.", RESAVE)
                seen.add(_address(item))
                waiting.append((item, depth + 1))
            elif isinstance(item, h5py.Dataset):
                stored += _own_storage(item, report)
    return stored


def _address(item: h5py.Group) -> object:
    return h5o.get_info(item.id).addr


def _hard(group: h5py.Group, name: str, report: ValidationReport) -> object:
    """Open a child that lies in this file, by looking at the link before following it."""
    link = group.get(name, getlink=True)
    if isinstance(link, h5py.ExternalLink):
        report.stop(f"{_path(group, name)} is a link into another file, which is refused for safety.", RESAVE)
    if not isinstance(link, h5py.HardLink):
        report.stop(f"{_path(group, name)} is a soft link, which is refused for safety.", RESAVE)
    return group[name]


def _own_storage(item: h5py.Dataset, report: ValidationReport) -> int:
    if item.external:
        report.stop(f"{item.name} keeps its bytes in another file, which is refused for safety.", RESAVE)
    if item.is_virtual:
        report.stop(f"{item.name} is a virtual data set over other files, which is refused for safety.", RESAVE)
    return item.id.get_storage_size()


def _path(group: h5py.Group, name: str) -> str:
    return f"{group.name.rstrip('/')}/{name[:100]}"


@dataclass
class Hdf5Guard:
    """An open file that was walked; hands out an element only after its types and sizes were checked."""

    file: h5py.File
    report: ValidationReport
    heap_bytes: int  # of the file outside data sets: no single string can be longer
    unpacked: int = 0  # bytes that were admitted so far
    text: int = 0

    def admit(self, item: h5py.Dataset | h5py.Group, *, compound: bool = False) -> None:
        """Check all data sets in or at `item`; `compound` lets the tables of old files through."""
        if isinstance(item, h5py.Group):
            for child in item.values():
                self.admit(child)
            return
        kind = item.id.get_type()
        if not (compound and kind.get_class() == h5t.COMPOUND and _plain_fields(kind)):
            self._admit_type(item, kind)
        self._admit_size(item)
        if h5py.check_string_dtype(item.dtype) is not None and item.dtype.kind == "O":
            self._admit_strings(item)

    def _admit_type(self, item: h5py.Dataset, kind: h5t.TypeID) -> None:
        if kind.get_class() not in PLAIN:
            names = ", ".join(PLAIN.values())
            self.report.stop(f"{item.name} has an HDF5 type that is not read (only {names} are).", RESAVE)

    def _admit_size(self, item: h5py.Dataset) -> None:
        report, limits = self.report, self.report.limits
        n_bytes = int(np.prod(item.shape or (1,), dtype=object)) * item.dtype.itemsize
        self.unpacked += n_bytes
        report.within(f"The unpacked size of {item.name} (MB)", self.unpacked / MB, limits.unpacked_gb * GB / MB)
        if n_bytes > limits.ratio_from_mb * MB:
            ratio = n_bytes / max(item.id.get_storage_size(), 1)
            report.within(f"The compression ratio of {item.name}", ratio, limits.ratio)
        chunk = int(np.prod(item.chunks, dtype=object)) * item.dtype.itemsize if item.chunks else 0
        report.within(f"The size of a chunk of {item.name} (MB)", chunk / MB, limits.chunk_mb)
        filters = item.id.get_create_plist()
        for number in range(filters.get_nfilters()):
            code, *_, name = filters.get_filter(number)
            if not h5z.filter_avail(code):
                name = name.decode("ascii", "replace").split(";")[0][:40]
                remedy = "Write it anew with adata.write_h5ad('new.h5ad', compression='gzip')."
                report.stop(
                    f"{item.name} is compressed with '{name}' (filter {code}), which is not known here.", remedy
                )

    def _admit_strings(self, item: h5py.Dataset) -> None:
        """Measure text piece by piece: many entries of a small file may point at one long string."""
        limits = self.report.limits
        step = int(np.clip(limits.strings_mb * MB // max(self.heap_bytes, 1), 1, 65_536))
        for piece in pieces(item, step):
            lengths = [len(value) for value in piece.ravel()]
            self.text += sum(lengths)
            longest = max(lengths, default=0)
            self.report.within(f"The longest text in {item.name}", longest, limits.string_length)
            self.report.within("The text to be read (MB)", self.text / MB, limits.strings_mb)


def pieces(item: h5py.Dataset, step: int) -> Iterator[np.ndarray]:
    """Yield a data set in pieces of `step` rows; a scalar is one piece."""
    if not item.shape:
        yield np.asarray(item[()])
        return
    for start in range(0, item.shape[0], step):
        yield item[start : start + step]


def _plain_fields(kind: h5t.TypeCompoundID) -> bool:
    """Tell whether every field is a number or text of fixed length, as tables of anndata before 0.7 are."""
    fields = [kind.get_member_type(index) for index in range(kind.get_nmembers())]
    text = [field for field in fields if field.get_class() == h5t.STRING]
    return all(field.get_class() in PLAIN for field in fields) and not any(field.is_variable_str() for field in text)


def strings(item: h5py.Dataset) -> np.ndarray:
    """Text of an admitted data set, fixed or variable length, as (n,) objects; bad UTF-8 shows as �."""
    return as_text(item[()])


def native(values: np.ndarray) -> np.ndarray:
    """Return numbers in this machine's byte order, which is all that pandas and scipy take."""
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def as_text(values: np.ndarray) -> np.ndarray:
    """Decode bytes where there are any, (n,) objects."""
    decoded = [value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in values.tolist()]
    return np.array(decoded, dtype=object)


def attribute(item: h5py.Dataset | h5py.Group, name: str, default: str = "") -> str:
    """Return a short text attribute; anything else reads as `default`."""
    if name not in item.attrs or item.attrs.get_id(name).shape not in ((), (1,)):
        return default
    value = np.ravel(item.attrs[name])[0]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
