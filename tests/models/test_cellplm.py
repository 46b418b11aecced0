"""What the registry contract and the parity cases do not tell about CellPLM."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import torch
from places import PARITY
from scipy import sparse

from scdrugmap.embeddings.compute import embed, embed_cells
from scdrugmap.errors import InvalidInput, WeightsInvalid, WeightsMissing
from scdrugmap.models import load_model
from scdrugmap.models.cellplm import convert
from scdrugmap.models.cellplm.card import CARD, VARIANTS
from scdrugmap.models.cellplm.network import flow
from scdrugmap.models.cellplm.noise import upstream_uniform
from scdrugmap.models.cellplm.tokens import Tokenizer
from scdrugmap.models.checkpoints.load import convert as convert_weights
from scdrugmap.models.core.cells import Cells
from scdrugmap.models.core.encoder import Encoder
from scdrugmap.models.testing import toy_encoder

CASE = PARITY / "cellplm"
CHECKPOINT = CASE / "checkpoint"
WEIGHTS, CONFIG = (f"{VARIANTS[0]}{end}" for end in (".best.ckpt", ".config.json"))
CLOSE = {"rtol": 0, "atol": 2e-5}


@pytest.fixture
def folder(tmp_path) -> Path:
    """A copy of the case's checkpoint, to be changed."""
    return Path(shutil.copytree(CHECKPOINT, tmp_path / "changed"))


@pytest.fixture
def counts() -> np.ndarray:
    """Twenty cells x 15 genes."""
    return np.random.default_rng(3).poisson(1.5, (20, 15))


def cells_of(counts, groups=None, ids=None, names=None) -> Cells:
    matrix = sparse.csr_matrix(np.array(counts, dtype=np.float32))
    named = [f"G{row}" for row in range(matrix.shape[1])] if names is None else names
    known = [f"ENSG{row}" for row in range(matrix.shape[1])] if ids is None else ids
    return Cells(matrix, np.array(named, dtype=str), np.array(known, dtype=str), "counts", groups)


def tokenizer_of(**settings) -> Tokenizer:
    known = convert.toy([], [f"ENSG{row}" for row in range(15)])[1]
    return Tokenizer(known, dict(CARD.settings) | settings)


def contexts_of(tokenizer: Tokenizer, cells: Cells) -> list[list[int]]:
    return [rows.tolist() for rows in tokenizer.plan(tokenizer.tokenize(cells), 1, 1)]


def again(encoder: Encoder, **settings) -> Encoder:
    """The same weights with other settings."""
    chosen = dict(encoder.settings) | settings
    tokenizer = Tokenizer(encoder.tokenizer.vocabulary, chosen)
    return Encoder(CARD, tokenizer, encoder.network, chosen, encoder.weights_hash, encoder.device, "float32")


def test_tokens_are_log1p_of_counts_by_ensembl_id():
    ids = ["ENSG3", "", "nan", "ENSG99", "ENSG3"]
    cells = cells_of([[1, 2, 3, 4, 5], [0, 0, 0, 9, 0]], ids=ids, names=["A", "ENSG7", "B", "ENSG4", "C"])
    tokenizer = tokenizer_of()
    assert tokenizer.match(cells).tolist() == [3, 7, -1, -1, 3]
    tokens = tokenizer.tokenize(cells)
    assert tokens.ids.tolist() == [3, 7]
    np.testing.assert_allclose(tokens.values, np.log1p([6, 2]))  # columns of one gene are added up
    assert tokens.lengths.tolist() == [2, 0]


def test_a_small_data_set_is_one_context(counts):
    for size in (0, 20, 4000):
        assert contexts_of(tokenizer_of(context_size=size), cells_of(counts)) == [list(range(20))]
    assert contexts_of(tokenizer_of(), cells_of(counts[:0])) == []


