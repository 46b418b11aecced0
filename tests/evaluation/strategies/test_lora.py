"""The strategy `lora` on simulated cells with a planted effect, mostly with models at toy size."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from anndata import AnnData
from scipy import sparse
from sklearn.metrics import roc_auc_score

from scdrugmap.data.simulate import simulate
from scdrugmap.errors import Cancelled, InvalidInput, LabelsMissing, UnknownName, WeightsInvalid
from scdrugmap.evaluation.cells.labelled_cells import LabelledData, load_labelled
from scdrugmap.evaluation.experiment import Experiment, sorted_options
from scdrugmap.evaluation.run.evaluate import evaluate
from scdrugmap.evaluation.strategies.lora.adapter_files import folder_of, load_adapted
from scdrugmap.evaluation.strategies.lora.fine_tune import FittedLora, LoraStrategy
from scdrugmap.evaluation.strategies.lora.train import TrainingPool
from scdrugmap.evaluation.strategies.lora.training_options import LoraOptions
from scdrugmap.models import MODELS
from scdrugmap.models.core.encoder import Encoder
from scdrugmap.models.testing import toy_encoder

QUICK = {"steps": 6, "checks": 2, "batch_size": 12, "hidden": 16, "lr": 1e-2, "r": 2, "alpha": 2}


@pytest.fixture(scope="module")
def cohort() -> AnnData:
    """Simulated cells whose first genes tell the response so loudly that a network with random weights can learn it."""
    adata = simulate(n_cells=90, n_genes=120, n_samples=6, batch=0, seed=3)
    counts, resistant = adata.X.toarray(), labels(adata) == "resistant"
    counts[np.ix_(resistant, np.arange(20))] += 30
    counts[np.ix_(~resistant, np.arange(20, 40))] += 30
    adata.X = sparse.csr_matrix(counts)
    return adata


@pytest.fixture
def encoder(cohort) -> Encoder:
    return toy_encoder(MODELS["scgpt"], cohort)


def learner(encoder: Encoder, *adatas: AnnData, cache=None, progress=False, seed=0, **options) -> LoraStrategy:
    chosen = LoraOptions.from_options(sorted_options({**QUICK, **options}))
    asked = Experiment(encoder.card.key, "mlp", ("simulated-1",), strategy="lora", seed=seed)
    return LoraStrategy(asked, TrainingPool.from_adatas(encoder, adatas, chosen, seed), chosen, cache, progress)


def labels(adata: AnnData) -> np.ndarray:
    return adata.obs["response"].to_numpy(object)


def sides(adata: AnnData) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training rows, which of them choose the step, and test rows."""
    rows = np.random.default_rng(0).permutation(adata.n_obs)
    train, test = np.sort(rows[:60]), np.sort(rows[60:])
    return train, np.arange(60) % 5 == 0, test


def fitted(one: LoraStrategy, adata: AnnData, fold: str = "0") -> FittedLora:
    train, held, _ = sides(adata)
    return one.fit(train, labels(adata)[train], held, fold=fold)


def bits(encoder: Encoder) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in encoder.network.state_dict().items()}


def test_it_learns_a_planted_effect(encoder, cohort):
    train, _, test = sides(cohort)
    before = encoder.embed(cohort)
    one = learner(encoder, cohort, steps=60, checks=4, r=8, alpha=8, hidden=64)
    learned = fitted(one, cohort)
    losses = learned.history.training
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) - 0.1
    resistant = labels(cohort) == "resistant"
    p = learned.predict(test)
    assert p.dtype == np.float32
    assert roc_auc_score(resistant[test], p) > 0.8
    share = resistant[train].mean()
    constant = -np.mean(np.log(np.where(resistant[test], share, 1 - share)))
    assert -np.mean(np.log(np.where(resistant[test], p, 1 - p))) < constant - 0.1
    np.testing.assert_array_equal(encoder.embed(cohort), before)
    state = learned.adapted.adapters.state
    assert state
    assert all(tensor.abs().max() > 0 for name, tensor in state.items() if "lora_B" in name)


