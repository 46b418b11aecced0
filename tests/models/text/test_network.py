"""Text models: the text of a cell and what is read from it, settings and their bounds, and the real MiniLM."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from text_folders import opened
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from scdrugmap.embeddings.compute import shard_key
from scdrugmap.errors import InvalidInput
from scdrugmap.evaluation.benchmark import benchmark
from scdrugmap.models import MODELS, load_model
from scdrugmap.models.checkpoints.locate import home
from scdrugmap.models.core.cells import Cells
from scdrugmap.models.testing import toy_encoder
from scdrugmap.models.text.load import quiet

LLAMA, MINILM = MODELS["llama3-8b"], MODELS["minilm"]


def test_a_layer_below_the_last_leaves_the_rest_out(text_folder, settings):
    whole, cut = opened(text_folder), opened(text_folder, layer=1)
    assert len(whole.network.model.layers) == 2
    assert len(cut.network.model.layers) == 1
    assert cut.network.blocks is cut.network.model.layers  # what `compile` and gradient checkpointing look for
    assert not hasattr(whole.network.model, "lm_head")


def test_a_causal_models_head_and_a_poolers_absence_are_taken(cells, text_folder, settings):
    expected = opened(text_folder).embed(cells[:3].copy())
    with quiet():
        base = AutoModel.from_pretrained(text_folder)
        causal = AutoModelForCausalLM.from_config(base.config)
        causal.model.load_state_dict(base.state_dict())
        causal.save_pretrained(text_folder)
    np.testing.assert_array_equal(opened(text_folder).embed(cells[:3].copy()), expected)


def test_bfloat16_is_how_the_weights_lie(cells, text_folder, settings):
    half = load_model("llama3-8b", weights=text_folder, device="cpu", precision="bfloat16")
    assert {p.dtype for p in half.network.parameters()} == {torch.bfloat16}
    full = opened(text_folder).embed(cells[:5].copy())
    z = half.embed(cells[:5].copy())
    assert z.dtype == np.float32
    assert np.abs(z - full).max() < 0.05 * np.abs(full).max()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"layer": 3}, "layer=3 is not one of the model's 2 blocks"),
        ({"layer": 0}, "layer=0"),
        ({"layer": "top"}, "layer='top'"),
        ({"pooling": "max"}, "pooling='max'"),
        ({"text": "poem"}, "text='poem'"),
        ({"compat": "downstream"}, "compat='downstream'"),
        ({"about": "drug,dataset"}, "names 'dataset', which a text does not tell"),
        ({"max_length": 3}, "max_length=3"),
        ({"max_length": 8193}, "max_length=8193 .* reads up to 8192 tokens"),
        ({"top_k": 0}, "top_k=0 is not a number of genes"),
        ({"layer": True}, "layer=True"),
        ({"about": 5}, "names '5', which a text does not tell"),
    ],
)
def test_settings_that_make_no_sense_are_refused(cells, text_folder, settings, given, says):
    with pytest.raises(InvalidInput, match=says):
        opened(text_folder, **given).embed(cells[:2].copy())


def test_a_text_is_the_sentence_of_the_cell(cells):
    encoder = toy_encoder(LLAMA, cells, top_k=5)
    (text,) = encoder.tokenizer.texts(Cells.from_anndata(cells[0].copy()))
    assert len(text.split()) == 5
    tokens = encoder.tokenize(cells[0].copy())
    assert tokens.ids[0] == 1  # the special token stands before the genes
    words = json.loads(encoder.tokenizer.vocabulary["tokenizer"])["model"]["vocab"]
    assert tokens.ids[1:].tolist() == [words[gene] for gene in text.split()]
    valued = toy_encoder(LLAMA, cells, top_k=5, text="values").tokenizer.texts(Cells.from_anndata(cells[0].copy()))[0]
    assert valued.split()[::2] == text.split()


def test_long_texts_are_cut_and_keep_their_special_tokens(cells):
    encoder = toy_encoder(MINILM, cells, max_length=9)
    tokens = encoder.tokenize(cells)
    assert tokens.lengths.tolist() == [9] * cells.n_obs
    assert set(tokens.ids[tokens.offsets[:-1]].tolist()) == {1}


def test_compat_is_the_published_text(cells):
    encoder = toy_encoder(LLAMA, cells, compat="upstream")
    (text,) = encoder.tokenizer.texts(Cells.from_anndata(cells[0].copy()))
    counts = cells.X[0].toarray()[0]
    assert text.split() == [f"{gene}{value:.7g}" for gene, value in zip(cells.var_names, counts, strict=True)]
    assert text.endswith(" ")


def test_what_is_known_of_a_cell_stands_before_its_genes_and_in_the_key(cells):
    plain, told = toy_encoder(LLAMA, cells), toy_encoder(LLAMA, cells, about="tissue,drug")
    few = cells[:4].copy()
    few.obs["drug"] = ["erlotinib", "gefitinib", None, ""]
    few.obs["tissue"] = "lung"
    texts = told.tokenizer.texts(Cells.from_anndata(few))
    assert texts[0].startswith("Drug: erlotinib. Tissue: lung. ")
    assert texts[2].startswith("Tissue: lung. ")
    other = few.copy()
    other.obs["drug"] = "dabrafenib"
    assert shard_key(told, few, 0) != shard_key(told, other, 0)
    assert shard_key(plain, few, 0) == shard_key(plain, other, 0)
    assert np.abs(told.embed(few) - plain.embed(few)).max() > 0
    del few.obs["drug"]
    with pytest.raises(InvalidInput, match=r"needs a column obs\['drug'\]"):
        told.embed(few)


def test_the_name_of_a_data_set_never_reaches_a_text(cells):
    few = cells[:3].copy()
    few.obs["dataset"] = few.obs["study"] = few.obs["sample"] = "GSE120575"
    told = toy_encoder(LLAMA, cells, about="drug,cancer_type,tissue")
    assert not any("GSE" in text for text in told.tokenizer.texts(Cells.from_anndata(few)))
    few.obs["tissue"] = "GSE120575 tumour"
    with pytest.raises(InvalidInput, match="must not reach a language model"):
        told.embed(few)


def test_minilm_embeds_like_transformers_own_pipeline(cells, settings):
    encoder = load_model("minilm", device="cpu", top_k=12)
    few = cells[:3].copy()
    texts = encoder.tokenizer.texts(Cells.from_anndata(few))
    text_folder = home(MINILM, settings.weights)
    with quiet():
        words, model = AutoTokenizer.from_pretrained(text_folder), AutoModel.from_pretrained(text_folder).eval()
    batch = words(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        hidden, mask = model(**batch).last_hidden_state, batch["attention_mask"][..., None]
    expected = ((hidden * mask).sum(dim=1) / mask.sum(dim=1)).numpy()
    np.testing.assert_allclose(encoder.embed(few), expected, rtol=0, atol=2e-5)
    assert sum(p.numel() for p in encoder.network.parameters()) == MINILM.n_parameters


def test_minilm_is_benchmarked_like_any_model(cells, settings):
    knobs = {"minilm": {"top_k": 4}}
    few = cells[:80].copy()
    scores = benchmark(datasets=[few], models=["minilm"], heads=["logistic"], folds=2, knobs=knobs)
    assert scores["model"].unique().to_list() == ["minilm"]
    assert scores.filter(scores["metric"] == "auroc")["value"].is_between(0, 1).all()


@pytest.mark.parametrize("key", ["llama3-8b", "scgpt"])
def test_toys_leave_every_generator_be(cells, monkeypatch, key):
    def never(seed: int) -> None:
        raise AssertionError("the GPUs are seeded too")

    monkeypatch.setattr(torch, "manual_seed", never)
    before = torch.get_rng_state()
    first, again = toy_encoder(MODELS[key], cells), toy_encoder(MODELS[key], cells)
    assert torch.equal(torch.get_rng_state(), before)
    for one, other in zip(first.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(one, other)
