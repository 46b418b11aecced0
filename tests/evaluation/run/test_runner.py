"""The benchmark as typed: plans and flags, exit codes, status, Ctrl-C."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from scdrugmap.cli import watching
from scdrugmap.data.simulate import simulate
from scdrugmap.evaluation.plan.eta import TimeEstimate
from scdrugmap.evaluation.plan.grid import Grid
from scdrugmap.evaluation.plan.plan_file import read_plan
from scdrugmap.evaluation.results.store import runs
from scdrugmap.evaluation.run import evaluate, runner
from scdrugmap.evaluation.run.runner import run_grid

PLAN = """
title = "Typed"
[data.toy]
simulate = { n_cells = 60, n_genes = 250, n_samples = 6, seed = 3 }
[data.confounded]
simulate = { n_cells = 40, n_genes = 250, n_samples = 2, confounded = true }
[remarks]
simulated-toy = "made up"
[[ask]]
data = "toy"
models = ["constant", "hvg"]
heads = ["logistic"]
split_by = ["cell", "sample"]
folds = 2
"""
CONFOUNDED = '[[ask]]\ndata = "confounded"\nmodels = "constant"\nsplit_by = "sample"\n'


@pytest.fixture
def plan(tmp_path):
    path = tmp_path / "typed.toml"
    path.write_text(PLAN)
    return path


def test_a_plan_is_run_and_its_status_told(benchmarked, plan, settings):
    code, out, _ = benchmarked("status", "--plan", plan)
    assert code == 0
    assert "Typed: 0 done, 0 failed, 4 to do" in out
    assert "How long it may take is unknown: no such run was recorded yet." in out
    code, out, err = benchmarked("run", "--plan", plan)
    assert code == 0, err
    assert "AUROC" in out
    assert "[4/4, 0 s left] hvg + logistic, freeze, pooled by sample, seed 0, simulated-toy" in err
    assert all("simulated-toy: made up" in one.outcome.warnings for one in runs(settings.results))
    code, out, _ = benchmarked("status", "--plan", plan, "--json")
    found = json.loads(out)
    assert (found["done"], found["failed"], found["to do"], found["eta_seconds"]) == (4, 0, 0, 0)
    assert {row["state"] for row in found["experiments"]} == {"done"}
    code, out, err = benchmarked("run", "--plan", plan, "--json")
    assert {row["run_id"] for row in json.loads(out)} == {row["run_id"] for row in found["experiments"]}
    assert "logistic" not in err  # nothing was done again


def test_exit_codes_tell_what_failed(benchmarked, plan, monkeypatch):
    plan.write_text(PLAN + CONFOUNDED)
    code, _, err = benchmarked("run", "--plan", plan)
    assert code == 2
    assert "FAILED: confounded (label = sample)" in err
    assert "Not done: confounded" in err
    code, out, _ = benchmarked("status", "--plan", plan)
    assert "4 done, 1 failed, 0 to do" in out
    assert "! 1 failed: confounded (label = sample)" in out

    def broken(*args, **kwargs):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(evaluate, "make_strategy", broken)
    plan.write_text(PLAN.replace("folds = 2", "folds = 3"))
    assert benchmarked("run", "--plan", plan)[0] == 1


def test_ctrl_c_says_how_to_go_on(benchmarked, plan, monkeypatch, settings):
    perform = runner.perform

    def interrupted(task):
        if list(runs(settings.results)):
            raise KeyboardInterrupt
        return perform(task)

    monkeypatch.setattr(runner, "perform", interrupted)
    code, _, err = benchmarked("run", "--plan", plan)
    assert code == 130
    assert "Stopped: 1 of 4 experiments are recorded. The same command goes on with the others." in err
    assert (settings.results / "scores.parquet").is_file()
    monkeypatch.undo()


def test_flags_ask_what_a_plan_asks(benchmarked, tmp_path, settings):
    path = tmp_path / "three.h5ad"
    simulate(n_cells=120, n_genes=250, n_samples=6, n_datasets=3, n_studies=3, effect=2.0).write_h5ad(path)
    words = ("--data", path, "--model", "hvg-pca", "--head", "mlp", "--protocol", "cross-data", "--split-by", "study")
    more = ("--shots", "0", "--shots", "2", "--option", "mlp.epochs=3", "--facet", "tissue", "--seed", "4")
    code, out, err = benchmarked("run", *words, *more, "--json")
    assert code == 0, err
    assert {row["shots"] for row in json.loads(out)} == {0, 2}
    asked = [one.experiment for one in runs(settings.results)]
    assert {(one.options, one.reserve, one.facet_value, one.seed) for one in asked} == {
        ((("epochs", 3),), 2, "Tumor tissue", 4)
    }


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "Nothing was asked. Give --data and --model, or --plan"),
        (("--plan", "none.toml"), "The plan 'none.toml' cannot be read"),
        (("--plan", "PLAN", "--model", "hvg"), "--model does not go with --plan."),
        (("--plan", "PLAN", "--data", "nowhere"), "There is no folder 'nowhere'."),
        (("--plan", "PLAN", "--data", "a", "--data", "b"), "--data was given 2 times."),
        (("--data", "gse149214", "--model", "hvgg"), "models.1 = 'hvgg': There is no model called 'hvgg'."),
        (("--data", "gse149214", "--model", "hvg", "--option", "epochs=3"), "'epochs' does not say whose it is."),
        (("--data", "gse149214", "--model", "hvg", "--workers", "many"), "The cells of data set 'gse149214' are not"),
        (("--plan", "PLAN", "--workers", "many"), "workers='many' is neither a number of processes"),
    ],
)
def test_what_cannot_be_run_is_one_line(benchmarked, plan, words, said):
    code, _, err = benchmarked("run", *(plan if word == "PLAN" else word for word in words))
    assert code == 2
    assert said in err
    assert len(err.strip().splitlines()) == 1


def test_a_terminal_sees_a_table_that_counts(plan, settings):
    grid = Grid.from_plan(read_plan(plan), settings)
    watch = watching.Watch(grid.experiments, TimeEstimate.from_summaries(grid.summaries))
    watch.console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with watch.shown() as live:
        run_grid(grid.experiments[:1], grid.summaries, settings, ended=watch.ended)
        assert live is not None
    drawn = Console(file=io.StringIO(), width=120)
    drawn.print(watch.table())
    text = drawn.file.getvalue()
    assert "Experiments: 1/4" in text
    assert "constant + constant, freeze, pooled by cell, seed 0, simulated-toy" in " ".join(text.split())
    assert [line.split()[-3:] for line in text.splitlines() if line.startswith("constant  ")] == [["1", "0", "1"]]
