"""Cached reads of the Predict page: what can predict here and how long it takes, what cannot yet and what it needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import polars as pl
import streamlit as st

from scdrugmap.app.jobs.service import service
from scdrugmap.app.ui.format import count, duration, number
from scdrugmap.app.ui.queries import TITLES, commands_for, fit_command, has_reference, models, settings
from scdrugmap.models import MODELS
from scdrugmap.models.speed import Speed, speeds
from scdrugmap.plots import cells as cell_plots
from scdrugmap.prediction.reference.fit import references

_SCHEMA = dict.fromkeys(("model", "name", "label", "caption"), pl.String)


def predictors() -> pl.DataFrame:
    """Return what can predict here: one row per reference of a model whose weights are ready."""
    known = models()
    ready = known.filter(pl.col("state") != "needs weights").select("model", "title", "summary")
    rows = [card.to_row() for card in references(settings())]
    if not rows:
        return pl.DataFrame(schema=_SCHEMA)
    captioned = [{**row, "caption": _tested(row)} for row in rows]
    return (
        pl.DataFrame(captioned, infer_schema_length=None)
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
    speed = _speed(model, _device())
    if speed is None:
        return "Its speed was not measured."
    seconds = n_cells / speed.cells_per_s
    about = f"about {duration(seconds)}" if seconds >= 1 else "about a second"
    place = speed.machine if speed.device == "cpu" else speed.device
    return f"Estimated time: {about} ({speed.cells_per_s:.3g} cells/s on {place}), reading and the map aside."


@st.cache_resource(show_spinner=False)
def _device() -> str:
    """Return this device as the table of speeds names it."""
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu"


def _speed(model: str, device: str) -> Speed | None:
    """Return the speed of a model on this device or, where that was not measured, on a processor."""
    by_device = {speed.device: speed for speed in speeds() if speed.model == model}
    return by_device.get(device) or by_device.get("cpu")


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


def summary(job_id: str) -> dict[str, Any]:
    """Return what `predict` found in the cells of a finished job."""
    path = service().results(job_id)["summary"]
    return dict(json.loads(path.read_text()))


def cells(job_id: str) -> pl.DataFrame:
    """Return one row per cell of a finished job: position, prediction, and every column of the file that can colour."""
    path = service().results(job_id)["h5ad"]
    return _cells(job_id, str(path), path.stat().st_mtime_ns)


@st.cache_data(show_spinner="Reading the result", max_entries=4, scope="session")
def _cells(job_id: str, path: str, stamp: int) -> pl.DataFrame:
    import h5py
    from anndata.io import read_elem

    with h5py.File(path) as file:
        obs, umap = read_elem(file["obs"]), read_elem(file["obsm/X_umap"])
    frame = pl.from_pandas(obs.reset_index(drop=True))
    places = pl.DataFrame({"cell": obs.index.astype(str).to_numpy(str), "x": umap[:, 0], "y": umap[:, 1]})
    mine = [name for name in frame.columns if name not in places.columns]
    rank = (frame["p_resistant"].rank("average") - 0.5) / max(frame.height, 1)
    return pl.concat([places, frame.select(mine)], how="horizontal").with_columns(
        rank.alias(cell_plots.RANK), pl.col(pl.Categorical, pl.Enum).cast(pl.String)
    )


def forget(job_id: str) -> None:
    """Drop what this session remembers of a job that is deleted."""
    _cells.clear()


def colours(frame: pl.DataFrame) -> dict[str, str]:
    """Return what the map may be coloured by: words on screen -> column."""
    first = {
        "P(resistant)": "p_resistant",
        "rank of P(resistant) here": cell_plots.RANK,
        "prediction": "response",
        "novelty": "novelty",
        "cluster": "cluster",
    }
    mine = {*first.values(), "cell", "x", "y", "novel"}
    rest = [name for name in frame.columns if name not in mine and _colours(frame[name])]
    return first | {name.replace("_", " "): name for name in rest}


def _colours(values: pl.Series) -> bool:
    """Tell whether a column says something by colour: numbers, or two to a hundred different words."""
    different = values.drop_nulls().n_unique()
    return different > 1 and (values.dtype.is_numeric() or different <= 100)
