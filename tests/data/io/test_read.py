from __future__ import annotations

import contextlib
import pickle

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

from scdrugmap.data.genes import gene_table
from scdrugmap.data.io.frames import read_frame
from scdrugmap.data.io.hdf5_guard import open_hdf5
from scdrugmap.data.io.matrix import BLOCK_ROWS, sample_starts
from scdrugmap.data.io.read import Check, InputRefused, Limits, check_anndata, read_h5ad
from scdrugmap.errors import InvalidInput


@pytest.fixture
def reread(tmp_path):
    """Write an AnnData and read it with `read_h5ad`."""

    def through(adata: AnnData, name: str = "file.h5ad", compression: str | None = None, **options: object) -> AnnData:
        adata.write_h5ad(tmp_path / name, compression=compression)
        return read_h5ad(tmp_path / name, **options)

    return through


def found(adata: AnnData) -> dict:
    return adata.uns["scdrugmap"]["input"]


def said(adata: AnnData, level: str) -> str:
    record = found(adata)
    pairs = zip(record["checks_level"], record["checks_message"], strict=True)
    return " | ".join(text for at, text in pairs if at == level)


def refusal(call, *args, **options) -> InputRefused:
    """Return the refusal, which must be usable on a command line and in the app."""
    with pytest.raises(InputRefused) as caught:
        call(*args, **options)
    error = caught.value
    assert isinstance(error, InvalidInput)
    assert error.remedy
    assert "\n" not in error.line
    assert error.checks[-1] == Check("stop", str(error), error.remedy)
    return error


def logged(adata: AnnData, total: float = 1e4) -> AnnData:
    other = adata.copy()
    sums = np.asarray(other.X.sum(axis=1)).ravel()
    other.X = sp.csr_matrix(np.log1p(sp.diags(total / sums) @ other.X)).astype(np.float32)
    return other


def test_reads_counts_and_says_what_it_found(cells, reread, tmp_path):
    adata = reread(cells)
    assert adata.X.format == "csr"
    assert adata.X.dtype == np.float32
    assert (adata.X != cells.X).nnz == 0
    assert adata.var_names.equals(cells.var_names)
    assert list(adata.var) == ["ensembl_id", "original_name"]
    assert (adata.var["ensembl_id"] == cells.var["ensembl_id"]).mean() > 0.99
    assert adata.obs.astype(str).equals(cells.obs.astype(str))
    record = found(adata)
    expected = {"file": "file.h5ad", "value_type": "counts", "found_in": "X", "identifier": "symbol"}
    expected |= {"organism": "human", "n_cells": 120, "n_genes": 400, "n_genes_known": 400}
    assert {key: record[key] for key in expected} == expected
    assert "raw counts in X" in said(adata, "ok")
    assert said(adata, "warning") == ""
    adata.write_h5ad(tmp_path / "again.h5ad")  # the record can be stored, and what was stored reads the same
    again = read_h5ad(tmp_path / "again.h5ad")
    assert (again.X != adata.X).nnz == 0
    assert again.uns["scdrugmap"]["simulated"] is True


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "int64", "uint64", "float32", "float64", "bool"])
@pytest.mark.parametrize("storage", ["csr", "csc", "dense"])
def test_any_number_type_and_storage(cells, reread, storage, dtype):
    small = cells[:30].copy()
    small.X.data = np.minimum(small.X.data, 200)
    values = small.X if storage == "csr" else small.X.tocsc() if storage == "csc" else small.X.toarray()
    small.X = values.astype(dtype)
    adata = reread(small, compression="gzip" if storage == "dense" else None)
    expected = cells.X[:30].toarray()
    expected = (expected > 0) if dtype == "bool" else np.minimum(expected, 200)
    assert np.array_equal(adata.X.toarray(), expected)
    assert adata.X.has_canonical_format
    assert ("binarised" in said(adata, "warning")) == (dtype == "bool")


