"""The models: a registry of cards, and the only way by which weights enter memory."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scdrugmap.models.card import ModelCard
from scdrugmap.registry import Registry

if TYPE_CHECKING:
    from scdrugmap.models.core.encoder import Encoder

# One folder and one line here make a model (docs/adding-a-model.md); the order is that of lists and menus.
FOLDERS = (
    "scgpt_mini",
    "scgpt",
    "geneformer",
    "scfoundation",
    "scbert",
    "celllm",
    "tgpt",
    "uce",
    "cellplm",
    "llama3_8b",
    "gpt_4o_mini",
    "minilm",
    "hvg_pca",
    "hvg",
)


def _cards() -> Iterator[ModelCard]:
    for folder in FOLDERS:
        yield importlib.import_module(f"{__name__}.{folder}.card").CARD


MODELS: Registry[ModelCard] = Registry("model", _cards)


def load_model(
    key: str,
    weights: str | Path | None = None,
    device: str = "auto",
    precision: str = "float32",
    *,
    compile: bool = False,
    **settings: Any,
) -> Encoder:
    """Load a model that turns cells into vectors.

    Parameters
    ----------
    key
        A key of `MODELS`.
    weights
        A folder in the upstream project's own layout, or a Hub id ("owner/name" or "owner/name@revision"). None takes
        the card's source: bundled, already on this machine, or downloaded at the pinned revision.
    device
        "auto" (a CUDA device where there is one), "cpu", "cuda" or "cuda:<n>".
    precision
        "float32" (exact) or "bfloat16" (faster on GPUs, embeddings differ in the third digit).
    compile
        Translate the network's blocks with `torch.compile` when they first run (a minute; for many cells, above all on
        a GPU). Embeddings change by rounding alone. Without a working compiler a line in the log says so.
    settings
        The settings that the model's card documents, for example `max_length=1200`.

    Raises `UnknownName` for a key or a setting that there is not, `WeightsMissing`, `WeightsInvalid`, and
    `InvalidInput` for a device that this machine lacks and for a model that is only asked (`card.prompted`).
    """
    from scdrugmap.models.checkpoints.load import load

    encoder = load(MODELS[key], weights, device, precision, settings)
    return encoder.compile() if compile else encoder


__all__ = ["MODELS", "ModelCard", "load_model"]