def test_a_large_one_is_cut_into_equal_parts_by_content(counts):
    counts[:, 0] = np.arange(20)  # no two cells alike
    tokenizer = tokenizer_of(context_size=6)
    parts = contexts_of(tokenizer, cells_of(counts))
    assert sorted(len(part) for part in parts) == [5, 5, 5, 5]
    rows, columns = np.random.default_rng(1).permutation(20), np.random.default_rng(2).permutation(15)
    moved = cells_of(counts[rows][:, columns], ids=[f"ENSG{column}" for column in columns])
    found = contexts_of(tokenizer, moved)
    assert [sorted(rows[part].tolist()) for part in found] == parts
    assert contexts_of(tokenizer_of(context_size=6, seed=1), cells_of(counts)) != parts


def test_batch_labels_count_only_for_upstream(counts):
    groups = np.array(list("cabbc") * 4)
    labelled = cells_of(counts, groups)
    assert contexts_of(tokenizer_of(), labelled) == [list(range(20))]
    by_label = [np.flatnonzero(groups == label).tolist() for label in "abc"]
    assert contexts_of(tokenizer_of(compat="upstream", context_size=0), labelled) == by_label
    cut = contexts_of(tokenizer_of(compat="upstream-argmax", context_size=3), labelled)
    assert cut == [part[start : start + 3] for part in by_label for start in range(0, len(part), 3)]


def test_noise_belongs_to_the_forward_in_which_upstream_draws_it(counts):
    groups = np.array(list("ba") * 10)
    tokens = tokenizer_of(compat="upstream", context_size=6, seed=9).tokenize(cells_of(counts, groups))
    drawn = upstream_uniform([6, 4, 6, 4], 3, 12, 9)
    rows = np.concatenate([np.arange(1, 20, 2), np.arange(0, 20, 2)])
    np.testing.assert_array_equal(tokens.cells["uniform"][rows], drawn)
    torch.manual_seed(9)
    torch.empty((), dtype=torch.int64).random_()
    np.testing.assert_array_equal(drawn[:6], torch.rand(6, 3))
    torch.randn(6, 12)
    np.testing.assert_array_equal(drawn[6:10], torch.rand(4, 3))


def test_cells_see_their_context_and_nothing_else(cells):
    encoder = toy_encoder(CARD, cells)
    whole = encoder.embed(cells)
    assert np.abs(encoder.embed(cells[:60].copy()) - whole[:60]).max() > 1e-3
    np.testing.assert_array_equal(encoder.embed(cells, batch_size=7), whole)
    parts = again(encoder, context_size=50)
    contexts = parts.tokenize(cells).cells["context"]
    assert np.bincount(contexts).tolist() == [40, 40, 40]
    got = parts.embed(cells)
    for context in range(3):
        rows = np.flatnonzero(contexts == context)
        np.testing.assert_allclose(got[rows], encoder.embed(cells[rows].copy()), **CLOSE)
    order = np.random.default_rng(0).permutation(cells.n_obs)
    np.testing.assert_allclose(parts.embed(cells[order].copy()), got[order], **CLOSE)


def test_a_context_read_in_pieces_is_the_same_context(cells, monkeypatch):
    for more in ({}, {"context_size": 50}, {"context_size": 0}, {"compat": "upstream", "context_size": 50}):
        encoder = again(toy_encoder(CARD, cells), **more)
        whole, seen = encoder.embed(cells), []
        tokenize = encoder.tokenizer.tokenize
        with monkeypatch.context() as patch:
            patch.setattr("scdrugmap.models.core.encoder.PIECE_CELLS", 7)
            patch.setattr(
                encoder.tokenizer, "tokenize", lambda some, f=tokenize, s=seen: (s.append(len(some)), f(some))[1]
            )
            np.testing.assert_array_equal(encoder.embed(cells), whole)
        assert sum(seen) == 120
        assert max(seen) == (120 if more.get("compat") else 7)


