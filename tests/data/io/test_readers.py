from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse as sp
from anndata import AnnData

from scdrugmap.data.io.read import InputRefused, Limits, read_h5ad

TYPE = "Gene Expression"


def refused(path: Path, **options: object) -> str:
    """Return message and remedy of the refusal, which must be one line with both."""
    with pytest.raises(InputRefused) as caught:
        read_h5ad(path, **options)
    assert caught.value.remedy
    assert "\n" not in caught.value.line
    return caught.value.line


def warned(adata: AnnData) -> str:
    record = adata.uns["scdrugmap"]["input"]
    pairs = zip(record["checks_level"], record["checks_message"], strict=True)
    return " | ".join(text for level, text in pairs if level == "warning")


def same(adata: AnnData, cells: AnnData) -> bool:
    return (
        adata.obs_names.tolist() == cells.obs_names.tolist()
        and (adata[:, cells.var_names].X.toarray() == cells.X.toarray()).all()
    )


# ---- 10x .h5 -------------------------------------------------------------------------------------------------------
def write_10x(group: h5py.Group, cells: AnnData) -> h5py.Group:
    group["data"], group["indices"], group["indptr"] = cells.X.data.astype("i4"), cells.X.indices, cells.X.indptr
    group["shape"] = np.array([cells.n_vars, cells.n_obs])
    group["barcodes"] = cells.obs_names.to_numpy("S")
    return group


def write_v3(path: Path, cells: AnnData, types: list[str], genomes: list[str]) -> Path:
    with h5py.File(path, "w") as file:
        features = write_10x(file.create_group("matrix"), cells).create_group("features")
        features["id"], features["name"] = cells.var["ensembl_id"].to_numpy("S"), cells.var_names.to_numpy("S")
        features["feature_type"], features["genome"] = np.array(types, "S"), np.array(genomes, "S")
    return path


def write_v2(path: Path, cells: AnnData, genomes: list[str]) -> Path:
    with h5py.File(path, "w") as file:
        for genome in genomes:
            group = write_10x(file.create_group(genome), cells)
            group["genes"], group["gene_names"] = cells.var["ensembl_id"].to_numpy("S"), cells.var_names.to_numpy("S")
    return path


def test_10x_of_both_versions(cells, tmp_path):
    three = write_v3(tmp_path / "three.h5", cells, [TYPE] * 400, ["GRCh38"] * 400)
    two = write_v2(tmp_path / "two.h5", cells, ["hg19"])
    for path in (three, two):
        adata = read_h5ad(path)
        assert same(adata, cells)
        assert warned(adata) == ""
        assert adata.uns["scdrugmap"]["input"]["value_type"] == "counts"


def test_10x_keeps_genes_and_leaves_antibodies(cells, tmp_path):
    types = [TYPE] * 390 + ["Antibody Capture"] * 6 + ["CRISPR Guide Capture"] * 4
    adata = read_h5ad(write_v3(tmp_path / "cite.h5", cells, types, ["GRCh38"] * 400))
    assert adata.shape == (120, 390)
    assert "no genes: 10 (Antibody Capture, CRISPR Guide Capture). They were left out" in warned(adata)


def test_10x_of_several_genomes_keeps_the_human_one(cells, tmp_path):
    three = read_h5ad(write_v3(tmp_path / "three.h5", cells, [TYPE] * 400, ["GRCh38"] * 300 + ["mm10"] * 100))
    two = read_h5ad(write_v2(tmp_path / "two.h5", cells, ["hg19", "mm10"]))
    assert three.shape == (120, 300)
    assert "mm10 was left out (features: 100)" in warned(three)
    assert same(two, cells)
    assert "only hg19 was read, not mm10" in warned(two)
    assert "several genomes (hg19, hg38)" in refused(write_v2(tmp_path / "both.h5", cells, ["hg19", "hg38"]))


def test_10x_whose_parts_disagree_is_refused(cells, tmp_path):
    path = write_v3(tmp_path / "wrong.h5", cells, [TYPE] * 400, ["GRCh38"] * 400)
    with h5py.File(path, "r+") as file:
        del file["matrix/barcodes"]
        file["matrix/barcodes"] = cells.obs_names[:7].to_numpy("S")
    assert "7 barcodes and 400 features" in refused(path)