def test_finds_counts_wherever_they_are(cells, reread):
    logs = logged(cells)
    in_layer, in_raw, nowhere = logs.copy(), logs.copy(), logs.copy()
    in_layer.layers["counts"] = cells.X
    in_layer.layers["imputed"] = cells.X * 2
    in_raw.raw = cells
    nowhere.layers["unspliced"] = cells.X
    assert found(reread(in_layer))["found_in"] == "layers/counts"
    assert found(reread(in_raw))["found_in"] == "raw/X"
    assert found(reread(nowhere))["found_in"] == "X"
    for adata in (reread(in_layer), reread(in_raw)):
        assert (adata.X != cells.X).nnz == 0


def test_counts_with_more_genes_win_over_counts_with_fewer(cells, reread):
    some = cells[:, :150].copy()
    some.raw = cells
    adata = reread(some)
    assert found(adata)["found_in"] == "raw/X"
    assert adata.shape == cells.shape
    full = cells.copy()
    full.layers["counts"] = cells.X * 2
    assert found(reread(full))["found_in"] == "layers/counts"


def test_spliced_counts_are_a_last_resort(cells, reread):
    velocity = logged(cells)
    velocity.layers["spliced"] = cells.X
    adata = reread(velocity)
    assert found(adata)["found_in"] == "layers/spliced"
    assert "part of the counts" in said(adata, "warning")
    velocity.X = cells.X
    assert found(reread(velocity))["found_in"] == "X"


def test_scaled_x_with_logarithms_in_raw_reads_the_logarithms(cells, reread):
    logs = logged(cells)
    scaled = logs[:, :50].copy()
    dense = scaled.X.toarray()
    scaled.X = (dense - dense.mean(axis=0)) / dense.std(axis=0).clip(1e-3)
    scaled.raw = logs
    adata = reread(scaled)
    assert (found(adata)["found_in"], found(adata)["value_type"]) == ("raw/X", "log1p")


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (lambda x: np.log1p(x * 1e4 / x.sum(1, keepdims=True)), "log1p", "natural log"),
        (lambda x: np.log2(x * 1e6 / x.sum(1, keepdims=True) + 1), "log2p1", "log2(x + 1)"),
        (lambda x: np.log1p(x), "log1p", "undone to whole counts"),
    ],
)
def test_logarithms_are_undone_with_a_warning_that_names_the_base(cells, reread, change, kind, words):
    counts = cells.X.toarray().astype(np.float64)
    logs = cells.copy()
    logs.X = change(counts).astype(np.float32)
    adata = reread(logs)
    assert found(adata)["value_type"] == kind
    assert words in said(adata, "warning")
    ratio = adata.X.toarray().sum(axis=0) / np.maximum(counts.sum(axis=0), 1)
    assert adata.X.min() >= 0
    assert np.corrcoef(adata.X.toarray()[0], counts[0])[0, 1] > 0.999
    assert np.isfinite(ratio).all()


def test_normalised_values_are_read_with_a_warning(cells, reread):
    cpm = cells.copy()
    cpm.X = sp.csr_matrix(sp.diags(1e6 / np.asarray(cells.X.sum(axis=1)).ravel()) @ cells.X).astype(np.float32)
    adata = reread(cpm)
    assert found(adata)["value_type"] == "cpm"
    assert "every cell sums to 1e+06" in said(adata, "warning")


def test_what_is_not_accepted_is_refused_by_name(cells, reread):
    assert "natural log" in str(refusal(reread, logged(cells), accept=("counts", "cpm")))
    error = refusal(reread, logged(cells), accept=("counts",))
    assert "Accepted here: counts." in error.remedy


@pytest.mark.parametrize("dense", [True, False])
def test_z_scores_only_on_request(cells, reread, dense):
    logs = logged(cells).X.toarray()
    scaled = cells.copy()
    values = ((logs - logs.mean(axis=0)) / logs.std(axis=0).clip(1e-3)).astype(np.float32)
    scaled.X = values if dense else sp.csr_matrix(values)
    error = refusal(reread, scaled)
    assert "z-scores" in str(error)
    assert "layers['counts']" in error.remedy
    adata = reread(scaled, accept=("counts", "zscore"))
    assert found(adata)["value_type"] == "zscore"
    np.testing.assert_array_equal(adata.X.toarray(), values)


