"""The options that several verbs share, declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

File = Annotated[Path, typer.Argument(help=".h5ad, 10x .h5, zipped .mtx triplet, or .csv/.tsv(.gz)")]
Key = Annotated[str, typer.Argument(help="the name in the registry, e.g. scgpt-mini")]
Model = Annotated[str, typer.Option("--model", "-m", help="see `scdrugmap models list`")]
WeightsOption = Annotated[str | None, typer.Option(help="folder in upstream's own layout, or a Hub id")]
Output = Annotated[Path, typer.Option("--output", "-o", help="where the result goes")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1")]
Precision = Annotated[str, typer.Option(help="float32 or bfloat16")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON for a program to read")]
