"""Runs that differ by settings, options, weights, folds, reserve or cells are different entries, and say so."""

from __future__ import annotations

import dataclasses

import polars as pl
import pytest
from make_results import make_crossed, make_run

from scdrugmap.app.ui.board import named
from scdrugmap.errors import InvalidInput
from scdrugmap.evaluation.analysis.leaderboard import leaderboard, won
from scdrugmap.evaluation.analysis.leakage_gap import gaps
from scdrugmap.evaluation.analysis.score_matrix import score_matrix
from scdrugmap.evaluation.analysis.scores import averaged, labelled
from scdrugmap.evaluation.analysis.transfer_matrix import entries, matrix
from scdrugmap.evaluation.experiment import Experiment
from scdrugmap.evaluation.report.document import write_report
from scdrugmap.evaluation.results.store import (
    SCORES,
    build_scores,
    read_predictions,
    read_scores,
    write_run,
    write_scores,
)

BASE = Experiment("scgpt-mini", "mlp", ("simulated-a",), ("sha256:a",), weights="sha256:11112222aaaa")
SETS = ("simulated-a", "simulated-b", "simulated-c")
CROSSED = dataclasses.replace(BASE, datasets=SETS, protocol="cross-data", split_by="dataset", shots=0)
CHANGES = {
    "max_length=600": {"settings": (("max_length", 600),)},
    "epochs=20": {"options": (("epochs", 20),)},
    "weights 33334444": {"weights": "sha256:33334444bbbb"},
    "recipe 2": {"recipe": 2},
    "10 folds": {"folds": 10},
    "cells ": {"contents": ("sha256:b",)},
}


def both(root, *experiments: Experiment) -> pl.DataFrame:
    for number, experiment in enumerate(experiments):
        make = make_crossed if experiment.protocol == "cross-data" else make_run
        write_run(root, *make(experiment, 0.5 + number))
    return build_scores(root)


def predictions(root, run_id):
    return pl.read_parquet(root / "predictions" / f"{run_id}.parquet")


def test_an_experiment_tells_what_sets_it_apart():
    assert (BASE.variant, BASE.design) == ("weights 11112222", "5 folds; cells 4248d1d1")
    asked = dataclasses.replace(BASE, settings=(("variant", "V2"), ("z", None)), options=(("lr", 0.001),))
    assert asked.variant == "variant=V2; z=null; lr=0.001; weights 11112222"
    assert dataclasses.replace(BASE, weights="prompt:55556666cc").variant == "wording 55556666"
    assert dataclasses.replace(CROSSED, reserve=50, contents=()).design == "50 set aside"
    assert (Experiment("hvg", "mlp", ("a",)).variant, Experiment("hvg", "mlp", ("a",)).design) == ("", "5 folds")


@pytest.mark.parametrize(("said", "change"), CHANGES.items())
def test_runs_that_differ_are_not_averaged_and_their_names_say_by_what(tmp_path, said, change):
    scores = both(tmp_path, BASE, dataclasses.replace(BASE, **change))
    rows = averaged(scores).filter(metric="auroc")
    assert rows["seeds"].to_list() == [1, 1]
    assert set(rows["value"]) == set(scores.filter(fold="all", metric="auroc")["value"])
    labels = labelled(rows)["label"].to_list()
    assert labels[0] != labels[1]
    assert any(label.startswith(said) for label in labels)
    models = pl.DataFrame({"model": ["scgpt-mini"], "title": ["scGPT-mini"], "kind": ["model"]})
    assert set(named(rows, models)["title"]) == {
        f"scGPT-mini + MLP, {label}" if label else "scGPT-mini + MLP" for label in labels
    }


def test_seeds_of_one_variant_are_still_averaged_and_need_no_name(tmp_path):
    scores = both(tmp_path, BASE, dataclasses.replace(BASE, seed=1))
    rows = labelled(averaged(scores).filter(metric="auroc"))
    assert rows.select("seeds", "label").rows() == [(2, "")]


def test_a_leaderboard_ranks_variants_as_entries_and_takes_the_gap_within_each(tmp_path):
    other = dataclasses.replace(BASE, settings=(("max_length", 600),))
    asked = [dataclasses.replace(one, split_by=split) for one in (BASE, other) for split in ("cell", "sample")]
    board = leaderboard(both(tmp_path, *asked), "auroc", split_by="sample")
    assert board["rank"].to_list() == [1, 2]
    assert board["gap"].null_count() == 0
    found = gaps(build_scores(tmp_path), lambda run_id: predictions(tmp_path, run_id), ("auroc",), draws=20)
    assert sorted(found["variant"].to_list()) == ["max_length=600; weights 11112222", "weights 11112222"]
    assert won(build_scores(tmp_path), "auroc", split_by="sample").height == 2


def test_a_zero_shot_run_with_a_reserve_is_another_question(tmp_path):
    rows = labelled(averaged(both(tmp_path, CROSSED, dataclasses.replace(CROSSED, reserve=50))).filter(metric="f1"))
    assert rows["seeds"].to_list() == [1, 1]
    assert set(rows["label"]) == {"", "50 set aside"}


def test_a_matrix_is_of_one_variant(tmp_path):
    one = dataclasses.replace(CROSSED, train=("simulated-a",))
    other = dataclasses.replace(one, options=(("lr", 0.01),))
    scores = both(tmp_path, one, other)
    entry = {"model": "scgpt-mini", "head": "mlp", "strategy": "freeze", "shots": 0}
    with pytest.raises(
        InvalidInput, match=r"several values of variant: 'lr=0\.01; weights 11112222', 'weights 11112222'"
    ):
        matrix(scores, "auroc", simulated=True, **entry)
    assert labelled(entries(scores, simulated=True))["label"].to_list() == ["lr=0.01", ""]
    tables = [matrix(scores, "auroc", simulated=True, **entry, variant=asked.variant) for asked in (one, other)]
    assert tables[0]["value"].to_list() != tables[1]["value"].to_list()
    assert {len(table.filter(state="measured")) for table in tables} == {2}


def test_a_comparison_and_a_report_name_the_setting(settings):
    asked = [
        dataclasses.replace(BASE, datasets=(name,), contents=(name,), facet_value=name, settings=given)
        for name in SETS
        for given in ((), (("max_length", 600),))
    ]
    scores = both(settings.results, *asked)
    table = score_matrix(scores, "auroc", simulated=True, protocol="pooled", split_by="cell")
    assert set(table.names) == {"scgpt-mini + mlp", "scgpt-mini + mlp, max_length=600"}
    assert len(table.datasets) == 3
    write_scores(settings.results)
    write_report(settings.cache / "report", settings)
    text = (settings.cache / "report" / "report.md").read_text()
    assert "| scgpt-mini + mlp, max\\_length=600 |" in text or "| scgpt-mini + mlp, max_length=600 |" in text


def test_a_table_of_scores_from_before_these_columns_is_derived_anew(settings):
    both(settings.results, BASE)
    old = write_scores(settings.results).drop("variant", "design")
    old.write_parquet(settings.results / "scores.parquet")
    found = read_scores(settings).filter(source="measured")
    assert found.columns == list(SCORES)
    assert found["variant"].unique().to_list() == ["weights 11112222"]
    assert read_predictions(BASE.run_id, settings).height > 0
