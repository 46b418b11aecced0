"""The options that several verbs share, declared once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from scdrugmap.errors import InvalidInput

File = Annotated[Path, typer.Argument(help=".h5ad, 10x .h5, zipped .mtx triplet, or .csv/.tsv(.gz)")]
Key = Annotated[str, typer.Argument(help="the name in the registry, e.g. scgpt-mini")]
Model = Annotated[str, typer.Option("--model", "-m", help="see `scdrugmap models list`")]
WeightsOption = Annotated[str | None, typer.Option(help="folder in upstream's own layout, or a Hub id")]
Output = Annotated[Path, typer.Option("--output", "-o", help="where the result goes")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1")]
Precision = Annotated[str, typer.Option(help="float32 or bfloat16")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON for a program to read")]
Knobs = Annotated[list[str] | None, typer.Option("--set", help="a setting of the model, e.g. max_length=600; repeat")]


def read_knobs(given: list[str] | None) -> dict[str, Any]:
    """Read NAME=VALUE pairs; a value is JSON (600, true, null) or else a word. Raises `InvalidInput`."""
    knobs: dict[str, Any] = {}
    for pair in given or ():
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise InvalidInput(f"'{pair}' is not a setting.", "Write NAME=VALUE, e.g. --set max_length=600")
        try:
            knobs[name] = json.loads(value)
        except ValueError:
            knobs[name] = value
    return knobs
