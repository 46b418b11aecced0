"""Embeddings of cells, shard by shard, through the store."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scdrugmap.data.dedupe import fingerprint
from scdrugmap.embeddings import store
from scdrugmap.embeddings.pending import Key, waiting
from scdrugmap.models import load_model
from scdrugmap.models.core.cells import Cells
from scdrugmap.models.core.encoder import pieces, some_of
from scdrugmap.progress import Progress, reporting
from scdrugmap.settings import Settings
from scdrugmap.version import __version__

if TYPE_CHECKING:
    from anndata import AnnData

    from scdrugmap.models.core.encoder import Encoder

SHARD_CELLS = 2_048


def embed(
    adata: AnnData,
    model: str = "scgpt-mini",
    weights: str | Path | None = None,
    *,
    device: str = "auto",
    precision: str = "float32",
    batch_size: int | None = None,
    progress: Progress = False,
    cache: Path | None = None,
    **settings: Any,
) -> AnnData:
    """Write the cells' embedding into `adata.obsm["X_<model>"]` and what made it into `adata.uns`; gives `adata`.

    The embedding is float32 (n_cells, dim). What was embedded before, in whole shards, is read from `cache` (the
    settings' folder when None). `uns["scdrugmap"]["embedding"]["X_<model>"]` holds model, weights hash, recipe,
    settings, precision, package version, gene coverage and context (who saw whom). Raises what `load_model` and
    `Encoder.tokenize` raise.
    """
    encoder = load_model(model, weights, device, precision, **settings)
    root = Settings.from_env().embeddings if cache is None else cache
    z = embed_cells(adata, encoder, cache=root, batch_size=batch_size, progress=progress)
    adata.obsm[f"X_{model}"] = z
    known = adata.uns.setdefault("scdrugmap", {})
    known.setdefault("embedding", {})[f"X_{model}"] = provenance(encoder, adata)
    return adata


def embed_cells(
    adata: AnnData,
    encoder: Encoder,
    *,
    cache: Path | None = None,
    batch_size: int | None = None,
    progress: Progress = False,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Embed cells in the order of `adata`: (n_cells, dim) float32.

    With `cache`, shards of `SHARD_CELLS` are kept there: an interrupted call resumes at the shard, a second one only
    reads. Where cells see each other, a shard is a context. `out` may be an array or memory map to write into.
    """
    if cache is None:
        return encoder.embed(adata, batch_size, progress, out)
    encoder.check(adata)
    result = np.empty((adata.n_obs, encoder.dim), dtype=np.float32) if out is None else out
    with reporting(progress, adata.n_obs, "cell") as tell:
        for shard, rows in enumerate(encoder.parts(adata, SHARD_CELLS)):
            if len(rows):
                result[rows] = _shard(some_of(adata, rows), encoder, cache, shard, batch_size, tell)
    return result


def shard_key(encoder: Encoder, cells: AnnData, shard: int, batch_size: int | None = None) -> Key:
    """Give the key of these cells' embedding; `batch_size` counts only where cells of a batch see each other."""
    return Key(
        model=encoder.card.key,
        weights=encoder.weights_hash,
        recipe=encoder.card.recipe,
        settings=settings_hash(encoder, batch_size),
        data=content(encoder, cells),
        shard=shard,
    )


def content(encoder: Encoder, cells: AnnData) -> str:
    """Hash all of the cells that an encoder may look at: values, names in column order, and what they mean.

    The order of columns counts because `compat="upstream"` may cut a cell by it; `obs["batch"]` only where cells see
    each other, and other columns of obs only where a text repeats them.
    """
    seen = Cells.from_anndata(cells)
    parts = [
        fingerprint(cells),
        seen.value_type,
        *seen.symbols,
        *(() if seen.ensembl_ids is None else seen.ensembl_ids),
        *(() if seen.older_names is None else seen.older_names),
        *encoder.tokenizer.notes(seen),
    ]
    if not encoder.independent and seen.groups is not None:
        parts += [*seen.groups]
    return "sha256:" + hashlib.sha256("\n".join(parts).encode()).hexdigest()


def whole_content(encoder: Encoder, adata: AnnData) -> str:
    """Hash what `content` hashes of all cells, in their order, with few of them in memory; may be backed."""
    hashed = [content(encoder, some.to_memory() if some.isbacked else some) for some in pieces(adata)]
    return "sha256:" + hashlib.sha256("\n".join(hashed).encode()).hexdigest()


def settings_hash(encoder: Encoder, batch_size: int | None) -> str:
    """Hash what a user may choose and what changes numbers: settings, precision and batch mates, not the device."""
    mates = [] if encoder.independent else [batch_size]
    chosen = json.dumps([encoder.settings, encoder.precision, *mates], sort_keys=True, default=str)
    return "sha256:" + hashlib.sha256(chosen.encode()).hexdigest()


def provenance(encoder: Encoder, adata: AnnData) -> dict[str, Any]:
    """Say what made an embedding, in plain values that an .h5ad can hold."""
    coverage = encoder.coverage(adata)
    made = {
        "model": encoder.card.key,
        "weights": encoder.weights_hash,
        "recipe": encoder.card.recipe,
        "settings": json.dumps(encoder.settings, sort_keys=True, default=str),
        "precision": encoder.precision,
        "scdrugmap": __version__,
        "n_genes_matched": coverage.n_matched,
        "share_counts": coverage.share_counts,
        "context": encoder.tokenizer.context,
    }
    if not encoder.independent:
        made["context_cells"] = whole_content(encoder, adata)
    return made


def _shard(cells: AnnData, encoder: Encoder, cache: Path, shard: int, batch_size: int | None, tell: Any) -> np.ndarray:
    """Embedding of one shard from the store, computed when it is not there; `tell` hears of every cell once."""
    cells = cells.to_memory() if cells.isbacked else cells
    reported = 0

    def step(done: int, total: int) -> None:
        nonlocal reported
        tell(done - reported)
        reported = done

    key = shard_key(encoder, cells, shard, batch_size)
    with waiting(key, lambda: encoder.embed(cells, batch_size, step, checked=True)):
        z = store.embedding(cache)(**key.arguments())
    tell(cells.n_obs - reported)
    return z
