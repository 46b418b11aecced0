from __future__ import annotations

import numpy as np
import pytest
from cohorts import SAFE, cohorts, table
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from scdrugmap.errors import InvalidInput, LabelsMissing
from scdrugmap.evaluation.splits.protocols import distinct, splits, validation_rows, warnings


@given(cohorts(), st.sampled_from(["cell", *SAFE]), st.integers(2, 10), st.integers(0, 99))
@settings(max_examples=150, deadline=None)
def test_pooled_folds_share_no_unit_and_no_copy(cohort, split_by, folds, seed):
    cells = cohort.take(distinct(cohort)[0])
    try:
        found = splits(cells, "pooled", split_by, folds, seed)
    except LabelsMissing:
        assume(False)
    tested = np.concatenate([split.test for split in found])
    assert sorted(tested) == list(range(len(cells)))
    assert 2 <= len(found) <= folds
    for split in found:
        assert not set(split.train) & set(split.test)
        assert set(cells.label[split.train]) == {"sensitive", "resistant"}
        assert not set(cells.content[split.train]) & set(cells.content[split.test])
        if split_by != "cell":
            assert not set(cells.units(split_by)[split.train]) & set(cells.units(split_by)[split.test])


@given(cohorts(), st.sampled_from(["dataset", "study"]))
@settings(max_examples=100, deadline=None)
def test_cross_data_leaves_out_whole_units_and_their_copies(cohort, split_by):
    units = cohort.units(split_by)
    assume(len(set(units)) > 1)
    found = splits(cohort, "cross-data", split_by, 5, 0)
    assert [split.name for split in found] == sorted(set(units))
    for split in found:
        assert set(units[split.test]) <= {split.name}
        assert split.name not in units[split.train]
        assert not set(cohort.content[split.train]) & set(cohort.content[split.test])
        for side in (split.train, split.test):
            assert len(set(cohort.content[side])) == len(side)
        assert bool(split.reason) == (len(set(cohort.label[split.train])) < 2 or not len(split.test))


@given(cohorts())
@settings(deadline=None)
def test_each_cell_counts_once_and_contrary_copies_do_not(cohort):
    kept, copies, contrary = distinct(cohort)
    assert len(kept) + copies + contrary == len(cohort)
    assert len(set(cohort.content[kept])) == len(kept)
    for content in set(cohort.content):
        labels = set(cohort.label[cohort.content == content])
        assert (content in cohort.content[kept]) == (len(labels) == 1)


def test_the_first_copy_stays():
    kept, copies, contrary = distinct(table("ssrrsr", content="aabbcd"))
    assert kept.tolist() == [0, 2, 4, 5]
    assert (copies, contrary) == (2, 0)


@given(cohorts(), st.sampled_from(["cell", *SAFE]), st.integers(0, 9))
@settings(max_examples=100, deadline=None)
def test_validation_part_is_of_other_units_and_has_both_classes(cohort, split_by, seed):
    chosen, unit = validation_rows(cohort, split_by, seed)
    if chosen is None:
        assert unit == ""
        return
    assert set(cohort.label[chosen]) == set(cohort.label[~chosen]) == {"sensitive", "resistant"}
    if unit != "cell":
        assert not set(cohort.units(unit)[chosen]) & set(cohort.units(unit)[~chosen])


