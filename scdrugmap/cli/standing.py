"""Where a plan stands on this machine: what is done, what is lacking, and how long the rest may take."""

from __future__ import annotations

import dataclasses
from collections import Counter

import polars as pl
import typer

from scdrugmap.cli.printing import print_record, print_rows
from scdrugmap.embeddings.entries import entries
from scdrugmap.evaluation.experiment import Experiment
from scdrugmap.evaluation.plan.eta import TimeEstimate, in_words
from scdrugmap.evaluation.plan.grid import Grid
from scdrugmap.evaluation.plan.preflight import Preflight, estimate_hours
from scdrugmap.evaluation.results.store import read_runs
from scdrugmap.settings import Settings

_UNKNOWN = "How long it may take is unknown: no such run was recorded yet."


def print_status(grid: Grid, settings: Settings, *, as_json: bool) -> None:
    """Print the states of a grid's experiments, what is lacking and what failed, with what mends it."""
    lacking, table = Preflight.from_plan(grid.plan, grid.experiments, settings), grid.status(settings)
    todo = set(table.filter(pl.col("state") != "done")["run_id"])
    left = [experiment for experiment in grid.experiments if experiment.run_id in todo]
    eta = _eta(grid, left, settings)
    counts = {state: table.filter(state=state).height for state in ("done", "failed", "to do")}
    cached = dict(Counter(entry.key.model for entry in entries(settings.embeddings)))
    if as_json:
        standing = {**counts, "eta_seconds": eta, "cached": cached, "lacking": dataclasses.asdict(lacking)}
        print_record({**standing, "experiments": table.to_dicts()}, as_json=True)
        return
    typer.echo(f"{grid.plan.title}: {', '.join(f'{n} {state}' for state, n in counts.items())}")
    states = [pl.col("state").eq(state).sum().alias(state) for state in counts]
    by = table.group_by("model", "head", "strategy", maintain_order=True).agg(*states)
    print_rows(by.to_dicts(), as_json=False)
    for line in lacking.sentences(settings):
        typer.echo(f"! {line}")
    reasons = table.filter(state="failed").group_by("reason", "remedy", maintain_order=True).agg(n=pl.len())
    for reason, remedy, n in reasons.iter_rows():
        typer.echo(f"! {n} failed: {reason} {remedy}")
    typer.echo(f"Embeddings in the cache: {', '.join(f'{k} {n} shards' for k, n in cached.items()) or 'none'}.")
    if left and eta is not None:
        typer.echo(
            f"One worker may need {in_words(eta)} for what is not done, by the seconds of recorded runs; "
            "embeddings that are not in the cache come on top."
        )
    elif left:
        typer.echo(estimate_hours(left, {summary.name: summary for summary in grid.summaries}) or _UNKNOWN)


def _eta(grid: Grid, left: list[Experiment], settings: Settings) -> float | None:
    """Return the seconds of one worker, None where a model was never run under its strategy."""
    pace = TimeEstimate.from_summaries(grid.summaries, read_runs(settings))
    return pace.total(left) if all(map(pace.knows, left)) else None
