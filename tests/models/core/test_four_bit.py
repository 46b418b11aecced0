"""Weights in 4 bits by bitsandbytes, which runs on a CPU as well: near the float32 model, a quarter of its memory."""

from __future__ import annotations

import copy
import importlib.util
import json
import logging
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from bitsandbytes.nn import Linear4bit
from peft import PeftModel
from text_folders import edit, opened, typed
from transformers import AutoModel

from scdrugmap.embeddings.compute import provenance, shard_key
from scdrugmap.errors import InvalidInput, WeightsInvalid
from scdrugmap.evaluation.benchmark import benchmark
from scdrugmap.models import load_model
from scdrugmap.models.core import four_bit
from scdrugmap.models.core.lora_adapters import Adapters, adapted
from scdrugmap.models.text.load import quiet

WIDE = {
    "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 32, "initializer_range": 0.05,
}  # fmt: skip
# Nearest of 16 levels to a Gaussian weight, scaled by the largest of 64: 9.6 % of its size, root mean square. Weights
# err apart from each other, so that a product of random weights errs by as much.
ROUNDING = (0.07, 0.12)


@pytest.fixture
def folder(text_folder) -> Path:
    return typed(text_folder, "llama", **WIDE)


@pytest.fixture
def packed(folder, settings):
    return opened(folder, quantise="4bit", top_k=40)


def linears(encoder) -> list[Linear4bit]:
    return [part for part in encoder.network.modules() if isinstance(part, Linear4bit)]


