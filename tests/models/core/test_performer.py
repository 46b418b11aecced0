"""What the registry contract and the parity cases do not tell about scBERT, CellLM and their attention."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from places import PARITY
from scipy import sparse

from scdrugmap.errors import InvalidInput, WeightsInvalid, WeightsMissing
from scdrugmap.models import MODELS, load_model
from scdrugmap.models.celllm.tokens import Tokenizer as CelllmTokenizer
from scdrugmap.models.checkpoints.locate import home, state
from scdrugmap.models.core import performer
from scdrugmap.models.core.cells import Cells
from scdrugmap.models.core.performer import Performer, PerformerBlock, Sizes
from scdrugmap.models.scbert.genes import read_gene_order
from scdrugmap.models.scbert.tokens import Tokenizer as ScbertTokenizer

CASES = PARITY
SIZES = Sizes(n_tokens=7, n_positions=30, dim=12, heads=3, dim_head=8, features=20, inner=24, layers=2)
GENES = ["A", "B", "C", "D", "E"]


@pytest.fixture
def block() -> PerformerBlock:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return PerformerBlock(SIZES)


@pytest.fixture
def x() -> torch.Tensor:
    """Two cells of 30 positions whose keys grow along the cell, so that every chunk raises the maximum."""
    x = torch.randn(2, 30, SIZES.dim, generator=torch.Generator().manual_seed(1))
    return x * torch.linspace(0.2, 3, 30)[:, None] + torch.linspace(0, 2, 30)[:, None]


def dense(block: PerformerBlock, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """The block as its formulas stand: all features at once, one cell after the other."""
    favor = block.attention
    cells = []
    for row, cell in enumerate(x):
        h = block.norm1(cell)
        q, k, v = (
            to(h).unflatten(-1, (favor.heads, -1)).transpose(0, 1) for to in (favor.to_q, favor.to_k, favor.to_v)
        )
        if mask is not None:
            v = v * mask[row][:, None]
        c = q.shape[-1] ** -0.25
        (uq, nq), (uk, nk) = ((c * t @ favor.projection.T, c**2 * t.square().sum(-1, keepdim=True) / 2) for t in (q, k))
        fq = torch.exp(uq - nq - uq.amax(-1, keepdim=True)) + 1e-4
        fk = torch.exp(uk - nk - uk.max()) + 1e-4
        out = fq @ (fk.transpose(1, 2) @ v) / (fq @ fk.sum(1).unsqueeze(-1))
        y = cell + favor.to_out(out.transpose(0, 1).flatten(1))
        cells.append(y + block.w2(torch.nn.functional.gelu(block.w1(block.norm2(y)))))
    return torch.stack(cells)


@pytest.mark.parametrize("rows", [1, 7, 64, 1000])
def test_chunks_give_what_the_formulas_give(block, x, rows, monkeypatch):
    monkeypatch.setitem(performer.CHUNK_ROWS, "cpu", rows)
    with torch.inference_mode():
        torch.testing.assert_close(block(x, None, None, slice(None)), dense(block, x), rtol=0, atol=2e-5)
        torch.testing.assert_close(block(x, None, None, slice(0, 1)), dense(block, x)[:, :1], rtol=0, atol=2e-5)


def test_gradients_are_those_of_the_formulas(block, x, monkeypatch):
    monkeypatch.setitem(performer.CHUNK_ROWS, "cpu", 14)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    (block(x, None, None, slice(None)) * direction).sum().backward()
    ours = {name: p.grad.clone() for name, p in block.named_parameters()}
    block.zero_grad()
    (dense(block, x) * direction).sum().backward()
    for name, parameter in block.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-3, atol=1e-3, msg=name)


def test_a_network_that_learns_gives_the_same_numbers(x):
    network = Performer(SIZES)
    with torch.inference_mode():
        still = network.run(x, None, None, slice(0, 1))
    torch.testing.assert_close(network.run(x, None, None, slice(0, 1)).detach(), still, rtol=0, atol=1e-6)


def test_one_pad_stands_for_all(block, x):
    lengths = torch.tensor([11, 4])
    mask = torch.arange(30) < lengths[:, None]
    x = torch.where(mask[..., None], x, x[0, -1])
    width = 13
    weight = torch.where(mask, 1.0, ((30 - lengths) / (width - lengths))[:, None])[:, :width]
    with torch.inference_mode():
        short = block(x[:, :width], mask[:, :width], weight, slice(None))
        torch.testing.assert_close(short, dense(block, x, mask)[:, :width], rtol=0, atol=2e-5)
        blind = block(x[:, :width], mask[:, :width], mask[:, :width].float(), slice(None))
    assert (short - blind).abs().max() > 0.01  # the number of pads counts


def test_features_stay_float32_in_half_precision(block, x):
    seen = []
    bits = block.attention._bits
    block.attention._bits = lambda y: seen.append((y.dtype, bits(y)[0].dtype)) or bits(y)
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        block(x, None, None, slice(None))
    assert set(seen) == {(torch.bfloat16, torch.float32)}


def cells_of(counts: list[list[float]], symbols: list[str]) -> Cells:
    matrix = sparse.csr_matrix(np.array(counts, dtype=np.float32))
    return Cells(matrix, np.array(symbols, dtype=str), None, "counts", None)


def scbert_tokenizer(**settings: Any) -> ScbertTokenizer:
    return ScbertTokenizer({"genes": GENES, "n_tokens": 7}, dict(MODELS["scbert"].settings) | settings)


def celllm_tokenizer(max_length: int = 10, **settings: Any) -> CelllmTokenizer:
    vocabulary = {"genes": GENES, "n_tokens": 8, "max_length": max_length}
    return CelllmTokenizer(vocabulary, dict(MODELS["celllm"].settings) | settings)


def test_scbert_levels_are_cut_and_rounded_down_and_unknown_genes_do_not_count():
    # of 100,000 known counts: 5 -> log2(1.5) < 1, 10 -> exactly 1, 30 -> exactly 2, the rest far above 5
    cells = cells_of([[9e9, 10, 5, 99955, 30], [7, 0, 0, 0, 0]], ["UNKNOWN", "E", "A", "C", "B"])
    tokens = scbert_tokenizer().tokenize(cells)
    assert tokens.ids.reshape(2, -1).tolist() == [[0, 2, 5, 0, 1, 0], [0, 0, 0, 0, 0, 0]]
    assert tokens.ids.dtype == np.uint8  # every gene of every cell is a token
    assert tokens.lengths.tolist() == [6, 6]


def test_celllm_keeps_expressed_genes_in_gene_order_up_to_its_length():
    cells = cells_of([[9e9, 10, 5, 99955, 30], [7, 0, 0, 0, 0]], ["UNKNOWN", "E", "A", "C", "B"])
    tokens = celllm_tokenizer().tokenize(cells)
    assert tokens.ids.tolist() == [6, 0, 2, 5, 1, 6]
    assert tokens.extra["genes"].tolist() == [5, 0, 1, 2, 4, 5]
    short = celllm_tokenizer(max_length=3).tokenize(cells)
    assert short.ids.tolist() == [6, 0, 2, 6]
    assert short.offsets.tolist() == [0, 3, 4]


@pytest.mark.parametrize(
    ("preprocessing", "levels"), [("log2-cp10k", [2, 5]), ("log1p-cp10k", [1, 5]), ("none", [3, 5])]
)
def test_celllm_preprocessing_is_a_choice(preprocessing, levels):
    tokens = celllm_tokenizer(preprocessing=preprocessing).tokenize(cells_of([[3, 9997]], ["A", "B"]))
    assert tokens.ids[1:].tolist() == levels


def test_celllm_shares_the_pads_out():
    tokenizer = celllm_tokenizer(max_length=10)
    tokens = tokenizer.tokenize(cells_of([[1, 1, 1, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]], GENES))
    batch = tokenizer.collate(tokens, np.arange(3))
    assert batch["ids"].tolist() == [[6, 5, 5, 5, 7], [6, 5, 7, 7, 7], [6, 7, 7, 7, 7]]
    assert batch["genes"].tolist() == [[5, 0, 1, 2, 6], [5, 1, 6, 6, 6], [5, 6, 6, 6, 6]]
    np.testing.assert_allclose(batch["weight"].sum(axis=1), 10)
    np.testing.assert_allclose(batch["weight"][:, -1], [6, 8 / 3, 9 / 4])
    full = celllm_tokenizer(max_length=4)
    assert full.collate(tokens, np.arange(2))["ids"].shape == (2, 4)  # the longest cell leaves no room for pads


def test_upstream_batches_are_rows_in_order():
    tokens = celllm_tokenizer().tokenize(cells_of([[1, 0], [1, 1], [0, 0]], ["A", "B"]))
    together = celllm_tokenizer(compat="upstream")
    assert not together.independent
    assert [rows.tolist() for rows in together.plan(tokens, None, 1)] == [[0, 1, 2]]
    assert [rows.tolist() for rows in together.plan(tokens, 2, 1)] == [[0, 1], [2]]
    pairs = celllm_tokenizer(compat="upstream", upstream_batch_size=2)
    assert [rows.tolist() for rows in pairs.plan(tokens, 3, 1)] == [[0, 1], [2]]
    assert "batches of 2" in pairs.context
    assert [rows.tolist() for rows in celllm_tokenizer().plan(tokens, None, 6)] == [[1], [0, 2]]


@pytest.mark.parametrize(
    ("model", "wrong"),
    [
        *[
            (model, wrong)
            for model in ("scbert", "celllm")
            for wrong in ({"pooling": "first"}, {"compat": "downstream"}, {"upstream_batch_size": 0})
        ],
        ("celllm", {"preprocessing": "log10"}),
    ],
)
def test_settings_that_make_no_sense_are_refused(model, wrong, settings):
    (name,) = wrong
    with pytest.raises(InvalidInput, match=f"{name}=") as caught:
        load_model(model, weights=CASES / model / "checkpoint", device="cpu", **wrong)
    assert caught.value.remedy


def new_style(path: Path, genes: list[str]) -> None:
    ad.AnnData(np.zeros((1, len(genes)), np.float32), var=pd.DataFrame(index=genes)).write_h5ad(path)


def named_index(path: Path, genes: list[str]) -> None:
    var = pd.DataFrame(index=pd.Index(genes, name="gene_symbol"))
    ad.AnnData(np.zeros((1, len(genes)), np.float32), var=var).write_h5ad(path)


def compound(path: Path, genes: list[str]) -> None:
    with h5py.File(path, "w") as file:
        file["var"] = np.array([(name.encode(), 1.0) for name in genes], dtype=[("index", "S20"), ("n_cells", "f8")])


def nested(path: Path, genes: list[str], **members: Any) -> None:
    with h5py.File(path, "w") as file:
        var = file.create_group("var")
        var.attrs["_index"] = "names"
        for name, values in members.items():
            var[f"names/{name}"] = values


def categories(path: Path, genes: list[str]) -> None:
    ordered = sorted(genes)
    codes = np.array([ordered.index(name) for name in genes], dtype=np.int16)
    nested(path, genes, categories=np.array(ordered, dtype="S"), codes=codes)


def masked(path: Path, genes: list[str]) -> None:
    nested(path, genes, values=np.array(genes, dtype="S"), mask=np.zeros(len(genes), bool))


@pytest.mark.parametrize("write", [new_style, named_index, compound, categories, masked], ids=lambda f: f.__name__)
def test_gene_order_is_read_from_every_encoding(tmp_path, write):
    genes = ["TP53", "ACTB", "HLA-A", "ZNF1"]
    write(tmp_path / "order.h5ad", genes)
    assert read_gene_order(tmp_path / "order.h5ad", 4) == genes


def external(path: Path, genes: list[str]) -> None:
    new_style(path.with_name("other.h5ad"), genes)
    with h5py.File(path, "w") as file:
        file["var"] = h5py.ExternalLink("other.h5ad", "/var")


def virtual(path: Path, genes: list[str]) -> None:
    compound(path.with_name("other.h5ad"), genes)
    with h5py.File(path.with_name("other.h5ad")) as other, h5py.File(path, "w") as file:
        layout = h5py.VirtualLayout(shape=other["var"].shape, dtype=other["var"].dtype)
        layout[:] = h5py.VirtualSource(other["var"])
        file.create_virtual_dataset("var", layout)


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (lambda path, genes: new_style(path, [*genes, "E"]), "names 5 genes where the checkpoint's gene table has 4"),
        (lambda path, genes: compound(path, [*genes[:3], "A"]), "names the gene 'A' more than once"),
        (lambda path, genes: path.write_text("<html>"), "cannot be read as an .h5ad"),
        (lambda path, genes: h5py.File(path, "w").close(), "cannot be read as an .h5ad"),
        (lambda path, genes: nested(path, genes, other=np.zeros(4)), "cannot be read as an .h5ad"),
        (external, "'var' is a link"),
        (virtual, "lie in another file"),
    ],
)
def test_a_gene_order_that_does_not_fit_is_named(tmp_path, write, says):
    write(tmp_path / "order.h5ad", ["A", "B", "C", "D"])
    with pytest.raises(WeightsInvalid, match=says) as caught:
        read_gene_order(tmp_path / "order.h5ad", 4)
    assert str(tmp_path / "order.h5ad") in str(caught.value)


def test_a_gene_list_may_come_from_windows(tmp_path):
    (tmp_path / "gene_list.txt").write_bytes(b"A\r\nB\r\n\r\n")
    assert read_gene_order(tmp_path / "gene_list.txt", 2) == ["A", "B"]
    (tmp_path / "gene_list.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(WeightsInvalid, match="cannot be read as text"):
        read_gene_order(tmp_path / "gene_list.txt", 2)


@pytest.fixture(params=["scbert", "celllm"])
def model(request) -> str:
    """Key of the model."""
    return request.param


@pytest.fixture
def checkpoint(model, tmp_path, settings) -> Path:
    """The model's tiny checkpoint, which a test may spoil."""
    return Path(shutil.copytree(CASES / model / "checkpoint", tmp_path / "checkpoint"))