def test_validation_part_is_grouped_as_the_split_where_units_suffice():
    cells = table("ssssrrrr" * 5, sample=[i // 2 for i in range(40)], dataset=[i // 20 for i in range(40)])
    assert validation_rows(cells, "sample", 0)[1] == "sample"
    assert validation_rows(cells, "cell", 0)[1] == "cell"
    assert validation_rows(cells, "dataset", 0)[1] == "dataset"
    assert validation_rows(cells, "study", 0)[1] == "sample"
    assert validation_rows(table("ssssrrrr", sample="aaaabbbb"), "sample", 0)[1] == "cell"
    assert validation_rows(table("srrrrr"), "cell", 0) == (None, "")


def test_folds_follow_the_seed_and_nothing_else():
    cells = table("sr" * 30, sample=[i // 2 // 3 for i in range(60)])
    first, again, other = (splits(cells, "pooled", "sample", 5, seed) for seed in (1, 1, 2))
    assert all((a.test == b.test).all() for a, b in zip(first, again, strict=True))
    assert any(a.test.tolist() != b.test.tolist() for a, b in zip(first, other, strict=True))


def test_folds_by_cell_keep_the_prevalence():
    cells = table("s" * 40 + "r" * 60)
    for split in splits(cells, "pooled", "cell", 10, 3):
        assert (cells.label[split.test] == "sensitive").mean() == pytest.approx(0.4)


def test_one_sample_a_class_is_confounded_and_never_split():
    cells = table("sssrrr", sample="aaabbb")
    with pytest.raises(
        LabelsMissing, match=r"confounded \(label = sample\).*sensitive cells are of one sample \('a'\)"
    ):
        splits(cells, "pooled", "sample", 5, 0)
    found = warnings(cells, "cell")
    assert any(text.startswith("confounded (label = sample)") for text in found)
    assert any(text.startswith("leaks") for text in found)


def test_five_lines_of_which_one_is_sensitive_cannot_be_split_by_line():
    cells = table("ssrrrrrr" * 3, sample="pqpqpqpq" * 3, patient="HHAABBCC" * 3)
    with pytest.raises(LabelsMissing, match=r"confounded \(label = patient or line\)"):
        splits(cells, "pooled", "patient_or_line", 5, 0)
    assert len(splits(cells, "pooled", "sample", 5, 0)) == 2
    by_plate = warnings(cells, "sample")
    assert by_plate == [
        "confounded (label = patient or line): all sensitive cells are of one patient or line",
        "leaks: every patient or line has one label, and a split by sample puts its cells on both sides",
    ]


def test_one_unit_cannot_be_held_out():
    with pytest.raises(LabelsMissing, match="All 4 cells are of one sample"):
        splits(table("ssrr"), "pooled", "sample", 5, 0)
    mixed = table("ssrrrr", sample="aaabbb")
    with pytest.raises(LabelsMissing, match=r"^all sensitive cells are of one sample"):
        splits(mixed, "pooled", "sample", 5, 0)


def test_one_class_is_named():
    with pytest.raises(LabelsMissing, match=r"one class only \(4 cells, none sensitive"):
        splits(table("rrrr"), "pooled", "cell", 5, 0)


def test_two_cells_a_class_are_the_least():
    assert len(splits(table("ssrr"), "pooled", "cell", 5, 0)) == 2
    with pytest.raises(LabelsMissing, match="cannot be split by cell"):
        splits(table("srrr"), "pooled", "cell", 5, 0)


def test_cross_data_needs_units_to_leave_out():
    cells = table("ssrr", dataset="aabb")
    with pytest.raises(InvalidInput, match="cannot be split by sample"):
        splits(cells, "cross-data", "sample", 5, 0)
    with pytest.raises(InvalidInput, match="one study only"):
        splits(cells, "cross-data", "study", 5, 0)
    one_sided = splits(cells, "cross-data", "dataset", 5, 0)
    assert [split.reason for split in one_sided] == [
        "The data sets that train have resistant cells only.",
        "The data sets that train have sensitive cells only.",
    ]


def test_a_line_of_two_data_sets_leaks_where_one_of_them_is_left_out():
    cells = table("sr" * 8, dataset="aaaaaaaabbbbbbbb", sample="aaaaaaaabbbbbbbb", patient="HABC" * 4)
    leak = "leaks: every patient or line has one label, and a split by dataset puts its cells on both sides"
    assert warnings(table("srrr" * 4, dataset="a" * 8 + "b" * 8, patient="HABC" * 4), "dataset")[-1] == leak
    assert warnings(cells, "patient_or_line") == []


def test_clean_cohorts_have_no_warning():
    cells = table("sr" * 20, sample=[i // 4 for i in range(40)])
    assert warnings(cells, "sample") == []
    assert warnings(cells, "cell") == []