# ---- matrix.mtx ----------------------------------------------------------------------------------------------------
def triplet(cells: AnnData, *, version: int = 3, packed: bool = False, lying: bool = True) -> dict[str, bytes]:
    stream = io.BytesIO()
    scipy.io.mmwrite(stream, sp.coo_matrix(cells.X.T if lying else cells.X).astype(int), comment=" by us\n and them")
    rows = zip(cells.var["ensembl_id"], cells.var_names, strict=True)
    lines = ["\t".join([*row, TYPE][:version]) for row in rows]
    files = {
        "matrix.mtx": stream.getvalue(),
        ("genes" if version == 2 else "features") + ".tsv": "\n".join(lines).encode(),
        "barcodes.tsv": "\n".join(cells.obs_names).encode() + b"\n",
    }
    return {f"{name}.gz": gzip.compress(data) for name, data in files.items()} if packed else files


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def folder(path: Path, files: dict[str, bytes]) -> Path:
    path.mkdir()
    for name, data in files.items():
        (path / name).write_bytes(data)
    return path


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("write", [zipped, folder])
def test_triplets(cells, tmp_path, write, packed, version):
    adata = read_h5ad(write(tmp_path / "run", triplet(cells, version=version, packed=packed)))
    assert same(adata, cells)
    assert warned(adata) == ""


def test_triplets_may_lie_deeper_be_prefixed_or_be_cells_by_genes(cells, tmp_path):
    deep = {f"out/filtered/GSM1_{name}": data for name, data in triplet(cells).items()}
    deep["__MACOSX/out/filtered/._GSM1_matrix.mtx"] = b"junk"
    assert same(read_h5ad(zipped(tmp_path / "deep.zip", deep)), cells)
    assert same(read_h5ad(zipped(tmp_path / "upright.zip", triplet(cells, lying=False))), cells)


def test_names_that_climb_out_of_the_archive_write_nothing(cells, tmp_path):
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    path = zipped(inner / "slip.zip", {f"../../{name}": data for name, data in triplet(cells).items()})
    assert same(read_h5ad(path), cells)
    assert {item.name for item in tmp_path.rglob("*")} == {"a", "b", "slip.zip"}


