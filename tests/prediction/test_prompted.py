"""Predict with a model that is asked: a table from a file, consent, a price, and a resume that costs nothing."""

from __future__ import annotations

import io
import json
import sys

import anndata
import numpy as np
import polars as pl
import pytest
from scripted_endpoint import KEY, edits, good, says

import scdrugmap as sdm
from scdrugmap.cli import main
from scdrugmap.data.simulate import simulate
from scdrugmap.errors import Cancelled, ConsentMissing, CostLimit, EndpointFailed, InvalidInput, UnknownName
from scdrugmap.prediction.output import to_table, write
from scdrugmap.prediction.pipeline import STAGES_ASKED, predict_file
from scdrugmap.prediction.summary import summary

MODEL = "gpt-4o-mini"
QUICK = {"connection_retries": 0, "retries": 0, "top_k": 10, "cells_per_request": 3, "logprobs": False}


@pytest.fixture(autouse=True)
def _own_cache(settings):
    """No answer is kept from one test to the next."""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("asked") / "tumour.h5ad"
    simulate(n_cells=12, n_genes=400, n_samples=4, seed=3).write_h5ad(path)
    return path


@pytest.fixture
def read(file):
    return sdm.read_h5ad(file)


def test_a_prediction_by_asking_is_whole_without_novelty(endpoint, read, tmp_path):
    stages = []
    found = sdm.predict(read, MODEL, consent=True, on_stage=stages.append, **QUICK)
    assert ("read", *stages, "write") == STAGES_ASKED
    assert found.obs["p_resistant"].dtype == np.float32
    assert found.obs["p_resistant"].between(0, 1).all()
    assert {"novelty", "novel"}.isdisjoint(found.obs)
    assert f"X_{MODEL}" not in found.obsm
    assert found.obsm["X_umap"].shape == (12, 2)
    assert "response_given" in found.obs
    told = found.uns["scdrugmap"]["prediction"]
    assert told["asked"] | {"requests": 4, "n_failed": 0, "input_tokens": 4000, "host": endpoint.host} == told["asked"]
    assert told["asked"]["usd"] == pytest.approx(4 * (1000 * 0.15 + 100 * 0.6) / 1e6)
    assert "not told" in told["novelty"]
    write(found, tmp_path / "out.h5ad")
    again = anndata.read_h5ad(tmp_path / "out.h5ad")
    assert again.uns["scdrugmap"]["prediction"]["asked"]["served"] == "gpt-4o-mini-2024-07-18-served"
    assert KEY.encode() not in (tmp_path / "out.h5ad").read_bytes()
    json.dumps(summary(again), allow_nan=False)


def test_summary_and_table_say_what_is_not_known(endpoint, read):
    endpoint.script += [says("no idea")]
    found = sdm.predict(read, MODEL, consent=True, concurrency=1, **QUICK)
    assert found.obs["p_resistant"].isna().sum() == found.obs["response"].isna().sum() == 3
    table = to_table(found)
    assert table["p_resistant"].null_count() == table["response"].null_count() == 3
    assert "novelty" not in table.columns
    told = json.loads(json.dumps(summary(found), allow_nan=False))
    assert told["n_failed"] == 3
    assert told["resistant"]["n_cells"] == 9
    assert told["novel"]["share"] is told["resistant_known"]["share"] is None
    assert sum(row["n_failed"] for row in told["by_sample"]) == 3
    assert told["by_sample"][0]["share_novel"] is None
    assert told["metrics"]["n"] == 12


def test_cells_that_all_failed_have_a_summary_too(endpoint, read):
    endpoint.default = says("no idea")
    found = sdm.predict(read, MODEL, consent=True, **QUICK)
    told = json.loads(json.dumps(summary(found), allow_nan=False))
    assert told["resistant"]["share"] is None
    assert told["by_cluster"][0]["mean_p_resistant"] is None
    assert told["metrics"]["scores"]["accuracy"]["value"] == 0.0


def test_an_earlier_predictions_novelty_does_not_stay(endpoint, read):
    first = sdm.predict(read, "hvg-pca", device="cpu")
    assert "novel" in first.obs
    given = first.obs["response_given"].copy()
    second = sdm.predict(first, MODEL, consent=True, **QUICK)
    assert {"novelty", "novel"}.isdisjoint(second.obs)
    assert second.obs["response_given"].equals(given)