def test_models_of_any_size_take_equal_steps_of_equal_batches(cohort):
    found = {}
    for key, micro in (("scgpt", 64), ("geneformer", 4096), ("cellplm", 0)):
        one = learner(toy_encoder(MODELS[key], cohort), cohort, steps=0, epochs=2, least_steps=1, micro_tokens=micro)
        history = fitted(one, cohort).history
        rows = [batch for batch, _ in zip(one.pool.batches(np.arange(48), 12), range(4), strict=False)]
        micros = [list(one.pool.micro_batches(rows[0], one.options.micro_tokens_on(torch.device("cpu"))))]
        found[key] = (history.budget, history.steps, [len(batch) for batch in rows], len(micros[0]))
    assert {one[:2] for one in found.values()} == {(8, 8)}  # 2 passes over 48 cells, 12 a step
    assert {tuple(one[2]) for one in found.values()} == {(12, 12, 12, 12)}
    assert found["scgpt"][3] > found["geneformer"][3] == found["cellplm"][3] == 1


def test_the_budget_has_a_floor_and_a_ceiling():
    options = LoraOptions(batch_size=32, epochs=3, least_steps=60, most_steps=1000)
    assert [options.budget(n) for n in (20, 3200, 10**6)] == [60, 300, 1000]
    assert dataclasses.replace(options, steps=7).budget(10**6) == 7
    assert sorted(dataclasses.replace(options, checks=4).checked(10)) == [3, 5, 8, 10]
    assert sorted(dataclasses.replace(options, checks=6).checked(3)) == [1, 2, 3]


def test_micro_batches_add_up_to_the_batch(encoder, cohort):
    one, many = (fitted(learner(encoder, cohort, dropout=0, micro_tokens=size), cohort) for size in (10**6, 1))
    np.testing.assert_allclose(many.history.training, one.history.training, atol=1e-5)
    rows = np.arange(cohort.n_obs)
    np.testing.assert_allclose(many.predict(rows), one.predict(rows), atol=1e-3)


def test_checkpointing_changes_memory_only(encoder, cohort):
    one, other = (fitted(learner(encoder, cohort, gradient_checkpointing=on), cohort) for on in (False, True))
    np.testing.assert_allclose(other.history.training, one.history.training, atol=1e-5)


def test_a_seed_decides_all_and_global_generators_nothing(encoder, cohort):
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    first = fitted(learner(encoder, cohort, seed=4), cohort)
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002
    state, legacy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    again = fitted(learner(encoder, cohort, seed=4), cohort)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state()[1], legacy)  # noqa: NPY002
    assert again.history == first.history
    rows = np.arange(cohort.n_obs)
    np.testing.assert_array_equal(again.predict(rows), first.predict(rows))
    assert fitted(learner(encoder, cohort, seed=5), cohort).history != first.history


def test_folds_do_not_reach_each_other(encoder, cohort):
    train, held, test = sides(cohort)
    untouched = bits(encoder)
    one = learner(encoder, cohort)
    first = fitted(one, cohort)
    before = first.predict(test)
    flipped = np.where(labels(cohort)[train] == "resistant", "sensitive", "resistant").astype(object)
    second = one.fit(train, flipped, held, fold="1")
    np.testing.assert_array_equal(first.predict(test), before)
    alone = learner(encoder, cohort).fit(train, flipped, held, fold="1")
    np.testing.assert_array_equal(second.predict(test), alone.predict(test))
    assert np.abs(second.predict(test) - before).max() > 1e-3
    assert bits(encoder) == untouched
    assert not encoder.network.training
    assert not any("lora" in name for name, _ in encoder.network.named_modules())


def test_cancelling_leaves_the_encoder_as_it_was(encoder, cohort, tmp_path):
    def stop(done: int, total: int) -> None:
        seen.append((done, total))
        if done == 3:
            raise Cancelled("stopped")

    untouched, seen = bits(encoder), []
    with pytest.raises(Cancelled):
        fitted(learner(encoder, cohort, progress=stop, cache=tmp_path / "embeddings"), cohort)
    assert seen == [(1, 6), (2, 6), (3, 6)]
    assert bits(encoder) == untouched
    assert not any("lora" in name for name, _ in encoder.network.named_modules())
    assert list(tmp_path.iterdir()) == []


