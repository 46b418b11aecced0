"""What a plan lacks is said before it is run: cells, weights, consent, and what it would cost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from places import ROOT

from scdrugmap.data.catalog.catalog import cell_count
from scdrugmap.evaluation.cells.dataset_summary import DatasetSummary
from scdrugmap.evaluation.experiment import BASELINES, Experiment
from scdrugmap.evaluation.plan.compute_cost import BACKWARD, estimate, work
from scdrugmap.evaluation.plan.plan_file import read_plan
from scdrugmap.evaluation.results.store import runs
from scdrugmap.evaluation.strategies.lora.training_options import LoraOptions
from scdrugmap.models import MODELS
from scdrugmap.models.speed import speeds

PLANS = ROOT / "benchmarks" / "plans"
PLAN = """
title = "Lacking"
[data.toy]
simulate = { n_cells = 40, n_genes = 250, n_samples = 4, effect = 2.0, seed = 3 }
[[ask]]
models = ["hvg", "MODEL"]
heads = "logistic"
folds = 2
seeds = SEEDS
"""


def written(folder: Path, model: str, seeds: str = "[0]") -> Path:
    path = folder / "lacking.toml"
    path.write_text(PLAN.replace("MODEL", model).replace("SEEDS", seeds))
    return path


def test_status_of_a_paper_plan_says_all_that_a_bare_machine_lacks(benchmarked, settings, monkeypatch):
    monkeypatch.delenv("SCDRUGMAP_MAX_COST", raising=False)
    path = PLANS / "paper-cross-data-regimen.toml"
    code, out, err = benchmarked("status", "--plan", path)
    assert (code, err) == (0, "")
    assert "! 36 of the plan's 36 catalogue data sets have no cells on this machine: gse161801-pi-pre" in out
    assert f"Save each as {settings.data}/<key>.h5ad" in out
    needy = {model for ask in read_plan(path).ask for model in ask.models} - set(BASELINES) - {"gpt-4o-mini"}
    assert len(needy) == 9
    for model in needy:
        assert f"! {model} has no weights here:" in out
        assert f"scdrugmap models fetch {model}, or --weights {model}=FOLDER" in out
    assert "! gpt-4o-mini is asked over the network and costs money:" in out
    assert " h on one CPU core" in out
    code, out, _ = benchmarked("status", "--plan", path, "--json")
    found = json.loads(out)
    assert found["eta_seconds"] is None
    assert len(found["lacking"]["datasets"]) == 36
    assert set(found["lacking"]["weights"]) == needy
    assert found["to do"] == len(found["experiments"])
    assert sum(row["model"] == "scgpt" for row in found["experiments"]) == found["lacking"]["weights"]["scgpt"]


def test_a_run_without_its_cells_is_refused_in_one_line(benchmarked, settings):
    code, out, err = benchmarked("run", "--plan", PLANS / "paper-pooled-tissue.toml")
    assert (code, out) == (2, "")
    assert "36 of the plan's 36 catalogue data sets have no cells on this machine" in err
    assert "scdrugmap benchmark status --plan FILE" in err
    assert len(err.strip().splitlines()) == 1
    assert not list(runs(settings.results))


def test_missing_weights_are_said_before_the_grid_runs_and_cost_their_experiments_only(benchmarked, settings, tmp_path):
    code, _, err = benchmarked("run", "--plan", written(tmp_path, "scgpt"))
    assert code == 2
    assert err.startswith("! scgpt has no weights here: 1 experiment would be recorded as failed.")
    assert {run.experiment.model: run.outcome.state for run in runs(settings.results)} == {
        "hvg": "done", "scgpt": "failed"
    }  # fmt: skip


def test_what_was_run_before_tells_how_long_the_rest_may_take(benchmarked, tmp_path):
    plan = written(tmp_path, "constant")
    assert benchmarked("run", "--plan", plan)[0] == 0
    _, out, err = benchmarked("status", "--plan", written(tmp_path, "constant", seeds="[0, 1]"))
    assert "for what is not done, by the seconds of recorded runs; embeddings" in out
    assert "!" not in out + err
    _, out, _ = benchmarked(
        "status", "--plan", written(tmp_path, "scgpt-mini")
    )  # the baseline's seconds say nothing of it
    assert "Embedding and LoRA may take" in out


def test_work_counts_a_frozen_cell_once_and_a_trained_one_at_every_step():
    outline = DatasetSummary("ours", "ours", "sha256:a", {}, ("s",), "user", n_cells=1000)
    known = {"ours": outline}
    plain = {"datasets": ("ours",), "contents": ("sha256:a",)}
    frozen = [Experiment("scgpt", head, seed=seed, **plain) for head in ("mlp", "knn") for seed in (0, 1)]
    baseline = Experiment("hvg", "logistic", **plain)
    assert work([*frozen, baseline], known) == {("scgpt", "freeze"): 1000}
    other = Experiment("scgpt", "mlp", settings=(("max_length", 300),), **plain)
    assert work([*frozen, other], known) == {("scgpt", "freeze"): 2000}
    options = {"steps": 10, "batch_size": 8, "checks": 2}
    lora = Experiment("scgpt", "mlp", strategy="lora", folds=4, options=tuple(sorted(options.items())), **plain)
    trained, checked, tested = 10 * 8 * BACKWARD, 2 * 75, 250  # a tenth of 750 cells chooses the step
    assert work([lora], known) == {("scgpt", "lora"): 4 * (trained + checked + tested)}
    assert LoraOptions.from_options(lora.options).budget(675) == 10
    known |= {key: DatasetSummary.from_card(key) for key in ("gse149214", "gse161801-pi-pre")}
    keys = Experiment("scgpt", "mlp", ("gse149214", "gse161801-pi-pre"))
    assert work([keys], known)["scgpt", "freeze"] == cell_count(keys.datasets).total


def test_an_estimate_is_made_of_measured_speeds_and_names_what_nobody_measured():
    rate = next(one.cells_per_s for one in speeds() if (one.model, one.device) == ("scgpt", "cpu"))
    found = estimate({("scgpt", "freeze"): 3600 * rate, ("scgpt", "lora"): 7200 * rate}, on_gpu=False)
    assert found.hours == pytest.approx(3)
    assert (found.device, found.unknown) == ("one CPU core", ())
    unmeasured = next(key for key in MODELS if key not in {one.model for one in speeds()})
    assert estimate({(unmeasured, "freeze"): 1.0}, on_gpu=False).unknown == (unmeasured,)
