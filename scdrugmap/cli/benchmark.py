"""`scdrugmap benchmark`: how far can a model be trusted?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import polars as pl
import typer

from scdrugmap.cli.options import AsJson, Device, read_knobs
from scdrugmap.cli.printing import print_record, print_rows
from scdrugmap.errors import Cancelled, InvalidInput
from scdrugmap.settings import Settings

if TYPE_CHECKING:
    from scdrugmap.evaluation.plan.grid import Grid
    from scdrugmap.evaluation.results.run_record import Run

benchmark = typer.Typer(no_args_is_help=True, help="How far can a model be trusted?")

_SHOWN = ("f1", "auroc", "mcc")  # never an F1 without the constant classifier, AUROC and MCC beside it
MANY = 40  # experiments: more are counted, not listed

PlanFile = Annotated[Path | None, typer.Option("--plan", help="a plan file, e.g. benchmarks/plans/smoke.toml")]
DataNames = Annotated[
    list[str] | None,
    typer.Option("--data", "-d", help="a labelled file or a key of the catalogue; repeat. With --plan: its folder"),
]


SplitByOption = Annotated[str, typer.Option(help="cell (the paper's, leaks), sample, patient_or_line, dataset, study")]
ShotsOption = Annotated[list[int], typer.Option(help="labelled target cells a class (cross-data); repeat")]
TrainingOption = Annotated[
    list[str] | None, typer.Option(help="of training, STRATEGY.NAME=VALUE or HEAD.NAME=VALUE, e.g. lora.r=4; repeat")
]
KnobOption = Annotated[list[str] | None, typer.Option("--set", help="of a model, MODEL.NAME=VALUE; repeat")]
PlacesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--weights", help="where a model's weights lie, MODEL=FOLDER in upstream's layout (or a Hub id); repeat"
    ),
]
Workers = Annotated[str, typer.Option(help='"1", "8" processes, or a Dask scheduler "tcp://host:8786"')]


@benchmark.command("run")
def benchmark_run(
    data: DataNames = None,
    model: Annotated[list[str] | None, typer.Option("--model", "-m", help="a model or baseline; repeat")] = None,
    plan: PlanFile = None,
    strategy: Annotated[list[str], typer.Option(help="freeze, lora or prompt; repeat")] = ["freeze"],  # noqa: B006
    protocol: Annotated[str, typer.Option(help="pooled or cross-data")] = "pooled",
    split_by: SplitByOption = "cell",
    shots: ShotsOption = [0],  # noqa: B006
    facet: Annotated[str, typer.Option(help="all, tissue, cancer_type, drug_type or regimen")] = "all",
    head: Annotated[list[str] | None, typer.Option(help="mlp, logistic, ...; repeat")] = None,
    folds: Annotated[int, typer.Option(help="k of the k-fold; the paper uses 10")] = 5,
    seed: Annotated[int, typer.Option(help="of splits and heads")] = 0,
    option: TrainingOption = None,
    knob: KnobOption = None,
    weights: PlacesOption = None,
    workers: Workers = "1",
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Run a plan, or model x head x strategy on labelled data; what is done already is not done again.

    Exit code: 0 all done; 2 some could not be done, for a reason that is recorded and can be mended; 1 a bug.
    """
    from scdrugmap.evaluation.plan.grid import Grid
    from scdrugmap.evaluation.plan.plan_file import read_plan
    from scdrugmap.evaluation.plan.preflight import Preflight

    settings = Settings.from_env()
    if plan is not None:
        if model:
            raise InvalidInput("--model does not go with --plan.", "Say in the plan which models compete.")
        grid = Grid.from_plan(read_plan(plan), settings, _folder(data), device, weights=_places(weights))
    else:
        fields: dict[str, Any] = {"models": model or [], "strategies": strategy, "protocol": protocol, "shots": shots}
        fields |= {"split_by": split_by, "facet": facet, "folds": folds, "seeds": seed} | (
            {"heads": head} if head else {}
        )
        fields |= {"options": _nested(option, "--option lora.r=4"), "settings": _nested(knob, "--set scgpt.n_bins=51")}
        grid = _grid_of_flags(data or [], fields, settings, device, _places(weights))
    for line in Preflight.from_plan(grid.plan, grid.experiments, settings).sentences(settings):
        typer.echo(f"! {line}", err=True)
    runs = _watched(grid, settings, workers, device)
    _print_result(grid, runs, as_json=as_json)
    raise typer.Exit(_exit_code(runs))


@benchmark.command("status")
def benchmark_status(
    plan: PlanFile = None, data: DataNames = None, weights: PlacesOption = None, as_json: AsJson = False
) -> None:
    """Show what is done, failed and to do of a plan; without one, all runs of this machine."""
    from scdrugmap.evaluation.results.store import read_runs

    settings = Settings.from_env()
    if plan is None:
        print_rows(read_runs(settings).to_dicts(), as_json=as_json)
        return
    from scdrugmap.cli.standing import print_status
    from scdrugmap.evaluation.plan.grid import Grid
    from scdrugmap.evaluation.plan.plan_file import read_plan

    grid = Grid.from_plan(read_plan(plan), settings, _folder(data), weights=_places(weights), fetch=False, sketch=True)
    print_status(grid, settings, as_json=as_json)


@benchmark.command("report")
def benchmark_report(
    output: Annotated[Path, typer.Option("--output", "-o", help="folder for report.md, report.html and figures")],
    plan: PlanFile = None,
    data: DataNames = None,
    weights: PlacesOption = None,
    as_json: AsJson = False,
) -> None:
    """Write a report of a plan's runs, or of all on this machine: Markdown, and one HTML file that needs no network."""
    from scdrugmap.evaluation.plan.grid import Grid
    from scdrugmap.evaluation.plan.plan_file import read_plan
    from scdrugmap.evaluation.report.document import write_report

    settings = Settings.from_env()
    given = _places(weights)
    grid = Grid.from_plan(read_plan(plan), settings, _folder(data), weights=given, fetch=False) if plan else None
    written = write_report(output, settings, grid)
    if as_json:
        print_record({"written": list(map(str, written))}, as_json=True)
    else:
        typer.echo("\n".join(map(str, written)))


