"""The contract of an encoder, over every model of the registry at toy size: real tokens and network, random weights."""

from __future__ import annotations

from dataclasses import replace

import anndata as ad
import numpy as np
import pytest
import torch
from scipy import sparse

from scdrugmap.errors import Cancelled, InvalidInput, UnknownName
from scdrugmap.models import MODELS, load_model
from scdrugmap.models.card import ModelCard
from scdrugmap.models.checkpoints.baseline import refit
from scdrugmap.models.core.encoder import Encoder
from scdrugmap.models.core.tokenizer import Tokens, pad, plan_batches, ragged
from scdrugmap.models.scgpt.tokens import Tokenizer as ScgptTokenizer
from scdrugmap.models.scgpt.tokens import bin_range, bin_values, content_hash
from scdrugmap.models.testing import toy_encoder, toy_folder

EMBEDDING = [card for card in MODELS.values() if not card.prompted]
ALONE = [card for card in EMBEDDING if not card.context]
CLOSE = {"rtol": 0, "atol": 2e-5}  # float32 rounding, summed in another order


@pytest.fixture
def few(cells) -> ad.AnnData:
    """Twelve cells of very different depth: padding and truncation have something to get wrong."""
    some = cells[:12].copy()
    keep = np.random.default_rng(0).random(some.shape) < np.linspace(0.05, 1, 12)[:, None]
    some.X = sparse.csr_matrix(some.X.toarray() * keep)
    return some


@pytest.fixture(params=EMBEDDING, ids=lambda card: card.key)
def encoder(request, cells) -> Encoder:
    return toy_encoder(request.param, cells)


@pytest.fixture(params=ALONE, ids=lambda card: card.key)
def alone(request, cells) -> Encoder:
    return toy_encoder(request.param, cells)


def with_counts(adata: ad.AnnData, counts: object) -> ad.AnnData:
    return ad.AnnData(sparse.csr_matrix(counts, dtype=np.float32), obs=adata.obs.copy(), var=adata.var.copy())


def test_shape_and_dtype(encoder, few):
    z = encoder.embed(few)
    assert z.shape == (few.n_obs, encoder.dim)
    assert z.dtype == np.float32
    assert np.isfinite(z).all()
    assert z.std(axis=0).max() > 0


def test_no_cells_give_no_rows(encoder, few):
    assert encoder.embed(few[:0]).shape == (0, encoder.dim)


def test_ignores_gene_order(encoder, few):
    shuffled = few[:, np.random.default_rng(1).permutation(few.n_vars)].copy()
    np.testing.assert_allclose(encoder.embed(shuffled), encoder.embed(few), **CLOSE)


def test_follows_cell_order(encoder, few):
    order = np.random.default_rng(2).permutation(few.n_obs)
    np.testing.assert_allclose(encoder.embed(few[order].copy()), encoder.embed(few)[order], **CLOSE)


def test_embeds_each_cell_by_itself(alone, few):
    one_by_one = np.concatenate([alone.embed(few[row : row + 1].copy()) for row in range(few.n_obs)])
    np.testing.assert_allclose(one_by_one, alone.embed(few), **CLOSE)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_ignores_batch_size(alone, few, batch_size):
    np.testing.assert_allclose(alone.embed(few, batch_size=batch_size), alone.embed(few), **CLOSE)


def test_is_deterministic_whatever_the_global_generators(encoder, few):
    np.random.seed(1)  # noqa: NPY002 (the global generator is what must not matter)
    torch.manual_seed(1)
    first, state = encoder.embed(few), torch.get_rng_state()
    np.random.seed(2)  # noqa: NPY002
    torch.manual_seed(2)
    np.testing.assert_array_equal(encoder.embed(few), first)
    torch.manual_seed(1)
    encoder.embed(few)
    assert torch.equal(torch.get_rng_state(), state)


def test_ignores_unknown_genes(encoder, few):
    strange = ad.AnnData(few.X[:, :40], obs=few.obs)
    strange.var_names = [f"NOT-A-GENE-{row}" for row in range(40)]
    strange.var["ensembl_id"] = [f"XXXX{row:011d}" for row in range(40)]
    both = ad.concat([few, strange], axis="var", merge="same")
    np.testing.assert_allclose(encoder.embed(both), encoder.embed(few), **CLOSE)


def test_refuses_cells_without_a_known_gene(encoder, few):
    few.var_names = [f"NOT-A-GENE-{row}" for row in range(few.n_vars)]
    few.var["ensembl_id"] = few.var_names.to_numpy()
    with pytest.raises(InvalidInput, match=f"knows 0 of the {few.n_vars} genes") as caught:
        encoder.embed(few)
    assert "NOT-A-GENE-0" in caught.value.remedy