def test_incomplete_and_ambiguous_triplets_are_refused(cells, tmp_path):
    files = triplet(cells)
    missing = {name: data for name, data in files.items() if name != "barcodes.tsv"}
    assert "holds no barcodes.tsv" in refused(zipped(tmp_path / "missing.zip", missing))
    double = {f"{run}/{name}": data for run in ("a", "b") for name, data in files.items()}
    assert "holds 2 files like matrix.mtx" in refused(zipped(tmp_path / "double.zip", double))
    short = files | {"barcodes.tsv": b"one\ntwo\n"}
    assert "the matrix is 400 x 120, with 400 features and 2 barcodes" in refused(zipped(tmp_path / "s.zip", short))
    cut = files | {"matrix.mtx": files["matrix.mtx"][: len(files["matrix.mtx"]) // 2].rsplit(b"\n", 1)[0]}
    assert "matrix.mtx ends after" in refused(zipped(tmp_path / "cut.zip", cut))
    (tmp_path / "nothing").mkdir()
    assert "found nothing" in refused(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        (b"%%MatrixMarket matrix array real general\n400 120\n", "array real general"),
        (b"%%MatrixMarket matrix coordinate pattern general\n400 120 1\n1 1\n", "pattern"),
        (b"%%MatrixMarket matrix coordinate integer general\n400 120 9999999999999\n1 1 1\n", "number of values"),
        (b"%%MatrixMarket matrix coordinate integer general\n400 99999999999 1\n1 1 1\n", "number of cells"),
        (b"%%MatrixMarket matrix coordinate integer general\n400 120 1\n401 1 1\n", "cannot be read"),
        (b"%%MatrixMarket matrix coordinate integer general\n400 120 1\n0 1 1\n", "cannot be read"),
        (b"%%MatrixMarket matrix coordinate integer general\n400 120 1\n1 1 x\n", "cannot be read"),
        (b"%%MatrixMarket matrix coordinate integer general\nmany\n", "cannot be read"),
        (b"%%MatrixMarket matrix coordinate integer general\n400 120 1\n1 1 -4\n", "negative"),
        (b"%%MatrixMarket matrix coordinate real general\n400 120 2\n1 1 nan\n2 1 1\n", "NaN"),
    ],
)
def test_faulty_matrices_are_refused(cells, tmp_path, matrix, words):
    assert words in refused(zipped(tmp_path / "run.zip", triplet(cells) | {"matrix.mtx": matrix}))


def test_bombs_in_archives_are_stopped(cells, tmp_path):
    limits = Limits(ratio_from_mb=1, ratio=50)
    bomb = triplet(cells) | {"matrix.mtx": b"%%MatrixMarket matrix coordinate integer general\n%" + b"a\n%" * 2**20}
    assert "compression ratio" in refused(zipped(tmp_path / "bomb.zip", bomb), limits=limits)
    bomb["matrix.mtx.gz"] = gzip.compress(bomb.pop("matrix.mtx"))
    assert "compression ratio" in refused(zipped(tmp_path / "gz.zip", bomb), limits=limits)
    wide = triplet(cells) | {"barcodes.tsv": b"a" * 2**21}
    assert "unpacked text" in refused(zipped(tmp_path / "wide.zip", wide), limits=Limits(strings_mb=1))
    (tmp_path / "bomb.csv.gz").write_bytes(gzip.compress(b",TP53\n" + b"cell,1\n" * 2**19))
    assert "compression ratio" in refused(tmp_path / "bomb.csv.gz", limits=limits)


def test_encrypted_archives_are_named(cells, tmp_path):
    path = zipped(tmp_path / "secret.zip", triplet(cells))
    data = bytearray(path.read_bytes())
    at = data.find(b"PK\x01\x02")
    while at >= 0:  # set the encryption bit of every entry of the directory
        data[at + 8] |= 1
        at = data.find(b"PK\x01\x02", at + 4)
    path.write_bytes(bytes(data))
    assert "is encrypted" in refused(path)


# ---- text tables ---------------------------------------------------------------------------------------------------
@pytest.fixture
def frame(cells) -> pd.DataFrame:
    return cells.to_df().astype(int)


@pytest.mark.parametrize("separator", [",", "\t", ";"])
@pytest.mark.parametrize("packed", [False, True])
def test_text_tables(cells, frame, tmp_path, separator, packed):
    path = tmp_path / ("table.txt.gz" if packed else "table.txt")
    frame.to_csv(path, sep=separator)
    adata = read_h5ad(path)
    assert same(adata, cells)
    assert warned(adata) == ""


def test_text_tables_of_genes_by_cells_are_turned(cells, frame, tmp_path):
    frame.T.to_csv(tmp_path / "turned.csv")
    adata = read_h5ad(tmp_path / "turned.csv")
    assert same(adata, cells)
    assert "transposed" in warned(adata)


def test_columns_about_cells_become_obs(cells, frame, tmp_path):
    frame.insert(0, "Condition", ["sensitive", "resistant"] * 60)
    frame["percent.mt"], frame["label"] = 3.5, 1
    frame.index.name = "Cell_barcode"
    frame.to_csv(tmp_path / "table.csv")
    adata = read_h5ad(tmp_path / "table.csv")
    assert same(adata, cells)
    assert adata.obs["Condition"].tolist() == ["sensitive", "resistant"] * 60
    assert list(adata.obs) == ["Condition", "percent.mt", "label"]


def test_tables_without_index_or_corner_or_with_a_byte_order_mark(cells, frame, tmp_path):
    frame.to_csv(tmp_path / "plain.csv", index=False)
    plain = read_h5ad(tmp_path / "plain.csv")
    assert plain.obs_names.tolist() == [str(place) for place in range(120)]
    assert np.array_equal(plain.X.toarray(), cells.X.toarray())
    text = frame.to_csv(sep="\t").removeprefix("\t").removeprefix(frame.index.name or "")
    (tmp_path / "r.tsv").write_text(text)
    assert same(read_h5ad(tmp_path / "r.tsv"), cells)
    frame.to_csv(tmp_path / "mark.csv", encoding="utf-8-sig")
    assert same(read_h5ad(tmp_path / "mark.csv"), cells)


def test_logarithms_and_repeated_genes_in_text(cells, frame, tmp_path):
    sums = frame.sum(axis=1).to_numpy()[:, None]
    logs = pd.concat([np.log1p(frame / sums * 1e4).round(4)] * 2, axis=1)
    logs.to_csv(tmp_path / "logs.csv")
    adata = read_h5ad(tmp_path / "logs.csv")
    assert adata.uns["scdrugmap"]["input"]["value_type"] == "log1p"
    assert adata.shape == cells.shape
    assert "added up" in warned(adata)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (",TP53,EGFR\n", "header only"),
        (",TP53,EGFR\na,1,2\nb,1\n", "line 3 has 2 fields, the header 3"),
        (",TP53,EGFR\na,1,\nb,1,2\n", "NaN (or an empty field) at row 0, column 1 ('EGFR')"),
        (",TP53,EGFR\n" + "a,1,2\n" * 40 + "b,one,2\n", "could not convert string to float"),
        (",locus_a,locus_b\na,1,2\n", "none of its 2 gene names is known"),
        ("name,other\na,b\nc,d\n", "no column of numbers"),
        (",TP53,EGFR\na,1,-2\nb,3,4\n", "negative"),
    ],
)
def test_faulty_tables_are_refused(tmp_path, text, words):
    (tmp_path / "table.csv").write_text(text)
    assert words in refused(tmp_path / "table.csv")


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(cells=50, genes=50), "number of columns is 401"),
        (Limits(cells=50), "number of cells in the table is 120"),
        (Limits(nonzeros=10), "number of values"),
        (Limits(unpacked_gb=1e-5), "unpacked text"),
    ],
)
def test_limits_of_text_tables(frame, tmp_path, limits, words):
    frame.to_csv(tmp_path / "table.csv")
    assert words in refused(tmp_path / "table.csv", limits=limits)


