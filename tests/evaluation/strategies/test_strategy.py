"""What every strategy promises to the loop, whichever it is: `scdrugmap.evaluation.strategies.strategy` in tests.

A strategy that is new in `STRATEGY_CLASSES` is red here until `ASKED` says how it is asked and `IMPOSSIBLE` what it
refuses.
All are asked the same question, few-shot transfer between two simulated data sets, so that each has something to learn
from other cells and from the target's own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse
from scripted_endpoint import Endpoint, Handler, asked_cells, completion, edits, entry, opinion

from scdrugmap.data.simulate import simulate
from scdrugmap.errors import ScDrugMapError
from scdrugmap.evaluation.cells.labelled_cells import LabelledData, load_labelled
from scdrugmap.evaluation.experiment import STRATEGIES, Experiment, sorted_options
from scdrugmap.evaluation.splits.cross_validate import CrossValidation
from scdrugmap.evaluation.strategies.prompt import MAX_COST
from scdrugmap.evaluation.strategies.strategy import STRATEGY_CLASSES, FittedStrategy, FoldRows, Strategy, make_strategy
from scdrugmap.models import MODELS
from scdrugmap.models.testing import toy_folder

TOYS = ("scgpt", "cellplm")  # cells of the second see each other
SHORT = {"steps": 4, "checks": 2, "batch_size": 12, "hidden": 16, "lr": 1e-2, "r": 2, "alpha": 2}
QUICK = {"cells_per_request": 8, "retries": 0, "connection_retries": 0, "top_k": 5, "logprobs": False}
ASKED: dict[str, dict[str, dict[str, Any]]] = {
    "freeze": {
        "a head on embeddings": {"model": "scgpt", "head": "mlp", "options": {"epochs": 20, "hidden": 16, "lr": 1e-2}},
        "cells that see each other": {"model": "cellplm", "head": "logistic"},
        "a fitted baseline": {"model": "hvg-pca", "head": "logistic"},
    },
    "lora": {"adapters": {"model": "scgpt", "head": "mlp", "options": SHORT}},
    "prompt": {
        "examples": {"model": "gpt-4o-mini", "head": "prompt", "settings": QUICK},
        "no examples": {"model": "gpt-4o-mini", "head": "prompt", "settings": QUICK, "shots": 0},
    },
}
LEARNS_NOTHING = {"no examples"}
DRAWS_NOTHING = {"a fitted baseline", "cells that see each other", "no examples"}  # so that a seed changes nothing
IMPOSSIBLE: dict[str, dict[str, dict[str, Any]]] = {
    "freeze": {
        "a head that there is not": {"head": "forest"},
        "an option that its head has not": {"options": {"trees": 5}},
        "a model that is asked": {"model": "gpt-4o-mini"},
        "a model that there is not": {"model": "scgtp"},
    },
    "lora": {
        "a model without a network": {"model": "constant"},
        "a model without weights to adapt": {"model": "hvg-pca"},
        "a model that is asked": {"model": "gpt-4o-mini"},
        "an option that it has not": {"options": {"rank": 4}},
    },
    "prompt": {
        "a model that is not asked": {"model": "scgpt", "settings": {}},
        "a model that there is not": {"model": "gpt-4"},
        "a setting that it has not": {"settings": {"heat": 1}},
    },
}
EVERY = [pytest.param(name, how, id=f"{name}: {how}") for name in STRATEGY_CLASSES for how in ASKED.get(name, {})]
REFUSED = [
    pytest.param(name, why, id=f"{name}: {why}") for name in STRATEGY_CLASSES for why in IMPOSSIBLE.get(name, {})
]
every_strategy = pytest.mark.parametrize(("strategy", "how"), EVERY)

Make = Callable[..., Strategy]


def listens(handler: Handler, body: dict[str, Any]) -> None:
    """Answer by the cell and by all that is told before it, so that another example gives another answer."""
    told = body["messages"][-1]["content"].split("Cells to judge:\n")[0]
    found = [entry(name, opinion([told, *genes])) for name, genes in asked_cells(body).items()]
    handler.send(200, completion(body, json.dumps({"answers": found})))


@pytest.fixture(scope="module")
def pair() -> list[AnnData]:
    """Two data sets of 40 cells over the same 250 genes."""
    found = [simulate(n_cells=40, n_genes=250, n_samples=4, effect=1.0, seed=seed) for seed in (0, 1)]
    for number, adata in enumerate(found):
        adata.obs["dataset"] = adata.obs["study"] = f"GSE{number + 1}"
    return found


@pytest.fixture(scope="module")
def toys(pair: list[AnnData], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders with the weights of tiny random networks, by model."""
    root = tmp_path_factory.mktemp("toys")
    for model in TOYS:
        toy_folder(MODELS[model], pair[0], root / model)
    return {model: str(root / model) for model in TOYS}


