"""Models at toy size with random weights: real tokens and network, no download. For tests and checks only."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import sparse

from scdrugmap.models.card import ModelCard
from scdrugmap.models.checkpoints.baseline import refit
from scdrugmap.models.checkpoints.checkpoint import Checkpoint
from scdrugmap.models.checkpoints.load import assemble, code, reads_itself, resolve_settings
from scdrugmap.models.core.cells import Cells
from scdrugmap.models.core.seeds import seeded

if TYPE_CHECKING:
    from anndata import AnnData

    from scdrugmap.models.core.encoder import Encoder


def toy_encoder(card: ModelCard, adata: AnnData, *, seed: int = 0, **settings: Any) -> Encoder:
    """Build the model at toy size over the genes of `adata`; a fitted baseline is fitted to its cells.

    The weights are random, seeded and independent of torch's global generator: embeddings mean nothing.
    """
    if card.fitted:
        from scdrugmap.models import load_model

        return refit(load_model(card.key, device="cpu", **settings), adata)
    if reads_itself(card):
        with tempfile.TemporaryDirectory() as folder:
            toy_folder(card, adata, Path(folder), seed=seed)
            how = (resolve_settings(card, settings), torch.device("cpu"), "float32", Path(folder))
            encoder: Encoder = code(card, "load").load(card, Path(folder), *how)
            return encoder
    checkpoint = toy_checkpoint(card, adata, seed=seed)
    return assemble(card, checkpoint, checkpoint.content_hash(), resolve_settings(card, settings), torch.device("cpu"))


def toy_folder(card: ModelCard, adata: AnnData, folder: Path, *, seed: int = 0) -> None:
    """Write the toy's weights as a folder that `load_model` takes."""
    if card.fitted:
        code(card, "fit").fit(Cells.from_anndata(adata), resolve_settings(card, {})).save(folder)
    elif reads_itself(card):
        code(card, "load").toy(card, adata.var_names.tolist(), folder, seed)
    else:
        toy_checkpoint(card, adata, seed=seed).save(folder)


def toy_checkpoint(card: ModelCard, adata: AnnData, *, seed: int = 0) -> Checkpoint:
    """Random weights of a tiny network over the genes of `adata`."""
    config, vocabulary = code(card, "convert").toy(adata.var_names.tolist(), _ensembl_ids(adata))
    network = code(card, "network")
    with seeded(seed, torch.device("cpu")):
        tensors = network.Network(network.Config(**config), card.settings).state_dict()
    return Checkpoint(config, vocabulary, tensors)


def cells_of_vocabulary(encoder: Encoder, n_cells: int, n_genes: int = 2_000, *, seed: int = 0) -> AnnData:
    """Make up counts over genes that the encoder knows, whatever it calls them: cells that any checkpoint can read."""
    rng = np.random.default_rng(seed)
    names = np.array(sorted(encoder.tokenizer.genes))
    known = encoder.tokenizer.match(Cells.from_anndata(_named(np.zeros((0, len(names))), names, encoder))) >= 0
    names = np.sort(rng.choice(names[known], min(n_genes, int(known.sum())), replace=False))
    counts = rng.poisson(
        rng.gamma(0.5, 4.0, len(names)), (n_cells, len(names))
    )  # gamma-Poisson, as counts of cells are
    counts[:, 0] += 1  # no cell is empty
    return _named(counts, names, encoder)


def _named(counts: np.ndarray, names: np.ndarray, encoder: Encoder) -> AnnData:
    """Cells whose genes bear these names, as symbols or as Ensembl ids, whichever the encoder reads."""
    import anndata as ad

    cells = ad.AnnData(sparse.csr_matrix(counts, dtype=np.float32))
    cells.var_names = names.astype(object)
    if encoder.tokenizer.identifier == "ensembl":
        cells.var["ensembl_id"] = cells.var_names
    return cells


def _ensembl_ids(adata: AnnData) -> Sequence[str]:
    """The cells' own Ensembl ids, or made-up ones of that form."""
    if "ensembl_id" in adata.var:
        return [str(name) for name in adata.var["ensembl_id"]]
    return [f"ENSG{row:011d}" for row in range(adata.n_vars)]