def apart(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def test_every_linear_is_packed_and_near_what_it_was(folder, packed, settings):
    plain = dict(opened(folder).network.named_modules())
    x = torch.randn(64, WIDE["hidden_size"], generator=torch.Generator().manual_seed(0))  # rounded to bfloat16 inside
    assert len(linears(packed)) == 7 * WIDE["num_hidden_layers"]
    for name, part in packed.network.named_modules():
        if isinstance(part, Linear4bit) and part.in_features == x.shape[1]:
            with torch.inference_mode():
                error = apart(part(x).numpy(), plain[name](x).numpy())
            assert ROUNDING[0] < error < ROUNDING[1], name


def test_cells_stay_near_their_float32_embedding(cells, folder, packed):
    few = cells[:20].copy()
    full, z = opened(folder, top_k=40).embed(few), packed.embed(few)
    assert z.dtype == np.float32
    cosine = (full * z).sum(axis=1) / np.linalg.norm(full, axis=1) / np.linalg.norm(z, axis=1)
    assert cosine.min() > 0.95
    assert 0.01 < apart(z, full) < 0.3  # 14 linears of random weights, one behind the other
    np.testing.assert_array_equal(packed.embed(few), z)
    np.testing.assert_allclose(packed.embed(few, batch_size=1), z, rtol=0, atol=0.02 * np.abs(z).max())  # bfloat16


def test_the_linears_take_little_more_than_a_quarter_of_bfloat16(packed):
    held = sum(part.weight.nbytes + part.weight.quant_state.absmax.nbytes for part in linears(packed))
    half = sum(2 * part.in_features * part.out_features for part in linears(packed))
    assert held / half == pytest.approx(0.25 + 4 / 64 / 2)  # half a byte each, and 4 bytes for 64 of them


def test_the_weights_are_not_packed_anew_by_an_embedding(cells, packed):
    """As bitsandbytes does on some CPUs, after which a linear hands no gradient down."""
    shapes = [part.weight.shape for part in linears(packed)]
    packed.embed(cells[:3].copy())
    assert [part.weight.shape for part in linears(packed)] == shapes
    first = linears(packed)[0]
    x = torch.randn(2, first.in_features, requires_grad=True)
    first(x).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().max() > 0


def test_key_hash_and_provenance_tell_it_apart(cells, folder, packed):
    plain, few = opened(folder, top_k=40), cells[:4].copy()
    assert packed.weights_hash == plain.weights_hash  # of the files
    assert shard_key(packed, few, 0) != shard_key(plain, few, 0)
    assert json.loads(provenance(packed, few)["settings"])["quantise"] == "4bit"
    assert packed.precision == "bfloat16"
    assert {part.compute_dtype for part in linears(packed)} == {torch.bfloat16}


def test_sixteen_bits_are_bfloat16_where_no_precision_can_be_given(cells, folder, settings):
    """As in a benchmark, a reference and a prediction."""
    half, few = opened(folder, quantise="16bit", top_k=40), cells[:4].copy()
    assert {p.dtype for p in half.network.parameters()} == {torch.bfloat16}
    expected = load_model("llama3-8b", folder, "cpu", "bfloat16", top_k=40)
    np.testing.assert_array_equal(half.embed(few), expected.embed(few))
    assert half.precision == expected.precision
    assert shard_key(half, few, 0) != shard_key(opened(folder, top_k=40), few, 0)


def test_adapters_learn_over_packed_weights_and_go_without_a_trace(cells, packed, tmp_path):
    few = cells[:8].copy()
    before, tokens = packed.embed(few), packed.tokenize(few)
    batch = {name: x.copy() for name, x in packed.tokenizer.collate(tokens, np.arange(8)).items()}
    stored = [part.weight.clone() for part in linears(packed)]
    aim = torch.randn(8, packed.dim, generator=torch.Generator().manual_seed(1))
    new, losses = Adapters.new(packed.card, r=4, alpha=8, dropout=0.0), []
    with adapted(packed.network, new, seed=1, checkpointing=True) as model:
        assert {type(part).__module__ for part in model.modules() if hasattr(part, "lora_A")} == {
            "peft.tuners.lora.bnb"
        }
        model.train()
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        assert {name.split(".")[-4] for name in trained} == {"q_proj", "v_proj"}
        optimizer = torch.optim.AdamW(trained.values(), lr=1e-2)
        for _ in range(12):
            loss = (packed.forward(batch) - aim).pow(2).mean()
            loss.backward()
            losses.append(loss.item())
            if len(losses) > 1:  # at first B is zero and A has no gradient
                assert all(p.grad.abs().max() > 0 for p in trained.values())
            optimizer.step()
            optimizer.zero_grad()
        model.eval()
        tuned, kept = packed.embed(few), new.with_state_of(model)
    assert losses[-1] < 0.97 * losses[0]
    assert apart(tuned, before) > 0.01
    np.testing.assert_array_equal(packed.embed(few), before)
    for part, weight in zip(linears(packed), stored, strict=True):
        assert torch.equal(part.weight, weight)
    kept.save(packed.network, tmp_path / "adapters")
    with adapted(packed.network, Adapters.load(tmp_path / "adapters")) as model:
        model.eval()
        np.testing.assert_array_equal(packed.embed(few), tuned)


def test_merged_adapters_are_rounded_to_four_bits_again(cells, packed):
    few, new = cells[:4].copy(), Adapters.new(packed.card, r=4, alpha=8)
    with adapted(packed.network, new, seed=1) as model:
        model.eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(2))
        unmerged, whole = packed.embed(few), copy.deepcopy(model)
    with pytest.warns(UserWarning, match="4-bit linear may get different"):
        packed.network = whole.merge_and_unload()
    assert not any(isinstance(part, PeftModel) or hasattr(part, "lora_A") for part in packed.network.modules())
    assert apart(packed.embed(few), unmerged) < 0.3


