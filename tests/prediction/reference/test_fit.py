from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from scdrugmap.data.dedupe import cell_hashes
from scdrugmap.data.simulate import simulate
from scdrugmap.errors import InvalidInput, LabelsMissing, ReferenceMissing, UnknownName
from scdrugmap.evaluation.cells.cell_table import tabulate
from scdrugmap.evaluation.strategies.heads import make_head
from scdrugmap.models import MODELS, load_model
from scdrugmap.models.checkpoints.baseline import refit
from scdrugmap.models.core.encoder import Encoder
from scdrugmap.prediction.reference import held_out as heldout
from scdrugmap.prediction.reference.card import ReferenceCard
from scdrugmap.prediction.reference.fit import find_reference, fit_reference, load_reference, references
from scdrugmap.prediction.reference.reference import BUNDLED_REFERENCES, short

BUNDLED_MODELS = sorted(path.name for path in BUNDLED_REFERENCES.iterdir())


def cells_of(n_studies: int = 3, seed: int = 0, **options) -> list:
    """One simulated data set a study, both classes in several patients."""
    whole = simulate(
        n_cells=240, n_genes=400, n_samples=12, n_datasets=n_studies, n_studies=n_studies, seed=seed, **options
    )
    return [whole[whole.obs["dataset"] == name].copy() for name in whole.obs["dataset"].unique()]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_model("hvg-pca", device="cpu")


@pytest.fixture(scope="module")
def labelled() -> list:
    return cells_of(effect=3.0, batch=0.1)


@pytest.fixture(scope="module")
def fitted(labelled, encoder):
    return fit_reference(labelled, encoder, name="test", label_basis={"sim1": "simulated"}, notes=["a note"])


def test_the_card_says_what_it_was_trained_on(fitted, labelled, encoder):
    card = fitted.card
    truth = pd.concat([part.obs for part in labelled])
    assert card.n_cells == len(truth)
    assert card.studies == sorted(truth["study"].unique())
    assert [row["n_sensitive"] for row in card.trained_on] == [
        int((part.obs["response"] == "sensitive").sum()) for part in labelled
    ]
    for row, part in zip(card.trained_on, labelled, strict=True):
        assert row["drugs"] == sorted(part.obs["drug"].unique())
        assert row["n_samples"] == part.obs["sample"].nunique()
        assert row["label_basis"]
    assert card.encoder["weights_hash"] == encoder.weights_hash
    assert card.versions["scdrugmap"]
    assert "a note" in card.notes
    assert card.head["n_sensitive"] == card.head["n_resistant"]


def test_the_honest_number_has_an_interval_and_its_constant_value(fitted):
    held_out = fitted.card.held_out
    assert held_out["protocol"] == "leave-one-study-out"
    assert len(held_out["by_unit"]) == 3
    score = fitted.card.headline
    assert score["metric"] == "auroc_within"
    assert score["low"] <= score["value"] <= score["high"]
    assert score["constant"] == 0.5
    assert score["value"] > 0.7  # a strong program that studies share
    assert "Better than chance" in held_out["verdict"]
    f1 = held_out["scores"]["f1"]
    p = held_out["prevalence"]
    assert f1["constant"] == pytest.approx(2 * p / (1 + p))


def test_labels_without_a_program_are_not_called_better_than_chance(encoder):
    shuffled = cells_of(effect=0.0, seed=1)
    card = fit_reference(shuffled, encoder).card
    assert "Better" not in card.held_out["verdict"]
    assert card.calibration["nll_after"] < 0.75  # near ln 2: it says that it does not know


def test_no_head_sees_the_study_that_it_is_scored_on(labelled, encoder, monkeypatch):
    studies = np.concatenate([part.obs["study"].astype(str) for part in labelled])
    rows = np.arange(len(studies), dtype=np.float32)
    seen: list[tuple[set, set]] = []

    class Spy:
        def fit(self, z, labels):
            self.trained = set(studies[z[:, 0].astype(int)])
            return self

        def predict_proba(self, z):
            seen.append((self.trained, set(studies[z[:, 0].astype(int)])))
            return np.full(len(z), 0.5, dtype=np.float32)

    monkeypatch.setattr(heldout, "make_head", lambda name, seed: Spy())
    monkeypatch.setattr(heldout, "_refitted", lambda parts, encoder, train: rows[:, None])
    cells = tabulate(labelled, [cell_hashes(part) for part in labelled])
    heldout.score_held_out(labelled, cells, rows[:, None], encoder, "logistic", 0)
    assert len(seen) == 3
    assert all(trained and not trained & scored for trained, scored in seen)