def test_the_step_with_the_lowest_validation_loss_is_kept(encoder, cohort):
    learned = fitted(learner(encoder, cohort, steps=40, checks=20, patience=0, lr=0.03), cohort)
    history = learned.history
    assert history.chosen == history.checked[int(np.argmin(history.validation))]
    assert history.chosen < history.steps == 40
    assert any(f"step {history.chosen} of 40 is kept" in note for note in learned.notes)
    shorter = fitted(learner(encoder, cohort, steps=40, checks=20, patience=2, lr=0.03), cohort)
    waited = [step for step in shorter.history.checked if step > shorter.history.chosen]
    assert len(waited) == 2
    assert shorter.history.steps == waited[-1] < 40
    assert any(f"training ended at {waited[-1]}" in note for note in shorter.notes)


def test_dropout_is_on_in_training_and_off_in_prediction(encoder, cohort):
    rows = np.arange(cohort.n_obs)
    learned = fitted(learner(encoder, cohort, dropout=0.9), cohort)
    np.testing.assert_array_equal(learned.predict(rows), learned.predict(rows))
    without = fitted(learner(encoder, cohort, dropout=0.0), cohort)
    assert learned.history.training[0] == pytest.approx(without.history.training[0], abs=1e-6)  # B is zero yet
    assert learned.history.training != without.history.training


def test_without_a_validation_part_the_last_step_stays(encoder, cohort):
    train, _, _ = sides(cohort)
    one = learner(encoder, cohort)
    for nobody in (None, np.zeros(len(train), dtype=bool)):
        learned = one.fit(train, labels(cohort)[train], nobody, fold="7")
        assert learned.history.chosen == learned.history.steps == learned.history.budget == 6
        assert learned.history.validation == ()
        assert "fold 7: step 6 of 6 is kept, the last, as no validation part chooses" in learned.notes
    assert any(note == "short training: under 500 steps of 12 cells" for note in learned.notes)


def test_one_class_cannot_be_learned(encoder, cohort):
    train = np.flatnonzero(labels(cohort) == "resistant")
    with pytest.raises(LabelsMissing):
        learner(encoder, cohort).fit(train, labels(cohort)[train], None, fold="0")


def test_a_training_that_diverges_says_so(encoder, cohort):
    untouched = bits(encoder)
    with pytest.raises(InvalidInput, match=r"The training diverged: after \d steps the loss is (nan|inf)") as caught:
        fitted(learner(encoder, cohort, lr=1e30), cohort)
    assert "lower lr" in caught.value.remedy
    assert bits(encoder) == untouched


