from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from make_results import make_failure, make_run

from scdrugmap.errors import InvalidInput
from scdrugmap.evaluation.experiment import PROTOCOLS, SPLITS, Experiment, sorted_options
from scdrugmap.evaluation.results.run_record import SCHEMA, Run, defined

EXPERIMENT = Experiment("hvg", "logistic", ("a", "b"), ("sha256:1", "sha256:2"), settings=(("n_genes", 500),))


def test_run_id_is_the_content():
    assert EXPERIMENT.run_id == Experiment(**vars(EXPERIMENT)).run_id
    assert len(EXPERIMENT.run_id) == 16


CHANGES = {
    "model": "hvg-pca",
    "head": "knn",
    "datasets": ("a",),
    "contents": ("sha256:1", "sha256:3"),
    "weights": "sha256:4",
    "strategy": "lora",
    "shots": 0,
    "protocol": "cross-data",
    "split_by": "study",
    "facet": "tissue",
    "facet_value": "Cell line",
    "folds": 10,
    "seed": 1,
    "settings": (("n_genes", 501),),
    "options": (("epochs", 3),),
    "recipe": 2,
    "train": ("a",),
    "reserve": 5,
}


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Experiment)])
def test_every_field_changes_the_run_id(field):
    assert dataclasses.replace(EXPERIMENT, **{field: CHANGES[field]}).run_id != EXPERIMENT.run_id


@given(
    st.sampled_from(PROTOCOLS),
    st.sampled_from(SPLITS),
    st.integers(0, 9),
    st.dictionaries(st.text(max_size=5), st.one_of(st.integers(), st.booleans(), st.none(), st.text(max_size=5))),
)
def test_an_experiment_survives_its_dictionary(protocol, split_by, seed, options):
    experiment = Experiment(
        "m", "h", ("a",), protocol=protocol, split_by=split_by, seed=seed, options=sorted_options(options)
    )
    again = Experiment.from_dict(json.loads(json.dumps(experiment.as_dict())))
    assert again == experiment
    assert again.run_id == experiment.run_id


@pytest.mark.parametrize(
    "wrong", [{"strategy": "zero-shot"}, {"protocol": "loo"}, {"split_by": "donor"}, {"facet": "drug"}, {"folds": 1}]
)
def test_a_word_that_is_not_ours_is_refused(wrong):
    with pytest.raises(InvalidInput) as error:
        Experiment("m", "h", ("a",), **wrong)
    assert str(next(iter(wrong.values()))) in str(error.value)
    assert error.value.remedy


@pytest.mark.parametrize("run", [make_run(EXPERIMENT, 1.0)[0], make_failure()], ids=["done", "failed"])
def test_a_record_survives_its_json(run):
    text = run.to_json()
    again = Run.from_json(text)
    assert again == run
    assert again.to_json() == text
    plain = json.loads(text)
    assert plain["schema"] == SCHEMA
    assert {"experiment", "outcome", "environment"} < set(plain)


def test_a_record_from_before_splits_had_a_hash_is_read():
    run = make_run(EXPERIMENT, 1.0)[0]
    plain = json.loads(run.to_json())
    for key in ("splits", "tests"):
        del plain["outcome"][key]
    for part in plain["outcome"]["parts"]:
        del part["left_out"]
    assert not {"train", "reserve"} & set(plain["experiment"])
    parts = tuple(dataclasses.replace(part, left_out=0) for part in run.outcome.parts)
    outcome = dataclasses.replace(run.outcome, parts=parts, splits="", tests="")
    assert Run.from_json(json.dumps(plain)) == dataclasses.replace(run, outcome=outcome)


def test_the_environment_says_with_what_a_number_was_made():
    made = make_failure().environment
    assert made.packages["torch"]
    assert made.date.endswith("+00:00")
    assert made.peak_memory_mb > 10


@pytest.mark.parametrize("text", ['{"schema": 2}', "{}", "[]", "3"])
def test_another_schema_is_refused(text):
    with pytest.raises(InvalidInput, match="schema"):
        Run.from_json(text)


def test_undefined_numbers_are_null():
    assert defined({"auroc": float("nan"), "f1": 0.5}) == {"auroc": None, "f1": 0.5}