def test_a_fitted_baseline_is_refitted_without_the_held_out_study(labelled, encoder, monkeypatch):
    taught = []

    def spy(encoder, adata):
        taught.append(adata.n_obs)
        return refit(encoder, adata)

    monkeypatch.setattr(heldout, "refit", spy)
    fit_reference(labelled, encoder)
    sizes = [part.n_obs for part in labelled]
    assert sorted(taught) == sorted(sum(sizes) - size for size in sizes)


@pytest.mark.parametrize(
    ("columns", "unit"),
    [(["study"], "dataset"), (["study", "dataset"], "sample"), (["study", "dataset", "sample"], "cell")],
)
def test_with_one_study_the_next_coarsest_unit_is_held_out(labelled, encoder, columns, unit):
    one = [part.copy() for part in labelled]
    for part in one:
        part.obs[columns] = "same"
    held_out = fit_reference(one, encoder).card.held_out
    assert held_out["unit"] == unit
    if unit == "cell":
        assert "leaks" in held_out["protocol"]


def test_a_class_of_a_single_line_is_called_confounded(labelled, encoder):
    lines = [part.copy() for part in labelled]
    for part in lines:
        part.obs["patient_or_line"] = "line of " + part.obs["response"].astype(str)
    card = fit_reference(lines, encoder).card
    assert all(row["confounded"] for row in card.held_out["by_unit"])
    assert "may tell lines apart" in card.held_out["verdict"]
    assert any("single patient or line" in note for note in card.notes)


def test_confounded_and_one_class_studies_stay_out_of_the_headline(labelled, encoder):
    first, second, third = (part.copy() for part in labelled)
    second.obs["patient_or_line"] = second.obs["response"].astype(str)
    third = third[third.obs["response"] == "resistant"].copy()
    card = fit_reference([first, second, third], encoder).card
    assert card.headline["units"] == [first.obs["study"].iloc[0]]
    assert any("only resistant cells" in note for note in card.notes)
    one_class = next(row for row in card.held_out["by_unit"] if row["n_classes"] == 1)
    assert "auroc" not in one_class["scores"]


def test_cells_that_two_data_sets_share_count_once(labelled, encoder):
    again = labelled[0].copy()
    again.obs["dataset"] = "again"
    both = fit_reference([*labelled, again], encoder)
    assert both.card.n_duplicates == again.n_obs
    assert both.card.n_cells == sum(part.n_obs for part in labelled)
    assert len(both.card.trained_on) == len(labelled)


def test_copies_that_carry_both_labels_teach_nothing(labelled, encoder):
    again = labelled[0][:5].copy()
    again.obs["dataset"] = "again"
    again.obs["response"] = np.where(again.obs["response"] == "resistant", "sensitive", "resistant")
    card = fit_reference([*labelled, again], encoder).card
    assert card.n_cells == sum(part.n_obs for part in labelled) - 5
    assert card.n_duplicates == 10


def test_unlabelled_cells_are_left_out(labelled, encoder):
    parts = [part.copy() for part in labelled]
    parts[0].obs["response"] = parts[0].obs["response"].astype(object)
    parts[0].obs.iloc[:7, parts[0].obs.columns.get_loc("response")] = None
    assert fit_reference(parts, encoder).card.n_cells == sum(part.n_obs for part in parts) - 7


def test_fitting_twice_gives_the_same_arrays(fitted, labelled, encoder, tmp_path):
    again = fit_reference(labelled, encoder, name="test")
    one, two = (load_file(each.save(tmp_path / str(n)) / "head.safetensors") for n, each in enumerate((fitted, again)))
    assert one.keys() == two.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], two[key])


