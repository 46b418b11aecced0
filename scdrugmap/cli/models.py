"""`scdrugmap models`: cards, weights, checks."""

from __future__ import annotations

import typer

from scdrugmap.cli.options import AsJson, Device, Key, Knobs, WeightsOption, read_knobs
from scdrugmap.cli.printing import plain, print_record, print_rows
from scdrugmap.settings import Settings

models = typer.Typer(no_args_is_help=True, help="The models: cards, weights, checks.")


@models.command("list")
def models_list(as_json: AsJson = False) -> None:
    """List the models, and which are ready on this machine."""
    from scdrugmap.models import MODELS
    from scdrugmap.models.checkpoints.locate import state

    settings = Settings.from_env()
    rows = (
        {
            "model": card.key,
            "title": card.title,
            "kind": card.kind,
            "state": state(card, settings.weights),
            "dim": card.dim,
            "parameters": card.n_parameters,
            "weights licence": card.weights.licence,
        }
        for card in MODELS.values()
    )
    print_rows(rows, as_json=as_json)


@models.command("show")
def models_show(key: Key, as_json: AsJson = False) -> None:
    """Show a model's card: paper, licences, where the weights are, what it saw."""
    from dataclasses import fields

    from scdrugmap.models import MODELS

    card = MODELS[key]
    record = {field.name: getattr(card, field.name) for field in fields(card)}
    weights = record.pop("weights")
    record |= {f"weights {field.name}": getattr(weights, field.name) for field in fields(weights)}
    print_record({name: plain(value) for name, value in record.items()}, as_json=as_json)


@models.command("fetch")
def models_fetch(key: Key, knobs: Knobs = None) -> None:
    """Download a model's weights at their pinned revision, or say where to get them; `--set variant=...` chooses.

    What their licence is, where they come from and how large they are is said before the download begins.
    """
    from scdrugmap.models import MODELS
    from scdrugmap.models.checkpoints.download import fetch, terms

    card = MODELS[key].for_variant(read_knobs(knobs))
    typer.echo(terms(card), err=True)
    typer.echo(fetch(card, Settings.from_env().weights))


@models.command("check")
def models_check(key: Key, weights: WeightsOption = None, device: Device = "auto", knobs: Knobs = None) -> None:
    """Load a model and embed a few simulated cells: are the weights whole, and does it run here?

    A checkpoint that knows too few of the simulated genes (a tiny one, or one of another organism) is given cells made
    up of its own genes instead, and the answer says so.
    """
    from scdrugmap.data.simulate import simulate
    from scdrugmap.models import load_model
    from scdrugmap.models.testing import cells_of_vocabulary

    encoder = load_model(key, weights, device=device, **read_knobs(knobs))
    cells, kind = simulate(n_cells=8, n_samples=2, seed=0), "simulated cells"
    coverage = encoder.coverage(cells)
    if coverage.share_counts < coverage.floor and encoder.tokenizer.genes:
        cells, kind = cells_of_vocabulary(encoder, n_cells=8), "cells made up of the checkpoint's own genes"
        coverage = encoder.coverage(cells)
    embedding = encoder.embed(cells)
    print_record(
        {
            "model": key,
            "weights": encoder.weights_hash,
            "device": str(encoder.device),
            "embedding": f"{embedding.shape[0]} {kind} x {embedding.shape[1]}",
            "genes found": f"{coverage.n_matched} of {coverage.n_genes}",
        },
        as_json=False,
    )