# ---- what else people bring ----------------------------------------------------------------------------------------
OTHER = {
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "Git LFS pointer"),
    "html": (b"<!DOCTYPE html><html><body>Log in</body></html>", "web page"),
    "empty": (b"", "empty (0 bytes)"),
    "noise": (bytes(range(256)) * 9, "no kind that is known"),
    "pickle": (b"\x80\x04\x95\x10", "pickle"),
    "rds": (gzip.compress(b"X\n\x00\x00\x00\x03"), "R data file"),
    "rdata": (b"RDX3\nX\n", "R data file"),
    "pdf": (b"%PDF-1.7", "PDF"),
    "xz": (b"\xfd7zXZ\x00\x00", "xz"),
    "mtx": (b"%%MatrixMarket matrix coordinate integer general\n1 1 1\n1 1 1\n", "matrix without names"),
    "cut": (b"\x89HDF\r\n\x1a\n\x00\x00", "truncated"),
    "gzip": (b"\x1f\x8b\x08\x00", "no kind that is known"),
    "words": (b"just a few words", "no kind that is known"),
    "utf-16": ("a,b\n1,2\n".encode("utf-16"), "UTF-16"),
    "zip": (b"PK\x03\x04 broken", "zip archive"),
}


@pytest.mark.parametrize("name", OTHER)
def test_other_kinds_are_named_whatever_the_suffix(tmp_path, name):
    data, words = OTHER[name]
    path = tmp_path / "file.h5ad"
    path.write_bytes(data)
    assert words in refused(path)


