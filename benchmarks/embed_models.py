"""Encoders with random weights for the benchmark: the published size of a card, or a toy. No download.

Speed does not depend on what the weights are; a tokenizer's vocabulary holds the genes of the cells and, up to the
published number, made-up ones.
"""

from __future__ import annotations

from typing import Any

import psutil
import torch
from anndata import AnnData
from torch import Tensor, nn

from scdrugmap.errors import InvalidInput
from scdrugmap.models import load_model
from scdrugmap.models.card import ModelCard
from scdrugmap.models.checkpoints.checkpoint import Checkpoint
from scdrugmap.models.checkpoints.load import assemble, code, empty_network, find_device, reads_itself, resolve_settings
from scdrugmap.models.core.encoder import Encoder
from scdrugmap.models.testing import toy_encoder

TABLES = ("n_genes", "n_positions", "n_rows", "n_tokens")  # the first that a config has counts its genes
HUMAN_GENES = 19_790  # about what a conversion keeps of UCE's eight species
WEIGHT_SD = 0.02  # as BERT and GPT-2 begin


def random_encoder(card: ModelCard, adata: AnnData, size: str, *, device: str = "cpu", seed: int = 0) -> Encoder:
    """Give the model with seeded random weights; `size` is "published" (the card's config) or "small" (its toy).

    A model whose weights are at hand without a download (bundled, or in an installed package) has its own. Raises
    `InvalidInput` where the weights do not fit into the memory of this machine.
    """
    if size == "small":
        encoder = toy_encoder(card, adata, seed=seed)
        encoder.device = find_device(device)
        encoder.network.to(encoder.device)
        return encoder
    need, free = 4 * (card.n_parameters or 0), psutil.virtual_memory().available
    if need > free:
        message = f"The weights of {card.key} take {need / 2**30:.0f} GB in float32; {free / 2**30:.0f} GB are free."
        raise InvalidInput(message, "Take --size small, or a machine with more memory.")
    if card.weights.bundled or reads_itself(card):
        return load_model(card.key, device=device)
    checkpoint = published_checkpoint(card, adata, seed=seed)
    return assemble(card, checkpoint, f"random-{seed}", resolve_settings(card, {}), find_device(device))


def published_checkpoint(card: ModelCard, adata: AnnData, *, seed: int = 0) -> Checkpoint:
    """Random weights at the sizes of the card's config over the genes of `adata`."""
    config, vocabulary = published_sizes(card, adata)
    return Checkpoint(config, vocabulary, random_tensors(empty_network(card, config, resolve_settings(card, {})), seed))


def published_sizes(card: ModelCard, adata: AnnData) -> tuple[dict[str, Any], dict[str, Any]]:
    """Config and vocabulary of the card's size: the genes of `adata` and, up to the published number, made-up ones."""
    symbols, ensembl_ids = adata.var_names.tolist(), _ensembl_ids(adata)
    toy = code(card, "convert").toy
    table = next(name for name in TABLES if name in card.config)
    specials = toy(symbols, ensembl_ids)[0][table] - len(symbols)
    n_genes = HUMAN_GENES if card.key == "uce" else card.config[table] - specials
    more = range(n_genes - len(symbols))
    symbols = [*symbols, *(f"MADEUP{row}" for row in more)][:n_genes]
    ensembl_ids = [*ensembl_ids, *(f"ENSG9{row:010d}" for row in more)][:n_genes]
    small, vocabulary = toy(symbols, ensembl_ids)
    config = small | dict(card.config) | {table: small[table]}
    return config, vocabulary | {name: config[name] for name in vocabulary if name in config}


def random_tensors(network: nn.Module, seed: int) -> dict[str, Tensor]:
    """Seeded values for every tensor of a network on the meta device: norms are ones and zeros, the rest normal."""
    generator = torch.Generator().manual_seed(seed)
    norms = {name for name, part in network.named_modules() if isinstance(part, nn.LayerNorm | nn.GroupNorm)}
    tensors: dict[str, Tensor] = {}
    for name, like in network.state_dict().items():
        owner, _, kind = name.rpartition(".")
        if owner in norms:
            tensors[name] = torch.full(like.shape, float(kind == "weight"))
        else:
            spread = 1.0 if kind in ("projection", "table") else WEIGHT_SD
            tensors[name] = torch.randn(like.shape, generator=generator).mul_(spread)
    return tensors


def _ensembl_ids(adata: AnnData) -> list[str]:
    known = adata.var["ensembl_id"] if "ensembl_id" in adata.var else [""] * adata.n_vars
    return [str(name) or f"ENSG8{row:010d}" for row, name in enumerate(known)]
