from __future__ import annotations

import json
import shutil

import anndata as ad
import numpy as np
import polars as pl
import pynndescent
import pytest

from scdrugmap.data.io.read import read_h5ad
from scdrugmap.data.simulate import simulate
from scdrugmap.errors import Cancelled, InvalidInput, ReferenceMissing
from scdrugmap.prediction import output, pipeline, projection
from scdrugmap.prediction.pipeline import STAGES, predict, predict_file, summary, to_table
from scdrugmap.prediction.projection import MIN_CELLS, project
from scdrugmap.prediction.summary import sample_column, share_interval

MODEL = "hvg-pca"


@pytest.fixture(scope="module")
def _predicted():
    return predict(simulate(n_cells=90, n_genes=600, n_samples=4, seed=3), MODEL)


@pytest.fixture
def predicted(_predicted):
    """90 simulated cells of 4 samples with labels, predicted; a copy."""
    return _predicted.copy()


@pytest.fixture
def upload(tmp_path, cells):
    """The simulated cells as a file, without labels."""
    del cells.obs["response"]
    path = tmp_path / "upload.h5ad"
    cells.write_h5ad(path)
    return path


def test_every_cell_gets_a_probability_a_novelty_and_a_place(cells):
    counts, names = cells.X.copy(), list(cells.obs_names)
    given = cells.obs["response"].astype(str).tolist()
    assert predict(cells, MODEL) is cells
    obs = cells.obs
    assert obs["p_resistant"].dtype == np.float32
    assert obs["novelty"].dtype == np.float32
    assert obs["novel"].dtype == bool
    for column in ("p_resistant", "novelty"):
        assert obs[column].between(0, 1).all()
    assert ((obs["response"] == "resistant") == (obs["p_resistant"] >= 0.5)).all()
    assert obs["response_given"].astype(str).tolist() == given
    assert cells.obsm[f"X_{MODEL}"].shape == (120, 50)
    assert cells.obsm["X_umap"].shape == (120, 2)
    assert np.isfinite(cells.obsm["X_umap"]).all()
    assert (counts != cells.X).nnz == 0
    assert list(cells.obs_names) == names


def test_a_cells_prediction_depends_on_that_cell_alone(predicted):
    some = predict(simulate(n_cells=90, n_genes=600, n_samples=4, seed=3)[[5, 80, 41]], MODEL)
    for column in ("p_resistant", "novelty"):
        np.testing.assert_allclose(some.obs[column], predicted.obs[column].iloc[[5, 80, 41]], atol=1e-5)


@pytest.mark.parametrize("n", [1, 2, 3, 10, MIN_CELLS - 1, MIN_CELLS, MIN_CELLS + 1])
def test_few_cells_are_enough(cells, n):
    few = predict(cells[:n].copy(), MODEL)
    assert few.obsm["X_umap"].shape == (n, 2)
    assert np.isfinite(few.obsm["X_umap"]).all()
    found = summary(few)
    assert found["n_cells"] == n
    assert 0 <= found["resistant"]["low"] <= found["resistant"]["share"] <= found["resistant"]["high"] <= 1
    assert to_table(few).height == n


def test_the_same_cells_give_the_same_map(predicted):
    again = predict(simulate(n_cells=90, n_genes=600, n_samples=4, seed=3), MODEL)
    np.testing.assert_array_equal(again.obsm["X_umap"], predicted.obsm["X_umap"])
    assert (again.obs["cluster"] == predicted.obs["cluster"]).all()


def test_an_earlier_prediction_is_no_label(predicted):
    before = predicted.obs["response_given"].tolist()
    again = predict(predicted, MODEL)
    assert again.obs["response_given"].tolist() == before
    del again.obs["response_given"]
    assert summary(predict(again, MODEL))["metrics"] == {}


def test_a_view_is_copied_and_not_written_into(cells):
    view = cells[:20]
    result = predict(view, MODEL)
    assert "p_resistant" in result.obs
    assert "p_resistant" not in cells.obs


