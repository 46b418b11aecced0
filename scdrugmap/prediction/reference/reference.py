"""A fitted reference: what turns the embedding of an unlabelled cell into P(resistant) and a novelty.

On disk it is `<model>/<name>/` with `head.safetensors` (head, calibration and novelty arrays) and `card.json`. It
belongs to one encoder: the weights hash, recipe and settings stand on the card, and another encoder is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from scdrugmap.data.dedupe import cell_keys
from scdrugmap.errors import InvalidInput, ReferenceMissing
from scdrugmap.evaluation.strategies.head import Head
from scdrugmap.evaluation.strategies.heads import head_from_state
from scdrugmap.files import READABLE, replacing_folder
from scdrugmap.models import MODELS
from scdrugmap.models.core.encoder import Encoder
from scdrugmap.prediction.reference.calibration import Calibration
from scdrugmap.prediction.reference.card import CARD, HEAD, REFIT, ReferenceCard, called, read_card
from scdrugmap.prediction.reference.novelty import Novelty
from scdrugmap.settings import Settings

BUNDLED_REFERENCES = Path(__file__).resolve().parent / "bundled"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Scores(NamedTuple):
    """What a reference says about cells; each (n_cells,)."""

    p_resistant: NDArray[np.float32]  # calibrated
    raw: NDArray[np.float32]  # the head's own score
    novelty: NDArray[np.float32]  # in [0, 1]
    novel: NDArray[np.bool_]


@dataclass(frozen=True)
class Reference:
    """Head, calibration and novelty of one card."""

    card: ReferenceCard
    head: Head
    calibration: Calibration
    novelty: Novelty
    cells: NDArray[np.uint64]  # short hashes of the cells that it was fitted on and whose content tells them, ascending

    def score(self, embedding: NDArray[np.float32]) -> Scores:
        """Score `embedding`, (n_cells, D) float32, of the encoder that the card names."""
        raw = np.asarray(self.head.predict_proba(embedding), dtype=np.float32)
        novelty = self.novelty.score(embedding)
        return Scores(self.calibration.apply(raw), raw, novelty, self.novelty.flag(novelty))

    def taught_by(self, cells: AnnData) -> NDArray[np.bool_]:
        """Tell which cells, (n_cells,) bool, are cells that the reference was fitted on.

        Barcodes are not kept with a reference, so that empty and nearly empty cells are never recognised.
        """
        keys = cell_keys(cells)
        return keys.identifiable & np.isin(short(keys.hashes), self.cells)

    def check_encoder(self, encoder: Encoder) -> None:
        """Raise `InvalidInput` unless `encoder` makes the embeddings that the reference was fitted on."""
        stored, present = _choices(self.card.encoder), _choices(describe_encoder(encoder))
        wrong = [name for name in {**stored, **present} if stored.get(name) != present.get(name)]
        if wrong:
            named = "; ".join(f"{name} {_short(present.get(name))}, not {_short(stored.get(name))}" for name in wrong)
            given = [f"--set {name}={stored[name]}" for name in wrong if name in self.card.encoder["settings"]]
            same = f"Give what it was fitted with ({' '.join(given)}), or fit" if given else "Fit"
            raise InvalidInput(
                f"The reference '{self.card.name}' was fitted on other embeddings than these: {named}.",
                f"{same} one for this encoder: scdrugmap reference fit --model {encoder.card.key} --data FILE",
            )

    def save(self, folder: Path) -> Path:
        """Write both files into `folder`, replacing an earlier reference of the same name in one step."""
        parts = {"head": self.head.state(), "calibration": self.calibration.state(), "novelty": self.novelty.state()}
        parts["cells"] = {"hashes": self.cells}
        arrays = {
            f"{part}.{name}": np.ascontiguousarray(value)
            for part, state in parts.items()
            for name, value in state.items()
        }
        with replacing_folder(folder) as draft:
            save_file(arrays, draft / HEAD)
            (draft / HEAD).chmod(READABLE)  # safetensors writes for its owner only
            self.card.write(draft)
        return folder


def short(hashes: NDArray[np.bytes_]) -> NDArray[np.uint64]:
    """Return the first 64 bits of hashes of 32 hexadecimal digits: enough to recognise a cell by."""
    return np.array([int(value[:16], 16) for value in hashes.tolist()], dtype=np.uint64)


def describe_encoder(encoder: Encoder) -> dict[str, Any]:
    """Return what decides an encoder's embeddings, as plain values."""
    return {
        "model": encoder.card.key,
        "weights_hash": encoder.weights_hash,
        "recipe": encoder.card.recipe,
        "settings": json.loads(json.dumps(dict(encoder.settings), default=str)),
        "dim": int(encoder.dim),
        "precision": encoder.precision,
    }