@pytest.mark.parametrize("head", ["logistic", "mlp"])
def test_a_stored_reference_scores_as_before(labelled, encoder, tmp_path, head):
    fitted = fit_reference(labelled, encoder, head=head)
    again = load_reference(fitted.save(tmp_path / "hvg-pca" / "mine"))
    z = encoder.embed(labelled[0])
    for before, after in zip(fitted.score(z), again.score(z), strict=True):
        np.testing.assert_array_equal(before, after)
    assert again.card == fitted.card


def test_it_recognises_the_cells_that_taught_it(fitted, labelled):
    assert fitted.taught_by(labelled[1]).all()
    assert not fitted.taught_by(simulate(n_cells=50, n_genes=400, seed=99)).any()
    assert short(np.array([b"0" * 15 + b"1" + b"f" * 16])).tolist() == [1]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"weights_hash": "sha256:other"}, "weights_hash"),
        ({"recipe": 99}, "recipe 1, not 99"),
        ({"settings": {"n_genes": 7}}, r"n_genes \d+, not 7"),
        ({"model": "hvg"}, "model hvg-pca, not hvg"),
    ],
)
def test_another_encoder_is_refused(fitted, encoder, change, named):
    card = dataclasses.replace(fitted.card, encoder={**fitted.card.encoder, **change})
    with pytest.raises(InvalidInput, match=named) as caught:
        dataclasses.replace(fitted, card=card).check_encoder(encoder)
    assert "reference fit --model hvg-pca" in caught.value.remedy
    assert ("--set n_genes=7" in caught.value.remedy) == ("settings" in change)


def spoil_card(folder, **changes):
    path = folder / "card.json"
    stored = json.loads(path.read_text())
    stored.update(changes)
    path.write_text(json.dumps({key: value for key, value in stored.items() if value is not ...}, default=str))


