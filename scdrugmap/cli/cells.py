"""`scdrugmap embed` and `scdrugmap predict`: from a file of cells to a file of answers."""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scdrugmap.cli.options import AsJson, Device, File, Knobs, Model, Output, Precision, WeightsOption, read_knobs
from scdrugmap.errors import ConsentMissing, InvalidInput
from scdrugmap.settings import Settings

if TYPE_CHECKING:
    from scdrugmap.prompting.cost import Estimate


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
    from scdrugmap.data.io.read import read_h5ad
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
        **_settings(knobs, embed_cells),
    )
    adata.write_h5ad(output)
    typer.echo(output)


ReferenceName = Annotated[str | None, typer.Option("--reference", help="name of a fitted reference head")]
LabelledCells = Annotated[
    str | None, typer.Option(help="for a model that is asked: a labelled file or a key of the catalogue")
]
Shots = Annotated[int | None, typer.Option(help="examples of each class; 5 if left out")]
Seed = Annotated[int, typer.Option(help="of the map; of examples and requests of a model that is asked")]
MaxCost = Annotated[float | None, typer.Option(help="US dollars that asking a remote model may cost")]
Yes = Annotated[bool, typer.Option("--yes", help="agree to what a remote model is sent, without being asked")]


def predict(
    file: File,
    output: Output,
    model: Model = "scgpt-mini",
    weights: WeightsOption = None,
    reference_name: ReferenceName = None,
    device: Device = "auto",
    knobs: Knobs = None,
    examples: LabelledCells = None,
    shots: Shots = None,
    seed: Seed = 0,
    max_cost: MaxCost = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Predict P(resistant) for every cell of FILE; OUTPUT is a .csv or a .h5ad."""
    from scdrugmap.prediction.pipeline import predict as predict_cells
    from scdrugmap.prediction.pipeline import predict_file, summary

    _need_suffix(output, (".csv", ".h5ad"))
    _keep_input(file, output)
    how: dict[str, Any] = {"weights": weights, "reference": reference_name, "device": device, "seed": seed}
    how |= {"consent": functools.partial(_agrees, yes=yes), "max_cost": max_cost, "examples": examples, "shots": shots}
    how |= {"cache": Settings.from_env().embeddings, **_settings(knobs, predict_cells)}
    with _stoppable():
        adata = predict_file(file, output, model=model, progress=True, **how)
    _tell(adata.uns["scdrugmap"]["prediction"].get("asked"))
    if as_json:
        typer.echo(json.dumps(summary(adata), indent=2, default=str))
    else:
        typer.echo(output)


def _settings(given: list[str] | None, function: Callable[..., object]) -> dict[str, Any]:
    """Read the settings of a model; refuse the names of the function's own arguments, which are options or nothing."""
    knobs = read_knobs(given)
    for name in sorted(knobs.keys() & inspect.signature(function).parameters.keys()):
        message = f"'{name}' cannot be set as a setting of the model here."
        raise InvalidInput(message, "--help lists the options; scdrugmap models show MODEL lists its settings.")
    return knobs


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Say on Ctrl-C that what was finished is kept, and end with 130; a second Ctrl-C waits for nothing."""

    def stop(*_: object) -> None:
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
        message = "Stopping: what was finished is kept, and what is on its way is waited for (Ctrl-C again: is not)."
        typer.echo(f"\n{message} The same command goes on from there.", err=True)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGINT, before)


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


def _tell(usage: Mapping[str, Any] | None) -> None:
    """Say what asking a remote model really cost, and how many cells it gave no answer about."""
    if usage is not None:
        cost = f"Requests paid: {usage['requests']:,}, for {usage['usd']:.4f} USD."
        typer.echo(f"{cost} Cells without an answer: {usage['n_failed']:,} of {usage['n_cells']:,}.", err=True)


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
