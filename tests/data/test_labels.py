from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scdrugmap.data.labels import RESISTANT, RESPONSES, SENSITIVE, is_sensitive, read_labels
from scdrugmap.errors import InvalidInput, LabelsMissing


@pytest.mark.parametrize(
    ("spelling", "meaning"),
    [
        ("sensitive", SENSITIVE),
        (" Responder ", SENSITIVE),
        ("CR/PR", SENSITIVE),
        ("Drug-sensitive", SENSITIVE),
        ("RESISTANT", RESISTANT),
        ("Non-responder", RESISTANT),
        ("non_responder", RESISTANT),
        ("NR", RESISTANT),
        ("PD", RESISTANT),
        ("Drug-tolerant", RESISTANT),
        ("unlabelled", None),
        ("", None),
        ("N/A", None),
        (None, None),
        (float("nan"), None),
        (pd.NA, None),
    ],
)
def test_reads_the_spellings_users_have(spelling, meaning):
    assert read_labels([spelling]).tolist() == [meaning]


def test_order_length_and_dtype_are_those_of_the_cells():
    read = read_labels(pd.Series(["NR", "Responder", None, "NR"], dtype="category"))
    assert read.dtype == object
    assert read.tolist() == [RESISTANT, SENSITIVE, None, RESISTANT]
    assert read_labels([]).shape == (0,)


@pytest.mark.parametrize("codes", [[0, 1], [0.0, 1.0], [True, False], ["0", "1"], ["yes", "no"]])
def test_codes_are_refused_unless_mapped(codes):
    with pytest.raises(InvalidInput, match="both ways round") as caught:
        read_labels(codes)
    assert "mapping=" in caught.value.remedy
    read = read_labels(codes, mapping={codes[0]: RESISTANT, codes[1]: SENSITIVE})
    assert read.tolist() == [RESISTANT, SENSITIVE]


def test_a_lone_r_is_read_by_its_neighbour():
    assert read_labels(["R", "NR"]).tolist() == [SENSITIVE, RESISTANT]
    assert read_labels(["R", "S"]).tolist() == [RESISTANT, SENSITIVE]
    with pytest.raises(InvalidInput, match="resistant or responder"):
        read_labels(["R", "R"])
    with pytest.raises(InvalidInput, match="resistant or responder"):
        read_labels(["R", "NR", "S"])


def test_time_points_and_unknown_words_are_named():
    with pytest.raises(InvalidInput, match=r"'Pre', 'Post' .*not a response"):
        read_labels(["Pre", "Post"])
    with pytest.raises(InvalidInput, match="'SD'"):
        read_labels(["CR", "SD"])
    assert read_labels(["CR", "SD"], mapping={"sd": None}).tolist() == [SENSITIVE, None]


def test_a_mapping_to_a_foreign_word_is_refused():
    with pytest.raises(InvalidInput, match="cannot mean 'good'"):
        read_labels([1], mapping={1: "good"})


@settings(deadline=None)
@given(st.lists(st.sampled_from([*RESPONSES, None]), max_size=50))
def test_class_words_read_as_themselves(labels):
    assert read_labels(labels).tolist() == labels


@settings(deadline=None)
@given(st.lists(st.sampled_from(RESPONSES), max_size=50))
def test_is_sensitive_is_true_for_sensitive_only(labels):
    mask = is_sensitive(np.array(labels, dtype=object))
    assert mask.dtype == bool
    assert mask.tolist() == [label == SENSITIVE for label in labels]


@pytest.mark.parametrize("labels", [[SENSITIVE, None], ["Responder"], [float("nan")]])
def test_is_sensitive_refuses_what_is_not_a_class_word(labels):
    with pytest.raises(LabelsMissing, match="neither"):
        is_sensitive(labels)