def spoil_arrays(folder, **changes):
    arrays = load_file(folder / "head.safetensors")
    arrays.update(changes)
    save_file({key: value for key, value in arrays.items() if value is not None}, folder / "head.safetensors")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda f: (f / "card.json").unlink(), "has no card.json"),
        (lambda f: (f / "card.json").write_text("{"), "not readable as JSON"),
        (lambda f: (f / "card.json").write_text("[1]"), "schema list"),
        (lambda f: spoil_card(f, schema=7), "schema 7; this version reads schema 1"),
        (lambda f: spoil_card(f, surprise=1), "unknown .*surprise"),
        (lambda f: (f / "head.safetensors").unlink(), "has no head.safetensors"),
        (lambda f: (f / "head.safetensors").write_bytes(b"\x01" * 40), "damaged"),
        (lambda f: spoil_arrays(f, **{"novelty.points": None}), "incomplete: 'points'"),
        (lambda f: spoil_arrays(f, **{"head.weight": None}), "incomplete: 'weight'"),
        (lambda f: spoil_arrays(f, **{"head.bias": np.array([np.nan])}), "NaN or infinite values in head.bias"),
        (lambda f: spoil_card(f, encoder={"dim": 51}), "holds 50 dimensions, its card says 51"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_damaged_reference_is_refused_by_name(fitted, tmp_path, spoil, says):
    folder = fitted.save(tmp_path / "hvg-pca" / "broken")
    spoil(folder)
    with pytest.raises(InvalidInput, match=says) as caught:
        load_reference(folder)
    assert caught.value.remedy
    assert "'hvg-pca/broken" in str(caught.value)  # the page shows it: no path of the server
    assert str(tmp_path) not in str(caught.value)


def test_what_cannot_teach_is_refused(labelled, encoder):
    with pytest.raises(LabelsMissing, match="at least one"):
        fit_reference([], encoder)
    with pytest.raises(InvalidInput, match="cannot be called"):
        fit_reference(labelled, encoder, name="../evil")
    one_class = [part[part.obs["response"] == "resistant"].copy() for part in labelled]
    with pytest.raises(LabelsMissing, match="labelled cells are resistant"):
        fit_reference(one_class, encoder)
    bare = labelled[0].copy()
    del bare.obs["study"]
    with pytest.raises(LabelsMissing, match="lacks the obs columns study"):
        fit_reference([bare], encoder)
    scaled = labelled[0].copy()
    scaled.uns["scdrugmap"] = {"input": {"value_type": "zscore"}}
    with pytest.raises(InvalidInput, match="holds z-scores"):
        fit_reference([scaled], encoder)
    with pytest.raises(UnknownName, match="no head called"):
        fit_reference(labelled, encoder, head="forest")


def test_references_are_found_by_model_and_name(fitted, settings):
    bundled = find_reference("hvg-pca", settings=settings)
    fitted.save(settings.references / "hvg-pca" / "test")
    assert find_reference("hvg-pca", settings=settings) == bundled
    assert find_reference("hvg-pca", "test", settings) == settings.references / "hvg-pca" / "test"
    names = [card.name for card in references(settings, "hvg-pca")]
    assert names == [load_reference(bundled).card.name, "test"]
    assert all(isinstance(card, ReferenceCard) for card in references(settings))
    row = references(settings, "hvg-pca")[-1].to_row()
    assert row["verdict"] == fitted.card.held_out["verdict"]


def test_a_missing_reference_says_how_to_fit_one(fitted, settings):
    with pytest.raises(ReferenceMissing, match="no reference head for 'scgpt'") as caught:
        find_reference("scgpt", settings=settings)
    assert "scdrugmap reference fit --model scgpt" in caught.value.remedy
    for name in ("other", "../hvg-pca/test", ".."):
        with pytest.raises(ReferenceMissing, match="there is: "):
            find_reference("hvg-pca", name, settings)
    with pytest.raises(UnknownName):
        find_reference("nothing", settings=settings)
    for name in ("one", "two"):
        fitted.save(settings.references / "hvg" / name)
    with pytest.raises(ReferenceMissing, match="several references: one, two") as caught:
        find_reference("hvg", settings=settings)
    assert caught.value.remedy == "Name one: --reference one"


def test_saving_replaces_an_earlier_one_and_leaves_nothing_beside_it(fitted, tmp_path):
    folder = tmp_path / "hvg-pca" / "mine"
    fitted.save(folder)
    (folder / "stray").touch()
    fitted.save(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["card.json", "head.safetensors"]
    assert [path.name for path in folder.parent.iterdir()] == ["mine"]
    shutil.rmtree(folder)


@pytest.mark.parametrize("model", BUNDLED_MODELS)
def test_the_bundled_reference_fits_the_bundled_encoder(model, settings):
    reference = load_reference(find_reference(model, settings=settings))
    reference.check_encoder(load_model(model, device="cpu"))
    card = reference.card
    assert card.bundled
    assert card.model == model
    assert card.held_out["protocol"] == "leave-one-study-out"
    assert card.headline["low"] <= card.headline["value"] <= card.headline["high"]
    assert all(row["label_basis"] and row["study"] for row in card.trained_on)
    assert card.n_cells == len(reference.cells)
    assert "constant" in card.headline


def test_bundled_references_are_small_and_name_no_machine():
    assert set(BUNDLED_MODELS) <= set(MODELS)
    files = [path for path in BUNDLED_REFERENCES.rglob("*") if path.is_file()]
    assert max(path.stat().st_size for path in files) < 1_000_000  # a head and some hundred embedded cells
    assert not any(b"/work/" in path.read_bytes() or b"/home/" in path.read_bytes() for path in files)


def test_the_head_is_trained_on_balanced_classes(labelled, encoder, monkeypatch):
    from scdrugmap.prediction.reference import fit as reference

    counts = []

    def spy(name, seed):
        head = make_head(name, seed=seed)
        fit = head.fit
        head.fit = lambda z, labels: counts.append(pd.Series(labels).value_counts().to_dict()) or fit(z, labels)
        return head

    monkeypatch.setattr(reference, "make_head", spy)
    parts = [labelled[0], labelled[1][labelled[1].obs["response"] == "resistant"].copy()]
    fit_reference(parts, encoder)
    assert len(counts) == 1
    assert counts[0]["sensitive"] == counts[0]["resistant"]
