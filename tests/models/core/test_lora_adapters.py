"""LoRA on every model that names linears for it, at toy size: it trains what it says, and leaves no trace."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from anndata import AnnData
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn

from scdrugmap.errors import InvalidInput, WeightsInvalid
from scdrugmap.models import MODELS
from scdrugmap.models.core.encoder import Encoder
from scdrugmap.models.core.lora_adapters import Adapters, adapted, seeded
from scdrugmap.models.core.ragged import join, take
from scdrugmap.models.testing import toy_encoder

ADAPTED = [card for card in MODELS.values() if card.lora_targets]
CLOSE = {"rtol": 0, "atol": 2e-5}  # float32 rounding, summed in another order


@pytest.fixture
def few(cells) -> AnnData:
    return cells[:10].copy()


@pytest.fixture(params=ADAPTED, ids=lambda card: card.key)
def encoder(request, cells) -> Encoder:
    return toy_encoder(request.param, cells)


@pytest.fixture
def small(cells) -> Encoder:
    return toy_encoder(MODELS["scgpt"], cells)


def new(encoder: Encoder, **options) -> Adapters:
    return Adapters.new(encoder.card, r=4, alpha=4, **options)


def stirred(encoder: Encoder) -> Adapters:
    """Adapters as after some training: B is not zero."""
    fresh = new(encoder)
    with adapted(encoder.network, fresh, seed=1) as model, seeded(2, encoder.device), torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.3)
        return fresh.with_state_of(model)


def batch_of(encoder: Encoder, cells: AnnData) -> dict[str, np.ndarray]:
    tokens = encoder.tokenize(cells)
    return encoder.tokenizer.collate(tokens, np.arange(len(tokens)))


def trained(model: PeftModel) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def bits(network: nn.Module) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in network.state_dict().items()}


def linears(network: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    return ((name, part) for name, part in network.named_modules() if isinstance(part, nn.Linear))


def test_targets_are_plain_linears_and_all_of_them_are_adapted(encoder):
    targets = set(encoder.card.lora_targets)
    named = {name for name, _ in encoder.network.named_modules() if name.rpartition(".")[2] in targets}
    plain = {name for name, part in linears(encoder.network) if type(part) is nn.Linear and name in named}
    assert plain == named
    assert {name.rpartition(".")[2] for name in named} == targets
    with adapted(encoder.network, new(encoder)):
        found = {name for name, part in encoder.network.named_modules() if isinstance(part, LoraLayer)}
    assert found == named


def test_one_step_reaches_every_adapter_and_nothing_else(encoder, few):
    before, frozen = encoder.embed(few), bits(encoder.network)
    batch = batch_of(encoder, few)
    direction = torch.randn(few.n_obs, encoder.dim, generator=torch.Generator().manual_seed(0))
    with adapted(encoder.network, stirred(encoder)) as model:
        model.eval()
        assert all("lora_" in name for name in trained(model))
        assert {name.split(".")[-3] for name in trained(model)} == {"lora_A", "lora_B"}
        optimizer = torch.optim.SGD(trained(model).values(), lr=1.0)
        started = encoder.embed(few)
        (encoder.forward(batch) * direction).sum().backward()
        for name, parameter in trained(model).items():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name
        optimizer.step()
        assert np.abs(encoder.embed(few) - started).max() > 1e-3
    assert bits(encoder.network) == frozen
    np.testing.assert_array_equal(encoder.embed(few), before)


def test_each_adapter_moves_the_embedding(encoder, few):
    batch = batch_of(encoder, few)
    draw = torch.Generator().manual_seed(0)
    with adapted(encoder.network, stirred(encoder)) as model, torch.no_grad():
        model.eval()
        started = encoder.forward(batch)
        for name, parameter in trained(model).items():
            kept = parameter.clone()
            parameter.add_(torch.randn(parameter.shape, generator=draw))
            assert (encoder.forward(batch) - started).abs().max() > 1e-6, name
            parameter.copy_(kept)


def test_new_adapters_change_nothing_yet(encoder, few):
    before = encoder.embed(few)
    with adapted(encoder.network, new(encoder)) as model:
        model.eval()
        np.testing.assert_allclose(encoder.embed(few), before, **CLOSE)


def test_merged_equals_unmerged(encoder, few):
    with adapted(encoder.network, stirred(encoder)) as model:
        model.eval()
        unmerged = encoder.embed(few)
        alone = copy.deepcopy(model).merge_and_unload()
    assert not any(isinstance(part, LoraLayer) for part in alone.modules())
    assert np.abs(unmerged - encoder.embed(few)).max() > 1e-3
    encoder.network = alone
    np.testing.assert_allclose(encoder.embed(few), unmerged, **CLOSE)


def test_what_we_write_peft_reads(encoder, few, tmp_path):
    adapters = stirred(encoder)
    with adapted(encoder.network, adapters) as model:
        model.eval()
        expected = encoder.embed(few)
    adapters.save(encoder.network, tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] == "LORA"
    PeftModel.from_pretrained(encoder.network, str(tmp_path)).eval()
    np.testing.assert_allclose(encoder.embed(few), expected, **CLOSE)


def test_what_peft_writes_we_read(encoder, few, tmp_path):
    theirs = copy.deepcopy(encoder.network)
    config = LoraConfig(r=2, lora_alpha=3, target_modules=list(encoder.card.lora_targets), init_lora_weights=False)
    with seeded(0, encoder.device):
        model = get_peft_model(theirs, config)
    model.save_pretrained(str(tmp_path))
    other = copy.copy(encoder)
    other.network = theirs.eval()
    expected = other.embed(few)
    with adapted(encoder.network, Adapters.load(tmp_path)) as model:
        model.eval()
        np.testing.assert_allclose(encoder.embed(few), expected, **CLOSE)


def test_checkpointing_gives_the_same_gradients(encoder, few):
    batch, adapters, gradients = batch_of(encoder, few), stirred(encoder), []
    for checkpointing in (False, True):
        with adapted(encoder.network, adapters, checkpointing=checkpointing) as model, seeded(5, encoder.device):
            model.train()  # dropout has to be the same on the second way through
            encoder.forward(batch).square().sum().backward()
            gradients.append({name: parameter.grad.clone() for name, parameter in trained(model).items()})
    assert all("forward" not in vars(part) for part in encoder.network.modules())
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-5)


def test_a_failure_leaves_no_trace(small, few):
    network = small.network
    next(network.parameters()).requires_grad_(False)
    network.blocks[0].train()
    before = (dict(network.named_modules()), bits(network), [p.requires_grad for p in network.parameters()])
    state, random = dict(vars(network)), torch.get_rng_state()
    adapters, batch = stirred(small), batch_of(small, few)

    def fail() -> None:
        with adapted(network, adapters, checkpointing=True) as model, seeded(0, small.device):
            model.train()
            small.forward(batch).sum().backward()
            raise MemoryError("full")

    with pytest.raises(MemoryError, match="full"):
        fail()
    assert dict(network.named_modules()) == before[0]
    assert (bits(network), [p.requires_grad for p in network.parameters()]) == before[1:]
    assert all(p.grad is None for p in network.parameters())
    assert [block.training for block in network.blocks] == [True, *[False] * (len(network.blocks) - 1)]
    assert vars(network).keys() == state.keys()
    assert torch.equal(torch.get_rng_state(), random)


def test_adapters_start_from_their_seed_alone(small):
    def start(seed: int) -> Adapters:
        fresh = new(small)
        with adapted(small.network, fresh, seed=seed) as model:
            return fresh.with_state_of(model)

    first = start(3)
    torch.rand(5)
    again, other = start(3), start(4)
    assert all(torch.equal(again.state[name], value) for name, value in first.state.items())
    assert any(not torch.equal(other.state[name], value) for name, value in first.state.items())


def test_adapters_of_another_network_are_refused(small, cells):
    other = toy_encoder(MODELS["scbert"], cells)
    narrow = Adapters(Adapters.new(small.card, r=2, alpha=4).config, stirred(small).state)
    for encoder, adapters, reason in (
        (other, stirred(small), "which has no linear called 'k_proj'"),
        (small, narrow, r"lora_A.weight' is \(4, 16\) and should be \(2, 16\)"),
    ):
        with pytest.raises(WeightsInvalid, match=reason), adapted(encoder.network, adapters):
            pass
        assert not any(isinstance(part, LoraLayer) for part in encoder.network.modules())


def test_broken_folders_are_named(small, tmp_path):
    with pytest.raises(WeightsInvalid, match=r"holds no adapters: adapter_config\.json is missing"):
        Adapters.load(tmp_path)
    stirred(small).save(small.network, tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(WeightsInvalid, match="cannot be read") as caught:
        Adapters.load(tmp_path)
    assert caught.value.remedy
    weights.unlink()
    with pytest.raises(WeightsInvalid, match=r"adapter_model\.safetensors is missing"):
        Adapters.load(tmp_path)


def test_a_model_without_linears_is_refused():
    with pytest.raises(InvalidInput, match="no linears that LoRA could adapt"):
        Adapters.new(MODELS["hvg"])


def test_some_cells_and_joined_sets_keep_their_tokens(encoder, cells):
    tokens = encoder.tokenize(cells)
    rows = np.array([5, 2, 2, 40])
    some = take(tokens, rows)
    for place, row in enumerate(rows):
        np.testing.assert_array_equal(some.ids[some.cell(place)], tokens.ids[tokens.cell(row)])
        if tokens.values is not None:
            np.testing.assert_array_equal(some.values[some.cell(place)], tokens.values[tokens.cell(row)])
        for name, array in tokens.extra.items():
            np.testing.assert_array_equal(some.extra[name][some.cell(place)], array[tokens.cell(row)])
    parts = [take(tokens, np.arange(50)), take(tokens, np.arange(50, 50)), take(tokens, np.arange(50, cells.n_obs))]
    again = join(parts)
    np.testing.assert_array_equal(again.offsets, tokens.offsets)
    np.testing.assert_array_equal(again.ids, tokens.ids)
    assert (again.values is None) == (tokens.values is None)
    assert again.extra.keys() == tokens.extra.keys()
