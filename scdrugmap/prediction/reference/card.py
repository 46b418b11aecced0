"""What is known about a reference head: the record behind `card.json`, and what the app shows as the honest number."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from scdrugmap.errors import InvalidInput

_SCHEMA = 1
CARD, HEAD = "card.json", "head.safetensors"
REFIT = "Fit it again: scdrugmap reference fit --model MODEL --data FILE"


@dataclass(frozen=True)
class ReferenceCard:
    """One fitted reference head; plain values, so that it is JSON as it stands."""

    model: str
    name: str
    summary: str  # one sentence for a biologist
    encoder: dict[str, Any]  # weights_hash, recipe, settings, dim, precision
    head: dict[str, Any]  # name, options, cells that it was trained on by class
    trained_on: list[dict[str, Any]]  # one row a data set: study, cells by class, samples, drugs, label basis, ...
    n_duplicates: int  # copies of cells that were left out, and cells whose copies carry both labels
    held_out: dict[str, Any]  # protocol, headline, scores with interval and constant value, studies, verdict
    calibration: dict[str, Any]  # CalibrationReport.record()
    novelty: dict[str, Any]  # threshold, neighbours, points, unit
    notes: list[str]  # what a reader must know before trusting it
    versions: dict[str, str]
    date: str  # ISO, UTC
    seed: int
    schema: int = _SCHEMA
    bundled: bool = False  # came with the package

    @property
    def headline(self) -> dict[str, Any]:
        """Metric, value, low, high and constant of the score on held-out studies."""
        return self.held_out["headline"]

    @property
    def n_cells(self) -> int:
        """Labelled cells that it was fitted on."""
        return sum(row["n_sensitive"] + row["n_resistant"] for row in self.trained_on)

    @property
    def studies(self) -> list[str]:
        """Accessions of the studies, sorted."""
        return sorted({row["study"] for row in self.trained_on})

    def to_row(self) -> dict[str, Any]:
        """Return the fields that a list of references shows."""
        score = self.headline
        return {
            "model": self.model,
            "name": self.name,
            "cells": self.n_cells,
            "studies": ", ".join(self.studies),
            "held_out_metric": score["metric"],
            "held_out": score["value"],
            "low": score["low"],
            "high": score["high"],
            "constant": score["constant"],
            "verdict": self.held_out["verdict"],
            "date": self.date,
            "bundled": self.bundled,
        }

    def write(self, folder: Path) -> None:
        """Write `card.json` into an existing folder."""
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False, allow_nan=False)
        (folder / CARD).write_text(text + "\n", encoding="utf-8")


def called(folder: Path) -> str:
    """Name a reference as `<model>/<name>`: errors reach the browser, which is not told where a server keeps files."""
    return f"{folder.parent.name}/{folder.name}"


def read_card(folder: Path) -> ReferenceCard:
    """Read `folder/card.json`; raises `InvalidInput` when it is missing, damaged or of another schema."""
    path = folder / CARD
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidInput(f"The reference '{called(folder)}' has no {CARD}.", REFIT) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"'{called(folder)}/{CARD}' is not readable as JSON ({error}).", REFIT) from None
    if not isinstance(stored, dict) or stored.get("schema") != _SCHEMA:
        schema = stored.get("schema") if isinstance(stored, dict) else type(stored).__name__
        raise InvalidInput(
            f"'{called(folder)}/{CARD}' has schema {schema}; this version reads schema {_SCHEMA}.", REFIT
        )
    wanted = {entry.name for entry in fields(ReferenceCard)}
    missing, foreign = sorted(wanted - stored.keys()), sorted(stored.keys() - wanted)
    if missing or foreign:
        what = f"lacks {missing or 'nothing'} and has unknown {foreign or 'nothing'}"
        raise InvalidInput(f"'{called(folder)}/{CARD}' {what}.", REFIT)
    return ReferenceCard(**stored)