def test_the_context_is_part_of_key_and_provenance(cells, settings, tmp_path):
    encoder = toy_encoder(CARD, cells)
    half = cells[:60].copy()
    alone, together = (embed_cells(some, encoder, cache=tmp_path / "cache") for some in (half, cells))
    np.testing.assert_array_equal(together, encoder.embed(cells))
    np.testing.assert_array_equal(alone, encoder.embed(half))
    upstream = again(encoder, compat="upstream-argmax")
    cells.obs["batch"] = np.where(np.arange(cells.n_obs) % 2, "a", "b")
    first = embed_cells(cells, upstream, cache=tmp_path / "cache").copy()
    cells.obs["batch"] = np.where(np.arange(cells.n_obs) % 3, "a", "b")
    second = embed_cells(cells, upstream, cache=tmp_path / "cache")
    np.testing.assert_array_equal(second, upstream.embed(cells))
    assert np.abs(first - second).max() > 1e-3
    some = ad.read_h5ad(CASE / "input.h5ad")
    made = []
    for part in (some, some[:8].copy()):
        embed(part, "cellplm", CHECKPOINT, device="cpu", cache=tmp_path / "cache")
        made.append(part.uns["scdrugmap"]["embedding"]["X_cellplm"])
    assert made[0]["context"] == "all cells, or equal parts of at most 4000 by content and seed"
    assert made[0]["context_cells"] != made[1]["context_cells"]


def test_an_empty_cell_takes_part(cells):
    counts = cells.X.toarray()
    counts[3] = 0
    empty = ad.AnnData(sparse.csr_matrix(counts), obs=cells.obs, var=cells.var)
    encoder = toy_encoder(CARD, cells)
    z = encoder.embed(empty)
    assert np.isfinite(z).all()
    others = np.delete(np.arange(cells.n_obs), 3)
    assert np.abs(z[others] - encoder.embed(empty[others].copy())).max() > 0


@pytest.mark.parametrize(
    "wrong", [{"context_size": -1}, {"context_size": None}, {"seed": "a"}, {"seed": -1}, {"compat": "old"}]
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(InvalidInput, match=next(iter(wrong))):
        tokenizer_of(**wrong)


def test_versions_choose_the_files(folder, settings):
    assert {path.name for path in convert.files(folder).values()} == {WEIGHTS, CONFIG}
    for name in (WEIGHTS, CONFIG):
        shutil.copy(folder / name, folder / name.replace(VARIANTS[0], VARIANTS[1]))
    assert convert.files(folder)["weights"].name == WEIGHTS
    assert convert.files(folder, variant=VARIANTS[1])["weights"].name == f"{VARIANTS[1]}.best.ckpt"
    for name in (WEIGHTS, CONFIG):
        (folder / name).rename(folder / name.replace(VARIANTS[0], "mine"))
    with pytest.raises(InvalidInput, match=r"holds 20231027_85M, mine\."):
        convert.files(folder)
    (folder / f"{VARIANTS[1]}.best.ckpt").unlink()
    assert convert.files(folder)["config"].name == "mine.config.json"
    with pytest.raises(InvalidInput, match=f"holds mine, and no '{VARIANTS[0]}'"):
        load_model("cellplm", weights=folder, device="cpu", variant=VARIANTS[0])
    (folder / "mine.config.json").unlink()
    with pytest.raises(WeightsMissing, match=r"lacks mine\.config\.json"):
        load_model("cellplm", weights=folder, device="cpu")


def test_what_the_embedding_leaves_out_is_known():
    checkpoint = convert_weights(CARD, convert, convert.files(CHECKPOINT), CARD.settings)
    assert {name.split(".")[0] for name in checkpoint.unused} == {"decoder", "embedder", "latent"}
    assert not any(
        "extra_linear" in name or name.endswith("mu.weight") for name in checkpoint.unused if "y_mu" not in name
    )


def reconfigure(folder: Path, **changes) -> None:
    config = json.loads((folder / CONFIG).read_text()) | changes
    (folder / CONFIG).write_text(json.dumps({name: value for name, value in config.items() if value is not None}))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"enc_mod": "performer"}, "has enc_mod = 'performer'"),
        ({"latent_mod": "vae"}, "has latent_mod = 'vae'"),
        ({"dsbn": True}, "has dsbn = True"),
        ({"gene_list": None}, "lacks the field 'gene_list'"),
        ({"gene_list": ["A", "A"]}, "no list of distinct names"),
        ({"gene_list": ["A", "B"]}, r"'embedder\.feat_enc\.emb' of shape \(302, 48\) where \(2, 48\)"),
        ({"enc_layers": 1}, r"holds the tensor 'encoder\.layers\.1\."),
        ({"enc_layers": 3}, r"lacks the tensor 'encoder\.layers\.2\."),
        ({"num_clusters": 4}, r"shape \(5, 48\) where \(4, 48\)"),
    ],
)
def test_a_config_of_another_checkpoint_is_refused(folder, settings, changes, says):
    reconfigure(folder, **changes)
    with pytest.raises(WeightsInvalid, match=says) as caught:
        load_model("cellplm", weights=folder, device="cpu")
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda content: content.pop("model_state_dict"), "holds no 'model_state_dict'"),
        (lambda content: content["model_state_dict"].update(foreign=torch.zeros(2)), "holds the tensor 'foreign'"),
        (lambda content: content["model_state_dict"].pop("pre_latent_norm.norm.bias"), "lacks the tensor 'pre_latent"),
        (lambda content: content["model_state_dict"].pop(f"{convert.HIDDEN}.weight"), "lacks the tensor 'latent"),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_refused(folder, settings, change, says):
    content = torch.load(folder / WEIGHTS, weights_only=True)
    change(content)
    torch.save(content, folder / WEIGHTS)
    with pytest.raises(WeightsInvalid, match=says):
        load_model("cellplm", weights=folder, device="cpu")