@pytest.mark.parametrize(
    ("value", "words"), [(np.nan, "holds NaN"), (np.inf, "holds inf"), (-3.0, "1 negative values"), (1e300, "1e+300")]
)
@pytest.mark.parametrize("storage", ["csr", "csc", "dense"])
def test_impossible_values_are_refused_with_their_place(cells, reread, storage, value, words):
    dense = cells.X.toarray().astype(np.float64)
    dense[7, 11] = value
    values = {"csr": sp.csr_matrix, "csc": sp.csc_matrix, "dense": np.asarray}[storage](dense)
    cells.X = values
    error = str(refusal(reread, cells))
    assert words in error
    assert f"row 7, column 11 ('{cells.var_names[11]}')" in error


@pytest.mark.parametrize(("shape", "words"), [((0, 5), "no cells"), ((5, 0), "no genes"), ((0, 0), "no cells")])
def test_nothing_is_refused(reread, shape, words):
    assert words in str(refusal(reread, AnnData(np.zeros(shape, np.float32))))


def test_only_zeros_and_only_text_are_refused(cells, reread, tmp_path):
    cells.X = sp.csr_matrix(cells.shape, dtype=np.float32)
    assert "only zeros" in str(refusal(reread, cells))
    with h5py.File(tmp_path / "file.h5ad", "r+") as file:
        del file["X"]
        file["X"] = np.full(cells.shape, b"one")
    assert "holds text" in str(refusal(read_h5ad, tmp_path / "file.h5ad"))


def test_repeated_genes_are_added_up(cells, reread):
    doubled = AnnData(sp.hstack([cells.X, cells.X], format="csr"), obs=cells.obs)
    doubled.var = pd.DataFrame(index=[*cells.var_names, *cells.var_names])
    adata = check_anndata(doubled)
    assert adata.var_names.is_unique
    assert adata.n_vars == cells.n_vars
    np.testing.assert_array_equal(adata[:, cells.var_names].X.toarray(), 2 * cells.X.toarray())
    assert "added up" in said(adata, "warning")


@pytest.mark.parametrize("version", ["", ".7"])
def test_ensembl_ids_become_symbols(cells, reread, version):
    symbols = cells.var_names.copy()
    cells.var_names = cells.var["ensembl_id"] + version
    cells.var = cells.var[[]]
    adata = reread(cells)
    assert found(adata)["identifier"] == "ensembl"
    assert np.mean(adata.var_names == symbols) > 0.99
    assert adata.var["original_name"].str.endswith(version or tuple("0123456789")).all()


@pytest.mark.parametrize("column", ["feature_name", "gene_symbols", "Gene_Name", "symbol"])
@pytest.mark.parametrize("index", ["numbers", "made up"])
def test_symbols_in_a_column_are_found(cells, reread, index, column):
    cells.var = pd.DataFrame({column: pd.Categorical(cells.var_names)}, index=cells.var_names)
    symbols = cells.var_names.copy()
    cells.var_names = [str(place) if index == "numbers" else f"locus_{place}" for place in range(cells.n_vars)]
    adata = reread(cells)
    assert adata.var_names.equals(symbols)
    assert f"in var['{column}']" in said(adata, "ok")


def test_previous_and_mouse_symbols_are_brought_up_to_date(cells, reread):
    previous = {new: old for old, new in gene_table().previous.items()}
    symbols = cells.var_names.to_numpy(object)
    old = [previous.get(name, name) for name in symbols]
    aged, mouse = cells.copy(), cells.copy()
    aged.var_names = old
    aged.var_names_make_unique()
    assert np.mean(reread(aged).var_names[:50] == symbols[:50]) > 0.8
    mouse.var_names = [name.capitalize() for name in symbols]
    mouse.var = mouse.var[[]]
    adata = reread(mouse)
    assert found(adata)["organism"] == "mouse"
    assert "mouse" in said(adata, "warning")
    assert len(set(adata.var_names) & set(symbols)) > 300


def test_unknown_genes_are_kept_and_counted(cells, reread):
    cells.var_names = [*(f"strange-{place}" for place in range(300)), *cells.var_names[300:]]
    cells.var = cells.var[[]]
    adata = reread(cells)
    assert adata.shape == cells.shape
    assert found(adata)["n_genes_known"] == 100
    assert "100 of 400 genes are known (25%" in said(adata, "warning")


