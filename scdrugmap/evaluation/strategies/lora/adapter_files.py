"""Adapters and head on disk: peft's own files, the head as safetensors, and a card that says what they are."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from anndata import AnnData
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from scdrugmap.errors import WeightsInvalid
from scdrugmap.evaluation.experiment import Experiment
from scdrugmap.evaluation.strategies.lora.train import History, TrainingPool
from scdrugmap.evaluation.strategies.lora.training_options import LoraOptions
from scdrugmap.evaluation.strategies.mlp import MLP
from scdrugmap.files import replacing_folder
from scdrugmap.models.core.encoder import Encoder
from scdrugmap.models.core.lora_adapters import Adapters, adapted

_HEAD, _CARD = "head.safetensors", "card.json"
_SCHEMA = 1
_PACKAGES = ("scdrugmap", "torch", "peft", "safetensors", "numpy")


@dataclass(frozen=True, eq=False)
class Adapted:
    """An encoder's adapters and the head that was trained with them; the encoder itself stays as it is."""

    encoder: Encoder
    adapters: Adapters
    head: MLP
    options: LoraOptions
    seed: int

    def predict(self, adata: AnnData) -> np.ndarray:
        """Return P(resistant), (n_cells,) float32; raises what the encoder raises for values it cannot take."""
        pool = TrainingPool.from_adatas(self.encoder, [adata], self.options, self.seed)
        return self.predict_rows(pool, np.arange(len(pool.tokens)))

    def predict_rows(self, pool: TrainingPool, rows: np.ndarray) -> np.ndarray:
        """Return P(resistant) of cells of a pool of this encoder, (n_rows,) float32."""
        with adapted(self.encoder.network, self.adapters) as model:
            model.eval()
            return self.head.predict_proba(pool.embed(rows))


def folder_of(cache: Path, run_id: str, fold: str) -> Path:
    """Return where the adapters of one fold are kept, beside the store of embeddings `cache`."""
    safe = re.sub(r"[^\w+-]+", "_", fold, flags=re.ASCII)
    if safe != fold:  # two folds may not become one folder
        safe = f"{safe}-{hashlib.sha256(fold.encode()).hexdigest()[:8]}"
    return cache.parent / "adapters" / run_id / safe


def save_adapted(learned: Adapted, folder: Path, experiment: Experiment, fold: str, history: History) -> None:
    """Write adapters, head and card, all or nothing; what stood there is replaced. Raises `OSError`."""
    with replacing_folder(folder) as draft:
        learned.adapters.save(learned.encoder.network, draft)
        save_file({name: np.ascontiguousarray(value) for name, value in learned.head.state().items()}, draft / _HEAD)
        text = json.dumps(_card(learned, experiment, fold, history), indent=1, sort_keys=True, allow_nan=False)
        (draft / _CARD).write_text(text + "\n")


def load_adapted(folder: str | Path, encoder: Encoder) -> Adapted:
    """Read what `save_adapted` wrote, for the encoder that it was trained on.

    Raises `WeightsInvalid` for files that are missing or broken and for another model, other weights or other settings.
    """
    folder = Path(folder)
    card = _read_card(folder)
    _require_same(folder, card, encoder)
    adapters = Adapters.load(folder)
    try:
        head = MLP.restore(load_file(folder / _HEAD))
        return Adapted(encoder, adapters, head, LoraOptions(**card["options"]), int(card["seed"]))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        message = f"The head in '{folder}' cannot be read: {error}"
        raise WeightsInvalid(" ".join(message.split()), "Run the experiment again.") from error


def _card(learned: Adapted, experiment: Experiment, fold: str, history: History) -> dict[str, Any]:
    encoder = learned.encoder
    return {
        "schema": _SCHEMA,
        "model": encoder.card.key,
        "weights": encoder.weights_hash,
        "settings": encoder.settings,
        "run_id": experiment.run_id,
        "experiment": experiment.as_dict(),
        "fold": fold,
        "seed": learned.seed,
        "options": dataclasses.asdict(learned.options),
        "history": dataclasses.asdict(history),
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def _read_card(folder: Path) -> Mapping[str, Any]:
    remedy = "Name the folder of one fold, below adapters/<run id>."
    try:
        card = json.loads((folder / _CARD).read_text())
    except FileNotFoundError:
        message = f"'{folder}' holds no adapters: {_CARD} is missing."
        raise WeightsInvalid(message, remedy) from None
    except ValueError as error:
        message = f"{_CARD} in '{folder}' is no JSON: {error}"
        raise WeightsInvalid(message, remedy) from error
    if not isinstance(card, dict) or card.get("schema") != _SCHEMA:
        message = f"{_CARD} in '{folder}' is not of schema {_SCHEMA}, which this version reads."
        raise WeightsInvalid(message, remedy)
    return card


def _require_same(folder: Path, card: Mapping[str, Any], encoder: Encoder) -> None:
    settings = json.loads(json.dumps(encoder.settings))  # as a card holds them
    ours = {"model": encoder.card.key, "weights": encoder.weights_hash, "settings": settings}
    for name, value in ours.items():
        if card.get(name) != value:
            message = f"The adapters in '{folder}' were trained with {name} {card.get(name)}, not {value}."
            raise WeightsInvalid(message, f"Load '{card.get('model')}' with the same weights and settings.")