def test_flow_is_what_the_paper_writes():
    rng, eps = np.random.default_rng(0), 1e-6
    q, k = rng.random((2, 7, 5))
    v = rng.normal(size=(7, 5))
    incoming = np.array([1 / ((q[cell] + eps) @ (k.sum(0) + eps)) for cell in range(7)])
    outgoing = np.array([1 / ((k[cell] + eps) @ (q.sum(0) + eps)) for cell in range(7)])
    sink = np.array([(q[cell] + eps) @ (sum(k[j] * outgoing[j] for j in range(7)) + eps) for cell in range(7)])
    source = np.array([(k[cell] + eps) @ (sum(q[j] * incoming[j] for j in range(7)) + eps) for cell in range(7)])
    share = np.exp(source.clip(-1, 1))
    share *= 7 / share.sum()
    summary = sum(np.outer(k[j], share[j] * v[j]) for j in range(7))
    expected = [(q[cell] * incoming[cell]) @ summary / (1 + np.exp(-sink[cell])) for cell in range(7)]
    got = flow(*(torch.from_numpy(part)[None] for part in (q, k, v)))[0]
    np.testing.assert_allclose(got, np.stack(expected), rtol=1e-9)


def write_random(folder: Path, genes: list[str], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A checkpoint in upstream's layout: 24 wide, 4 heads, 3 layers, 7 components, 10 hidden and 9 latent numbers."""
    state: dict[str, tuple[int, ...]] = {"embedder.feat_enc.emb": (len(genes), 24)}
    mixture = "latent.layers.1.inference"
    linears = {"embedder.extra_linear.0": (24, 24), f"{mixture}.inference_qyx.0.logits": (7, 24)}
    linears |= {f"{mixture}.inference_qzyx.0": (10, 31), f"{mixture}.inference_qzyx.2.mu": (9, 10)}
    norms = ["embedder.extra_linear.3", "embedder.norm0", "pre_latent_norm.norm"]
    for layer in range(3):
        at = f"encoder.layers.{layer}"
        linears |= {f"{at}.self_attn.{part}_projection": (24, 24) for part in ("query", "key", "value", "out")}
        linears |= {f"{at}._ff_block.0": (48, 24), f"{at}._ff_block.3": (24, 48)}
        norms += [f"{at}.norm1", f"{at}.norm2"]
    for name, shape in linears.items():
        state |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    state |= {f"{name}.{end}": (24,) for name in norms for end in ("weight", "bias")}
    arrays = {name: rng.normal(0, 0.4, shape).astype(np.float32) for name, shape in state.items()}
    folder.mkdir()
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    torch.save({"model_state_dict": tensors, "epoch": 3}, folder / "20231027_85M.best.ckpt")
    config = {"enc_mod": "flowformer", "latent_mod": "gmvae", "norm": "groupnorm", "cat_pe": False, "enc_head": 4}
    config |= {"gene_list": genes, "enc_hid": 24, "enc_layers": 3, "num_clusters": 7, "post_latent_dim": 9}
    (folder / "20231027_85M.config.json").write_text(json.dumps(config))
    return {name: array.astype(np.float64) for name, array in arrays.items()}


def plain(w: dict[str, np.ndarray], values: np.ndarray) -> np.ndarray:
    """One context as the spec words it, float64: log1p counts over the whole vocabulary -> embeddings."""

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x, name, groups=1):
        parts = x.reshape(len(x), groups, -1)
        parts = (parts - parts.mean(-1, keepdims=True)) / np.sqrt(parts.var(-1, keepdims=True) + 1e-5)
        return parts.reshape(x.shape) * w[f"{name}.weight"] + w[f"{name}.bias"]

    def gelu(x):
        return torch.nn.functional.gelu(torch.from_numpy(x)).numpy()

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    h = norm(
        np.maximum(linear(values @ w["embedder.feat_enc.emb"], "embedder.extra_linear.0"), 0),
        "embedder.extra_linear.3",
        4,
    )
    for layer in range(3):
        at = f"encoder.layers.{layer}"
        x = norm(h, f"{at}.norm1")
        q, k, v = (linear(x, f"{at}.self_attn.{part}_projection") for part in ("query", "key", "value"))
        heads = [
            torch.from_numpy(part.reshape(len(x), 4, 6).transpose(1, 0, 2)) for part in (sigmoid(q), sigmoid(k), v)
        ]
        h = h + linear(flow(*heads).numpy().transpose(1, 0, 2).reshape(len(x), 24), f"{at}.self_attn.out_projection")
        h = h + linear(gelu(linear(norm(h, f"{at}.norm2"), f"{at}._ff_block.0")), f"{at}._ff_block.3")
    h = norm(h, "pre_latent_norm.norm")
    mixture = "latent.layers.1.inference"
    component = np.eye(7)[linear(h, f"{mixture}.inference_qyx.0.logits").argmax(1)]
    hidden = np.maximum(linear(np.concatenate([h, component], 1), f"{mixture}.inference_qzyx.0"), 0)
    return linear(hidden, f"{mixture}.inference_qzyx.2.mu")


