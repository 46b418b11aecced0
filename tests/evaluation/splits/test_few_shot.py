from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from cohorts import SAFE, cohorts, table
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from scdrugmap.data.simulate import simulate
from scdrugmap.errors import InvalidInput, LabelsMissing
from scdrugmap.evaluation.cells.labelled_cells import LabelledData, load_labelled
from scdrugmap.evaluation.experiment import Experiment
from scdrugmap.evaluation.run.evaluate import evaluate
from scdrugmap.evaluation.splits.cross_validate import CrossValidation
from scdrugmap.evaluation.splits.few_shot import FewShot, set_aside
from scdrugmap.evaluation.splits.protocols import distinct, splits

COUNTS = (0, 1, 5, 10, 50)


def folds_of(cells, protocol, split_by, seed=0, **asked):
    cells = cells.take(distinct(cells)[0]) if protocol == "pooled" else cells
    try:
        return cells, splits(cells, protocol, split_by, 3, seed, **asked)
    except (LabelsMissing, InvalidInput):
        assume(False)


@st.composite
def questions(draw):
    """A protocol with every word that it takes."""
    if draw(st.booleans()):
        return {"protocol": "pooled", "split_by": draw(st.sampled_from(["cell", *SAFE]))}
    reserve = draw(st.integers(0, 6))
    return {
        "protocol": "cross-data",
        "split_by": draw(st.sampled_from(["dataset", "study"])),
        "reserve": reserve,
        "shots": draw(st.integers(0, reserve)),
        "train": draw(st.sampled_from([(), ("0",), ("0", "1"), ("1", "2")])),
    }


@given(cohorts(), questions(), st.integers(0, 99), st.data())
@settings(max_examples=250, deadline=None)
def test_a_planted_duplicate_never_straddles_a_split(cohort, question, seed, data):
    planted = dataclasses.replace(cohort, content=cohort.content.copy(), label=cohort.label.copy())
    places = data.draw(st.lists(st.integers(0, len(cohort) - 1), min_size=2, max_size=6, unique=True))
    planted.content[places] = "planted"  # one cell under several barcodes, in any data sets, samples and studies
    planted.label[places] = planted.label[places[0]]
    cells, found = folds_of(planted, seed=seed, **question)
    for split in found:
        if split.reason:
            continue
        assert not set(cells.content[split.train]) & set(cells.content[split.test])
        assert not set(split.train) & set(split.test)
        for side in (split.train, split.test):
            assert len(set(cells.content[side])) == len(side)


@given(cohorts(), questions(), st.integers(0, 99))
@settings(max_examples=200, deadline=None)
def test_a_fold_that_is_scored_can_be_learned_and_its_units_stay_together(cohort, question, seed):
    cells, found = folds_of(cohort, seed=seed, **question)
    tested = np.concatenate([split.test for split in found])
    assert len(set(tested)) == len(tested)
    for split in found:
        if split.reason:
            continue
        assert len(split.test)
        assert set(cells.label[split.train]) == {"sensitive", "resistant"}
        learned = np.setdiff1d(split.train, split.shots)
        if question["split_by"] != "cell" and not question.get("train"):
            units = cells.units(question["split_by"])
            assert not set(units[learned]) & set(units[split.test])
        if train := question.get("train"):
            assert set(cells.dataset[learned]) <= set(train)
            assert set(cells.dataset[split.test]) == {split.name}
        if train and question["split_by"] == "study":
            assert not set(cells.study[learned]) & set(cells.study[split.test])
        if split.left_out:
            assert question["protocol"] == "cross-data"