def test_other_archives_are_named(tmp_path):
    assert "Excel" in refused(zipped(tmp_path / "book.xlsx", {"xl/workbook.xml": b""}))
    assert "Zarr" in refused(zipped(tmp_path / "store.zip", {"X/.zgroup": b"{}"}))
    assert "pass 'cells.h5ad'" in refused(zipped(tmp_path / "cells.zip", {"cells.h5ad": b""}))
    with tarfile.open(tmp_path / "run.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("matrix.mtx"), io.BytesIO())
    assert "tar archive" in refused(tmp_path / "run.tar.gz")
    (tmp_path / "store.zarr").mkdir()
    (tmp_path / "store.zarr" / ".zattrs").write_text("{}")
    assert "Zarr" in refused(tmp_path / "store.zarr")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["matrix", "row_attrs", "col_attrs"], "Loom"),
        (["mod", "obs", "var"], "MuData"),
        (["assays", "cell.names"], "h5Seurat"),
        (["barcode_idx", "molecule_info"], "molecule_info.h5"),
        (["weights"], "neither AnnData nor 10x (at its top: weights)"),
        (["obs"], "there is no var in it (found obs)"),
        ([], "at its top: nothing"),
    ],
)
def test_other_hdf5_is_named(tmp_path, names, words):
    with h5py.File(tmp_path / "file.h5ad", "w") as file:
        for name in names:
            file.create_group(name)
    assert words in refused(tmp_path / "file.h5ad")


def test_the_suffix_does_not_matter(cells, frame, tmp_path):
    cells.write_h5ad(tmp_path / "cells.csv")
    frame.to_csv(tmp_path / "table.h5ad")
    write_v3(tmp_path / "tenx.h5ad", cells, [TYPE] * 400, ["GRCh38"] * 400)
    assert all(same(read_h5ad(path), cells) for path in tmp_path.iterdir())


# ---- hostile HDF5 --------------------------------------------------------------------------------------------------
@pytest.fixture
def hostile(cells, tmp_path):
    """Change a valid file and return its path."""
    path = tmp_path / "hostile.h5ad"
    cells.write_h5ad(path)

    def change(how) -> Path:
        with h5py.File(path, "r+") as file:
            how(file)
        return path

    return change


def test_links_out_of_the_file_are_refused(hostile, tmp_path):
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["X"] = np.ones((120, 400))

    def link(file: h5py.File) -> None:
        del file["X"]
        file["X"] = h5py.ExternalLink(str(secret), "/X")

    assert "/X is a link into another file" in refused(hostile(link))


@pytest.mark.parametrize("place", ["uns/deep/secret", "obs/secret", "varm/secret"])
def test_links_are_refused_wherever_they_hide(hostile, place):
    assert "link" in refused(hostile(lambda file: file.__setitem__(place, h5py.ExternalLink("/etc/passwd", "/"))))


def test_soft_links_and_cycles_are_refused(hostile, cells, tmp_path):
    assert "soft link" in refused(hostile(lambda file: file.__setitem__("layers/counts", h5py.SoftLink("/X"))))
    cells.write_h5ad(tmp_path / "hostile.h5ad")
    assert "holds itself" in refused(hostile(lambda file: file.__setitem__("uns/again", file["/"])))


def test_external_storage_is_refused(hostile, tmp_path):
    (tmp_path / "passwd").write_bytes(bytes(480))

    def store(file: h5py.File) -> None:
        file.create_dataset("obs/secret", (120,), "i4", external=[(str(tmp_path / "passwd"), 0, 480)])

    assert "/obs/secret keeps its bytes in another file" in refused(hostile(store))


def test_virtual_data_sets_are_refused(hostile):
    def virtual(file: h5py.File) -> None:
        layout = h5py.VirtualLayout((120,), "i4")
        layout[:] = h5py.VirtualSource("/etc/passwd", "data", (120,))
        file.create_virtual_dataset("uns/virtual", layout)

    assert "is a virtual data set" in refused(hostile(virtual))


