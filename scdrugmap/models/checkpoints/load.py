"""From a card to an `Encoder`: find the weights, convert them once, build the network, fill it.

A model's `convert.py` tells how upstream's files become ours:

* `VERSION`: goes up when the same files convert to something else;
* `files(folder, **choices)`: the files that are read, by role; `choices` are the card's `source_settings`;
* `read(files, settings)`: an `Upstream` of state dict, config (of `network.Config`) and vocabulary (of the tokenizer);
* `tensor_mappings(config)`: for every tensor of ours, the upstream names under which it may stand and which part of it;
* `UNUSED`: prefixes of upstream tensors that the embedding does without (`Upstream.unused`: those of these sizes);
* `toy(symbols, ensembl_ids)`: config and vocabulary of a tiny network, for tests.

A model that a library reads has a `load.py` instead: `files(folder)` as above; `load(card, folder, settings, device,
precision, converted)` gives the `Encoder`, with every tensor accounted for and nothing run that a file holds
(`converted` is a folder of ours for what should be remembered); `toy(card, symbols, folder, seed)` writes a tiny model.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from scdrugmap.errors import InvalidInput, UnknownName, WeightsInvalid
from scdrugmap.files import replacing_folder
from scdrugmap.models.card import ModelCard
from scdrugmap.models.checkpoints import download, locate, manifest
from scdrugmap.models.checkpoints.checkpoint import DESCRIPTION, Checkpoint, map_state_dict
from scdrugmap.models.core.encoder import Encoder
from scdrugmap.settings import Settings

log = logging.getLogger(__name__)
_PRECISIONS = ("float32", "bfloat16")


def load(
    card: ModelCard, weights: str | Path | None, device: str, precision: str, settings: Mapping[str, Any]
) -> Encoder:
    """Do what `load_model` documents, for a card."""
    if card.prompted:
        message = f"'{card.key}' answers prompts: it has no embedding."
        raise InvalidInput(message, f"Ask it with: scdrugmap predict FILE --model {card.key}")
    chosen = resolve_settings(card, settings)
    place = find_device(device)
    if precision not in _PRECISIONS:
        message = f"precision='{precision}' is not known."
        raise InvalidInput(message, f"Give one of {', '.join(_PRECISIONS)}.")
    root = Settings.from_env().weights
    folder = download.locate(card.for_variant(chosen), weights, root)
    if reads_itself(card):
        encoder: Encoder = code(card, "load").load(
            card, folder, chosen, place, precision, root / card.key / "converted"
        )
        return encoder
    checkpoint, weights_hash = open_checkpoint(card, folder, root, chosen)
    return assemble(card, checkpoint, weights_hash, chosen, place, precision)


def assemble(
    card: ModelCard,
    checkpoint: Checkpoint,
    weights_hash: str,
    settings: Mapping[str, Any],
    device: torch.device,
    precision: str = "float32",
) -> Encoder:
    """Build tokenizer and network and fill the network; raises `WeightsInvalid` when tensors and sizes disagree."""
    network = empty_network(card, checkpoint.config, settings)
    try:
        network.load_state_dict(dict(checkpoint.tensors), strict=True, assign=True)
    except RuntimeError as error:
        message = f"The converted weights of '{card.key}' do not fit its network: {error}"
        raise WeightsInvalid(" ".join(message.split()), "Delete the model's `converted` folder.") from error
    tokenizer = code(card, "tokens").Tokenizer(checkpoint.vocabulary, settings)
    return Encoder(card, tokenizer, network.to(device).eval(), settings, weights_hash, device, precision)


def open_checkpoint(card: ModelCard, folder: Path, root: Path, settings: Mapping[str, Any]) -> tuple[Checkpoint, str]:
    """Read a folder in our form or in upstream's, which is converted once into `root`; gives it and its hash."""
    if (folder / DESCRIPTION).is_file():
        ours = [folder / name for name in manifest.BUNDLED if (folder / name).is_file()]
        return Checkpoint.read(folder), manifest.files_hash({path.name: manifest.sha256(path) for path in ours})
    converter = code(card, "convert")
    paths = locate.upstream_files(card, folder, converter, settings)
    converted = root / card.key / "converted"
    hashes = manifest.digests(paths, converted)
    weights_hash = manifest.files_hash(hashes)
    target = converted / _converted_name(card, converter.VERSION, weights_hash, settings)
    if (target / "manifest.json").is_file():
        return Checkpoint.read(target), weights_hash
    checkpoint = convert(card, converter, paths, settings)
    _keep(checkpoint, target, paths, hashes, weights_hash)
    return checkpoint, weights_hash


