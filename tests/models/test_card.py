"""Model cards: complete, true, and in step with the folders and the networks."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import sys
from pathlib import Path

import pytest
import torch

import scdrugmap.models
from scdrugmap.models import FOLDERS, MODELS
from scdrugmap.models.card import ModelCard, folder_name
from scdrugmap.models.checkpoints.load import code, empty_network, reads_itself
from scdrugmap.models.checkpoints.locate import home, missing
from scdrugmap.models.checkpoints.manifest import BUNDLED

PACKAGE = Path(scdrugmap.models.__file__).parent
every_card = pytest.mark.parametrize("card", MODELS.values(), ids=lambda card: card.key)
every_embedding = pytest.mark.parametrize(
    "card", [card for card in MODELS.values() if not card.prompted], ids=lambda card: card.key
)


def test_folders_and_registry_agree():
    folders = {path.parent.name for path in PACKAGE.glob("*/card.py")}
    assert folders == set(FOLDERS)
    assert [folder_name(key) for key in MODELS] == list(FOLDERS)


@every_card
def test_card_is_filled_in(card: ModelCard):
    assert card.title
    assert card.summary.endswith(".")
    assert card.cites
    assert card.licence
    assert card.weights.licence
    assert bool(card.weights.files) != card.prompted
    assert card.code.startswith("https://")
    assert card.pretrained_on
    if card.kind in ("foundation", "llm"):
        assert re.match(r"(doi:10\.|arXiv:)", card.paper)
        assert card.max_length
        assert bool(card.lora_targets) != card.prompted


@every_card
def test_a_model_that_is_asked_says_so(card: ModelCard):
    assert (card.dim == 0) == card.prompted
    if card.prompted:
        assert card.kind == "llm"
        assert card.n_parameters is None
        assert (card.weights.hub, card.weights.bundled, card.fitted) == ("", "", False)


@every_card
def test_card_says_where_the_weights_come_from(card: ModelCard):
    source = card.weights
    if source.bundled:
        assert missing(source, home(card, Path("/nowhere"))) == []
        assert card.kind in ("bundled", "baseline")
    elif source.hub:
        assert re.fullmatch(r"[0-9a-f]{40}", source.revision)
    else:
        assert source.official.startswith("https://")
        assert source.instruction.endswith(".")


@every_embedding
def test_sizes_of_the_card_are_those_of_the_network(card: ModelCard):
    network = empty_network(card, card.config, card.settings)
    assert network.dim == card.dim
    assert sum(p.numel() for p in network.parameters()) == card.n_parameters
    assert all(tensor.device.type == "meta" for tensor in network.state_dict().values())
    linears = {name.split(".")[-1] for name, part in network.named_modules() if isinstance(part, torch.nn.Linear)}
    assert set(card.lora_targets) <= linears


@every_embedding
def test_every_tensor_of_the_network_has_a_source(card: ModelCard):
    if card.fitted or reads_itself(card):
        assert callable(code(card, "fit").fit if card.fitted else code(card, "load").load)
        return
    converter = code(card, "convert")
    ours = empty_network(card, card.config, card.settings).state_dict()
    assert set(converter.tensor_mappings(card.config)) >= set(ours)
    assert converter.VERSION >= 1


@every_card
def test_settings_are_plain_values(card: ModelCard):
    json.dumps(dict(card.settings))
    json.dumps(dict(card.config))
    assert set(card.source_settings) <= set(card.settings)


@every_card
def test_bundled_weights_are_small_and_ours(card: ModelCard):
    if not card.weights.bundled:
        assert not (PACKAGE / folder_name(card.key) / "weights").exists()
        return
    folder = home(card, Path("/nowhere"))
    assert sum(path.stat().st_size for path in folder.iterdir()) < 6e6
    assert set(BUNDLED) <= {path.name for path in folder.iterdir()}


@every_embedding
def test_tokens_of_the_model_need_no_torch(card: ModelCard):
    source = inspect.getsource(importlib.import_module(f"{card.code_module}.tokens"))
    assert not re.search(r"^\s*(import|from) torch", source, re.MULTILINE)


def test_cards_import_no_torch():
    import subprocess

    code = "import sys; from scdrugmap.models import MODELS; list(MODELS.values()); print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