def test_a_matrix_without_known_genes_is_refused(cells, reread):
    cells.var_names = [f"locus_{place}" for place in range(cells.n_vars)]
    cells.var = cells.var[[]]
    error = refusal(reread, cells)
    assert "none of its 400 gene names is known (the first are locus_0, locus_1" in str(error)


def test_genes_by_cells_is_recognised(cells, reread):
    assert "lies on its side" in str(refusal(reread, cells.T.copy()))
    assert "adata = adata.T" in refusal(reread, cells.T.copy()).remedy


def test_odd_cells_and_genes_are_kept_and_noted(cells, reread):
    dense = cells.X.toarray()
    dense[[3, 8]] = 0
    dense[:, 20] = 0
    cells.X = sp.csr_matrix(dense)
    cells.obs_names = ["same", "same", "same-1", *cells.obs_names[3:]]
    del cells.obs["response"]
    adata = reread(cells)
    assert adata.shape == cells.shape
    assert adata.obs_names.is_unique
    assert adata.obs_names[:3].tolist() == ["same", "same-2", "same-1"]
    assert "Empty cells: 2." in said(adata, "warning")
    assert "Repeated barcodes: 1." in said(adata, "warning")
    assert "Genes that are zero in all cells: " in said(adata, "ok")
    assert "response" not in adata.obs


def test_cells_with_few_genes_are_noted_where_the_matrix_is_wide():
    from scdrugmap.data.simulate import simulate

    adata = simulate(n_cells=40, n_genes=1500, n_samples=2)
    adata.X[:5].data[:] = 0
    keep = np.ones(adata.X.nnz, dtype=np.float32)
    keep[adata.X.indptr[0] + 5 : adata.X.indptr[1]] = 0
    adata.X.data *= keep
    assert "Cells with fewer than 200 genes: 1." in said(check_anndata(_foreign(adata)), "warning")


def _foreign(adata: AnnData) -> AnnData:
    return AnnData(adata.X, obs=adata.obs, var=adata.var)