@pytest.fixture
def change(checkpoint) -> Callable[[Callable[[dict], Any]], Path]:
    """Edit what the .pth of `checkpoint` holds."""

    def edit(how: Callable[[dict], Any]) -> Path:
        (path,) = checkpoint.glob("*.pth")
        content = torch.load(path, weights_only=True)
        torch.save(how(content) or content, path)
        return path

    return edit


def embedding(model: str, folder: Path) -> np.ndarray:
    return load_model(model, weights=folder, device="cpu").embed(ad.read_h5ad(CASES / model / "input.h5ad")[:3])


def refused(model: str, folder: Path) -> str:
    with pytest.raises(WeightsInvalid) as caught:
        load_model(model, weights=folder, device="cpu")
    assert caught.value.remedy
    return str(caught.value)


LAYER = "performer.net.layers.1"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda t: t.pop("token_emb.weight"), "lacks the tensor 'token_emb.weight'"),
        (lambda t: t.pop("pos_emb.emb.weight"), "lacks the tensor 'pos_emb.emb.weight'"),
        (lambda t: t.pop("norm.bias"), "lacks the tensor 'norm.bias'"),
        (
            lambda t: t.pop(f"{LAYER}.0.fn.fast_attention.projection_matrix"),
            f"lacks the tensor '{LAYER}.0.fn.fast_attention.projection_matrix'",
        ),
        (lambda t: t.update({"token_emb.weight": torch.zeros(7)}), "shape (7,) where a matrix is expected"),
        (
            lambda t: t.update({"performer.net.layers.0.0.fn.to_q.weight": torch.zeros(100, 9)}),
            "queries of 100 rows, which heads of 64 do not divide",
        ),
        (
            lambda t: t.update({f"{LAYER}.0.fn.to_q.bias": torch.zeros(128)}),
            f"holds the tensor '{LAYER}.0.fn.to_q.bias'",
        ),
        (lambda t: t.update({f"{LAYER}.2.x": torch.zeros(1)}), f"holds the tensor '{LAYER}.2.x'"),
        (lambda t: t["pos_emb.emb.weight"].fill_(torch.nan), "NaN or infinite numbers in 'pos_emb.emb.weight'"),
    ],
)
def test_a_wrong_tensor_is_named(model, checkpoint, change, spoil, says):
    def edit(content: dict) -> None:
        spoil(content["model_state_dict"])

    path = change(edit)
    message = refused(model, checkpoint)
    assert f"'{path}'" in message
    assert says in message