def _folder(data: Sequence[str] | None) -> Path | None:
    if not data:
        return None
    if len(data) > 1:
        raise InvalidInput(f"--data was given {len(data)} times.", "With --plan, it is one folder of the plan's files.")
    return Path(data[0])


def _grid_of_flags(
    data: Sequence[str], fields: dict[str, Any], settings: Settings, device: str, weights: dict[str, str]
) -> Grid:
    """Return the grid of the options of the command line, which are those of a plan's question."""
    from pydantic import ValidationError

    from scdrugmap.evaluation.cells.dataset_summary import summaries
    from scdrugmap.evaluation.plan.grid import Grid
    from scdrugmap.evaluation.plan.plan_file import Ask, Plan, first_error

    if not (data and fields["models"]):
        raise InvalidInput("Nothing was asked.", "Give --data and --model, or --plan benchmarks/plans/smoke.toml")
    try:
        question = Ask(**fields)
    except ValidationError as error:
        raise InvalidInput(first_error(error), "scdrugmap benchmark run --help lists the options.") from error
    plan = Plan(title="Command line", data={}, ask=[question])
    return Grid.over(plan, {"data": summaries(data, settings)}, device, weights=weights)


def _places(given: list[str] | None) -> dict[str, str]:
    """Read MODEL=FOLDER pairs."""
    places: dict[str, str] = {}
    for pair in given or ():
        model, equals, place = pair.partition("=")
        if not (model and equals and place):
            raise InvalidInput(
                f"--weights '{pair}' does not say whose they are.", "Write MODEL=FOLDER, e.g. scgpt=scGPT_human"
            )
        if model in places:
            raise InvalidInput(f"--weights names '{model}' twice.", "Give one folder a model.")
        places[model] = place
    return places


def _nested(given: list[str] | None, example: str) -> dict[str, dict[str, Any]]:
    """Read OWNER.NAME=VALUE pairs by owner."""
    nested: dict[str, dict[str, Any]] = {}
    for name, value in read_knobs(given).items():
        owner, dot, leaf = name.rpartition(".")
        if not dot:
            raise InvalidInput(f"'{name}' does not say whose it is.", f"Write it as in {example}")
        nested.setdefault(owner, {})[leaf] = value
    return nested


def _watched(grid: Grid, settings: Settings, workers: str, device: str) -> dict[str, Run]:
    """Run a grid and show how it goes; Ctrl-C leaves what is recorded, and says how to go on."""
    from scdrugmap.cli.watching import Watch
    from scdrugmap.evaluation.plan.eta import TimeEstimate
    from scdrugmap.evaluation.results.store import read_runs
    from scdrugmap.evaluation.run.runner import run_grid

    watch = Watch(grid.experiments, TimeEstimate.from_summaries(grid.summaries, read_runs(settings)))
    how = {"workers": workers, "device": device, "remarks": grid.plan.remarks, "weights": grid.weights}
    try:
        with watch.shown():
            return run_grid(grid.experiments, grid.summaries, settings, ended=watch.ended, **how)  # type: ignore[arg-type]
    except KeyboardInterrupt:
        message = f"{len(grid.experiments) - len(watch.left)} of {len(grid.experiments)} experiments are recorded."
        raise Cancelled(message, "The same command goes on with the others.") from None


def _exit_code(runs: dict[str, Run]) -> int:
    from scdrugmap.evaluation.benchmark import is_bug

    if any(is_bug(run.outcome) for run in runs.values()):
        return 1
    return 2 if any(run.outcome.state == "failed" for run in runs.values()) else 0


def _print_result(grid: Grid, runs: dict[str, Run], *, as_json: bool) -> None:
    """Print out-of-fold scores, each with its interval and what the constant classifier has on the same cells."""
    from scdrugmap.evaluation.results.store import scores_of

    scores = scores_of(runs[experiment.run_id] for experiment in grid.experiments)
    if as_json:
        print_rows(scores.to_dicts(), as_json=True)
        return
    failed = [run for run in runs.values() if run.outcome.state == "failed"]
    if len(runs) <= MANY:
        overall = scores.filter(pl.col("fold") == "all", pl.col("metric").is_in(_SHOWN))
        print_rows([_row(row) for row in overall.to_dicts()], as_json=False)
    else:
        typer.echo(f"{len(runs) - len(failed)} experiments are done. See: scdrugmap benchmark report --output report")
    for reason in dict.fromkeys(f"{run.outcome.reason} {run.outcome.remedy}" for run in failed):
        typer.echo(f"Not done: {reason}", err=True)


def _row(score: dict[str, Any]) -> dict[str, Any]:
    from scdrugmap.evaluation.metrics.metrics import METRICS

    metric = METRICS[score["metric"]]
    interval = "" if score["ci_low"] is None else f" [{score['ci_low']:.2f}, {score['ci_high']:.2f}]"
    return {
        "model": score["model"],
        "head": score["head"],
        "strategy": score["strategy"],
        "split by": score["split_by"],
        "shots": score["shots"],
        "test": " + ".join(score["test"]),
        "metric": metric.title,
        "score [95 % interval]": f"{score['value']:.2f}{interval}" if score["value"] is not None else "not defined",
        "constant": f"{metric.constant(score['prevalence']):.2f}",
        "cells": score["n"],
        "run": score["run_id"],
    }
