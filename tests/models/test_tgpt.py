"""What the registry contract and the parity cases do not tell about tGPT."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import safetensors.torch
import torch
from places import PARITY
from scipy import sparse

from scdrugmap.errors import InvalidInput, WeightsInvalid
from scdrugmap.models import load_model
from scdrugmap.models.checkpoints.load import convert as convert_weights
from scdrugmap.models.core.cells import Cells
from scdrugmap.models.tgpt import convert
from scdrugmap.models.tgpt.card import CARD
from scdrugmap.models.tgpt.tokens import Tokenizer

CASE = PARITY / "tgpt"
CHECKPOINT = CASE / "checkpoint"
TOKENS = ("<pad>", "</b>", "</s>", "<unk>", "HLA_A", "TP53", "NKX2_1", "MYC", "A", "B", ":", "unused0", "extra_id_0")
VOCABULARY = {"tokens": {name: row for row, name in enumerate(TOKENS)}, "positions": 16}


def tokenizer(**settings) -> Tokenizer:
    return Tokenizer(VOCABULARY, dict(CARD.settings) | {"max_length": 8} | settings)


def cells(counts, symbols) -> Cells:
    return Cells(
        sparse.csr_matrix(np.array(counts, dtype=np.float32)), np.array(symbols, dtype=str), None, "counts", None
    )


def sentences(tokens) -> list[list[int]]:
    return [tokens.ids[tokens.cell(index)].tolist() for index in range(len(tokens))]


def test_genes_stand_by_falling_count_and_are_written_with_underscores():
    some = cells([[1, 5, 3, 0], [0, 0, 0, 2]], ["HLA-A", "TP53", "NKX2.1", "MYC"])
    assert sentences(tokenizer().tokenize(some)) == [[1, 5, 6, 4, 2], [1, 7, 2]]
    assert sentences(tokenizer(max_length=4).tokenize(some)) == [[1, 5, 6, 2], [1, 7, 2]]


def test_unknown_genes_are_left_out_and_upstream_gives_them_places():
    some = cells([[9, 8, 7, 6, 5, 4]], ["MT-CO1", "A/B", "TP53", "extra_id_0", "x y", "MYC"])
    assert sentences(tokenizer().tokenize(some)) == [[1, 5, 7, 2]]
    assert sentences(tokenizer(compat="upstream").tokenize(some)) == [[1, 3, 8, 3, 9, 5, 12, 2]]
    longer = tokenizer(compat="upstream", max_length=12).tokenize(some)
    assert sentences(longer) == [[1, 3, 8, 3, 9, 5, 12, 3, 3, 7, 2]]
    assert tokenizer().match(cells([[1] * 4], ["unused0", ":", "</s>", "HLA-A"])).tolist() == [-1, -1, -1, 4]


@pytest.mark.parametrize("compat", ["", "upstream"])
def test_ties_go_by_the_vocabulary_whatever_the_order_of_the_columns(compat):
    names = np.array(["MYC", "TP53", "unknown", "HLA-A", "A/B"])
    orders = [np.random.default_rng(seed).permutation(len(names)) for seed in range(6)]
    seen = [sentences(tokenizer(compat=compat).tokenize(cells([[2] * len(names)], names[order]))) for order in orders]
    assert seen[0] == ([[1, 3, 4, 5, 7, 8, 3, 2]] if compat else [[1, 4, 5, 7, 2]])
    assert all(other == seen[0] for other in seen)


@pytest.mark.parametrize("wrong", [{"max_length": 2}, {"max_length": 17}, {"max_length": None}, {"compat": "old"}])
def test_settings_that_do_not_fit_the_model_are_refused(wrong):
    with pytest.raises(InvalidInput):
        tokenizer(**wrong)


def test_an_empty_cell_is_a_vector_of_zeros_and_leaves_the_others_alone(settings):
    adata = ad.read_h5ad(CASE / "input.h5ad")
    encoder = load_model("tgpt", weights=CHECKPOINT, device="cpu")
    whole = encoder.embed(adata)
    filled = np.ones(adata.n_obs)
    filled[[2, 3]] = 0
    adata.X = sparse.csr_matrix(sparse.diags(filled) @ adata.X)
    for batch_size in (None, 1):
        got = encoder.embed(adata, batch_size=batch_size)
        assert not got[[2, 3]].any()
        np.testing.assert_allclose(got[filled > 0], whole[filled > 0], rtol=0, atol=1e-5)


def changed(tmp_path: Path, name: str, change) -> Path:
    folder = Path(shutil.copytree(CHECKPOINT, tmp_path / "changed"))
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("config.json", lambda config: config.update(activation_function="relu"), "activation_function = 'relu'"),
        ("config.json", lambda config: config.update(scale_attn_by_inverse_layer_idx=True), "inverse_layer_idx"),
        ("config.json", lambda config: config.pop("n_embd"), "lacks the field 'n_embd'"),
        ("config.json", lambda config: config.update(n_layer=2), r"'transformer\.h\.2\.ln_1\.weight', which"),
        ("config.json", lambda config: config.update(n_layer=4), r"lacks the tensor 'transformer\.h\.3"),
        ("tokenizer.json", lambda file: file["model"].update(type="BPE"), "no word-level tokenizer"),
        ("tokenizer.json", lambda file: file["model"]["vocab"].popitem(), "426 tokens for a model of 427"),
        ("tokenizer.json", lambda file: file["model"]["vocab"].update(A=0), "tokens for a model of"),
        (
            "tokenizer.json",
            lambda file: file["model"]["vocab"].update({"<s>": file["model"]["vocab"].pop("</b>")}),
            "</b>",
        ),
    ],
)
def test_files_that_do_not_belong_together_are_refused(settings, tmp_path, name, change, says):
    with pytest.raises(WeightsInvalid, match=says):
        load_model("tgpt", weights=changed(tmp_path, name, change), device="cpu")


def test_the_causal_mask_and_the_tied_output_are_knowingly_unused():
    state = torch.load(CHECKPOINT / "pytorch_model.bin", weights_only=True)
    checkpoint = convert_weights(CARD, convert, convert.files(CHECKPOINT), CARD.settings)
    masks = {name for name in state if name.endswith((".attn.bias", ".attn.masked_bias"))}
    assert masks
    assert set(checkpoint.unused) == masks | {"lm_head.weight"}


def test_newer_files_without_buffers_and_prefix_give_the_same(settings, tmp_path):
    folder = Path(shutil.copytree(CHECKPOINT, tmp_path / "newer"))
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    kept = {
        name.removeprefix("transformer."): tensor.clone()
        for name, tensor in state.items()
        if not name.endswith((".attn.bias", ".attn.masked_bias")) and name != "lm_head.weight"
    }
    safetensors.torch.save_file(kept, folder / "model.safetensors")
    (folder / "pytorch_model.bin").unlink()
    adata = ad.read_h5ad(CASE / "input.h5ad")
    old, new = (load_model("tgpt", weights=path, device="cpu").embed(adata) for path in (CHECKPOINT, folder))
    np.testing.assert_array_equal(old, new)
