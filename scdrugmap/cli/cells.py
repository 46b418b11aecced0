"""`scdrugmap embed` and `scdrugmap predict`: from a file of cells to a file of answers."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scdrugmap.cli.options import AsJson, Device, File, Knobs, Model, Output, Precision, WeightsOption, read_knobs
from scdrugmap.errors import ConsentMissing, InvalidInput
from scdrugmap.settings import Settings

if TYPE_CHECKING:
    from scdrugmap.evaluation.prompting_cost import Estimate


def embed(
    file: File,
    output: Output,
    model: Model = "scgpt-mini",
    weights: WeightsOption = None,
    device: Device = "auto",
    precision: Precision = "float32",
    batch_size: Annotated[int | None, typer.Option(help="cells a batch; by token budget if left out")] = None,
    knobs: Knobs = None,
) -> None:
    """Write a copy of FILE with the cells' embedding in obsm["X_<model>"]."""
    from scdrugmap.data.h5ad import read_h5ad
    from scdrugmap.embeddings.compute import embed as embed_cells

    _need_suffix(output, (".h5ad",))
    _keep_input(file, output)
    adata = embed_cells(
        read_h5ad(file),
        model,
        weights,
        device=device,
        precision=precision,
        batch_size=batch_size,
        progress=True,
        cache=Settings.from_env().embeddings,
        **read_knobs(knobs),
    )
    adata.write_h5ad(output)
    typer.echo(output)


def predict(
    file: File,
    output: Output,
    model: Model = "scgpt-mini",
    weights: WeightsOption = None,
    reference_name: Annotated[str | None, typer.Option("--reference", help="name of a fitted reference head")] = None,
    device: Device = "auto",
    knobs: Knobs = None,
    max_cost: Annotated[float | None, typer.Option(help="US dollars that asking a remote model may cost")] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="agree to what a remote model is sent, without being asked")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Predict P(resistant) for every cell of FILE; OUTPUT is a .csv or a .h5ad."""
    from scdrugmap.prediction.pipeline import predict_file, summary

    _need_suffix(output, (".csv", ".h5ad"))
    _keep_input(file, output)
    adata = predict_file(
        file,
        output,
        model=model,
        weights=weights,
        reference=reference_name,
        device=device,
        progress=True,
        cache=Settings.from_env().embeddings,
        consent=functools.partial(_agrees, yes=yes),
        max_cost=max_cost,
        **read_knobs(knobs),
    )
    _tell(adata.uns["scdrugmap"]["prediction"].get("asked"))
    if as_json:
        typer.echo(json.dumps(summary(adata), indent=2, default=str))
    else:
        typer.echo(output)


def _agrees(estimate: Estimate, *, yes: bool) -> bool:
    """Show what would leave this machine and its price, and ask the person at the terminal."""
    for line in estimate.lines:
        typer.echo(line, err=True)
    if yes:
        return True
    if not sys.stdin.isatty():
        message = "Nobody is here to agree to what a remote model would be sent (no terminal)."
        raise ConsentMissing(message, "If you agree to the lines above, add --yes")
    return typer.confirm("Send it?", err=True)


def _tell(asked: Mapping[str, Any] | None) -> None:
    """Say what asking a remote model really cost, and how many cells it gave no answer about."""
    if asked is not None:
        cost = f"{asked['requests']:,} requests were paid: {asked['usd']:.4f} USD."
        typer.echo(f"{cost} {asked['n_failed']:,} of {asked['n_cells']:,} cells have no answer.", err=True)


def _need_suffix(output: Path, possible: tuple[str, ...]) -> None:
    """Refuse before an hour of work, not after it."""
    if output.suffix not in possible:
        raise InvalidInput(
            f"Cannot write '{output.name}': its ending says no format that is possible here.",
            f"Use {' or '.join(possible)}, e.g. --output {output.with_suffix(possible[0]).name}",
        )
    if not output.parent.is_dir():
        raise InvalidInput(f"There is no folder '{output.parent}' to write into.", f"Run: mkdir -p {output.parent}")


def _keep_input(file: Path, output: Path) -> None:
    if output.exists() and file.exists() and output.samefile(file):
        raise InvalidInput(f"'{output}' is the input itself.", "Give another name to --output.")