def test_an_anndata_that_did_not_come_through_the_door_is_checked_first(cells):
    raw = ad.AnnData(cells.X.copy(), obs=cells.obs[["sample"]].copy(), var=cells.var[[]].copy())
    logged = raw.copy()
    total = np.asarray(logged.X.sum(axis=1))
    logged.X = logged.X.multiply(1e4 / total).tocsr().astype(np.float32).log1p()
    kept = logged.X.copy()
    predict(raw, MODEL)
    predict(logged, MODEL)
    np.testing.assert_allclose(logged.obs["p_resistant"], raw.obs["p_resistant"], atol=2e-3)
    assert (kept != logged.X).nnz == 0
    assert logged.uns["scdrugmap"]["prediction"]["input"]["value_type"] == "log1p"
    negative = raw.copy()
    negative.X = negative.X - negative.X.multiply(2)
    with pytest.raises(InvalidInput):
        predict(negative, MODEL)


def test_an_error_leaves_the_cells_as_they_were(cells):
    before = cells.copy()

    def stop(stage):
        if stage == "map":
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        predict(cells, MODEL, on_stage=stop)
    with pytest.raises(ReferenceMissing, match="no reference called 'other'"):
        predict(cells, MODEL, reference="other")
    with pytest.raises(InvalidInput, match="no obs column called 'donor'"):
        predict(cells, MODEL, sample="donor")
    with pytest.raises(InvalidInput, match="no cells"):
        predict(cells[:0].copy(), MODEL)
    assert list(cells.obs.columns) == list(before.obs.columns)
    assert not cells.obsm
    assert cells.uns["scdrugmap"].keys() == before.uns["scdrugmap"].keys()


def test_genes_that_no_model_knows_are_refused(cells):
    cells.var_names = [f"gene{number}" for number in range(cells.n_vars)]
    with pytest.raises(InvalidInput, match="knows 0 of the"):
        predict(cells, MODEL)


def test_stages_and_progress_are_told_in_order(upload):
    stages, seen = [], []
    predict_file(
        upload, upload.with_suffix(".csv"), model=MODEL, on_stage=stages.append, progress=lambda *at: seen.append(at)
    )
    assert tuple(stages) == STAGES
    assert seen[-1] == (120, 120)


def test_provenance_says_where_every_number_comes_from(predicted):
    found = predicted.uns["scdrugmap"]["prediction"]
    assert found["model"] == MODEL
    assert found["weights_hash"].startswith("sha256:")
    assert found["held_out"]["metric"] == "auroc_within"
    assert found["held_out"]["low"] <= found["held_out"]["value"] <= found["held_out"]["high"]
    assert found["held_out"]["constant"] == 0.5
    assert found["simulated"] is True
    assert found["sample_column"] == "sample"
    assert found["n_cells_in_reference"] == 0
    assert len(found["trained_on"]) >= 2
    assert "Research use only" in found["use"]
    assert predicted.uns["scdrugmap"]["embedding"][f"X_{MODEL}"]["weights"] == found["weights_hash"]


def test_the_h5ad_opens_in_scanpy_and_holds_everything(upload, tmp_path):
    target = tmp_path / "out.h5ad"
    made = predict_file(upload, target, model=MODEL)
    back = ad.read_h5ad(target)
    np.testing.assert_array_equal(back.obs["p_resistant"], made.obs["p_resistant"])
    assert back.obs["p_resistant"].dtype == np.float32
    assert back.obs["novel"].dtype == bool
    np.testing.assert_array_equal(back.obsm["X_umap"], made.obsm["X_umap"])
    assert (back.X != ad.read_h5ad(upload)[:, back.var_names].X).nnz == 0
    assert back.uns["scdrugmap"]["prediction"]["reference"] == made.uns["scdrugmap"]["prediction"]["reference"]
    assert summary(back) == summary(made)
    again = predict(read_h5ad(target), MODEL)  # a file of ours is an upload like any other
    np.testing.assert_allclose(again.obs["p_resistant"], made.obs["p_resistant"], atol=1e-5)


