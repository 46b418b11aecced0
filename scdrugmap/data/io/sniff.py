"""What kind of file this is, by its first bytes and not by its name."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import h5py

from scdrugmap.data.io.checks import ValidationReport

_HEAD = 4096
TENX = ("data", "indices", "indptr", "barcodes")
READS = "Readable are .h5ad, 10x .h5, a zip or folder of matrix.mtx + features.tsv + barcodes.tsv, .csv and .tsv(.gz)."


def recognise(path: Path, report: ValidationReport) -> str:
    """Return "h5ad", "10x", "triplet" or "text"; refuse everything else by name."""
    if path.is_dir():
        if (path / ".zattrs").exists() or (path / "zarr.json").exists():
            report.stop("is a Zarr store.", "Convert it: anndata.read_zarr(path).write_h5ad('new.h5ad').")
        return "triplet"
    size = path.stat().st_size
    report.within("The size of the file (MB)", size / 2**20, report.limits.file_mb)
    if size == 0:
        report.stop("is empty (0 bytes).", "Copy or download it again.")
    with path.open("rb") as handle:
        head = handle.read(_HEAD)
    with report.translated("HDF5"):
        if h5py.is_hdf5(path):
            return _inside_hdf5(path, report)
    if head.startswith(b"\x89HDF"):
        report.stop("begins like HDF5 but is truncated.", "Copy or download it again.")
    if head.startswith(b"PK"):
        return _inside_zip(path, report)
    packed = head.startswith(b"\x1f\x8b")
    return _text(_unpacked(head, report) if packed else head, path, report, packed=packed)


def _inside_hdf5(path: Path, report: ValidationReport) -> str:
    """Tell a 10x matrix from an AnnData by the names at the top, links unfollowed."""
    with h5py.File(path, "r", locking=False) as file:
        top = {str(name) for name in file}
        if {"row_attrs", "col_attrs"} <= top:
            report.stop("is a Loom file.", "Convert it: scanpy.read_loom(path).write_h5ad('new.h5ad').")
        if "mod" in top:
            remedy = "Convert its RNA part: mudata.read(path)['rna'].write_h5ad('new.h5ad')."
            report.stop("is a MuData file of several modalities.", remedy)
        if {"obs", "var", "X"} & top:
            return "h5ad"
        if {"assays", "meta.data"} & top:
            report.stop("is an h5Seurat file.", "Convert it in R: SeuratDisk::Convert(path, dest = 'h5ad').")
        if "molecule_info" in top or "barcode_idx" in top:
            report.stop("is 10x molecule_info.h5.", "Use filtered_feature_bc_matrix.h5 of the same run.")
        for name in top:
            inside = isinstance(file.get(name, getlink=True), h5py.HardLink)
            if inside and file.get(name, getclass=True) is h5py.Group and all(part in file[name] for part in TENX):
                return "10x"
    names = ", ".join(sorted(name[:40] for name in top)[:6]) or "nothing"
    report.stop(f"is HDF5, but neither AnnData nor 10x (at its top: {names}).", READS)


def _inside_zip(path: Path, report: ValidationReport) -> str:
    with report.translated("a zip archive"), zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        report.within("The number of files in the archive", len(names), report.limits.objects)
    if any(name.startswith("xl/") for name in names):
        report.stop("is an Excel workbook.", "Save the sheet as .csv with a row for each cell.")
    if any(name.endswith((".zattrs", ".zgroup", "zarr.json")) for name in names):
        report.stop("is a zipped Zarr store.", "Convert it: anndata.read_zarr(path).write_h5ad('new.h5ad').")
    inner = [name for name in names if name.lower().endswith((".h5ad", ".h5", ".csv", ".tsv", ".txt"))]
    if not any(".mtx" in name.lower() for name in names):
        remedy = f"Unpack it and pass '{inner[0][-60:]}'." if inner else READS
        report.stop("is a zip archive without a matrix.mtx.", remedy)
    return "triplet"


def _unpacked(head: bytes, report: ValidationReport) -> bytes:
    """First bytes of a gzip file, from its first bytes."""
    with report.translated("gzip"):
        return zlib.decompressobj(wbits=zlib.MAX_WBITS | 16).decompress(head, _HEAD)


def _text(head: bytes, path: Path, report: ValidationReport, *, packed: bool) -> str:
    start = head.lstrip()[:64].lower()
    named = {
        b"version https://git-lfs": ("is a Git LFS pointer, not the file itself.", "Fetch it: git lfs pull."),
        b"<!doctype html": ("is a web page, not data.", "Download the file itself; the link may need a login."),
        b"<html": ("is a web page, not data.", "Download the file itself; the link may need a login."),
        b"%%matrixmarket": (
            "is a matrix without names.",
            "Zip it with its features.tsv(.gz) and barcodes.tsv(.gz), and pass the zip or their folder.",
        ),
        b"rdx": ("is an R data file.", "Save it in R with zellkonverter::writeH5AD(sce, 'new.h5ad')."),
        b"%pdf": ("is a PDF.", READS),
        b"\x80\x04": ("is a Python pickle, which is never read.", "Save the data with adata.write_h5ad('new.h5ad')."),
        b"bzh": ("is compressed with bzip2.", "Unpack it first: bunzip2."),
        b"\xfd7zxz": ("is compressed with xz.", "Unpack it first: unxz."),
    }
    for magic, (message, remedy) in named.items():
        if start.startswith(magic):
            report.stop(message, remedy)
    if head[257:262] == b"ustar":
        report.stop("is a tar archive.", "Unpack it and pass the folder: tar -xf.")
    if packed and (head[:2] in (b"X\n", b"A\n", b"B\n")):
        report.stop("is an R data file (.rds).", "Save it in R with zellkonverter::writeH5AD(sce, 'new.h5ad').")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        report.stop("is text in UTF-16.", "Save it as UTF-8.")
    if b"\x00" in head or not any(mark in head for mark in (b",", b"\t", b";")):
        report.stop(f"is of no kind that is known (it begins with {head[:12]!r}).", READS)
    return "text"
