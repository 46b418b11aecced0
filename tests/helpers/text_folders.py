"""Tiny random text models as folders of the Hub's layout, for several test files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel

from scdrugmap.models import load_model
from scdrugmap.models.core.encoder import Encoder
from scdrugmap.models.core.seeds import seeded
from scdrugmap.models.text.load import quiet

TINY = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 4096, "initializer_range": 0.3,
}  # fmt: skip


def typed(folder: Path, kind: str, **fields: Any) -> Path:
    """Put a tiny random model of another type in the place of the folder's; its tokenizer stays.

    A field that is None is one of TINY's that the type does not have.
    """
    words = len(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"])
    sizes = {"vocab_size": words} if "text_config" not in fields else {}
    given = {name: value for name, value in (TINY | sizes | fields).items() if value is not None}
    with seeded(3, torch.device("cpu")), quiet():
        AutoModel.from_config(AutoConfig.for_model(kind, **given)).save_pretrained(folder)
    return folder


def opened(folder: Path, **settings: Any) -> Encoder:
    return load_model("llama3-8b", weights=folder, device="cpu", **settings)


def edit(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