@given(cohorts(), st.integers(1, 8), st.integers(0, 99))
@settings(max_examples=150, deadline=None)
def test_shots_are_nested_and_the_tested_cells_are_the_same_at_every_k(cohort, reserve, seed):
    cells = cohort.take(distinct(cohort)[0])
    asides = [set_aside(cells, "target", FewShot(k, reserve, seed)) for k in range(reserve + 1)]
    before: set[int] = set()
    for k, aside in enumerate(asides):
        assert aside.test.tolist() == asides[0].test.tolist()
        if aside.reason:
            assert not len(aside.shots)
            continue
        assert not set(aside.shots) & set(aside.test)
        assert before <= set(aside.shots)
        before = set(aside.shots)
        for label in ("sensitive", "resistant"):
            assert np.count_nonzero(cells.label[aside.shots] == label) == k
    for label in ("sensitive", "resistant"):
        n = np.count_nonzero(cells.label == label)
        assert 2 * np.count_nonzero(cells.label[asides[0].test] == label) >= n
    possible = [not aside.reason for aside in asides]
    assert possible == sorted(possible, reverse=True)


@given(st.integers(0, 99), st.integers(1, 10))
def test_whole_samples_are_set_aside_where_each_class_has_two(seed, reserve):
    cells = table("s" * 40 + "r" * 40, sample=[i // 10 for i in range(80)])
    aside = set_aside(cells, "target", FewShot(reserve, reserve, seed))
    assert not set(cells.sample[aside.shots]) & set(cells.sample[aside.test])
    assert len(aside.test) == 60
    assert aside.notes == ("set aside for shots: 2 whole samples (20 cells) of 'target'; 60 cells are tested",)


def test_one_sample_a_class_shares_it_with_the_tested_cells_and_says_so():
    cells = table("s" * 40 + "r" * 40, sample="a" * 40 + "b" * 40)
    aside = set_aside(cells, "target", FewShot(5, 10, 0))
    assert len(aside.test) == 60
    assert aside.notes == (
        "set aside for shots: 20 cells of 'target'; 60 cells are tested",
        "leaks: shots and tested cells of 'target' share samples",
    )


def test_samples_of_one_patient_are_named():
    cells = table("s" * 20 + "r" * 20, sample=[i // 10 for i in range(40)], patient="p" * 40)
    aside = set_aside(cells, "target", FewShot(5, 10, 0))
    assert aside.notes[1] == "leaks: shots and tested cells of 'target' share patients or lines"


def test_half_of_a_class_is_the_most():
    cells = table("s" * 9 + "r" * 100)
    assert not set_aside(cells, "target", FewShot(4, 50, 0)).reason
    short = set_aside(cells, "target", FewShot(5, 50, 0)).reason
    assert short == (
        "5 shots a class cannot be had: 4 of the 9 sensitive cells of 'target' can be set aside (at most half)."
    )


@pytest.mark.parametrize(("k", "asked"), [(0, "No shot could be had"), (1, "1 shot a class cannot be had")])
def test_a_target_of_one_class_is_no_part_of_a_curve_at_any_k(k, asked):
    aside = set_aside(table("r" * 10), "target", FewShot(k, 5, 0))
    assert aside.reason == f"{asked}: 0 of the 0 sensitive cells of 'target' can be set aside (at most half)."
    assert not set_aside(table("r" * 10), "target", FewShot()).reason


def test_another_seed_draws_other_cells():
    cells = table("sr" * 50)
    first, again, other = (set_aside(cells, "target", FewShot(5, 10, seed)) for seed in (1, 1, 2))
    assert first.shots.tolist() == again.shots.tolist() != other.shots.tolist()


def three_sets(**changes):
    columns = {"dataset": "a" * 8 + "b" * 8 + "c" * 8, "study": "x" * 16 + "y" * 8, "content": range(24)}
    return table("sr" * 12, **columns | changes)


def test_what_trains_is_the_same_for_every_test_set():
    found = splits(three_sets(), "cross-data", "dataset", 5, 0, train=("a",))
    assert [split.name for split in found] == ["b", "c"]
    assert all(split.train.tolist() == list(range(8)) for split in found)
    assert found[0].notes == ("same study: cells of study x train, and 'b' is of the same study",)
    assert found[1].notes == ()


def test_a_test_set_of_a_training_study_is_not_scored_where_studies_are_held_out():
    found = splits(three_sets(), "cross-data", "study", 5, 0, train=("a",))
    assert [split.reason for split in found] == ["Cells of study x train, and 'b' is of the same study.", ""]


def test_a_cell_of_any_test_set_does_not_train():
    content = list(range(24))
    content[8:10] = content[:2]
    content[16:18] = content[2:4]
    by_set = splits(three_sets(content=content), "cross-data", "dataset", 5, 0, train=("a",))
    assert [split.left_out for split in by_set] == [4, 4]
    by_study = splits(three_sets(content=content), "cross-data", "study", 5, 0, train=("a",))
    assert by_study[1].left_out == 2  # b is not tested, so that its cells may train


def test_shared_untreated_cells_do_not_leave_a_training_set_without_a_class():
    content = list(range(24))
    content[8:16:2] = content[:8:2]  # all sensitive cells of a stand in b
    found = splits(three_sets(content=content), "cross-data", "dataset", 5, 0, train=("a",))
    assert [split.reason for split in found] == ["The data sets that train have resistant cells only.", ""]
    assert [split.left_out for split in found] == [4, 0]
    assert found[1].train.tolist() == list(range(8))


@pytest.mark.parametrize(
    ("train", "reason"), [(("z",), "'z' is to train, but is not among"), (("a", "b", "c"), "none is left to test")]
)
def test_transfer_needs_both_sides(train, reason):
    with pytest.raises(InvalidInput, match=reason):
        splits(three_sets(), "cross-data", "dataset", 5, 0, train=train)


@dataclasses.dataclass
class Learner:
    """Gives every cell the share of resistant training cells, and remembers what it was asked."""

    fits: list[tuple[np.ndarray, np.ndarray, str]]
    device: str = "cpu"
    precision: str = "float32"
    weights: str = ""
    chooses_epoch: bool = True
    may_abstain: bool = False
    spent: dict = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def fit(self, train, labels, validation, *, fold):
        self.fits.append((train, validation, fold))
        return self

    def predict(self, rows):
        return np.full(len(rows), 0.5, dtype=np.float32)


def simulated(n_datasets=3, **options):
    plan = {"n_cells": 360, "n_genes": 250, "n_samples": 12, "n_datasets": n_datasets, "n_studies": n_datasets}
    return LabelledData.from_datasets(load_labelled([simulate(**plan | options)]))


def asked(of, **changes):
    names = tuple(source.name for source in of.sources)
    question = Experiment("hvg", "logistic", names, protocol="cross-data", split_by="dataset", shots=0)
    return dataclasses.replace(question, **changes)


def test_one_fit_serves_all_test_sets_of_one_training_side():
    of = simulated()
    outcomes = {}
    for shots in (0, 5):
        learner = Learner([])
        question = asked(of, train=("simulated-1",), shots=shots, reserve=5)
        outcomes[shots], _ = CrossValidation.from_experiment(question, of).score(learner, ())
        names = [fold for *_, fold in learner.fits]
        assert names == (["transfer"] if not shots else ["simulated-2", "simulated-3"])
    assert outcomes[0].tests == outcomes[5].tests
    assert outcomes[0].splits != outcomes[5].splits
    assert [part.fold for part in outcomes[0].parts] == [
        *("all", "dataset:simulated-2", "dataset:simulated-3", "simulated-2", "simulated-3")
    ]
    assert outcomes[0].parts[0].train == ("simulated-1",)
    assert all(part.draws for part in outcomes[0].parts)


def test_data_sets_of_one_class_train_together_with_the_others():
    cells = simulate(n_cells=360, n_genes=250, n_samples=12, n_datasets=3, n_studies=3, effect=4.0)
    dataset, label = cells.obs["dataset"].astype(str), cells.obs["response"].astype(str)
    one_class = {"simulated-2": "sensitive", "simulated-3": "resistant"}  # none of the two could teach alone
    of = LabelledData.from_datasets(
        load_labelled(
            [cells[[one_class.get(name, own) == own for name, own in zip(dataset, label, strict=True)]].copy()]
        )
    )
    for split_by in ("dataset", "study"):
        run, predictions = evaluate(asked(of, split_by=split_by), of)
        parts = {part.test: part for part in run.outcome.parts if part.n_train}
        assert {test: part.train for test, part in parts.items()} == {
            ("simulated-1",): ("simulated-2", "simulated-3"),
            ("simulated-2",): ("simulated-1", "simulated-3"),
            ("simulated-3",): ("simulated-1", "simulated-2"),
        }
        assert parts["simulated-1",].values["auroc"] > 0.9  # two sets of one class each: learned together
        assert parts["simulated-2",].values["auroc"] is None
        assert parts["simulated-2",].values["recall"] is not None
        assert set(predictions["dataset"]) == set(dataset)
    alone = evaluate(asked(of, train=("simulated-2",)), of)[0].outcome
    assert (alone.state, alone.reason) == ("failed", "The data sets that train have sensitive cells only.")


def test_shots_train_and_never_choose_the_epoch():
    of = simulated()
    learners = {shots: Learner([]) for shots in (0, 5)}
    for shots, learner in learners.items():
        CrossValidation.from_experiment(asked(of, shots=shots, reserve=5), of).score(learner, ())
    for (few, chosen, _), (none, before, _) in zip(learners[5].fits, learners[0].fits, strict=True):
        assert len(few) == len(none) + 10
        assert few[chosen].tolist() == none[before].tolist()
        assert chosen.any()


def test_models_of_one_question_share_their_splits_and_the_record_proves_it():
    of = simulated(duplicates=10)
    made = [
        evaluate(asked(of, model=model, head=head), of)[0] for model, head in (("hvg", "logistic"), ("constant",) * 2)
    ]
    assert made[0].outcome.splits == made[1].outcome.splits != ""
    assert made[0].outcome.tests == made[1].outcome.tests != made[0].outcome.splits
    elsewhere = simulated(duplicates=10, seed=1)
    assert CrossValidation.from_experiment(asked(elsewhere), elsewhere).identity("test") != made[0].outcome.tests
    assert [part.left_out for part in made[0].outcome.parts if part.n_train] == [20, 20, 20]


def test_shots_of_the_target_help_where_studies_do_not_carry_over():
    of = simulated(n_datasets=2, n_cells=600, effect=3.0, batch=0.3, transfer=0.0, n_genes=400)
    auroc = []
    for shots in (0, 50):
        run, predictions = evaluate(asked(of, shots=shots, reserve=50), of)
        assert run.outcome.state == "done"
        auroc.append(run.outcome.parts[0].values["auroc"])
        assert predictions.height == run.outcome.parts[0].n < 600
    assert auroc[1] > auroc[0] + 0.05


def test_what_cannot_be_set_aside_is_recorded_with_its_reason():
    of = simulated(n_datasets=2, n_cells=120)
    run, _ = evaluate(asked(of, shots=50, reserve=50), of)
    assert (run.outcome.state, run.outcome.error) == ("failed", "LabelsMissing")
    assert run.outcome.reason.startswith("50 shots a class cannot be had: ")
    assert run.outcome.remedy == "Ask for fewer shots, or add data sets."


@pytest.mark.parametrize("shots", COUNTS)
def test_the_curve_is_tested_on_the_same_cells(shots):
    of = simulated(n_datasets=2, n_cells=500)
    outcome = evaluate(asked(of, model="constant", head="constant", shots=shots, reserve=50), of)[0].outcome
    start = evaluate(asked(of, model="constant", head="constant", reserve=50), of)[0].outcome
    assert outcome.tests == start.tests != ""
    assert outcome.parts[0].n == start.parts[0].n