def test_a_checkpoint_of_other_sizes_agrees_with_plain_arithmetic(tmp_path, settings):
    rng = np.random.default_rng(5)
    genes = [f"ENSG{row:04d}" for row in range(40)]
    w = write_random(tmp_path / "weights", genes, rng)
    counts = rng.poisson(1, (13, 60)) * (rng.random((13, 60)) < np.linspace(0.05, 1, 13)[:, None])
    adata = ad.AnnData(sparse.csr_matrix(counts.astype(np.float32)))
    order = rng.permutation(60)  # columns in another order than the table, and a third of them unknown
    adata.var["ensembl_id"] = [f"ENSG{row:04d}" for row in order]
    adata.obs["batch"] = np.where(np.arange(13) < 5, "b", "a")
    values = np.log1p(counts[:, np.argsort(order)][:, :40])
    folder = tmp_path / "weights"
    got = load_model("cellplm", weights=folder, device="cpu").embed(adata)
    np.testing.assert_allclose(got, plain(w, values), rtol=0, atol=1e-5)
    upstream = load_model("cellplm", weights=folder, device="cpu", compat="upstream-argmax", context_size=0).embed(
        adata
    )
    np.testing.assert_allclose(
        upstream, np.concatenate([plain(w, values[:5]), plain(w, values[5:])]), rtol=0, atol=1e-5
    )
