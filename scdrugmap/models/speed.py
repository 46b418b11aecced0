"""Measured speeds of the models, from which pages and documents tell what a run costs (`benchmarks/embed.py`)."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True)
class Speed:
    """How fast one model embedded on one machine, end to end in float32."""

    model: str
    size: str  # "published" or "small" (a toy of the same code)
    device: str  # "cpu", or the name of a GPU
    cells_per_s: float
    tokens_per_s: float
    machine: str
    date: str  # YYYY-MM-DD
    command: str  # that measured it


def speeds() -> tuple[Speed, ...]:
    """Give all that were measured, in the order of the file; reads the package's `speed.csv`."""
    lines = files(__package__).joinpath("speed.csv").read_text(encoding="utf-8").splitlines()
    return tuple(_speed(row) for row in csv.DictReader(lines))


def _speed(row: dict[str, str]) -> Speed:
    numbers = {name: float(row[name]) for name in ("cells_per_s", "tokens_per_s")}
    return Speed(**(row | numbers))  # type: ignore[arg-type]