def test_a_bare_state_dict_of_another_name_is_read(model, checkpoint, change):
    expected = embedding(model, checkpoint)
    path = change(lambda content: content["model_state_dict"])
    path.rename(path.with_name("anything.pth"))
    np.testing.assert_array_equal(embedding(model, checkpoint), expected)


def test_a_classifier_in_place_of_the_head_is_left_out(model, checkpoint, change):
    expected = embedding(model, checkpoint)
    change(lambda content: content["model_state_dict"] | {"to_out.fc1.weight": torch.zeros(512, 20)})
    np.testing.assert_array_equal(embedding(model, checkpoint), expected)


def test_another_order_of_genes_is_another_embedding(model, checkpoint):
    expected = embedding(model, checkpoint)
    names = {"scbert": "panglao_10000.h5ad", "celllm": "gene_list.txt"}
    path = checkpoint / names[model]
    n_genes = len(load_model(model, weights=checkpoint, device="cpu").tokenizer.genes)
    genes = read_gene_order(path, n_genes)
    path.unlink()
    new_style(checkpoint / "prepared.h5ad", genes)
    np.testing.assert_array_equal(embedding(model, checkpoint), expected)
    new_style(checkpoint / "prepared.h5ad", genes[::-1])
    assert np.abs(embedding(model, checkpoint) - expected).max() > 0.01
    (checkpoint / "prepared.h5ad").unlink()
    with pytest.raises(WeightsMissing, match=f"lacks {names[model]}"):
        load_model(model, weights=checkpoint, device="cpu")