def test_an_empty_cell_disturbs_nobody(alone, few):
    counts = few.X.toarray()
    counts[3] = 0
    z = alone.embed(with_counts(few, counts))
    assert np.isfinite(z).all()
    others = np.delete(np.arange(few.n_obs), 3)
    np.testing.assert_allclose(z[others], alone.embed(few)[others], **CLOSE)
    np.testing.assert_allclose(alone.embed(with_counts(few, counts)[3:4].copy()), z[3:4], **CLOSE)


@pytest.mark.parametrize("form", ["dense", "csc", "int", "stored zeros"])
def test_reads_every_form_of_matrix(encoder, few, form):
    counts = few.X.toarray()
    zeros = sparse.csr_matrix(counts + 1)
    zeros.data -= 1
    forms = {"dense": counts, "csc": sparse.csc_matrix(counts), "int": counts.astype(np.uint16), "stored zeros": zeros}
    other = ad.AnnData(forms[form], obs=few.obs, var=few.var)
    np.testing.assert_array_equal(encoder.embed(other), encoder.embed(few))


def test_reads_backed_files(encoder, few, tmp_path):
    few.write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    np.testing.assert_array_equal(encoder.embed(backed), encoder.embed(few))
    backed.file.close()


def test_writes_into_a_memory_map(encoder, few, tmp_path):
    out = np.memmap(tmp_path / "z", dtype=np.float32, mode="w+", shape=(few.n_obs, encoder.dim))
    assert encoder.embed(few, out=out) is out
    np.testing.assert_array_equal(out, encoder.embed(few))


def test_chunks_change_nothing(alone, few, monkeypatch):
    whole = alone.embed(few)
    monkeypatch.setattr("scdrugmap.models.core.encoder.CHUNK_CELLS", 5)
    np.testing.assert_allclose(alone.embed(few), whole, **CLOSE)


def test_tokenize_and_encode_are_the_halves_of_embed(encoder, few):
    tokens = encoder.tokenize(few)
    assert isinstance(tokens, Tokens)
    assert len(tokens) == few.n_obs
    np.testing.assert_array_equal(encoder.encode(tokens), encoder.embed(few))


def test_bfloat16_is_near(encoder, few):
    full = encoder.embed(few)
    encoder.precision = "bfloat16"
    half = encoder.embed(few)
    assert half.dtype == np.float32
    assert np.abs(half - full).max() < 0.05 * np.abs(full).max()


def test_reports_progress_and_can_be_cancelled(encoder, few):
    seen = []
    encoder.embed(few, batch_size=5, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (12, 12)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})

    def stop(done, total):
        raise Cancelled("Stopped.")

    with pytest.raises(Cancelled):
        encoder.embed(few, progress=stop)


def test_progress_bar_goes_to_stderr(encoder, few, capsys):
    encoder.embed(few, progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "12/12" in captured.err


def test_coverage_counts_what_the_model_sees(encoder, few):
    found = encoder.coverage(few)
    assert found.n_genes == few.n_vars
    assert 0 < found.n_matched <= few.n_vars
    assert 0.05 < found.share_counts <= 1
    half = few.copy()
    half.var_names = [name if row % 2 else f"NOT-A-GENE-{row}" for row, name in enumerate(few.var_names)]
    half.var["ensembl_id"] = np.where(np.arange(few.n_vars) % 2, few.var["ensembl_id"], "none")
    assert encoder.coverage(half).n_matched < found.n_matched
    assert encoder.coverage(half).share_counts < found.share_counts


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda x: np.where(x > 0, np.nan, x), "NaN or infinite"),
        (lambda x: x - 1, r"negative values \(down to -1\)"),
    ],
)
def test_refuses_values_that_are_no_expression(encoder, few, spoil, match):
    with pytest.raises(InvalidInput, match=match):
        encoder.embed(with_counts(few, spoil(few.X.toarray())))


def test_zscores_are_for_those_who_take_them(encoder, few):
    x = few.X.toarray()
    scaled = with_counts(few, (x - x.mean(axis=0)) / x.std(axis=0).clip(min=1))
    scaled.uns["scdrugmap"] = {"input": {"value_type": "zscore"}}
    if encoder.tokenizer.takes_zscores:
        assert np.isfinite(encoder.embed(scaled)).all()
    else:
        with pytest.raises(InvalidInput, match="holds z-scores"):
            encoder.embed(scaled)


