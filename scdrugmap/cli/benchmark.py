"""`scdrugmap benchmark`: how far can a model be trusted?"""

from __future__ import annotations

from typing import Annotated, Any

import polars as pl
import typer

from scdrugmap.cli.options import AsJson
from scdrugmap.cli.printing import print_rows
from scdrugmap.settings import Settings

benchmark = typer.Typer(no_args_is_help=True, help="How far can a model be trusted?")

SHOWN = ("f1", "auroc", "mcc")  # never an F1 without the constant classifier, AUROC and MCC beside it


@benchmark.command("run")
def benchmark_run(
    data: Annotated[list[str], typer.Option("--data", "-d", help="a labelled file or a key of the catalogue; repeat")],
    model: Annotated[list[str], typer.Option("--model", "-m", help="a model or baseline; repeat")],
    protocol: Annotated[str, typer.Option(help="pooled or cross-data")] = "pooled",
    split_by: Annotated[
        str, typer.Option(help="cell (the paper's, leaks), sample, patient_or_line, dataset, study")
    ] = "cell",
    head: Annotated[list[str] | None, typer.Option(help="mlp, logistic, ...; repeat")] = None,
    folds: Annotated[int, typer.Option(help="k of the k-fold; the paper uses 10")] = 5,
    seed: Annotated[int, typer.Option(help="of splits and heads")] = 0,
    workers: Annotated[str, typer.Option(help='"1", "8" processes, or a Dask scheduler "tcp://host:8786"')] = "1",
    as_json: AsJson = False,
) -> None:
    """Run model x head on labelled data; scores with their interval and the constant classifier beside them."""
    from scdrugmap.evaluation.grid import benchmark as run

    scores = run(
        datasets=data,
        models=model,
        protocol=protocol,
        split_by=split_by,
        heads=head,
        folds=folds,
        seed=seed,
        workers=workers,
        progress=True,
        settings=Settings.from_env(),
    )
    _print_scores(scores, as_json=as_json)


@benchmark.command("status")
def benchmark_status(as_json: AsJson = False) -> None:
    """List the runs that are recorded on this machine, failed ones with their reason."""
    from scdrugmap.evaluation.results import read_runs

    print_rows(read_runs(Settings.from_env()).to_dicts(), as_json=as_json)


def _print_scores(scores: pl.DataFrame, *, as_json: bool) -> None:
    """Print out-of-fold scores, each with its interval and what the constant classifier has on the same cells."""
    if as_json:
        print_rows(scores.to_dicts(), as_json=True)
        return
    overall = scores.filter(pl.col("fold") == "all", pl.col("metric").is_in(SHOWN))
    print_rows([_row(row) for row in overall.to_dicts()], as_json=False)


def _row(score: dict[str, Any]) -> dict[str, Any]:
    from scdrugmap.evaluation.metrics import METRICS

    metric = METRICS[score["metric"]]
    interval = "" if score["ci_low"] is None else f" [{score['ci_low']:.2f}, {score['ci_high']:.2f}]"
    return {
        "model": score["model"],
        "head": score["head"],
        "split by": score["split_by"],
        "test": score["test"],
        "metric": metric.title,
        "score [95 % interval]": f"{score['value']:.2f}{interval}" if score["value"] is not None else "not defined",
        "constant": f"{metric.constant(score['prevalence']):.2f}",
        "cells": score["n"],
        "run": score["run_id"],
    }
