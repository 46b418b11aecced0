"""`scdrugmap reference`: fit and list the heads that turn embeddings into P(resistant)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scdrugmap.cli.options import AsJson, Device, Knobs, Model, WeightsOption, read_knobs
from scdrugmap.cli.printing import print_rows
from scdrugmap.settings import Settings

reference = typer.Typer(no_args_is_help=True, help="Reference heads: what turns embeddings into P(resistant).")


@reference.command("list")
def reference_list(as_json: AsJson = False) -> None:
    """List the reference heads on this machine, and how they did on studies that they had not seen."""
    from scdrugmap.prediction.reference.fit import references

    print_rows((card.to_row() for card in references(Settings.from_env())), as_json=as_json)


@reference.command("fit")
def reference_fit(
    data: Annotated[list[str], typer.Option("--data", "-d", help="a labelled file or a key of the catalogue; repeat")],
    model: Model = "scgpt-mini",
    name: Annotated[str, typer.Option(help="what to call it")] = "mine",
    weights: WeightsOption = None,
    head: Annotated[str, typer.Option(help="logistic or mlp")] = "logistic",
    device: Device = "auto",
    seed: Annotated[int, typer.Option(help="of the head and the folds")] = 0,
    knobs: Knobs = None,
) -> None:
    """Fit a reference head on labelled collections, so that `predict --reference NAME` can use it.

    A reference goes with the settings that it was fitted with: give `predict` the same `--set`.
    """
    from scdrugmap.data.load import load_dataset
    from scdrugmap.models import load_model
    from scdrugmap.prediction.reference.fit import fit_reference

    settings = Settings.from_env()
    encoder = load_model(model, weights, device=device, **read_knobs(knobs))
    cells = [load_dataset(source, settings=settings) for source in data]
    fitted = fit_reference(cells, encoder, name=name, head=head, seed=seed, cache=settings.embeddings, progress=True)
    folder: Path = settings.references / model / name
    fitted.save(folder)
    typer.echo(folder)