def test_refuses_repeated_gene_names(encoder, few):
    few.var_names = [few.var_names[0], *few.var_names[:-1]]
    with pytest.raises(InvalidInput, match="names more than one gene"):
        encoder.embed(few)


def test_fit_is_for_baselines(encoder, few):
    if not encoder.card.fitted:
        with pytest.raises(InvalidInput, match="not fitted"):
            refit(encoder, few)
        return
    fitted = refit(encoder, few)
    assert fitted.weights_hash != encoder.weights_hash
    assert refit(fitted, few).weights_hash == fitted.weights_hash
    shuffled = few[:, ::-1].copy()
    np.testing.assert_allclose(np.abs(refit(encoder, shuffled).embed(few)), np.abs(fitted.embed(few)), **CLOSE)


@pytest.mark.parametrize("card", EMBEDDING, ids=lambda card: card.key)
def test_runs_from_a_folder_of_our_own_layout(card: ModelCard, cells, few, settings, tmp_path):
    toy = toy_encoder(card, cells)
    toy_folder(card, cells, tmp_path / "weights")
    loaded = load_model(card.key, weights=tmp_path / "weights", device="cpu")
    np.testing.assert_array_equal(loaded.embed(few), toy.embed(few))
    assert loaded.weights_hash.startswith("sha256:")


def test_load_model_names_what_it_does_not_know(settings):
    with pytest.raises(UnknownName, match=r"no model called 'scgtp'\. Did you mean 'scgpt'"):
        load_model("scgtp")
    with pytest.raises(UnknownName, match="'hvg' has no setting called 'max_lenght'") as caught:
        load_model("hvg", max_lenght=3)
    assert "n_genes" in caught.value.remedy
    with pytest.raises(InvalidInput, match="precision='float16'"):
        load_model("hvg", precision="float16")
    with pytest.raises(InvalidInput, match="device='gpu' is not known"):
        load_model("hvg", device="gpu")


def test_a_model_that_is_asked_has_no_embedding(settings):
    from scdrugmap.models.checkpoints.load import load

    asked = replace(MODELS["scgpt"], key="asked", prompted=True)
    with pytest.raises(InvalidInput, match="'asked' answers prompts: it has no embedding") as caught:
        load(asked, None, "cpu", "float32", {})
    assert "scdrugmap predict FILE --model asked" in caught.value.remedy


def test_a_device_that_is_not_there_is_refused(settings, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InvalidInput, match=r"device='cuda:1' is not on this machine \(1 CUDA devices\)"):
        load_model("hvg", device="cuda:1")


def test_auto_takes_a_cuda_device_where_there_is_one(monkeypatch):
    from scdrugmap.models.checkpoints.load import find_device

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert find_device("auto").type == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_device("auto").type == "cpu"


@pytest.mark.gpu
def test_cuda_agrees_with_cpu(encoder, few):
    on_cpu = encoder.embed(few)
    encoder.network.to("cuda")
    encoder.device = torch.device("cuda")
    np.testing.assert_allclose(encoder.embed(few), on_cpu, rtol=0, atol=1e-4)


def test_batches_hold_like_lengths_within_the_budget():
    costs = np.array([5, 100, 7, 90, 6, 200])
    batches = plan_batches(costs, None, 200)
    assert sorted(np.concatenate(batches).tolist()) == [0, 1, 2, 3, 4, 5]
    assert all(len(rows) * costs[rows].max() <= 200 for rows in batches)
    assert batches[0].tolist() == [5]
    assert [len(rows) for rows in plan_batches(costs, 4, 200)] == [4, 2]
    assert [rows.tolist() for rows in plan_batches(np.array([300]), None, 200)] == [[0]]  # larger than the budget
    assert plan_batches(np.array([], dtype=int), None, 200) == []


def test_padding_puts_each_cell_in_its_row():
    tokens = Tokens(ragged(np.array([2, 0, 3])), np.array([1, 2, 3, 4, 5], dtype=np.int32))
    assert pad(tokens.ids, tokens, np.array([2, 0, 1]), 9).tolist() == [[3, 4, 5], [1, 2, 9], [9, 9, 9]]


def test_scgpt_bins_are_quantile_ranks_with_the_middle_of_ties():
    values = np.arange(1, 51, dtype=np.float32)
    assert bin_values(values).tolist() == list(range(1, 51))
    assert bin_values(np.log1p(values)).tolist() == list(range(1, 51))  # only the ranks matter
    tied = np.array([1] * 30 + [2] * 10 + [7], dtype=np.float32)
    low, high = bin_range(tied)
    assert ((bin_values(tied) >= low) & (bin_values(tied) <= high)).all()
    assert bin_values(tied)[0] == (low[0] + high[0]) // 2
    assert bin_values(np.array([3], dtype=np.float32)).tolist() == [25]
    assert bin_values(np.array([], dtype=np.float32)).tolist() == []