def test_unfiltered_barcodes_are_judged_by_those_that_hold_something(cells):
    n = 20_000
    rows = np.arange(5, n, n // cells.n_obs)[: cells.n_obs]  # between the blocks of rows that are looked at first
    place = sp.csr_matrix((np.ones(len(rows), np.float32), (rows, np.arange(len(rows)))), shape=(n, cells.n_obs))
    looked_at = [start + row for start in sample_starts(n) for row in range(BLOCK_ROWS)]
    keep = sp.diags((~np.isin(np.arange(n), looked_at)).astype(np.float32))
    adata = check_anndata(AnnData((keep @ place @ cells.X).tocsr(), var=cells.var))
    assert found(adata)["value_type"] == "counts"
    record = found(adata)
    assert any("unfiltered matrix" in remedy for remedy in record["checks_remedy"])


def test_obs_of_all_kinds_survives_and_obsm_comes_along(cells, reread):
    n = cells.n_obs
    cells.obs = pd.DataFrame(
        {
            "text": [f"t{place % 3}" for place in range(n)],
            "grade": pd.Categorical(["low", "high"] * (n // 2), categories=["low", "high"], ordered=True),
            "flag": [True, False] * (n // 2),
            "number": np.linspace(0, 1, n),
            "count": pd.array([1, None] * (n // 2), dtype="Int64"),
        },
        index=cells.obs_names,
    )
    cells.obsm["X_umap"] = np.arange(2.0 * n).reshape(n, 2)
    cells.obsm["frame"] = pd.DataFrame({"a": np.zeros(n)}, index=cells.obs_names)
    cells.uns["anything"] = {"deep": np.zeros(3)}
    cells.obsp["graph"] = sp.eye(n, format="csr")
    cells.varm["loadings"] = np.zeros((cells.n_vars, 2))
    adata = reread(cells)
    assert list(adata.obs) == ["text", "grade", "flag", "number", "count"]
    assert adata.obs["grade"].cat.ordered
    assert adata.obs["grade"].cat.categories.tolist() == ["low", "high"]
    assert adata.obs["flag"].tolist() == [True, False] * (n // 2)
    assert adata.obs["count"].isna().sum() == n // 2
    assert list(adata.obsm) == ["X_umap"]
    assert np.array_equal(adata.obsm["X_umap"], cells.obsm["X_umap"])
    assert set(adata.uns) == {"scdrugmap"}
    assert not adata.layers
    assert not adata.obsp
    assert not adata.varm


def test_columns_of_an_unknown_kind_are_left_out_by_name(cells, reread, tmp_path):
    reread(cells)
    with h5py.File(tmp_path / "file.h5ad", "r+") as file:
        group = file["obs"].create_group("from_the_future")
        group.attrs["encoding-type"] = "awkward-array"
        file["obs"]["wide"] = np.zeros((cells.n_obs, 2))
        file["obs"]["short"] = np.zeros(3)
    adata = read_h5ad(tmp_path / "file.h5ad")
    assert list(adata.obs) == list(cells.obs)
    assert "Columns of obs of a kind that is not read: from_the_future, short, wide" in said(adata, "warning")


def test_old_encodings(cells, tmp_path):
    old, seven = tmp_path / "old.h5ad", tmp_path / "seven.h5ad"
    names, genes = cells.obs_names.to_numpy("S"), cells.var_names.to_numpy("S")
    sample = cells.obs["sample"].to_numpy("S")
    codes, categories = pd.factorize(cells.obs["sample"])
    table = np.rec.fromarrays([names, sample, np.arange(len(names))], names="index,sample,number")
    with h5py.File(old, "w") as file:  # before 0.7: tables of compound type, h5sparse attributes
        group = file.create_group("X")
        group.attrs["h5sparse_format"], group.attrs["h5sparse_shape"] = "csr", cells.shape
        for part in ("data", "indices", "indptr"):
            group[part] = getattr(cells.X, part)
        file["obs"] = table
        file["var"] = np.rec.fromarrays([genes], names="index")
    with h5py.File(seven, "w") as file:  # 0.7: codes in the column, categories beside it
        file["X"] = cells.X.toarray()
        file["var/_index"] = genes
        obs = file.create_group("obs")
        obs.attrs["_index"] = "cell"
        obs["cell"], obs["sample"], obs["__categories/sample"] = names, codes.astype("i1"), np.array(categories, "S")
        obs["sample"].attrs["categories"] = obs["__categories/sample"].ref
    for path in (old, seven):
        adata = read_h5ad(path)
        assert (adata.X != cells.X).nnz == 0
        assert adata.obs_names.equals(cells.obs_names.rename(None))
        assert adata.obs["sample"].astype(str).tolist() == cells.obs["sample"].tolist()


def test_order_of_columns_follows_the_file(cells, reread, tmp_path):
    reread(cells)
    with open_hdf5(tmp_path / "file.h5ad", _report()) as guard:
        assert list(read_frame(guard, "obs")) == list(cells.obs)


def _report():
    from scdrugmap.data.io.checks import ValidationReport

    return ValidationReport("file.h5ad", Limits())


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(cells=100), "number of cells in X is 120; the limit is 100"),
        (Limits(genes=300), "number of genes in X is 400; the limit is 300"),
        (Limits(nonzeros=1000), "number of values in X"),
        (Limits(file_mb=0), "size of the file"),
        (Limits(unpacked_gb=1e-6), "unpacked size"),
        (Limits(objects=10), "number of groups and arrays"),
        (Limits(depth=0), "depth of nested groups"),
        (Limits(columns=3), "number of columns of obs"),
        (Limits(string_length=4), "longest text"),
        (Limits(strings_mb=0), "text to be read"),
    ],
)
def test_limits_are_kept_and_named(cells, reread, limits, words):
    error = refusal(reread, cells, limits=limits)
    assert words in str(error)
    assert "Limits" in error.remedy


def test_numbers_of_another_machine_are_read(cells, tmp_path):
    with h5py.File(tmp_path / "big.h5ad", "w") as file:
        file["X"] = cells.X.toarray().astype(">f8")
        file["obs/_index"], file["var/_index"] = cells.obs_names.to_numpy("S"), cells.var_names.to_numpy("S")
        file["obs/order"] = np.arange(cells.n_obs, dtype=">i4")
    adata = read_h5ad(tmp_path / "big.h5ad")
    assert (adata.X != cells.X).nnz == 0
    assert adata.obs["order"].tolist() == list(range(cells.n_obs))


def test_dense_values_count_too(cells, reread):
    cells.X = cells.X.toarray()
    assert "number of values in X" in str(refusal(reread, cells, limits=Limits(nonzeros=1000)))


def test_dense_band_of_a_badly_chunked_matrix_is_limited(cells, tmp_path):
    cells.X = cells.X.toarray()
    cells.write_h5ad(tmp_path / "columns.h5ad", compression="gzip")
    with h5py.File(tmp_path / "columns.h5ad", "r+") as file:
        values = file["X"][()]
        del file["X"]
        file.create_dataset("X", data=values, chunks=(cells.n_obs, 1), compression="lzf")
    assert (read_h5ad(tmp_path / "columns.h5ad").X.toarray() == values).all()
    error = refusal(read_h5ad, tmp_path / "columns.h5ad", limits=Limits(chunk_mb=0.01))
    assert "band of whole chunks" in str(error)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    with h5py.File(tmp_path / "bomb.h5ad", "w") as file:
        file.create_dataset("X", shape=(100_000, 20_000), dtype="f4", chunks=(1000, 1000), compression="gzip")
        file["obs/_index"], file["var/_index"] = np.arange(100_000).astype("S6"), np.arange(20_000).astype("S6")
    assert "compression ratio of /X" in str(refusal(read_h5ad, tmp_path / "bomb.h5ad"))


def test_an_anndata_in_memory_meets_the_same_rules(cells, reread):
    given = _foreign(cells)
    given.raw = given
    given.X = logged(cells).X
    adata = check_anndata(given, name="mine")
    assert (found(adata)["found_in"], found(adata)["file"]) == ("raw/X", "mine")
    assert (adata.X != cells.X).nnz == 0
    assert adata is not given
    empty = AnnData(None, obs=cells.obs, var=cells.var)
    assert "no matrix" in str(refusal(check_anndata, empty))
    given = AnnData(cells.X.toarray().astype(complex), obs=cells.obs, var=cells.var)
    assert "complex128" in str(refusal(check_anndata, given))


def test_memory_is_not_changed(cells):
    given = _foreign(logged(cells))
    before = given.X.copy()
    check_anndata(given)
    assert np.array_equal(given.X.data, before.data)


def test_a_refusal_crosses_processes(cells, reread):
    error = refusal(reread, cells, limits=Limits(cells=1))
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.remedy, copy.checks) == (str(error), error.remedy, error.checks)


def test_a_missing_file_is_said(tmp_path):
    assert "no such file" in str(refusal(read_h5ad, tmp_path / "nothing.h5ad"))


@pytest.mark.parametrize("seed", range(50))
def test_damaged_files_are_refused_or_read(fuzzed, tmp_path, seed):
    rng = np.random.default_rng(seed)
    damaged = bytearray(fuzzed)
    if seed % 3 == 0:
        damaged = damaged[: rng.integers(len(damaged))]
    else:
        for place in rng.integers(0, len(damaged) if seed % 3 == 1 else 4000, 6):
            damaged[place] = rng.integers(256)
    (tmp_path / "damaged.h5ad").write_bytes(bytes(damaged))
    with contextlib.suppress(InputRefused):
        assert np.isfinite(read_h5ad(tmp_path / "damaged.h5ad").X.data).all()


@pytest.fixture(scope="module")
def fuzzed(_cells, tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("fuzz") / "whole.h5ad"
    small = _cells[:30, :60].copy()
    small.layers["counts"] = small.X.tocsc()
    small.raw = small.copy()
    small.obsm["X_pca"] = np.ones((30, 3), np.float32)
    small.write_h5ad(path)
    return path.read_bytes()
