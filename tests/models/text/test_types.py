"""Text models of many types, as one would name them with --weights: all through the same code, or refused in a line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from anndata import AnnData
from scipy import sparse
from text_folders import TINY, opened, typed
from transformers import AutoModel

from scdrugmap.errors import InvalidInput, WeightsInvalid
from scdrugmap.models.core.lora_adapters import Adapters, adapted
from scdrugmap.models.text.load import quiet

SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
MIXED = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "sliding_window": 4}
EXPERTS = {"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2}
BEHIND = {"max_position_embeddings": 514, "pad_token_id": 1}
SEEING = {
    "text_config": TINY | SPECIAL | MIXED | {"vocab_size": 402, "query_pre_attn_scalar": 8},
    "vision_config": {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "image_size": 28, "patch_size": 14,
    },
    "mm_tokens_per_image": 4,
}  # fmt: skip
# type: fields of its configuration beside TINY, the linears that LoRA adapts, and the tokens that it can place
TYPES: dict[str, tuple[dict[str, Any], str, int]] = {
    "llama": ({}, "q_proj v_proj", 4096),
    "qwen3": (SPECIAL, "q_proj v_proj", 4096),
    "qwen2_moe": (EXPERTS | {"shared_expert_intermediate_size": 16}, "q_proj v_proj", 4096),
    "mistral": ({"sliding_window": 4}, "q_proj v_proj", 4096),
    "gemma": (SPECIAL, "q_proj v_proj", 4096),
    "gemma3_text": (SPECIAL | MIXED | {"query_pre_attn_scalar": 8}, "q_proj v_proj", 4096),
    "gemma3": (SEEING, "q_proj v_proj", 4096),
    "phi": (SPECIAL, "q_proj v_proj", 4096),
    "phi3": (SPECIAL, "qkv_proj", 4096),
    "olmo2": (SPECIAL, "q_proj v_proj", 4096),
    "opt": ({"ffn_dim": 24, "word_embed_proj_dim": 8, "do_layer_norm_before": False}, "q_proj v_proj", 4096),
    "bloom": ({"max_position_embeddings": None}, "query_key_value", 2**20),
    "falcon": ({"new_decoder_architecture": False, "head_dim": None}, "query_key_value", 4096),
    "gpt_neox": ({}, "query_key_value", 4096),
    "gpt2": ({}, "c_attn", 4096),
    "mamba": ({"state_size": 4, "max_position_embeddings": None}, "in_proj", 2**20),
    "bert": ({}, "query value", 4096),
    "distilbert": ({}, "q_lin v_lin", 4096),
    "roberta": (BEHIND, "query value", 512),
    "xlm-roberta": (BEHIND, "query value", 512),
    "electra": ({"embedding_size": 8}, "query value", 4096),
    "albert": ({"embedding_size": 8}, "query value", 4096),
    "mpnet": (BEHIND, "q v", 512),
    "deberta-v2": (
        {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "conv_kernel_size": 3, "conv_act": "gelu"},
        "query_proj value_proj",
        4096,
    ),
    "modernbert": (SPECIAL | {"local_attention": 8}, "Wqkv", 4096),
    "nomic_bert": ({}, "q_proj v_proj", 4096),
    "longformer": (BEHIND | {"attention_window": 8}, "query value", 512),
    "squeezebert": ({"embedding_size": 16, **dict.fromkeys(("q_groups", "k_groups", "v_groups"), 1)}, "", 4096),
    "convbert": ({"embedding_size": 16}, "query value", 4096),
    "fnet": ({}, "", 4096),
}
OWN_STATES = {"opt", "mamba", "albert"}  # whose hidden_states are not the outputs of their blocks, one by one
BOTH_SIDES = ("llama", "qwen3", "mistral", "gemma3_text", "bert", "gpt2")  # those that take positions
PADDED = sorted(set(TYPES) - {"convbert", "fnet"})


@pytest.fixture
def of_type(text_folder, settings):
    """Put a model of a type into the text_folder and load it."""

    def load(kind: str, **given: Any):
        typed(text_folder, kind, **TYPES[kind][0])
        return opened(text_folder, max_length=min(TYPES[kind][2], 256), **given)

    return load


def shortened(cells: AnnData, genes: list[int]) -> AnnData:
    """Some cells that express only so many of the first genes: their texts differ in length."""
    few = cells[: len(genes)].copy()
    seen = np.arange(few.n_vars) < np.array(genes)[:, None]
    few.X = sparse.csr_matrix(few.X.toarray() * seen)
    return few


@pytest.mark.parametrize("kind", TYPES)
def test_it_is_transformers_own_answer(cells, text_folder, of_type, kind):
    few = shortened(cells, [400, 60, 30])
    encoder = of_type(kind, top_k=30)
    assert encoder.card.lora_targets == tuple(TYPES[kind][1].split())
    assert encoder.tokenizer.vocabulary["positions"] == TYPES[kind][2]
    with quiet():
        model = AutoModel.from_pretrained(text_folder).eval()
    tokens = encoder.tokenize(few)
    rows = [torch.from_numpy(tokens.ids[tokens.cell(cell)]).long()[None] for cell in range(3)]
    assert len({row.shape for row in rows}) > 1
    with torch.inference_mode():
        every = [model(row, attention_mask=torch.ones_like(row), output_hidden_states=True) for row in rows]
    expected = np.stack([answer.last_hidden_state[0].mean(dim=0).numpy() for answer in every])
    z = encoder.embed(few)
    assert z.shape == (3, encoder.dim)
    np.testing.assert_allclose(z, expected, rtol=0, atol=5e-5 * np.abs(expected).max())
    if kind in OWN_STATES:
        return
    inner = np.stack([answer.hidden_states[2][0].mean(dim=0).numpy() for answer in every])
    cut = opened(text_folder, max_length=256, top_k=30, layer=2)
    np.testing.assert_allclose(cut.embed(few), inner, rtol=0, atol=5e-5 * np.abs(inner).max())
    assert len(cut.network.blocks) == 2


@pytest.mark.parametrize("pooling", ["mean", "last"])
@pytest.mark.parametrize("kind", BOTH_SIDES)
def test_padding_on_either_side_and_batch_mates_change_nothing(of_type, kind, pooling):
    encoder = of_type(kind, pooling=pooling)
    rng = np.random.default_rng(0)
    texts = [torch.from_numpy(rng.integers(0, 300, size)) for size in (3, 9, 6)]
    width = max(len(text) for text in texts)
    ids, mask = torch.zeros(3, width, dtype=torch.int64), torch.zeros(3, width, dtype=torch.bool)
    positions = torch.zeros(3, width, dtype=torch.int64)
    turned, unmasked = ids.clone(), mask.clone()
    for row, text in enumerate(texts):
        ids[row, : len(text)], mask[row, : len(text)] = text, True
        turned[row, -len(text) :], unmasked[row, -len(text) :] = text, True
        positions[row, -len(text) :] = torch.arange(len(text))
    with torch.inference_mode():
        alone = torch.cat([encoder.network(text[None]) for text in texts])
        right = encoder.network(ids, mask)
        left = encoder.network(turned, unmasked, positions)
    torch.testing.assert_close(right, alone, rtol=0, atol=2e-5)
    torch.testing.assert_close(left, alone, rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", TYPES)
def test_batch_mates_change_nothing(cells, of_type, kind):
    few = shortened(cells, [40, 40, 80, 80, 20, 20])
    encoder = of_type(kind, top_k=40)
    assert encoder.tokenizer.padded == (kind in PADDED)
    alone = encoder.embed(few, batch_size=1)
    np.testing.assert_allclose(encoder.embed(few), alone, rtol=0, atol=5e-5 * np.abs(alone).max())


@pytest.mark.parametrize("kind", sorted(kind for kind, (_, targets, _) in TYPES.items() if targets))
def test_adapters_are_trained_in_every_type(cells, of_type, kind):
    few = cells[:4].copy()
    encoder = of_type(kind, top_k=20)
    before = encoder.embed(few)
    tokens = encoder.tokenize(few)
    rows = encoder.tokenizer.plan(tokens, None, 512)[0]
    with adapted(encoder.network, Adapters.new(encoder.card, r=2, alpha=2)) as model:
        model.train()
        encoder.forward(encoder.tokenizer.collate(tokens, rows)).pow(2).sum().backward()
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        assert len(trained) >= 2 * len(encoder.card.lora_targets)
        for name, parameter in trained.items():
            assert parameter.grad is not None, name
            if "lora_B" in name:
                assert parameter.grad.abs().max() > 0, name
    np.testing.assert_array_equal(encoder.embed(few), before)


@pytest.mark.parametrize("kind", ["roberta", "mpnet", "longformer", "bert"])
def test_the_longest_text_that_is_allowed_runs(of_type, kind):
    encoder = of_type(kind)
    most = min(encoder.tokenizer.vocabulary["positions"], 600)
    with torch.inference_mode():
        assert torch.isfinite(encoder.network(torch.full((1, most), 5))).all()


@pytest.mark.parametrize("kind", ["squeezebert", "fnet"])
def test_a_network_without_such_linears_has_no_adapters_and_says_so(of_type, kind):
    with pytest.raises(InvalidInput, match="no linears that LoRA could adapt") as caught:
        Adapters.new(of_type(kind).card)
    assert "freeze" in caught.value.remedy


@pytest.mark.parametrize(
    ("kind", "fields", "says"),
    [
        ("albert", {"embedding_size": 8}, "whose blocks differ"),  # one block, run three times
        (
            "xlnet",
            {"d_model": 16, "d_inner": 24, "n_layer": 3, "n_head": 2, "max_position_embeddings": None},
            "whose blocks differ",
        ),  # (L, C, D)
    ],
)
def test_layers_that_cannot_be_caught_are_refused_before_any_cell(text_folder, settings, kind, fields, says):
    typed(text_folder, kind, **fields)
    assert opened(text_folder).dim == 16
    with pytest.raises(InvalidInput, match=says) as caught:
        opened(text_folder, layer=1)
    assert "last hidden state" in caught.value.remedy


@pytest.mark.parametrize(
    ("kind", "fields", "says"),
    [
        ("t5", {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2}, "encoder and decoder in one"),
        ("big_bird", {}, "changes its attention with the length of a batch"),
        ("vit", {"image_size": 28, "patch_size": 14}, "cannot be read as a text model"),
    ],
)
def test_what_is_no_text_model_of_one_part_is_refused_in_a_line(text_folder, settings, kind, fields, says):
    typed(text_folder, kind, **fields)
    with pytest.raises(WeightsInvalid, match=says) as caught:
        opened(text_folder)
    assert "\n" not in caught.value.line


def test_beyond_the_trained_length_longrope_would_follow_the_longest_text_of_a_batch(text_folder, settings):
    rope = {
        "rope_type": "longrope", "rope_theta": 1e4, "long_factor": [2.0] * 4, "short_factor": [1.0] * 4,
        "original_max_position_embeddings": 512, "partial_rotary_factor": 1.0,
    }  # fmt: skip
    typed(text_folder, "phi3", **SPECIAL, rope_parameters=rope, original_max_position_embeddings=512)
    with pytest.raises(InvalidInput, match=r"max_length=4096 .* reads up to 512 tokens") as caught:
        opened(text_folder)
    assert "--set max_length=512" in caught.value.remedy
