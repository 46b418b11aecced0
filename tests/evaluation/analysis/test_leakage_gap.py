from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import polars as pl
import pytest
from make_results import make_predictions, make_run
from scipy import stats

from scdrugmap.evaluation.analysis.leakage_gap import GAPS, gaps, leakage_gap, over_datasets
from scdrugmap.evaluation.analysis.scores import chosen
from scdrugmap.evaluation.experiment import Experiment
from scdrugmap.evaluation.metrics import bootstrap
from scdrugmap.evaluation.results.store import build_scores, read_predictions, write_run

DRAWS = 60


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two models by cell, by sample and by study, two seeds, on two data sets; the second has no effect at all."""
    root = tmp_path_factory.mktemp("gaps")
    effects = {"cell": 1.6, "sample": 0.6, "study": 0.4}
    for dataset in ("simulated-a", "simulated-b"):
        for model, strength in (("hvg", 1.0), ("hvg-pca", 0.0)):
            for split_by, effect in effects.items():
                for seed in (0, 1) if split_by != "study" else (0,):
                    one = Experiment(
                        model, "mlp", (dataset,), split_by=split_by, facet_value=dataset, seed=seed, folds=4
                    )
                    write_run(root, *make_run(one, effect * strength))
    return root


@pytest.fixture
def runs(settings, root):
    """Settings whose results hold a copy of those runs."""
    shutil.copytree(root, settings.results)
    return settings


def table(settings, **more):
    scores = build_scores(settings.results)
    return gaps(scores, lambda run_id: read_predictions(run_id, settings), draws=DRAWS, **more)


def test_every_entry_has_its_gap_with_an_interval(runs):
    found = table(runs, metrics=("auroc", "brier"))
    assert dict(found.schema) == GAPS
    assert found.height == 2 * 2 * 2 * 2  # data sets, models, leak-safe splits, metrics
    leaking = found.filter(model="hvg")
    assert (leaking["gap"] > 0).all()  # also of the Brier score, where less is better
    assert leaking.filter(pl.col("gap").is_between("low", "high")).height == leaking.height
    assert (found.filter(model="hvg-pca")["gap"].abs() < 1e-9).all()
    assert found.filter(pl.col("split_by") == "study")["strictest"].all()
    assert not found.filter(pl.col("split_by") == "sample")["strictest"].any()
    assert set(found.filter(split_by="sample")["seeds"]) == {2}
    assert set(found.filter(split_by="study")["seeds"]) == {1}
    assert found["simulated"].all()
    assert set(found["unit"]) == {"sample"}


def test_the_gap_is_that_of_the_runs_themselves(runs):
    row = table(runs, metrics=("auroc",), model="hvg", test="simulated-a", split_by=["cell", "sample"]).row(
        0, named=True
    )
    sides = [[make_predictions(("simulated-a",), effect, seed) for seed in (0, 1)] for effect in (1.6, 0.6)]
    one = leakage_gap(*sides, ("auroc",), draws=DRAWS)[0]
    assert (row["gap"], row["low"], row["high"]) == pytest.approx((one.value, one.low, one.high))


@pytest.mark.parametrize(("chunk", "units"), [(120 * 7, 0), (4_000_000, 0)])
def test_drawing_in_parts_or_by_cell_changes_nothing(monkeypatch, chunk, units):
    sides = [[make_predictions(("simulated-a",), effect)] for effect in (1.6, 0.6)]
    whole = leakage_gap(*sides, draws=DRAWS)
    monkeypatch.setattr(bootstrap, "_CHUNK", chunk)
    monkeypatch.setattr(bootstrap, "_MOST_UNITS", units)
    for part, one in zip(leakage_gap(*sides, draws=DRAWS), whole, strict=True):
        assert dataclasses.astuple(part)[1:6] == pytest.approx(dataclasses.astuple(one)[1:6])


def test_predictions_that_are_gone_or_of_other_cells_give_a_reason(runs):
    scores = build_scores(runs.results)
    gone = scores.filter(chosen("test", "simulated-a"), split_by="cell", model="hvg", fold="all")["run_id"][0]
    (runs.results / "predictions" / f"{gone}.parquet").unlink()
    other = scores.filter(chosen("test", "simulated-b"), split_by="study", model="hvg", fold="all")["run_id"][0]
    path = runs.results / "predictions" / f"{other}.parquet"
    pl.read_parquet(path).head(100).write_parquet(path)
    found = table(runs, metrics=("auroc",), model="hvg")
    assert found["gap"].null_count() == 3
    assert found.filter(chosen("test", "simulated-a"))["reason"].str.contains("There is no run called").all()
    assert "not of the same cells" in found.filter(chosen("test", "simulated-b"), split_by="study")["reason"].item()


def test_without_both_splits_there_is_no_gap(runs):
    assert table(runs, split_by="cell").is_empty()
    assert table(runs, split_by="sample").is_empty()


def test_the_mean_gap_is_over_data_sets(runs):
    found = table(runs, metrics=("auroc",))
    two = over_datasets(found)
    assert two["sets"].to_list() == [2, 2]
    assert two["low"].null_count() == 2  # too few for an interval
    third = found.with_columns(test=pl.lit(["simulated-c"]), gap=pl.col("gap") + 0.2)
    third = third.filter("strictest").head(1)
    three = over_datasets(pl.concat([found, third])).filter(model=third["model"][0]).row(0, named=True)
    values = np.array([*found.filter(pl.col("strictest"), model=third["model"][0])["gap"], *third["gap"]])
    assert three["gap"] == pytest.approx(values.mean())
    assert (three["low"], three["high"]) == pytest.approx(stats.t.interval(0.95, 2, values.mean(), stats.sem(values)))
    assert three["above"] == (values > 0).sum()
