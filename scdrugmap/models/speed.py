"""Measured speeds of the models, from which pages, plans and documents tell what a run costs.

They stand in one file, `speed.json`: all that `benchmarks/embed.py --write` measured of each model, with machine, date
and command. The tables of docs/performance.md are made of it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path

SPEEDS = Path(str(files(__package__).joinpath("speed.json")))


@dataclass(frozen=True)
class Speed:
    """How fast one model of published size embedded on one machine, end to end in float32."""

    model: str
    device: str  # "cpu", or the name of a GPU
    cells_per_s: float
    machine: str
    threads: int
    date: str  # YYYY-MM-DD


def speeds() -> tuple[Speed, ...]:
    """Return the measured speeds of models of published size, in the order of the file.

    A toy of the same code, which the benchmark can measure too, tells nothing of what a run takes.
    """
    names = [field.name for field in fields(Speed)]
    records = json.loads(SPEEDS.read_text(encoding="utf-8"))
    return tuple(Speed(**{name: record[name] for name in names}) for record in records if record["size"] == "published")