def test_the_csv_has_one_row_per_cell_in_order(upload, tmp_path):
    target = tmp_path / "out.csv"
    made = predict_file(upload, target, model=MODEL)
    table = pl.read_csv(target, schema_overrides={"cluster": pl.String})
    assert table.columns == [
        "cell", "sample", "response", "p_resistant", "novelty", "novel", "cluster", "umap_1", "umap_2",
    ]  # fmt: skip
    assert table["cell"].to_list() == list(made.obs_names)
    np.testing.assert_allclose(table["p_resistant"], made.obs["p_resistant"], atol=1e-6)
    assert table["response"].to_list() == made.obs["response"].tolist()


def test_labels_that_came_with_the_file_are_in_the_table(predicted):
    table = to_table(predicted)
    assert table["response_given"].to_list() == predicted.obs["response_given"].astype(str).tolist()
    predicted.obs["response_given"] = [None] * 89 + ["sensitive"]
    assert to_table(predicted)["response_given"].null_count() == 89


@pytest.mark.parametrize(
    ("name", "says"),
    [("out.txt", "must end in"), ("no/such/out.csv", "no folder"), ("upload.h5ad", "input file itself")],
)
def test_an_impossible_output_is_refused_before_any_work(upload, monkeypatch, name, says):
    monkeypatch.setattr(pipeline, "read_h5ad", lambda path: pytest.fail("worked before it looked at the output"))
    content = upload.read_bytes()
    with pytest.raises(InvalidInput, match=says):
        predict_file(upload, upload.parent / name, model=MODEL)
    assert upload.read_bytes() == content


def test_the_input_is_not_overwritten_by_another_name_either(upload, tmp_path):
    link = tmp_path / "link.h5ad"
    link.symlink_to(upload)
    with pytest.raises(InvalidInput, match="input file itself"):
        predict_file(upload, link, model=MODEL)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(predicted, tmp_path, monkeypatch):
    target = tmp_path / "out.csv"
    target.write_text("old")

    def full(self, *args, **kwargs):
        args[0].write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(pl.DataFrame, "write_csv", full)
    with pytest.raises(OSError, match="no space"):
        output.write(predicted, target)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


def test_the_summary_is_json_and_scores_the_files_own_labels(predicted):
    found = json.loads(json.dumps(summary(predicted), allow_nan=False))
    assert found["resistant"]["share"] == pytest.approx((predicted.obs["response"] == "resistant").mean())
    assert found["resistant"]["unit"] == "sample"
    assert found["resistant"]["n_units"] == 4
    assert sum(row["n_cells"] for row in found["by_sample"]) == 90
    assert sum(row["n_cells"] for row in found["by_cluster"]) == 90
    sizes = [row["n_cells"] for row in found["by_cluster"]]
    assert sizes == sorted(sizes, reverse=True)
    scores = found["metrics"]["scores"]
    assert {"f1", "auroc", "brier"} <= scores.keys()
    assert scores["auroc"]["low"] <= scores["auroc"]["value"] <= scores["auroc"]["high"]
    assert scores["auroc"]["constant"] == 0.5
    assert found["metrics"]["caveat"] == ""


def test_the_headline_without_novel_cells_counts_the_others(predicted):
    predicted.obs["novel"] = [True] * 30 + [False] * 60
    found = summary(predicted)
    assert found["novel"]["share"] == pytest.approx(1 / 3)
    assert found["resistant_known"]["n_cells"] == 60
    predicted.obs["novel"] = True
    assert summary(predicted)["resistant_known"]["share"] is None


def test_labels_that_cannot_be_read_are_not_guessed(predicted):
    predicted.obs["response_given"] = np.arange(90) % 2
    assert "both ways round" in summary(predicted)["metrics"]["not_scored"]
    predicted.obs["response_given"] = "unlabelled"
    assert summary(predicted)["metrics"] == {}