def load_reference(folder: Path) -> Reference:
    """Read a reference from its folder; raises `InvalidInput` that says what is missing, damaged or foreign."""
    folder = Path(folder)
    card = read_card(folder)
    try:
        arrays = load_file(folder / HEAD)
    except FileNotFoundError:
        raise InvalidInput(f"The reference '{called(folder)}' has no {HEAD}.", REFIT) from None
    except (SafetensorError, OSError) as error:
        raise InvalidInput(f"'{called(folder)}/{HEAD}' is damaged ({error}).", REFIT) from None
    parts = {part: _part(arrays, part) for part in ("head", "calibration", "novelty", "cells")}
    broken = sorted(name for name, value in arrays.items() if value.dtype.kind == "f" and not np.isfinite(value).all())
    if broken:
        raise InvalidInput(f"'{called(folder)}/{HEAD}' holds NaN or infinite values in {', '.join(broken)}.", REFIT)
    try:
        head = head_from_state(card.head["name"], parts["head"])
        calibration = Calibration.from_state(card.calibration["method"], parts["calibration"])
        novelty = Novelty.from_state(parts["novelty"], card.novelty["neighbours"], card.novelty["threshold"])
        cells = parts["cells"]["hashes"]
    except KeyError as error:
        raise InvalidInput(f"The reference '{called(folder)}' is incomplete: {error} is missing.", REFIT) from None
    if len(novelty.centre) != card.encoder["dim"]:
        sizes = f"holds {len(novelty.centre)} dimensions, its card says {card.encoder['dim']}"
        raise InvalidInput(f"The reference '{called(folder)}' {sizes}.", REFIT)
    return Reference(card, head, calibration, novelty, cells)


def references(settings: Settings | None = None, model: str | None = None) -> list[ReferenceCard]:
    """Return the cards on this machine, bundled ones first; of one `model` or of all."""
    folders = [folder for root in _roots(settings) for folder in sorted(root.glob(f"{model or '*'}/*/{CARD}"))]
    return [read_card(path.parent) for path in folders]


def find_reference(model: str, name: str | None = None, settings: Settings | None = None) -> Path:
    """Return the folder of a reference for `model`: the one called `name`, or the bundled or only one."""
    model = MODELS[model].key
    folders = {
        path.parent.name: path.parent for root in reversed(_roots(settings)) for path in root.glob(f"{model}/*/{CARD}")
    }
    remedy = f"Fit one: scdrugmap reference fit --model {model} --data FILE"
    if name is not None:
        if NAME.fullmatch(name) and name in folders:
            return folders[name]
        known = ", ".join(sorted(folders)) or "none"
        raise ReferenceMissing(f"There is no reference called '{name}' for '{model}'; there is: {known}.", remedy)
    bundled = [folder for folder in folders.values() if BUNDLED_REFERENCES in folder.parents]
    choice = bundled or list(folders.values())
    if len(choice) == 1:
        return choice[0]
    if not choice:
        raise ReferenceMissing(f"There is no reference head for '{model}' on this machine.", remedy)
    names = sorted(folder.name for folder in choice)
    raise ReferenceMissing(
        f"'{model}' has several references: {', '.join(names)}.", f"Name one: --reference {names[0]}"
    )


def _roots(settings: Settings | None) -> list[Path]:
    return [BUNDLED_REFERENCES, (settings or Settings.from_env()).references]


def _part(arrays: dict[str, np.ndarray], part: str) -> dict[str, np.ndarray]:
    prefix = f"{part}."
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def _choices(described: Mapping[str, Any]) -> dict[str, Any]:
    """What must be the same of an encoder, its settings one by one."""
    return {name: described[name] for name in ("model", "weights_hash", "recipe")} | described["settings"]


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 30 else text[:27] + "..."