def convert(card: ModelCard, converter: Any, paths: Mapping[str, Path], settings: Mapping[str, Any]) -> Checkpoint:
    """Account for every tensor of an upstream checkpoint; raises `WeightsInvalid`."""
    upstream = converter.read(paths, settings)
    shapes = {name: tuple(t.shape) for name, t in empty_network(card, upstream.config, settings).state_dict().items()}
    known = (*converter.UNUSED, *upstream.unused)
    tensors, unused = map_state_dict(upstream, converter.tensor_mappings(upstream.config), shapes, known)
    return Checkpoint(upstream.config, upstream.vocabulary, tensors, unused)


def empty_network(card: ModelCard, config: Mapping[str, Any], settings: Mapping[str, Any]) -> nn.Module:
    """Build the network on torch's meta device: names and shapes without memory or random numbers."""
    network = code(card, "network")
    with torch.device("meta"):
        return network.Network(network.Config(**config), settings)


def code(card: ModelCard, part: str) -> Any:
    """Import `tokens`, `network`, `convert`, `fit` or `load` of the model's folder."""
    return importlib.import_module(f"{card.code_module}.{part}")


def reads_itself(card: ModelCard) -> bool:
    """Tell whether the model's folder has a `load.py` that goes from the weights' folder to an `Encoder` by itself."""
    return importlib.util.find_spec(f"{card.code_module}.load") is not None


def resolve_settings(card: ModelCard, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Lay the given settings over the card's defaults; raises `UnknownName` for one that the card lacks."""
    for name in settings:
        if name not in card.settings:
            message = f"'{card.key}' has no setting called '{name}'."
            raise UnknownName(message, f"Known: {', '.join(card.settings) or 'none'}.")
    return dict(card.settings) | dict(settings)


def find_device(device: str) -> torch.device:
    """Give the device that "auto", "cpu", "cuda" or "cuda:<n>" names on this machine; raises `InvalidInput`."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError:
        message = f"device='{device}' is not known."
        raise InvalidInput(message, "Give auto, cpu, cuda or cuda:<n>.") from None
    if place.type == "cpu" or (place.type == "cuda" and (place.index or 0) < torch.cuda.device_count()):
        return place
    message = f"device='{device}' is not on this machine ({torch.cuda.device_count()} CUDA devices)."
    raise InvalidInput(message, "Give auto or cpu.")


def _converted_name(card: ModelCard, version: int, weights_hash: str, settings: Mapping[str, Any]) -> str:
    """Folder name of a conversion: what was converted, by which rules, with which choices among its tensors."""
    choices = card.source_choices(settings)
    tail = "-" + hashlib.sha256(json.dumps(choices, sort_keys=True).encode()).hexdigest()[:8] if choices else ""
    return f"{weights_hash.removeprefix('sha256:')[:16]}-v{version}{tail}"


def _keep(
    checkpoint: Checkpoint, target: Path, files: Mapping[str, Path], hashes: Mapping[str, str], weights_hash: str
) -> None:
    """Write the converted checkpoint, whole or not at all; a cache that cannot be written is only a pity."""
    try:
        with replacing_folder(target, once=True) as draft:
            checkpoint.save(draft)
            manifest.write_manifest(draft, files, hashes, weights_hash)
    except OSError as error:
        log.warning("converted weights are not kept: %s", error)
