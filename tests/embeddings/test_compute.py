"""The store of embeddings: what is a read, what is computed again, what is listed."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime

import anndata as ad
import numpy as np
import pytest

from scdrugmap.embeddings import compute, store
from scdrugmap.embeddings.compute import embed, embed_cells, shard_key
from scdrugmap.embeddings.entries import entries
from scdrugmap.embeddings.pending import Key, waiting
from scdrugmap.errors import Cancelled, InvalidInput, UnknownName
from scdrugmap.models import MODELS
from scdrugmap.models.core.encoder import Encoder
from scdrugmap.models.testing import toy_encoder


@pytest.fixture(params=["scgpt", "hvg-pca"])
def encoder(request, cells) -> Encoder:
    return toy_encoder(MODELS[request.param], cells)


@pytest.fixture
def encoded(monkeypatch) -> list[int]:
    """Numbers of cells of each call that ran a network."""
    calls: list[int] = []
    run = Encoder._run

    def counted(self, chunks, n_cells, *rest):
        calls.append(n_cells)
        return run(self, chunks, n_cells, *rest)

    monkeypatch.setattr(Encoder, "_run", counted)
    return calls


@pytest.fixture
def small_shards(monkeypatch) -> None:
    """120 cells are three shards."""
    monkeypatch.setattr(compute, "SHARD_CELLS", 50)


def test_a_second_call_reads(encoder, cells, tmp_path, encoded, small_shards):
    first = embed_cells(cells, encoder, cache=tmp_path)
    assert encoded == [50, 50, 20]
    np.testing.assert_array_equal(embed_cells(cells, encoder, cache=tmp_path), first)
    assert encoded == [50, 50, 20]
    assert first.dtype == np.float32
    np.testing.assert_allclose(first, encoder.embed(cells), rtol=0, atol=2e-5)


def test_without_a_cache_nothing_is_written(encoder, cells, tmp_path, encoded, monkeypatch):
    monkeypatch.chdir(tmp_path)
    embed_cells(cells, encoder)
    embed_cells(cells, encoder)
    assert encoded == [120, 120]
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_call_resumes_at_the_shard(encoder, cells, tmp_path, encoded, small_shards):
    def stop(done, total):
        if done > 60:
            raise Cancelled("Stopped.")

    with pytest.raises(Cancelled):
        embed_cells(cells, encoder, cache=tmp_path, batch_size=10, progress=stop)
    assert encoded == [50, 50]
    embed_cells(cells, encoder, cache=tmp_path)
    assert encoded == [50, 50, 50, 20]  # the first shard was kept


def test_progress_counts_every_cell_once(encoder, cells, tmp_path, small_shards):
    computed, read = [], []
    embed_cells(cells, encoder, cache=tmp_path, batch_size=7, progress=lambda *now: computed.append(now))
    embed_cells(cells, encoder, cache=tmp_path, progress=lambda *now: read.append(now))
    assert computed[-1] == read[-1] == (120, 120)
    assert [done for done, _ in computed] == sorted(done for done, _ in computed)
    assert len(computed) > len(read)


@pytest.mark.parametrize("change", ["weights", "recipe", "settings", "precision", "value", "gene", "ensembl", "kind"])
def test_what_decides_the_numbers_is_in_the_key(cells, tmp_path, encoded, change):
    encoder = toy_encoder(MODELS["scgpt"], cells)
    embed_cells(cells, encoder, cache=tmp_path)
    if change == "weights":
        encoder = toy_encoder(MODELS["scgpt"], cells, seed=1)
    elif change == "recipe":
        encoder.card = replace(encoder.card, recipe=2)
    elif change == "settings":
        encoder = toy_encoder(MODELS["scgpt"], cells, max_length=20)
    elif change == "precision":
        encoder.precision = "bfloat16"
    elif change == "value":
        cells.X[0, cells.X[0].indices[0]] += 1
    elif change == "gene":
        cells.var_names = [*cells.var_names[1::-1], *cells.var_names[2:]]
    elif change == "ensembl":
        cells.var["ensembl_id"] = cells.var["ensembl_id"].to_numpy()[::-1]
    else:
        cells.uns["scdrugmap"] = {"input": {"value_type": "cpm"}}
    embed_cells(cells, encoder, cache=tmp_path)
    assert len(encoded) == 2


def test_what_does_not_decide_them_is_not(cells, tmp_path, encoded):
    encoder = toy_encoder(MODELS["scgpt"], cells)
    embed_cells(cells, encoder, cache=tmp_path)
    cells.obs["response"] = "resistant"
    cells.obs_names = [f"renamed-{name}" for name in cells.obs_names]
    embed_cells(cells, encoder, cache=tmp_path, batch_size=3)
    assert len(encoded) == 1


def test_cells_that_see_each_other_share_a_shard(cells):
    encoder = toy_encoder(MODELS["scgpt"], cells)
    assert [len(rows) for rows in encoder.parts(cells, 50)] == [50, 50, 20]
    alone = shard_key(encoder, cells, 0)
    cells.obs["batch"] = np.where(np.arange(120) % 2, "a", "b")
    assert shard_key(encoder, cells, 0) == alone
    encoder.card = replace(encoder.card, context=True)
    together = shard_key(encoder, cells, 0)
    assert [rows.tolist() for rows in encoder.parts(cells, 50)] == [list(range(120))]
    assert [len(rows) for rows in encoder.parts(cells[:0], 50)] == [0]
    cells.obs["batch"] = "a"
    assert shard_key(encoder, cells, 0) != together


def test_a_context_is_a_shard(cells, tmp_path, encoded):
    encoder = toy_encoder(MODELS["cellplm"], cells, context_size=50)
    whole = encoder.encode(encoder.tokenize(cells))  # all cells in memory
    parts = encoder.parts(cells, 10)
    assert [len(rows) for rows in parts] == [40, 40, 40]
    assert sorted(np.concatenate(parts)) == list(range(120))
    encoded.clear()
    np.testing.assert_array_equal(embed_cells(cells, encoder, cache=tmp_path), whole)
    assert encoded == [40, 40, 40]
    order = np.random.default_rng(0).permutation(120)
    shuffled = embed_cells(cells[order].copy(), encoder, cache=tmp_path / "other")
    np.testing.assert_allclose(shuffled, whole[order], rtol=0, atol=2e-5)
    other = toy_encoder(MODELS["cellplm"], cells, context_size=50, seed=1)
    assert np.abs(embed_cells(cells, other) - whole).max() > 1e-4


@pytest.mark.parametrize("key", ["scbert", "celllm"])
def test_a_batch_size_that_changes_numbers_is_part_of_the_key(cells, tmp_path, key):
    encoder = toy_encoder(MODELS[key], cells, compat="upstream")  # the cells of a batch share a maximum
    for batch_size in (1, 120, 1):
        z = embed_cells(cells, encoder, cache=tmp_path, batch_size=batch_size)
        np.testing.assert_array_equal(z, encoder.embed(cells, batch_size))
    assert len(entries(tmp_path)) == 2


def test_backed_files_are_embedded_in_shards(encoder, cells, tmp_path, encoded, small_shards):
    cells.write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    out = np.memmap(tmp_path / "z", dtype=np.float32, mode="w+", shape=(120, encoder.dim))
    assert embed_cells(backed, encoder, cache=tmp_path / "store", out=out) is out
    backed.file.close()
    embed_cells(cells, encoder, cache=tmp_path / "store")  # the same content: a read
    assert encoded == [50, 50, 20]


def test_a_shard_may_lie_below_the_floor_that_all_cells_pass(encoder, cells, tmp_path, small_shards):
    counts = cells.X.toarray()
    counts[100:, 1:] = 0  # the last shard: one gene
    counts[100:, 0] = 1
    other = ad.AnnData(counts, obs=cells.obs, var=cells.var.copy())
    other.var_names = ["NOT-A-GENE", *cells.var_names[1:]]
    z = embed_cells(other, encoder, cache=tmp_path)
    np.testing.assert_allclose(z, encoder.embed(other), rtol=0, atol=2e-5)
    with pytest.raises(InvalidInput, match=r"0\.0% of the counts"):
        encoder.embed(other[100:].copy())


def test_results_are_read_only_memory_maps(cells, tmp_path):
    encoder = toy_encoder(MODELS["scgpt"], cells)
    embed_cells(cells, encoder, cache=tmp_path)
    z = store.embedding(tmp_path)(**shard_key(encoder, cells, 0).arguments())
    assert isinstance(z, np.memmap)
    assert not z.flags.writeable


def test_entries_are_listed_with_size_and_age(encoder, cells, tmp_path, small_shards):
    assert entries(tmp_path) == []
    before = datetime.now(UTC)
    embed_cells(cells, encoder, cache=tmp_path)
    found = entries(tmp_path)
    assert {entry.key.shard for entry in found} == {0, 1, 2}
    assert {entry.key.model for entry in found} == {encoder.card.key}
    assert {entry.key.weights for entry in found} == {encoder.weights_hash}
    assert all(entry.size_bytes > 20 * encoder.dim * 4 for entry in found)
    assert all(abs((entry.written - before).total_seconds()) < 60 for entry in found)
    assert all(entry.seconds >= 0 for entry in found)


def test_an_entry_in_the_making_is_not_listed(cells, tmp_path):
    encoder = toy_encoder(MODELS["hvg-pca"], cells)
    embed_cells(cells, encoder, cache=tmp_path)
    (sidecar,) = tmp_path.glob("**/metadata.json")
    described = json.loads(sidecar.read_text())
    assert described["input_args"]["model"] == "'hvg-pca'"  # joblib's own sidecar is readable as it is
    sidecar.with_name("output.pkl").unlink()
    assert entries(tmp_path) == []


def test_importing_the_store_creates_nothing(tmp_path):
    code = "import scdrugmap.embeddings.store, scdrugmap.embeddings.compute, scdrugmap.embeddings.entries"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env={"SCDRUGMAP_CACHE": str(tmp_path / "c")})
    assert list(tmp_path.iterdir()) == []


def test_the_cached_function_is_a_shim_of_plain_arguments():
    import inspect

    source = inspect.getsource(store._embedding)
    assert source.count("\n") <= 2
    kinds = {parameter.annotation for parameter in inspect.signature(store._embedding).parameters.values()}
    assert kinds == {"str", "int"}
    assert list(inspect.signature(store._embedding).parameters) == list(Key.__dataclass_fields__)


def test_work_that_failed_is_not_kept(tmp_path):
    key = Key("toy", "sha256:0", 1, "sha256:1", "sha256:2", 0)

    def fail():
        raise Cancelled("Stopped.")

    with waiting(key, fail), pytest.raises(Cancelled):
        store.embedding(tmp_path)(**key.arguments())
    with waiting(key, lambda: np.ones((2, 3), dtype=np.float32)):
        assert store.embedding(tmp_path)(**key.arguments()).sum() == 6
    with pytest.raises(KeyError):  # nobody waits any more: only what is stored can be had
        store.embedding(tmp_path)(**replace(key, shard=1).arguments())


def test_embed_writes_the_embedding_and_what_made_it(cells, settings, encoded):
    out = embed(cells, model="hvg-pca", device="cpu")
    assert out is cells
    assert cells.obsm["X_hvg-pca"].shape == (120, 50)
    assert cells.obsm["X_hvg-pca"].dtype == np.float32
    made = cells.uns["scdrugmap"]["embedding"]["X_hvg-pca"]
    assert made["model"] == "hvg-pca"
    assert made["weights"].startswith("sha256:")
    assert 0 < made["share_counts"] <= 1
    assert len(entries(settings.embeddings)) == 1
    embed(cells, model="hvg-pca", device="cpu")
    assert len(encoded) == 1


def test_embed_keeps_what_other_models_wrote(cells, settings, tmp_path):
    cells.uns["scdrugmap"] = {"simulated": True}
    embed(cells, model="hvg-pca", cache=tmp_path / "other")
    embed(cells, model="hvg", cache=tmp_path / "other")
    assert cells.uns["scdrugmap"]["simulated"]
    assert set(cells.uns["scdrugmap"]["embedding"]) == {"X_hvg", "X_hvg-pca"}
    cells.write_h5ad(tmp_path / "out.h5ad")
    again = ad.read_h5ad(tmp_path / "out.h5ad")
    np.testing.assert_array_equal(again.obsm["X_hvg"], cells.obsm["X_hvg"])
    assert again.uns["scdrugmap"]["embedding"]["X_hvg"]["model"] == "hvg"
    assert not settings.embeddings.exists()


def test_embed_passes_settings_on(cells, settings):
    with pytest.raises(UnknownName, match="'hvg-pca' has no setting called 'max_length'"):
        embed(cells, model="hvg-pca", max_length=3)