def test_nothing_is_sent_without_consent(endpoint, read):
    before = read.obs.copy()
    with pytest.raises(ConsentMissing, match=r"12 cells in 4 requests.*Estimated price") as caught:
        sdm.predict(read, MODEL, **QUICK)
    assert "consent=True" in caught.value.remedy
    seen = []
    with pytest.raises(Cancelled, match="Nothing was sent"):
        sdm.predict(read, MODEL, consent=lambda estimate: bool(seen.append(estimate)), **QUICK)
    assert (seen[0].n_cells, seen[0].host) == (12, endpoint.host)
    with pytest.raises(CostLimit, match="would cost"):
        sdm.predict(read, MODEL, consent=True, max_cost=1e-9, **QUICK)
    assert not endpoint.asked
    assert read.obs.equals(before)


@pytest.mark.parametrize("given", [{"weights": "folder"}, {"reference": "mine"}])
def test_what_makes_no_sense_is_refused(endpoint, read, given):
    with pytest.raises(InvalidInput, match=f"takes no {next(iter(given))}"):
        sdm.predict(read, MODEL, consent=True, **given)


def test_a_missing_key_or_a_wrong_setting_is_said_before_the_file_is_read(endpoint, monkeypatch, tmp_path):
    with pytest.raises(UnknownName, match="no setting called 'max_length'"):
        predict_file(tmp_path / "no-such-file.h5ad", model=MODEL, max_length=5)
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(EndpointFailed, match="OPENAI_API_KEY is not set"):
        predict_file(tmp_path / "no-such-file.h5ad", model=MODEL, consent=True)


# The command line.


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def run(monkeypatch, capsys):
    def typed(*words, answer: str | None = None):
        monkeypatch.setattr(sys, "argv", ["scdrugmap", "predict", *map(str, words)])
        monkeypatch.setattr(sys, "stdin", Terminal(answer) if answer is not None else io.StringIO())
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return ended.value.code or 0, printed.out, printed.err

    return typed


def words(file, target, *more):
    quick = [word for name, value in QUICK.items() for word in ("--set", f"{name}={json.dumps(value)}")]
    return (file, "--model", MODEL, "--output", target, *quick, *more)


def test_predict_shows_what_leaves_asks_and_writes(run, endpoint, file, tmp_path):
    target = tmp_path / "out.csv"
    code, out, err = run(*words(file, target), answer="y\n")
    assert (code, out.strip()) == (0, str(target))
    assert f"To {endpoint.host}, model gpt-4o-mini-2024-07-18, goes: the names of each cell's 10" in err
    assert "Estimated price: 0.0" in err
    assert err.endswith("Requests paid: 4, for 0.0008 USD. Cells without an answer: 0 of 12.\n")
    assert pl.read_csv(target).columns[:4] == ["cell", "sample", "response_given", "response"]
    assert len(endpoint.asked) == 4
    sent = json.dumps(endpoint.asked)
    cells = anndata.read_h5ad(file)
    for name in (*cells.obs_names[:5], *cells.obs["sample"].astype(str).unique()):
        assert f'"{name}"' not in sent
        assert f" {name} " not in sent


def test_a_second_run_costs_nothing(run, endpoint, file, tmp_path):
    endpoint.script += [good, good]
    endpoint.default = edits(lambda found: found)
    assert run(*words(file, tmp_path / "a.csv"), "--yes")[0] == 0
    code, _, err = run(*words(file, tmp_path / "b.csv", "--max-cost", "0"), "--yes")
    assert code == 0
    assert "4 of them answered before" in err
    assert "Requests paid: 0, for 0.0000 USD" in err
    assert len(endpoint.asked) == 4
    both = [pl.read_csv(tmp_path / name)["p_resistant"].to_list() for name in ("a.csv", "b.csv")]
    assert both[0] == both[1]


def test_saying_no_sends_nothing(run, endpoint, file, tmp_path):
    code, _, err = run(*words(file, tmp_path / "out.csv"), answer="n\n")
    assert code == 130
    assert "Nothing was sent" in err
    assert not endpoint.asked


def test_without_a_terminal_consent_is_a_flag(run, endpoint, file, tmp_path):
    code, _, err = run(*words(file, tmp_path / "out.csv"))
    assert code == 2
    assert "add --yes" in err.splitlines()[-1]
    assert not endpoint.asked
    code, _, err = run(*words(file, tmp_path / "out.csv", "--max-cost", "0.000001"), "--yes")
    assert code == 2
    assert "--max-cost" in err.splitlines()[-1]
    assert not endpoint.asked


def test_without_a_key_it_is_one_line(run, endpoint, file, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    code, out, err = run(*words(file, tmp_path / "out.csv"), "--yes")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "export OPENAI_API_KEY" in err