@pytest.mark.parametrize(
    "values",
    [
        np.zeros(120, dtype=[("a", "f4"), ("b", "S3")]),
        np.full(120, h5py.Reference(), dtype=h5py.ref_dtype),
        np.zeros(120, dtype="V8"),
        np.zeros(120, dtype=complex),
    ],
    ids=["compound", "reference", "opaque", "complex"],
)
def test_odd_types_are_not_read(hostile, values):
    def into_obs(file: h5py.File) -> None:
        file.create_dataset("obs/odd", data=values)

    adata = read_h5ad(hostile(into_obs))
    assert "odd" not in adata.obs
    assert "odd" in warned(adata)

    def into_x(file: h5py.File) -> None:
        del file["X"], file["obs/odd"]
        file.create_dataset("X", data=np.broadcast_to(values[:, None], (120, 400)))

    assert "HDF5 type that is not read" in refused(hostile(into_x))


def test_a_long_text_behind_many_entries_is_refused(hostile):
    def fill(file: h5py.File) -> None:
        file.create_dataset("obs/essay", data=["a" * 50_000] * 120, dtype=h5py.string_dtype())

    assert "longest text in /obs/essay is 50,000" in refused(hostile(fill))


def test_many_and_deep_groups_are_refused(hostile, cells, tmp_path):
    def many(file: h5py.File) -> None:
        for place in range(300):
            file.create_group(f"uns/many/{place}")

    assert "number of groups" in refused(hostile(many), limits=Limits(objects=200))
    cells.write_h5ad(tmp_path / "hostile.h5ad")
    assert "depth of nested groups" in refused(hostile(lambda file: file.create_group("uns/" + "a/" * 60)))


@pytest.mark.parametrize(
    ("part", "place", "value"), [("indices", 5, 400), ("indices", 5, -1), ("indptr", 3, 10**6), ("indptr", 0, 7)]
)
def test_sparse_arrays_that_point_outside_are_refused(hostile, part, place, value):
    def point(file: h5py.File) -> None:
        file[f"X/{part}"][place] = value

    assert "cannot be read as" in refused(hostile(point))


def test_a_matrix_that_does_not_tell_its_shape_is_refused(hostile, cells, tmp_path):
    many = np.zeros(1000, np.int64)
    assert "does not tell its shape" in refused(hostile(lambda file: file["X"].attrs.__setitem__("shape", many)))
    path = write_v3(tmp_path / "tenx.h5", cells, [TYPE] * 400, ["GRCh38"] * 400)
    with h5py.File(path, "r+") as file:
        del file["matrix/shape"]
        file["matrix/shape"] = many
    assert "does not tell the shape" in refused(path)


def test_columns_keep_an_order_unless_reading_it_could_be_costly(hostile, cells):
    path = hostile(lambda file: None)
    given = list(cells.obs)
    assert given != sorted(given)
    assert list(read_h5ad(path).obs) == given
    hostile(lambda file: file["uns"].attrs.__setitem__("padding", "a" * 60_000))
    assert list(read_h5ad(path, limits=Limits(strings_mb=0.1)).obs) == sorted(given)


def test_an_incomplete_matrix_is_named(hostile):
    path = hostile(lambda file: file.__delitem__("X/indptr"))
    with pytest.raises(InputRefused, match="holds no matrix") as caught:
        read_h5ad(path)
    assert "X is stored as 'csr_matrix' or incomplete" in caught.value.checks[0].message


def test_shapes_that_disagree_are_refused(hostile, cells, tmp_path):
    assert "X is 120 x 50, but obs and var are (120, 400)" in refused(
        hostile(lambda file: file["X"].attrs.__setitem__("shape", [120, 50]))
    )
    cells.write_h5ad(tmp_path / "hostile.h5ad")

    def turn(file: h5py.File) -> None:
        del file["X"]
        file["X"] = cells.X.toarray().T

    assert "lies on its side" in refused(hostile(turn))


def test_an_unknown_filter_is_named(hostile):
    def squeeze(file: h5py.File) -> None:
        del file["X"]
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((10, 10))
        properties.set_filter(32_001, h5py.h5z.FLAG_OPTIONAL, ())  # blosc, which this libhdf5 does not have
        space = h5py.h5s.create_simple((120, 400))
        h5py.h5d.create(file.id, b"X", h5py.h5t.NATIVE_FLOAT, space, properties)

    line = refused(hostile(squeeze))
    assert "filter 32001" in line
    assert "compression='gzip'" in line
