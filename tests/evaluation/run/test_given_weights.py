"""Weights that lie elsewhere, named on the command line: from the plan to every worker, and into the record."""

from __future__ import annotations

import json

import pytest

from scdrugmap.data.simulate import simulate
from scdrugmap.errors import InvalidInput
from scdrugmap.evaluation.benchmark import benchmark
from scdrugmap.evaluation.plan.expand import placed
from scdrugmap.evaluation.plan.grid import Grid
from scdrugmap.evaluation.plan.plan_file import read_plan
from scdrugmap.evaluation.results.store import runs
from scdrugmap.evaluation.run.runner import run_grid
from scdrugmap.models import MODELS, load_model
from scdrugmap.models.testing import toy_folder

PLAN = """
title = "Weights from elsewhere"
[data.toy]
simulate = { n_cells = 40, n_genes = 250, n_samples = 4, effect = 2.0, seed = 3 }
[[ask]]
models = ["constant", "scgpt"]
strategies = ["freeze", "lora"]
heads = { scgpt = ["logistic"] }
folds = 2
options.lora = { steps = 2, batch_size = 4, checks = 1 }
"""


@pytest.fixture
def cells():
    return simulate(n_cells=40, n_genes=250, n_samples=4, effect=2.0, seed=3)


@pytest.fixture
def folder(tmp_path, cells):
    """A checkpoint that was downloaded to some folder."""
    place = tmp_path / "downloads" / "scgpt"
    toy_folder(MODELS["scgpt"], cells, place)
    return place


@pytest.fixture
def plan(tmp_path):
    path = tmp_path / "elsewhere.toml"
    path.write_text(PLAN)
    return path


def test_weights_named_on_the_command_line_are_used_and_recorded(benchmarked, plan, folder, settings, monkeypatch):
    monkeypatch.chdir(folder.parent)
    code, out, err = benchmarked("run", "--plan", plan, "--weights", "scgpt=scgpt", "--json")
    assert code == 0, err
    assert {(row["model"], row["strategy"]) for row in json.loads(out)} == {
        ("constant", "freeze"), ("scgpt", "freeze"), ("scgpt", "lora")
    }  # fmt: skip
    used = load_model("scgpt", folder, device="cpu").weights_hash
    found = [run for run in runs(settings.results) if run.experiment.model == "scgpt"]
    assert {(run.experiment.weights, run.environment.weights) for run in found} == {(used, used)}
    code, out, _ = benchmarked("status", "--plan", plan, "--weights", f"scgpt={folder}")
    assert "3 done, 0 failed, 0 to do" in out
    code, out, _ = benchmarked("status", "--plan", plan)  # the question about the card's own weights is another one
    assert "1 done, 0 failed, 2 to do" in out
    code, out, _ = benchmarked(
        "report", "--plan", plan, "--weights", f"scgpt={folder}", "--output", folder.parent / "report"
    )
    assert "scgpt + logistic" in (folder.parent / "report" / "report.md").read_text()


def test_processes_are_told_where_the_weights_lie(plan, folder, settings, tmp_path):
    plan.write_text(PLAN.replace('["freeze", "lora"]', '["freeze"]'))
    grid = Grid.from_plan(read_plan(plan), settings, weights={"scgpt": folder})
    done = run_grid(grid.experiments, grid.summaries, settings, workers="2", weights=grid.weights)
    assert {run.outcome.state for run in done.values()} == {"done"}
    assert {run.environment.weights for run in done.values()} == {one.weights for one in grid.experiments}


def test_other_files_at_the_same_place_are_not_taken_for_those_that_were_planned(plan, folder, settings, cells):
    grid = Grid.from_plan(read_plan(plan), settings, weights={"scgpt": folder})
    other = folder.parent / "other"
    toy_folder(MODELS["scgpt"], cells, other, seed=1)
    done = run_grid(grid.experiments, grid.summaries, settings, weights={"scgpt": str(other)})
    failed = [run.outcome for run in done.values() if run.experiment.model == "scgpt"]
    assert {outcome.error for outcome in failed} == {"WeightsInvalid"}
    assert all("are not the planned ones" in outcome.reason for outcome in failed)


def test_the_python_call_takes_them_too(cells, folder, settings):
    scores = benchmark([cells], ["scgpt"], heads=["logistic"], folds=2, settings=settings, weights={"scgpt": folder})
    assert scores.height > 0
    assert {run.environment.weights for run in runs(settings.results)} == {
        load_model("scgpt", folder, device="cpu").weights_hash
    }


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["scgptt=DOWNLOADS"], "There is no model called 'scgptt'. Did you mean 'scgpt'?"),
        (["uce=DOWNLOADS"], "Weights are given for 'uce', which nobody asks for. Asked are: constant, scgpt."),
        (["hvg=DOWNLOADS"], "'hvg' has no weights that could lie in"),
        (
            ["scgpt=/nowhere/at/all"],
            "There is no folder '/nowhere/at/all' with weights for 'scgpt'. Give a folder with",
        ),
        (["scgpt=DOWNLOADS"], "lacks best_model.pt, args.json, vocab.json, so it holds no weights for 'scgpt'."),
        (["DOWNLOADS"], "does not say whose they are. Write MODEL=FOLDER"),
        (["scgpt=DOWNLOADS", "scgpt=DOWNLOADS"], "--weights names 'scgpt' twice."),
    ],
)
@pytest.mark.parametrize("verb", ["run", "status"])
def test_a_slip_is_one_line_before_anything_runs(benchmarked, plan, folder, settings, verb, given, said):
    words = [word for one in given for word in ("--weights", one.replace("DOWNLOADS", str(folder.parent)))]
    code, _, err = benchmarked(verb, "--plan", plan, *words)
    assert code == 2
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert not list(runs(settings.results))


def test_places_are_whole_paths_and_hub_ids_stay(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert placed({"scgpt": "scgpt"}, ["scgpt"]) == {"scgpt": str(folder)}
    assert placed({"scgpt": "lab/scgpt-own@main"}, ["scgpt"]) == {"scgpt": "lab/scgpt-own@main"}
    for model in ("constant", "gpt-4o-mini"):
        with pytest.raises(InvalidInput, match=f"'{model}' has no weights"):
            placed({model: folder}, [model])
