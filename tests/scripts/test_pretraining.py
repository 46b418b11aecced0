"""scGPT-mini's pretraining: the script learns on simulated cells, and the committed record agrees with the card."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from places import ROOT

from scdrugmap.models import MODELS, load_model
from scdrugmap.models.checkpoints.locate import home

CARD = MODELS["scgpt-mini"]


@pytest.fixture
def script(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return importlib.import_module("pretrain_scgpt_mini")


@pytest.fixture
def record() -> dict:
    return json.loads((home(CARD, Path("/nowhere")) / "pretraining.json").read_text())


def test_training_learns_repeats_itself_and_loads(script, cells, settings, tmp_path, capsys):
    genes = script.choose_genes([cells], [str(cells.var_names[3]), "NOT-A-GENE"], 200)
    assert len(genes) == 200
    assert cells.var_names[3] in genes
    plan = script.Plan(
        steps=60, seed=1, dim=16, heads=2, inner=16, layers=1, dropout=0.0, tokens_per_step=1024,
        learning_rate=1e-2, warm_up=5,
    )  # fmt: skip
    checkpoint, measured = script.pretrain([cells], genes, plan, lengths=(64,), every=1)
    by_token = [step["by_token"] for step in measured["training_loss_in_standardised_bins"]]
    by_cls = [step["by_cls"] for step in measured["training_loss_in_standardised_bins"]]
    assert np.mean(by_token[-10:]) < 0.9 * np.mean(by_token[:5])
    assert np.mean(by_cls[-10:]) < 0.9 * np.mean(by_cls[:5])
    losses = measured["validation_mse_in_squared_bins"]
    assert losses["masked_by_token"] < losses["predict_the_mean"]
    again, _ = script.pretrain([cells], genes, plan, lengths=(64,))
    assert all(torch.equal(again.tensors[name], tensor) for name, tensor in checkpoint.tensors.items())
    checkpoint.save(tmp_path / "weights")
    encoder = load_model("scgpt-mini", weights=tmp_path / "weights", device="cpu")
    assert encoder.embed(cells[:5]).shape == (5, 16)


def test_the_committed_weights_beat_predicting_a_mean(record):
    losses = record["validation_mse_in_squared_bins"]
    for objective in ("masked_by_token", "masked_by_cls"):
        assert losses[objective] < losses["predict_the_mean_of_the_gene"] < losses["predict_the_mean"]


def test_the_card_says_what_the_weights_saw(record, script):
    assert {row["accession"] for row in record["seen"]} == CARD.pretrained_accessions
    assert set(record["held_out"]) == script.HELD_OUT
    assert not script.HELD_OUT & CARD.pretrained_accessions
    assert sum(row["cells"] for row in record["seen"]) == 2888
    assert f"{2888:,} cells" in CARD.pretrained_on
    assert record["plan"] == json.loads(json.dumps(record["plan"] | vars(script.Plan())))


def test_the_vocabulary_covers_the_held_out_study(record):
    known, asked = record["held_out_genes_in_vocabulary"]
    assert known / asked > 0.95


def test_the_weights_are_small_and_finite():
    folder = home(CARD, Path("/nowhere"))
    assert sum(path.stat().st_size for path in folder.iterdir()) < 6e6
    network = load_model("scgpt-mini", device="cpu").network
    assert all(torch.isfinite(parameter).all() for parameter in network.parameters())