def test_memory_that_ends_is_named_with_what_helps(encoder, cohort, monkeypatch):
    one, untouched = learner(encoder, cohort), bits(encoder)

    def full(batch: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(one.pool.encoder, "forward", full)
    with pytest.raises(InvalidInput, match="does not hold the training of a micro-batch") as caught:
        fitted(one, cohort)
    assert "gradient_checkpointing=true" in caught.value.remedy
    assert bits(encoder) == untouched


def test_bfloat16_is_a_choice(encoder, cohort):
    one = learner(encoder, cohort, precision="bfloat16", steps=2)
    assert (one.precision, encoder.precision) == ("bfloat16", "float32")
    exact = fitted(learner(encoder, cohort, steps=2), cohort)
    drift = np.abs(fitted(one, cohort).predict(np.arange(90)) - exact.predict(np.arange(90))).max()
    assert 0 < drift < 0.05
    assert learner(encoder, cohort).precision == "float32"


@pytest.mark.gpu
def test_a_gpu_trains_in_bfloat16_and_keeps_its_generator(encoder, cohort):
    encoder.network.to("cuda")
    encoder.device = torch.device("cuda")
    state = torch.cuda.get_rng_state()
    one = learner(encoder, cohort)
    learned = fitted(one, cohort)
    assert (one.device, one.precision) == ("cuda", "bfloat16")
    assert learned.history.steps == 6
    assert np.isfinite(learned.predict(np.arange(cohort.n_obs))).all()
    assert torch.equal(torch.cuda.get_rng_state(), state)


def test_adapters_are_kept_and_read_back(encoder, cohort, tmp_path):
    one = learner(encoder, cohort, cache=tmp_path / "embeddings")
    learned = fitted(one, cohort, fold="study A/b")
    folder = folder_of(tmp_path / "embeddings", one.experiment.run_id, "study A/b")
    assert folder.parent == tmp_path / "adapters" / one.experiment.run_id
    names = {"adapter_model.safetensors", "adapter_config.json", "head.safetensors", "card.json"}
    assert names == {path.name for path in folder.iterdir()}
    card = json.loads((folder / "card.json").read_text())
    assert (card["model"], card["weights"]) == ("scgpt", encoder.weights_hash)
    assert (card["run_id"], card["fold"]) == (one.experiment.run_id, "study A/b")
    assert card["history"]["training"] == list(learned.history.training)
    assert card["options"]["steps"] == card["history"]["budget"] == 6
    assert card["history"]["n_validation"] == 12
    assert card["versions"]["peft"]
    again = load_adapted(folder, toy_encoder(MODELS["scgpt"], cohort))
    np.testing.assert_allclose(again.predict(cohort), learned.predict(np.arange(cohort.n_obs)), rtol=0, atol=1e-6)
    fitted(one, cohort, fold="study A/b")  # once more, in the same place
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_kept_adapters_go_with_their_encoder_only(encoder, cohort, tmp_path):
    one = learner(encoder, cohort, cache=tmp_path / "embeddings")
    fitted(one, cohort)
    folder = folder_of(tmp_path / "embeddings", one.experiment.run_id, "0")
    for other, word in (
        (toy_encoder(MODELS["scgpt"], cohort, seed=1), "weights"),
        (toy_encoder(MODELS["geneformer"], cohort), "model"),
        (toy_encoder(MODELS["scgpt"], cohort, max_length=50), "settings"),
    ):
        with pytest.raises(WeightsInvalid, match=f"were trained with {word}"):
            load_adapted(folder, other)
    head = folder / "head.safetensors"
    head.write_bytes(head.read_bytes()[:40])
    with pytest.raises(WeightsInvalid, match=r"The head in .* cannot be read"):
        load_adapted(folder, encoder)
    (folder / "card.json").write_text('{"schema": 99}')
    with pytest.raises(WeightsInvalid, match="not of schema 1"):
        load_adapted(folder, encoder)
    (folder / "card.json").write_text("{")
    with pytest.raises(WeightsInvalid, match="is no JSON"):
        load_adapted(folder, encoder)
    with pytest.raises(WeightsInvalid, match=r"card\.json is missing"):
        load_adapted(tmp_path, encoder)


def test_a_full_disk_costs_the_adapters_and_not_the_result(encoder, cohort, tmp_path):
    (tmp_path / "adapters").write_text("in the way")
    learned = fitted(learner(encoder, cohort, cache=tmp_path / "embeddings"), cohort)
    assert "the adapters of fold 0 could not be kept" in learned.notes
    assert np.isfinite(learned.predict(np.arange(5))).all()


def test_folds_have_folders_of_their_own():
    names = ["0", "GSE1", "a b", "a_b", "a/b", "..", ".", "../x", "primary -> external"]
    folders = [folder_of(Path("c/embeddings"), "run", name) for name in names]
    assert len(set(folders)) == len(names)
    assert all(folder.parent == Path("c/adapters/run") for folder in folders)
    assert folders[:2] == [Path("c/adapters/run/0"), Path("c/adapters/run/GSE1")]


def test_data_sets_keep_their_own_genes(cohort):
    first, second = cohort[:50, :100].copy(), cohort[50:, 20:].copy()
    encoder = toy_encoder(MODELS["scgpt"], cohort)
    pool = learner(encoder, first, second).pool
    assert pool.source.tolist() == [0] * 50 + [1] * 40
    expected = np.concatenate([encoder.embed(first), encoder.embed(second)])
    np.testing.assert_allclose(pool.embed(np.arange(90)), expected, atol=2e-5)
    np.testing.assert_allclose(pool.embed(np.array([70, 3])), expected[[70, 3]], atol=2e-5)


def test_cells_that_see_each_other_are_of_one_side_and_one_set(cohort):
    encoder = toy_encoder(MODELS["cellplm"], cohort)
    one = learner(encoder, cohort[:50].copy(), cohort[50:].copy())
    train = np.arange(0, 90, 2)
    batches = one.pool.batches(train, 12)
    epoch = [next(batches) for _ in range(5)]  # 25 cells of the one set and 20 of the other, 12 at most together
    assert sorted(np.concatenate(epoch).tolist()) == train.tolist()
    assert all(len(set(one.pool.source[batch])) == 1 and len(batch) <= 12 for batch in epoch)
    learned = fitted(one, cohort)
    test = sides(cohort)[2]
    shuffled = np.random.default_rng(1).permutation(len(test))
    np.testing.assert_allclose(learned.predict(test[shuffled]), learned.predict(test)[shuffled], atol=1e-5)


def test_options_are_checked_before_anything_is_loaded(cohort):
    of = LabelledData.from_datasets(load_labelled([cohort]))
    for options, error, said in (
        ({"rank": 3}, UnknownName, "has no option 'rank'"),
        ({"r": 0}, InvalidInput, "r=0"),
        ({"steps": 2.5}, InvalidInput, "steps=2.5"),
        ({"batch_size": True}, InvalidInput, "batch_size=True"),
        ({"lr": 0}, InvalidInput, "lr=0"),
        ({"lr": float("nan")}, InvalidInput, "lr=nan"),
        ({"dropout": 1}, InvalidInput, "dropout=1"),
        ({"precision": "float16"}, InvalidInput, "precision='float16'"),
        ({"gradient_checkpointing": 1}, InvalidInput, "gradient_checkpointing=1"),
    ):
        asked = Experiment("scgpt", "mlp", ("simulated-1",), strategy="lora", options=sorted_options(options))
        with pytest.raises(error, match=said) as caught:
            LoraStrategy.from_experiment(asked, of, folds=(), device="cpu", cache=None, progress=False)
        assert caught.value.remedy


@pytest.mark.parametrize("model", ["constant", "hvg-pca"])
def test_a_model_that_lora_cannot_adapt_is_a_failed_run(model, cohort):
    of = LabelledData.from_datasets(load_labelled([cohort]))
    run, predictions = evaluate(Experiment(model, "mlp", ("simulated-1",), strategy="lora"), of)
    assert (run.outcome.state, run.outcome.error, predictions) == ("failed", "InvalidInput", None)
    assert "LoRA could adapt" in run.outcome.reason


def test_an_experiment_with_the_bundled_model(cohort, settings):
    of = LabelledData.from_datasets(load_labelled([cohort]))
    asked = Experiment(
        "scgpt-mini",
        "mlp",
        ("simulated-1",),
        strategy="lora",
        split_by="sample",
        folds=2,
        settings=sorted_options({"max_length": 32}),
        options=sorted_options(QUICK),
    )
    run, predictions = evaluate(asked, of, cache=settings.embeddings, device="cpu")
    assert run.outcome.state == "done", run.outcome.reason
    assert predictions.height == run.outcome.n_cells
    assert predictions["p_resistant"].is_between(0, 1).all()
    assert (run.environment.device, run.environment.precision) == ("cpu", "float32")
    assert run.environment.weights.startswith("sha256:")
    kept = settings.cache / "adapters" / run.run_id
    assert sorted(path.name for path in kept.iterdir()) == ["0", "1"]
    assert sum(note.startswith("fold ") for note in run.outcome.warnings) == 2
    assert sum(note.startswith("short training") for note in run.outcome.warnings) == 1  # and not once a fold
