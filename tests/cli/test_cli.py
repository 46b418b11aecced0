from __future__ import annotations

import json
import sys

import anndata
import numpy as np
import polars as pl
import pytest

from scdrugmap.cli import main
from scdrugmap.data.catalog.catalog import DATASETS
from scdrugmap.data.simulate import simulate
from scdrugmap.models import MODELS


@pytest.fixture
def run(monkeypatch, capsys, settings):
    """Type a command; give back exit code, stdout and stderr."""

    def typed(*words):
        monkeypatch.setattr(sys, "argv", ["scdrugmap", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return ended.value.code or 0, printed.out, printed.err

    return typed


@pytest.fixture(scope="module")
def tumour(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "tumour.h5ad"
    cells = simulate(n_cells=60, n_samples=4, seed=3)
    del cells.obs["response"]
    cells.write_h5ad(path)
    return path


def test_models_list_is_the_registry(run):
    code, out, _ = run("models", "list", "--json")
    assert code == 0
    assert [row["model"] for row in json.loads(out)] == list(MODELS)


@pytest.mark.parametrize("key", MODELS)
def test_models_show_tells_paper_and_licence(run, key):
    code, out, _ = run("models", "show", key, "--json")
    card = json.loads(out)
    assert code == 0
    assert card["key"] == key
    assert card["weights licence"]


def test_models_check_embeds_simulated_cells(run):
    code, out, _ = run("models", "check", "scgpt-mini")
    assert code == 0
    assert "8 simulated cells x 128" in out
    assert "sha256:" in out


def test_missing_weights_are_one_line_with_the_remedy(run):
    code, _, err = run("models", "check", "scgpt")
    assert code == 2
    assert err.count("\n") == 1
    assert "best_model.pt" in err
    assert "scdrugmap models fetch scgpt" in err


def test_unknown_names_suggest_the_nearest(run):
    code, _, err = run("models", "show", "scgtp")
    assert code == 2
    assert "Did you mean 'scgpt'?" in err


def test_data_list_is_the_catalogue(run):
    code, out, _ = run("data", "list", "--json")
    assert code == 0
    assert [row["key"] for row in json.loads(out)] == list(DATASETS)


def test_data_list_filters_and_says_what_is_possible(run):
    _, out, _ = run("data", "list", "--collection", "external", "--json")
    assert {row["collection"] for row in json.loads(out)} == {"external"}
    code, _, err = run("data", "list", "--collection", "extern")
    assert code == 2
    assert "Possible: external, primary." in err


def test_data_show_prints_warnings(run):
    code, out, _ = run("data", "show", "gse164897-vemurafenib")
    assert code == 0
    assert "Melanoma" in out
    assert "! " in out


def test_data_validate_lists_the_checks(run, tumour, tmp_path):
    code, out, _ = run("data", "validate", tumour, "--json")
    assert code == 0
    assert {check["level"] for check in json.loads(out)} <= {"ok", "warning"}
    broken = tmp_path / "broken.h5ad"
    broken.write_bytes(tumour.read_bytes()[:2000])
    code, _, err = run("data", "validate", broken)
    assert code == 2
    assert err.startswith("Error: ")
    assert "Traceback" not in err


def test_embed_writes_the_embedding_and_the_second_time_reads_it(run, tumour, tmp_path):
    target = tmp_path / "embedded.h5ad"
    code, out, _ = run("embed", tumour, "--model", "scgpt-mini", "--output", target)
    assert code == 0
    assert out.strip() == str(target)
    first = anndata.read_h5ad(target)
    assert first.obsm["X_scgpt-mini"].shape == (60, 128)
    run("embed", tumour, "--model", "scgpt-mini", "--output", target)
    assert np.array_equal(anndata.read_h5ad(target).obsm["X_scgpt-mini"], first.obsm["X_scgpt-mini"])


def test_a_models_settings_are_set_by_name(run, tumour, tmp_path):
    target = tmp_path / "embedded.h5ad"
    words = ("embed", tumour, "--model", "scgpt-mini", "--output", target, "--set")
    assert run(*words, "max_length=50")[0] == 0
    assert '"max_length": 50' in anndata.read_h5ad(target).uns["scdrugmap"]["embedding"]["X_scgpt-mini"]["settings"]
    code, _, err = run(*words, "length=50")
    assert code == 2
    assert "Known: max_length" in err
    code, _, err = run(*words, "max_length")
    assert code == 2
    assert "NAME=VALUE" in err


def test_predict_writes_csv_and_h5ad_that_agree(run, tumour, tmp_path):
    table, full = tmp_path / "out.csv", tmp_path / "out.h5ad"
    assert run("predict", tumour, "--model", "scgpt-mini", "--output", table)[0] == 0
    code, out, _ = run("predict", tumour, "--model", "scgpt-mini", "--output", full, "--json")
    assert code == 0
    assert json.loads(out)
    cells, adata = pl.read_csv(table), anndata.read_h5ad(full)
    assert cells.height == adata.n_obs == 60
    np.testing.assert_allclose(cells["p_resistant"], adata.obs["p_resistant"], atol=1e-6)
    assert set(adata.obs["response"]) <= {"sensitive", "resistant"}


def test_an_impossible_output_is_refused_before_the_work(run, tumour, tmp_path):
    code, _, err = run("predict", tumour, "--output", tmp_path / "out.xlsx")
    assert code == 2
    assert ".csv or .h5ad" in err
    code, _, err = run("predict", tumour, "--output", tmp_path / "nowhere" / "out.csv")
    assert code == 2
    assert "mkdir -p" in err
    before = tumour.read_bytes()
    code, _, err = run("predict", tumour, "--output", tumour)
    assert code == 2
    assert "the input itself" in err
    assert tumour.read_bytes() == before


def test_reference_fit_makes_a_head_that_predict_uses(run, tumour, tmp_path):
    labelled = tmp_path / "labelled.h5ad"
    simulate(n_cells=160, n_samples=8, effect=1.0, seed=5).write_h5ad(labelled)
    code, out, err = run("reference", "fit", "--model", "hvg-pca", "--data", labelled, "--name", "mine")
    assert code == 0, err
    assert out.strip().endswith("hvg-pca/mine")
    _, listed, _ = run("reference", "list", "--json")
    assert "mine" in {row["name"] for row in json.loads(listed)}
    target = tmp_path / "out.csv"
    code, _, err = run("predict", tumour, "--model", "hvg-pca", "--reference", "mine", "--output", target)
    assert code == 0, err
    assert pl.read_csv(target).height == 60


def test_a_reference_goes_with_the_settings_that_it_was_fitted_with(run, tumour, tmp_path):
    labelled = tmp_path / "labelled.h5ad"
    simulate(n_cells=160, n_samples=8, effect=1.0, seed=5).write_h5ad(labelled)
    set_to = ("--set", "n_components=10")
    words = ("reference", "fit", "--model", "hvg-pca", "--data", labelled, "--name", "small")
    code, _, err = run(*words, *set_to)
    assert code == 0, err
    asked = ("predict", tumour, "--model", "hvg-pca", "--reference", "small", "--output", tmp_path / "out.csv")
    code, _, err = run(*asked)
    assert code == 2
    assert "n_components 50, not 10" in err
    assert "--set n_components=10" in err
    assert run(*asked, *set_to)[0] == 0
    code, _, err = run(*words, "--set", "nothing=1")
    assert code == 2
    assert "'hvg-pca' has no setting called 'nothing'." in err


def test_benchmark_run_prints_the_constant_beside_the_score_and_is_recorded(run, tmp_path):
    labelled = tmp_path / "labelled.h5ad"
    simulate(n_cells=120, n_samples=8, effect=1.0, seed=7).write_h5ad(labelled)
    words = ("benchmark", "run", "--data", labelled, "--model", "hvg", "--head", "logistic", "--folds", "3")
    code, out, err = run(*words, "--split-by", "sample")
    assert code == 0, err
    assert "constant" in out
    assert "AUROC" in out
    _, listed, _ = run("benchmark", "status", "--json")
    assert [row["model"] for row in json.loads(listed)] == ["hvg"]


def test_version_and_help(run):
    assert run("--version")[1].strip() == "0.1.0"
    code, out, _ = run("--help")
    assert code == 0
    assert "predict" in out