def test_scores_on_cells_that_taught_the_reference_carry_a_caveat(predicted):
    predicted.uns["scdrugmap"]["prediction"]["n_cells_in_reference"] = 7
    assert "fitted on 7 of these 90 cells" in summary(predicted)["metrics"]["caveat"]


def test_cells_without_a_prediction_have_no_summary(cells):
    with pytest.raises(InvalidInput, match="carry no prediction"):
        summary(cells)


def test_an_interval_over_samples_is_wider_than_over_cells_where_samples_differ():
    flags = np.repeat([True, True, True, False, False, False], 100)
    samples = np.repeat(list("abcdef"), 100)
    over_samples, over_cells = share_interval(flags, samples), share_interval(flags)
    assert over_samples["unit"] == "sample"
    assert over_cells["unit"] == "cell"
    assert over_samples["high"] - over_samples["low"] > 3 * (over_cells["high"] - over_cells["low"])
    assert share_interval(flags, np.repeat(["a", "b"], 300))["unit"] == "cell"


def test_samples_that_all_agree_do_not_make_it_certain():
    certain = share_interval(np.ones(300, dtype=bool), np.repeat(list("abc"), 100))
    assert certain["share"] == 1
    assert certain["low"] < 0.5
    assert share_interval(np.ones(1, dtype=bool))["low"] < 0.3


def test_the_sample_column_is_found_by_its_usual_names(cells):
    obs = cells.obs.rename(columns={"sample": "orig.ident"})
    assert sample_column(obs) == "orig.ident"
    assert sample_column(cells.obs.rename(columns={"sample": "Sample"})) == "Sample"
    assert sample_column(cells.obs[["tissue"]]) is None
    assert sample_column(cells.obs, "tissue") == "tissue"


def test_many_cells_are_placed_by_their_neighbours_on_the_map(monkeypatch):
    rng = np.random.default_rng(0)
    groups = np.repeat([0, 1], 200)
    embedding = (rng.normal(size=(400, 60)) + 12 * groups[:, None]).astype(np.float32)
    monkeypatch.setattr(projection, "MAP_CELLS", 100)
    found = project(embedding, seed=0)
    assert found.n_laid_out == 100
    assert found.umap.shape == (400, 2)
    sides = [set(found.cluster[groups == group]) for group in (0, 1)]
    assert not sides[0] & sides[1]
    centres = [found.umap[groups == group].mean(axis=0) for group in (0, 1)]
    spread = max(found.umap[groups == group].std() for group in (0, 1))
    assert np.linalg.norm(centres[0] - centres[1]) > 2 * spread


def test_cells_beyond_scanpys_8192_are_laid_out_by_exact_neighbours(monkeypatch):
    def approximate(*_args, **_kwargs):
        raise AssertionError("neighbours were approximated by pynndescent")

    monkeypatch.setattr(pynndescent.NNDescent, "__init__", approximate)
    n_cells = 10_001  # UMAP takes 500 rounds up to 10,000 cells and 200 from there on
    groups = np.arange(n_cells) % 2
    embedding = (np.random.default_rng(0).normal(size=(n_cells, 4)) + 30 * groups[:, None]).astype(np.float32)
    found = project(embedding)
    assert (found.method, found.n_laid_out) == ("UMAP", n_cells)
    assert np.isfinite(found.umap).all()
    sides = [set(found.cluster[groups == group]) for group in (0, 1)]
    assert not sides[0] & sides[1]


def test_identical_cells_have_a_map_too():
    found = project(np.ones((40, 60), dtype=np.float32))
    np.testing.assert_array_equal(found.umap, 0.0)
    assert set(found.cluster) == {"0"}


def test_a_reference_folder_may_be_named(cells, settings):
    from scdrugmap.prediction.reference.fit import find_reference

    folder = shutil.copytree(find_reference(MODEL), settings.references / MODEL / "copy")
    by_path = predict(cells.copy(), MODEL, reference=folder)
    by_name = predict(cells.copy(), MODEL, reference="copy")
    np.testing.assert_array_equal(by_path.obs["p_resistant"], by_name.obs["p_resistant"])
