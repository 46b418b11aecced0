"""The strategy `prompt` of a benchmark."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from prompting_cells import CARD
from scripted_endpoint import (
    asked_cells,
    edits,
)

from scdrugmap.data.simulate import simulate
from scdrugmap.errors import ConsentMissing, InvalidInput
from scdrugmap.evaluation.cells.labelled_cells import LabelledData, load_labelled
from scdrugmap.evaluation.experiment import Experiment, sorted_options
from scdrugmap.evaluation.results.run_record import Run
from scdrugmap.evaluation.run.evaluate import evaluate
from scdrugmap.evaluation.splits.cross_validate import CrossValidation
from scdrugmap.evaluation.strategies.prompt import MAX_COST, PromptStrategy
from scdrugmap.prompting.cell_fields import cell_texts
from scdrugmap.prompting.cost import Estimate
from scdrugmap.prompting.settings import PromptSettings


@pytest.fixture
def material():
    cells = [simulate(n_cells=40, n_genes=300, n_samples=4, seed=seed) for seed in (0, 1)]
    for number, adata in enumerate(cells):
        adata.obs["dataset"] = adata.obs["study"] = f"GSE{number + 1}"
    return LabelledData.from_datasets(load_labelled(cells))


def experiment(material, **changes) -> Experiment:
    quick = {"cells_per_request": 8, "retries": 0, "connection_retries": 0, "top_k": 5, "logprobs": False}
    return Experiment(
        "gpt-4o-mini",
        "prompt",
        tuple(source.name for source in material.sources),
        tuple(source.content for source in material.sources),
        strategy="prompt",
        settings=sorted_options(quick | changes.pop("settings", {})),
        **changes,
    )


@pytest.fixture
def allowed(monkeypatch):
    monkeypatch.setenv(MAX_COST, "1")


def run(asked, material, tmp_path):
    return evaluate(asked, material, cache=tmp_path / "embeddings", device="cpu")


def estimate(asked, material, tmp_path) -> Estimate:
    folds = list(CrossValidation.from_experiment(asked, material).scored_rows())
    how = {"device": "cpu", "cache": tmp_path / "embeddings", "progress": False}
    return PromptStrategy.from_experiment(asked, material, folds=folds, **how).estimate(folds)


def test_zero_shot_is_asked_once_for_all_splits(material, endpoint, tmp_path, allowed):
    whole = experiment(material, protocol="cross-data", split_by="study", shots=0)
    done, predictions = run(whole, material, tmp_path)
    assert done.outcome.state == "done", done.outcome.reason
    n_asked = len(endpoint.asked)
    assert n_asked == 10
    assert not any("known" in body["messages"][1]["content"] for body in endpoint.asked)
    assert not any("GSE" in json.dumps(body) for body in endpoint.asked)
    assert any("without examples" in warning for warning in done.outcome.warnings)
    pooled, again = run(experiment(material, split_by="sample", folds=2), material, tmp_path)
    assert pooled.outcome.state == "done", pooled.outcome.reason
    assert len(endpoint.asked) == n_asked
    both = [frame.sort("dataset", "cell")["p_resistant"].to_list() for frame in (predictions, again)]
    assert both[0] == both[1]
    assert list((tmp_path / "prompts").glob("*/*.json"))


def test_shots_are_told_as_examples_and_only_those_of_the_target(material, endpoint, tmp_path, allowed):
    asked = experiment(material, protocol="cross-data", split_by="study", shots=2, reserve=2)
    done, _ = run(asked, material, tmp_path)
    assert done.outcome.state == "done", done.outcome.reason
    for body in endpoint.asked:
        text = body["messages"][1]["content"]
        told = text.split("Cells to judge:")[0]
        assert told.count("\nsensitive: ") == told.count("\nresistant: ") == 2
    texts = {
        source.name: {
            " ".join(text.genes) for text in cell_texts(source.adata, PromptSettings.from_card(CARD, {"top_k": 5}))
        }
        for source in material.sources
    }
    for body in endpoint.asked:
        text = body["messages"][1]["content"]
        tested = next(name for name, own in texts.items() if " ".join(asked_cells(body)["c1"]) in own)
        told = [line.split(": ")[1] for line in text.splitlines() if line.startswith(("sensitive: ", "resistant: "))]
        assert set(told) <= texts[tested]


def test_failures_count_against_the_model_and_are_counted(material, endpoint, tmp_path, allowed):
    endpoint.default = edits(lambda found: found[:4])  # half of each request is never answered
    done, predictions = run(experiment(material, folds=2), material, tmp_path)
    failed = predictions.filter(predictions["p_resistant"].is_between(0.4999, 0.5))
    assert failed.height == 40
    called = np.where(failed["p_resistant"].to_numpy() >= 0.5, "resistant", "sensitive")
    assert (called != failed["label"].to_numpy()).all()
    counted = [warning for warning in done.outcome.warnings if "count as wrong" in warning]
    assert sum(int(warning.split(": ")[1].split(" of ")[0]) for warning in counted) == 40
    part = next(part for part in done.outcome.parts if part.fold == "all")
    assert part.values["accuracy"] <= 0.5 + 1e-9


def test_a_benchmark_sends_nothing_without_a_limit(material, endpoint, tmp_path, monkeypatch):
    monkeypatch.delenv(MAX_COST, raising=False)
    done, _ = run(experiment(material), material, tmp_path)
    assert done.outcome.state == "failed"
    assert done.outcome.error == ConsentMissing.__name__
    assert "gene names" in done.outcome.reason
    assert MAX_COST in done.outcome.remedy
    for limit, reason in (("1e-9", "would cost about"), ("much", "no amount of US dollars")):
        monkeypatch.setenv(MAX_COST, limit)
        assert reason in run(experiment(material), material, tmp_path)[0].outcome.reason
    assert not endpoint.asked


def test_a_model_that_embeds_cannot_be_asked(material, endpoint, allowed):
    asked = replace(experiment(material), model="hvg")
    with pytest.raises(InvalidInput, match="'hvg' embeds cells"):
        PromptStrategy.from_experiment(asked, material, folds=(), device="cpu", cache=None, progress=False)


def test_the_estimate_counts_the_examples_of_every_fold(material, endpoint, tmp_path, allowed):
    asked = experiment(material, protocol="cross-data", split_by="study", shots=3, reserve=5)
    shown = estimate(asked, material, tmp_path)
    done, _ = run(asked, material, tmp_path)
    assert done.outcome.state == "done", done.outcome.reason
    assert shown.n_requests == len(endpoint.asked)
    assert shown.n_cells == endpoint.cells_asked() == sum(part.n for part in done.outcome.parts if part.fold == "all")
    assert "6 labelled cells (3 sensitive, 3 resistant)" in shown.sent
    plain = estimate(replace(asked, shots=0), material, tmp_path)
    assert shown.input_tokens / shown.n_requests > 1.2 * plain.input_tokens / plain.n_requests
    assert "labelled" not in plain.sent


@pytest.mark.parametrize("shots", [0, 5])
def test_where_no_fold_can_be_scored_nothing_is_asked_and_the_record_says_why(shots, endpoint, tmp_path, allowed):
    cells = [simulate(n_cells=40, n_genes=300, n_samples=4, seed=seed) for seed in (0, 1)]
    for label, adata in zip(("sensitive", "resistant"), cells, strict=True):
        adata.obs["dataset"] = adata.obs["study"] = f"only-{label}"
        adata.obs["response"] = label
    one_class = LabelledData.from_datasets(load_labelled(cells))
    asked = experiment(one_class, protocol="cross-data", split_by="dataset", shots=shots, reserve=shots)
    done, predictions = run(asked, one_class, tmp_path)
    assert (done.outcome.state, done.outcome.error, predictions) == ("failed", "LabelsMissing", None)
    assert "report it" not in done.outcome.remedy
    assert not endpoint.asked


def test_data_sets_that_are_not_tested_are_not_paid(material, endpoint, tmp_path, allowed):
    first = material.sources[0]
    asked = experiment(material, protocol="cross-data", split_by="dataset", shots=0, train=(first.name,))
    shown = estimate(asked, material, tmp_path)
    assert shown.n_cells == material.sources[1].adata.n_obs
    run(asked, material, tmp_path)
    assert endpoint.cells_asked() == shown.n_cells


def test_the_record_holds_what_was_paid_and_to_whom(material, endpoint, tmp_path, allowed):
    done, _ = run(experiment(material, folds=2), material, tmp_path)
    paid = done.environment.asked
    assert paid | {"host": endpoint.host, "requests": 10, "input_tokens": 10_000, "output_tokens": 1000} == paid
    assert paid["usd"] == pytest.approx(10 * (1000 * 0.15 + 100 * 0.6) / 1e6)
    assert any("gpt-4o-mini-2024-07-18-served" in warning for warning in done.outcome.warnings)
    again, _ = run(experiment(material, folds=2), material, tmp_path)
    assert again.environment.asked["requests"] == 0
    assert Run.from_json(done.to_json()) == done


@pytest.mark.parametrize("limit", ["nan", "-1"])
def test_a_limit_that_is_none_stops_a_benchmark(material, endpoint, tmp_path, monkeypatch, limit):
    monkeypatch.setenv(MAX_COST, limit)
    assert "no amount of US dollars" in run(experiment(material), material, tmp_path)[0].outcome.reason
    assert not endpoint.asked
