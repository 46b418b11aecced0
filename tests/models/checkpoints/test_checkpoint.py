"""What a person types over a checkpoint in upstream's layout: `models check` and `embed` with `--weights`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from places import PARITY

from scdrugmap.cli import main
from scdrugmap.models import MODELS
from scdrugmap.models.testing import cells_of_vocabulary, toy_encoder

CASES = sorted(path.parent for path in (PARITY).glob("**/case.json"))
ids = [str(case.relative_to(PARITY)) for case in CASES]


@pytest.fixture
def typed(monkeypatch, capsys, settings):
    """Type a command; give back exit code, stdout and stderr."""

    def run(*words: object) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["scdrugmap", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return ended.value.code or 0, printed.out, printed.err

    return run


def key_of(case: Path) -> str:
    return next(part for part in case.parts[::-1] if part in MODELS)


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_check_is_true_of_a_whole_checkpoint(case, typed):
    code, said, _ = typed("models", "check", key_of(case), "--weights", case / "checkpoint", "--device", "cpu")
    assert code == 0
    width = np.load(case / "expected.npz")["embedding"].shape[1]
    assert f" x {width}" in said
    assert "sha256:" in said
    assert "simulated cells" in said or "cells made up of the checkpoint's own genes" in said


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_embed_takes_a_checkpoint_and_the_file_of_its_case(case, typed, tmp_path):
    key, target = key_of(case), tmp_path / "embedded.h5ad"
    words = ("--model", key, "--weights", case / "checkpoint", "--device", "cpu", "--output", target)
    assert typed("embed", case / "input.h5ad", *words)[0] == 0
    written, expected = ad.read_h5ad(target), np.load(case / "expected.npz")["embedding"]
    assert written.obsm[f"X_{key}"].shape == expected.shape
    assert np.isfinite(written.obsm[f"X_{key}"]).all()
    made = written.uns["scdrugmap"]["embedding"][f"X_{key}"]
    assert made["weights"].startswith("sha256:")
    assert json.loads(made["settings"]).keys() == MODELS[key].settings.keys()


@pytest.mark.parametrize("key", [key for key, card in MODELS.items() if not card.prompted and card.input != "text"])
def test_made_up_cells_are_of_genes_that_the_model_knows(key, cells):
    encoder = toy_encoder(MODELS[key], cells)
    made = cells_of_vocabulary(encoder, n_cells=5, n_genes=100)
    found = encoder.coverage(made)
    assert made.shape == (5, 100)
    assert found.n_matched == 100
    assert found.n_empty == 0
    again = cells_of_vocabulary(encoder, n_cells=5, n_genes=100)
    assert (made.X != again.X).nnz == 0
    assert np.isfinite(encoder.embed(made)).all()


def test_terms_are_told_before_a_download(typed, monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    code, _, err = typed("models", "fetch", "llama3-8b")
    first, second = err.splitlines()
    assert code == 2
    assert first.startswith("Llama 3 8B's weights: Meta Llama 3 Community License. From https://huggingface.co/meta-")
    assert "16,070 MB" in first
    assert second.startswith("Error: The Hub gives meta-llama/Meta-Llama-3-8B only to accounts")