@pytest.fixture(scope="module")
def material(pair: list[AnnData]) -> LabelledData:
    return LabelledData.from_datasets(load_labelled(pair))


@pytest.fixture(scope="module")
def sides(material: LabelledData) -> list[FoldRows]:
    """Both sides of two folds: each data set is the target once, with four of its cells a class told."""
    folds = CrossValidation.from_experiment(
        experiment("freeze", material, **ASKED["freeze"]["a fitted baseline"]), material
    )
    return list(folds.scored_rows())


@pytest.fixture
def make(
    material: LabelledData,
    sides: list[FoldRows],
    toys: dict[str, str],
    endpoint: Endpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Make:
    """Make a learner with a cache of its own: what an earlier one kept on disk does not reach it."""
    monkeypatch.setenv(MAX_COST, "1")
    endpoint.default = listens
    made: list[Strategy] = []

    def new(strategy: str, how: str, of: LabelledData = material, seed: int = 0, **other: Any) -> Strategy:
        asked = experiment(strategy, of, seed=seed, **{**ASKED[strategy][how], **other})
        cache = tmp_path / f"learner {len(made)}" / "embeddings"
        weights = toys.get(asked.model)
        made.append(make_strategy(asked, of, folds=sides, device="cpu", cache=cache, progress=False, weights=weights))
        return made[-1]

    return new


def experiment(
    strategy: str, material: LabelledData, *, settings: Any = None, options: Any = None, **more: Any
) -> Experiment:
    names = tuple(source.name for source in material.sources)
    words = {"protocol": "cross-data", "split_by": "study", "shots": 4, "reserve": 4, **more}
    chosen = {"settings": sorted_options(settings), "options": sorted_options(options)}
    return Experiment(datasets=names, strategy=strategy, **words, **chosen)


def fit(
    learner: Strategy, material: LabelledData, train: np.ndarray, labels: np.ndarray | None = None
) -> FittedStrategy:
    """Learn from rows, with every fifth to choose the epoch where that is wanted."""
    held = np.arange(len(train)) % 5 == 0 if learner.chooses_epoch else None
    return learner.fit(train, material.table.label[train] if labels is None else labels, held, fold="a fold")


def opposite(labels: np.ndarray) -> np.ndarray:
    return np.where(labels == "sensitive", "resistant", "sensitive").astype(object)


def with_other_cells(pair: list[AnnData], rows: np.ndarray, *, expression: bool) -> LabelledData:
    """The same cells, but that those in `rows` have the opposite label and, if wanted, other genes."""
    changed, start = [], 0
    for adata in pair:
        other = adata.copy()
        places = rows[(rows >= start) & (rows < start + adata.n_obs)] - start
        labels = other.obs["response"].to_numpy(object).copy()
        labels[places] = opposite(labels[places])
        other.obs["response"] = labels
        if expression:
            counts = other.X.toarray()
            counts[places] = counts[places][:, ::-1]
            other.X = sparse.csr_matrix(counts)
        changed.append(other)
        start += adata.n_obs
    return LabelledData.from_datasets(load_labelled(changed))


def test_every_strategy_is_held_to_this_contract():
    assert set(STRATEGY_CLASSES) == set(STRATEGIES) == set(ASKED) == set(IMPOSSIBLE)
    assert all(ASKED.values())
    assert all(IMPOSSIBLE.values())


@every_strategy
def test_it_gives_one_probability_for_each_row_that_is_asked_for(make, material, sides, strategy, how):
    train, test = sides[0].train, sides[0].test
    p = fit(make(strategy, how), material, train).predict(test)
    assert isinstance(p, np.ndarray)
    assert p.dtype == np.float32
    assert p.shape == test.shape
    assert np.isfinite(p).all()
    assert ((p >= 0) & (p <= 1)).all()
    assert len(np.unique(p)) > len(test) / 2  # of different cells, different things are said


@every_strategy
def test_rows_may_come_in_any_order_and_their_values_follow(make, material, sides, strategy, how):
    train, test = sides[0].train, sides[0].test
    learned = fit(make(strategy, how), material, train)
    order = np.random.default_rng(0).permutation(len(test))
    assert (order != np.arange(len(test))).any()
    np.testing.assert_allclose(learned.predict(test[order]), learned.predict(test)[order], atol=1e-6)


@every_strategy
def test_it_learns_from_the_labels_of_the_training_side_or_needs_none(make, material, sides, strategy, how):
    train, test = sides[0].train, sides[0].test
    learner = make(strategy, how)
    told, contrary = material.table.label[train], opposite(material.table.label[train])
    p = [fit(learner, material, train, labels).predict(test) for labels in (told, contrary)]
    assert (np.abs(p[0] - p[1]).max() > 1e-3) == (how not in LEARNS_NOTHING)


@every_strategy
def test_labels_of_the_test_side_are_never_looked_at(make, material, pair, sides, strategy, how):
    train, test = sides[0].train, sides[0].test
    poisoned = with_other_cells(pair, test, expression=False)
    assert (poisoned.table.label[test] != material.table.label[test]).all()
    p = [fit(make(strategy, how, of), of, train).predict(test) for of in (material, poisoned)]
    np.testing.assert_array_equal(p[0], p[1])


@pytest.mark.parametrize("how", ASKED["prompt"])
def test_a_cell_that_a_language_model_gives_no_answer_for_is_nan_whatever_its_label(
    make, material, pair, sides, endpoint, how
):
    train, test = sides[0].train, sides[0].test
    poisoned = with_other_cells(pair, test, expression=False)
    p = []
    for of in (material, poisoned):
        learner = make("prompt", how, of)
        endpoint.default = edits(lambda found: found[:4])  # half of each request is never answered
        p.append(fit(learner, of, train).predict(test))
    np.testing.assert_array_equal(p[0], p[1])
    assert 0 < np.isnan(p[0]).sum() < len(test)
    assert learner.may_abstain


@every_strategy
def test_other_cells_on_the_test_side_change_nothing_for_those_that_stay(make, material, pair, sides, strategy, how):
    train, test = sides[0].train, sides[0].test
    stay, go = test[::2], test[1::2]
    changed = with_other_cells(pair, go, expression=True)
    before, after = (fit(make(strategy, how, of), of, train) for of in (material, changed))
    np.testing.assert_array_equal(before.predict(stay), after.predict(stay))
    assert (before.predict(go) != after.predict(go)).all()  # they are other cells indeed


@every_strategy
def test_a_seed_decides_what_is_learned(make, material, sides, strategy, how):
    train, test = sides[0].train, sides[0].test
    first, again, other = (fit(make(strategy, how, seed=seed), material, train).predict(test) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first, again)
    assert np.array_equal(first, other) == (how in DRAWS_NOTHING)


@every_strategy
def test_what_is_learned_in_one_fold_does_not_reach_another(make, material, sides, strategy, how):
    (train, test), (other_train, other_test) = ((side.train, side.test) for side in sides)
    learner = make(strategy, how)
    learned = fit(learner, material, train)
    first = learned.predict(test)
    other = fit(learner, material, other_train).predict(other_test)
    np.testing.assert_array_equal(learned.predict(test), first)  # the earlier fold stays what it was
    np.testing.assert_array_equal(fit(learner, material, train).predict(test), first)
    np.testing.assert_array_equal(fit(make(strategy, how), material, other_train).predict(other_test), other)


@every_strategy
def test_it_says_for_the_record_where_and_with_what_it_ran(make, material, sides, strategy, how):
    train, test = sides[0].train, sides[0].test
    learner = make(strategy, how)
    learned = fit(learner, material, train)
    learned.predict(test)
    assert learner.device
    assert all(isinstance(word, str) for word in (learner.device, learner.precision, learner.weights))
    assert bool(learner.weights) != MODELS[ASKED[strategy][how]["model"]].fitted
    assert isinstance(learner.chooses_epoch, bool)
    assert isinstance(learner.may_abstain, bool)
    assert isinstance(learner.spent, Mapping)
    assert json.dumps(dict(learner.spent))
    assert all(isinstance(note, str) and note for note in learned.notes)


@pytest.mark.parametrize(("strategy", "why"), REFUSED)
def test_what_cannot_be_is_refused_with_what_mends_it(make, material, sides, endpoint, strategy, why):
    how = next(iter(ASKED[strategy]))
    with pytest.raises(ScDrugMapError) as refused:
        fit(make(strategy, how, **IMPOSSIBLE[strategy][why]), material, sides[0].train)
    assert str(refused.value)
    assert refused.value.remedy
    assert not endpoint.asked  # and nothing was paid before