@pytest.fixture
def deep() -> ad.AnnData:
    """Six cells that express all of 300 genes."""
    rng = np.random.default_rng(5)
    deep = ad.AnnData(sparse.csr_matrix(rng.integers(1, 500, size=(6, 300)).astype(np.float32)))
    deep.var_names = [f"G{row}" for row in range(300)]
    return deep


def test_scgpt_samples_long_cells_by_their_content(deep):
    encoder = toy_encoder(MODELS["scgpt"], deep, max_length=50)
    tokens = encoder.tokenize(deep)
    assert tokens.lengths.tolist() == [50] * 6
    whole = toy_encoder(MODELS["scgpt"], deep).tokenize(deep)
    kept = [set(tokens.ids[tokens.cell(cell)].tolist()) for cell in range(6)]
    assert len({frozenset(genes) for genes in kept}) == 6  # each cell its own sample
    for cell in range(6):  # bins are those of the whole cell
        bins = dict(zip(whole.ids[whole.cell(cell)], whole.values[whole.cell(cell)], strict=True))
        got = dict(zip(tokens.ids[tokens.cell(cell)], tokens.values[tokens.cell(cell)], strict=True))
        assert all(bins[gene] == value for gene, value in got.items())
    order = np.random.default_rng(1).permutation(300)
    np.testing.assert_allclose(encoder.embed(deep[::-1, order].copy())[::-1], encoder.embed(deep), **CLOSE)
    scaled = with_counts(deep, np.log1p(deep.X.toarray() * 3))
    assert encoder.tokenize(scaled).ids.tolist() == tokens.ids.tolist()  # raw or log: the same sample


def test_scgpt_sampling_favours_no_gene():
    rng = np.random.default_rng(0)
    genes, taken = np.arange(200), np.zeros(200)
    for _ in range(400):
        bins = rng.integers(1, 51, 200)
        taken[np.argsort(content_hash(genes, bins))[:50]] += 1
    assert abs(taken.mean() - 100) < 1e-9
    assert taken.min() > 60  # 100 expected, standard deviation 8.7
    assert taken.max() < 140


def test_scgpt_compat_keeps_the_first_columns(deep):
    encoder = toy_encoder(MODELS["scgpt"], deep, max_length=50, compat="upstream")
    tokens = encoder.tokenize(deep)
    assert tokens.ids[tokens.cell(0)][1:].tolist() == list(range(49))


@pytest.mark.parametrize("settings", [{"max_length": 1}, {"max_length": "many"}, {"compat": "downstream"}])
def test_scgpt_refuses_settings_that_make_no_sense(settings):
    vocabulary = {"tokens": {"<pad>": 0, "<cls>": 1, "<eoc>": 2}, "pad_value": -2}
    with pytest.raises(InvalidInput, match=next(iter(settings))):
        ScgptTokenizer(vocabulary, {"max_length": 1200, "compat": "", **settings})


def test_hvg_is_scanpys_recipe(cells):
    import scanpy as sc

    encoder = toy_encoder(MODELS["hvg"], cells)
    expected = cells.copy()
    sc.pp.normalize_total(expected, target_sum=1e4)
    sc.pp.log1p(expected)
    genes = encoder.tokenizer.vocabulary["genes"][: encoder.dim]
    np.testing.assert_allclose(encoder.embed(cells), expected[:, genes].X.toarray(), rtol=1e-5, atol=1e-5)


def test_hvg_pca_is_scikit_learns_pca(cells):
    from sklearn.decomposition import PCA

    encoder = toy_encoder(MODELS["hvg-pca"], cells, n_genes=100, n_components=5)
    x = toy_encoder(MODELS["hvg"], cells, n_genes=100).embed(cells).astype(np.float64)
    expected = PCA(5, svd_solver="full").fit_transform(x)
    np.testing.assert_allclose(np.abs(encoder.embed(cells)), np.abs(expected), rtol=1e-3, atol=1e-3)


def test_a_baseline_needs_something_that_varies(cells):
    flat = with_counts(cells, np.ones(cells.shape))
    with pytest.raises(InvalidInput, match="No gene varies"):
        refit(load_model("hvg", device="cpu"), flat)