@pytest.mark.parametrize("doubly", [False, True])
def test_folders_that_were_packed_before_are_read_as_they_are(cells, folder, packed, tmp_path, doubly):
    few = cells[:4].copy()
    expected = packed.embed(few)
    with quiet():
        form = four_bit.nf4(torch.float16)  # what it was to compute in; here bfloat16
        form.bnb_4bit_use_double_quant = doubly
        how = {"quantization_config": form, "device_map": {"": "cpu"}, "dtype": torch.bfloat16}
        AutoModel.from_pretrained(folder, **how).save_pretrained(tmp_path / "before")
    (tmp_path / "before" / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    again = opened(tmp_path / "before", top_k=40)
    assert len(linears(again)) == len(linears(packed))
    assert {part.compute_dtype for part in linears(again)} == {torch.bfloat16}
    if doubly:  # its scales are rounded to 8 bits
        assert 0 < apart(again.embed(few), expected) < 0.05
    else:
        np.testing.assert_array_equal(again.embed(few), expected)
    assert again.weights_hash != packed.weights_hash


@pytest.mark.parametrize("stored", [{"quant_method": "gptq", "bits": 4}, {"quant_method": "fp8"}])
def test_weights_that_were_packed_by_others_are_refused_in_a_line(folder, settings, stored):
    edit(folder / "config.json", quantization_config=stored)
    with pytest.raises(WeightsInvalid, match=f"were packed \\({stored['quant_method']}\\)") as caught:
        opened(folder)
    assert "quantise='4bit'" in caught.value.remedy


@pytest.mark.parametrize(
    ("kind", "fields", "says"),
    [
        ("mamba", {"state_size": 4, "max_position_embeddings": None}, "type 'mamba' does not run in 4 bits"),
        ("falcon", {"new_decoder_architecture": False, "head_dim": None}, "no linears that bitsandbytes packs"),
    ],
)
def test_networks_that_cannot_be_packed_say_so(folder, settings, kind, fields, says):
    typed(folder, kind, **fields)
    with pytest.raises(InvalidInput, match=says) as caught:
        opened(folder, quantise="4bit")
    assert "16bit" in caught.value.remedy
    assert opened(folder, quantise="16bit").precision == "bfloat16"


def test_without_the_package_it_is_one_line_with_the_command(folder, settings, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else find(name))
    with pytest.raises(InvalidInput, match="need the package bitsandbytes") as caught:
        opened(folder, quantise="4bit")
    assert 'pip install "bitsandbytes~=0.50"' in caught.value.remedy
    assert '".[4bit]"' in caught.value.remedy
    assert "\n" not in caught.value.line
    with pytest.raises(InvalidInput, match="quantise='2bit'"):
        opened(folder, quantise="2bit")


def test_nan_is_found_before_it_is_rounded_away(folder, settings):
    with quiet():
        model = AutoModel.from_pretrained(folder)
        model.layers[1].mlp.up_proj.weight.data[3, 5] = torch.nan
        model.save_pretrained(folder)
    with pytest.raises(WeightsInvalid, match="NaN"):
        opened(folder, quantise="4bit")


def test_the_package_is_imported_without_a_word_and_without_a_kernel_of_the_hub(caplog):
    told = logging.getLogger("bitsandbytes.backends.cpu.ops")
    with four_bit.as_installed(), warnings.catch_warnings():
        told.warning("no kernels")
        with pytest.raises(ImportError):
            importlib.import_module("kernels")
    assert not caplog.records
    told.warning("something else")
    assert len(caplog.records) == 1
    assert "kernels" not in sys.modules


def test_nobody_imports_it_who_does_not_ask():
    code = (
        "import sys, scdrugmap.models.text.load, scdrugmap.models.core.four_bit; print('bitsandbytes' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (out.stdout.strip(), out.stderr) == ("False", "")


@pytest.mark.parametrize("quantise", ["16bit", "4bit"])
def test_a_benchmark_trains_adapters_over_packed_weights(cells, folder, settings, quantise):
    given = {
        "knobs": {"llama3-8b": {"quantise": quantise, "top_k": 10}},
        "options": {"lora": {"steps": 2, "checks": 1}},
    }
    few = cells[:40].copy()
    scores = benchmark(
        datasets=[few], models=["llama3-8b"], strategies=["lora"], folds=2, weights={"llama3-8b": folder}, **given
    )
    assert scores.filter(scores["metric"] == "auroc")["value"].is_between(0, 1).all()