def edit_structure(folder: Path, **fields: Any) -> None:
    path = folder / "cellLM.json"
    content = json.loads(path.read_text())
    structure = content["network"]["structure"] | fields
    content["network"]["structure"] = {name: value for name, value in structure.items() if value is not None}
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("model", ["celllm"], indirect=True)
@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"dim": 33}, "says dim = 33 where"),
        ({"gene_num": 341}, "says gene_num = 341 where"),
        ({"local_attn_heads": 1}, "says local_attn_heads = 1 where"),
        ({"g2v_position_emb": False}, "says g2v_position_emb = False where"),
        ({"max_seq_len": None}, "has no part of 'network' with a 'max_seq_len'"),
        ({"max_seq_len": "long"}, "has no part of 'network' with a 'max_seq_len'"),
    ],
)
def test_a_configuration_that_does_not_fit_is_named(model, checkpoint, fields, says):
    edit_structure(checkpoint, **fields)
    message = refused(model, checkpoint)
    assert f"'{checkpoint / 'cellLM.json'}'" in message
    assert says in message


@pytest.mark.parametrize("model", ["celllm"], indirect=True)
def test_celllm_reads_every_layout_of_upstream(model, checkpoint, change):
    expected = embedding(model, checkpoint)
    path = change(lambda content: {"epoch": 1, "weights": content["model_state_dict"]})
    shutil.copy(path, checkpoint / "nocls_fixed.pth")
    path.write_bytes(b"not the one that the configuration names")
    edit_structure(checkpoint, ckpt_path="../ckpts/nocls_fixed.pth", param_key="weights", dim=None)
    content = json.loads((checkpoint / "cellLM.json").read_text())
    content["network"] = {"cell_encoder": content["network"]["structure"], "dropout": 0.2}
    (checkpoint / "cellLM.json").unlink()
    (checkpoint / "CellLM_randsplit.json").write_text(json.dumps(content))
    np.testing.assert_array_equal(embedding(model, checkpoint), expected)
    edited = content["network"]["cell_encoder"] | {"max_seq_len": 60}
    (checkpoint / "CellLM_randsplit.json").write_text(json.dumps({"network": {"cell_encoder": edited}}))
    assert np.abs(embedding(model, checkpoint) - expected).max() > 0.01  # the padded length is part of the model


@pytest.mark.parametrize("model", ["celllm"], indirect=True)
def test_either_carrier_of_the_gene_order_will_do(model, checkpoint, settings):
    card = MODELS[model]
    shutil.copytree(checkpoint, home(card, settings.weights))
    assert state(card, settings.weights) == "ready"
    genes = home(card, settings.weights) / "gene_list.txt"
    new_style(genes.with_name("zheng68k_hgnc.h5ad"), genes.read_text().split())
    genes.unlink()
    assert state(card, settings.weights) == "ready"
    assert load_model(model, device="cpu").dim == load_model(model, weights=checkpoint, device="cpu").dim
    genes.with_name("zheng68k_hgnc.h5ad").unlink()
    with pytest.raises(WeightsMissing, match=r"for zheng68k_hgnc\.h5ad or gene_list\.txt"):
        load_model(model, device="cpu")
