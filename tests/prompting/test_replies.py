"""From a reply to answers: matched by id, and read out of whatever stands around them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prompting_cells import token
from scripted_endpoint import (
    entry,
)

from scdrugmap.prompting.label_probability import label_probs
from scdrugmap.prompting.replies import Reply, read

GOOD = [entry("c1", 0.2), entry("c2", 0.9)]


@pytest.mark.parametrize(
    "content",
    [
        json.dumps({"answers": GOOD}),
        json.dumps(GOOD),
        "Sure!\n```json\n" + json.dumps({"answers": GOOD}, indent=2) + "\n```\nAnything else?",
        "The answer is " + json.dumps({"answers": GOOD}) + " as far as I can tell.",
        json.dumps({"answers": list(reversed(GOOD))}),
    ],
)
def test_answers_are_matched_by_id_in_whatever_stands_around_them(content):
    found, problems = read(Reply(content), 2)
    assert {name: answer.p_resistant for name, answer in found.items()} == {"c1": 0.2, "c2": 0.9}
    assert not problems


@pytest.mark.parametrize(
    ("content", "problems"),
    [
        ("", {"unreadable": 2}),
        ("I cannot judge that.", {"unreadable": 2}),
        ('{"answers": [{"id": "c1", "label"', {"unreadable": 2}),
        ("[" * 100_000, {"unreadable": 2}),
        ('{"answers": 5}', {"unreadable": 2}),
        ('["c1", "c2"]', {"unreadable": 2}),
        (json.dumps([entry("c1", 0.2)]), {"missing": 1}),
        (json.dumps([*GOOD, entry("c9", 0.5)]), {"foreign id": 1}),
        (json.dumps([*GOOD, entry("c1", 0.2)]), {"duplicate": 1}),
        (json.dumps([entry("c1", 0.2), {"id": "c2", "label": "unsure", "p_resistant": 0.5}]), {"no label": 1}),
        (json.dumps([entry("c1", 0.2), {"id": "c2", "label": ["resistant"], "p_resistant": 1}]), {"no label": 1}),
        (json.dumps([entry("c1", 0.2), {"id": "c2", "label": "resistant"}]), {"no probability": 1}),
        (json.dumps([entry("c1", 0.2), entry("c2", 1.7)]), {"no probability": 1}),
        (json.dumps([entry("c1", 0.2), entry("c2", math.nan)]), {"no probability": 1}),
        (json.dumps([entry("c1", 0.2), {"id": "c2", "label": "sensitive", "p_resistant": 0.9}]), {"contradiction": 1}),
    ],
)
def test_what_cannot_be_read_is_no_answer(content, problems):
    found, seen = read(Reply(content), 2)
    assert dict(seen) == problems
    assert len(found) == 2 - sum(n for name, n in seen.items() if name != "foreign id")


def test_a_probability_comes_from_the_label_token():
    tokens = [
        token('{"answers":[{"id":"c1",'),
        token('"label":"'),
        token("res", res=0.6, sens=0.2, re=0.1, unsure=0.1),
        token('istant","p_resistant":0.9},{"id":"c2","label":'),
        token('"sensitive', _sensitive=0.75, _resistant=0.25),
        token('","p_resistant":0.1}]}'),
    ]
    probs = label_probs(tokens)
    assert probs["c1"] == (pytest.approx(0.7), pytest.approx(0.2))
    assert probs["c2"] == (pytest.approx(0.25), pytest.approx(0.75))
    found, _ = read(Reply("".join(text for text, _ in tokens), probs), 2)
    assert found["c1"].p_resistant == pytest.approx(0.7 / 0.9)
    assert found["c1"].source == "logprobs"
    assert label_probs([]) == {}
    assert label_probs(tokens[:2]) == {}


@pytest.mark.parametrize(
    ("label_tokens", "resistant"),
    [
        ([token("res", res=0.6, sens=0.4), token("istant")], 0.6),
        ([token("sens", sens=0.9, res=0.1), token("itive")], 0.1),
        ([token("resistant", resistant=0.5, sensitive=0.3, unsure=0.2)], 0.5 / 0.8),
        ([token("Res", Res=0.5, RES=0.2, Sens=0.3), token("istant")], 0.7),
        ([token(" resistant", **{" resistant": 0.5, "resistant": 0.2, " sens": 0.3})], 0.7),
        ([token('resistant",', **{'resistant",': 0.6, "sensitive": 0.2, "sensitivity": 0.2})], 0.75),
        ([token("r", r=0.5, s=0.25, re=0.25), token("esistant")], 0.75),
    ],
)
def test_a_label_may_be_cut_up_in_any_way(label_tokens, resistant):
    tokens = [token('{"answers":[{"id":"c1","label":"'), *label_tokens, token('","p_resistant":0.9}]}')]
    probs = label_probs(tokens)["c1"]
    assert probs[0] / sum(probs) == pytest.approx(resistant)


def test_what_is_neither_label_gives_no_probability():
    unsure = [token('{"id":"c1","label":"'), token("res", res=0.2, unsure=0.7, sens=0.1), token("istant")]
    assert label_probs(unsure) == {}
    strange = [token('{"id":"c1","label":"'), ("res", {"res": math.nan, "resist": 900.0}), token("istant")]
    assert label_probs(strange) == {}


def test_where_some_cells_have_token_probabilities_and_others_do_not_both_are_read():
    found, _ = read(Reply(json.dumps(GOOD), {"c1": (0.3, 0.6)}), 2)
    assert {name: answer.source for name, answer in found.items()} == {"c1": "logprobs", "c2": "stated"}
    assert found["c1"].p_resistant == pytest.approx(1 / 3)


@pytest.mark.parametrize(("label", "stated"), [("sensitive", 0.5), ("resistant", 0.5), ("sensitive", 0.49999999)])
def test_at_one_half_the_label_decides(label, stated):
    found, _ = read(Reply(json.dumps([{"id": "c1", "label": label.upper(), "p_resistant": stated}])), 1)
    assert (np.float32(found["c1"].p_resistant) >= 0.5) == (label == "resistant")
    assert f"{found['c1'].p_resistant:.4f}" in ("0.4999", "0.5000")


DRAFT = json.dumps({"answers": [entry("c1", 0.99), entry("c2", 0.01)]})


@pytest.mark.parametrize(
    "content",
    [
        f"<think>Perhaps {DRAFT}?</think>" + json.dumps({"answers": GOOD}),
        f"Perhaps {DRAFT}, and c2 {{is}} [odd].</think>\n\n```json\n" + json.dumps(GOOD) + "\n```",
        f"First: {DRAFT} Then: " + json.dumps({"answers": GOOD}),
        json.dumps(GOOD[0]) + "\n" + json.dumps(GOOD[1]),
        json.dumps({"result": {"answers": GOOD}}),
        "The form is {answers: [...]}, as in [1] and {2}: " + json.dumps({"answers": GOOD}) + ' Genes: [{"gene": "A"}]',
    ],
)
def test_thinking_and_drafts_are_no_answer(content):
    found, problems = read(Reply(content), 2)
    assert {name: answer.p_resistant for name, answer in found.items()} == {"c1": 0.2, "c2": 0.9}
    assert not problems


def test_thinking_that_never_ended_holds_no_answer():
    assert read(Reply(f"<think>{DRAFT} but wait"), 2) == ({}, {"unreadable": 2})


def test_of_a_list_that_was_cut_off_what_is_whole_counts():
    cut = json.dumps({"answers": GOOD})[:-10]
    found, problems = read(Reply(cut, finish="length"), 2)
    assert list(found) == ["c1"]
    assert problems == {"missing": 1}


WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@settings(max_examples=150, deadline=None)
@given(before=WORDS, after=WORDS, p=st.floats(0, 1), indent=st.sampled_from([None, 1]))
def test_an_answer_is_read_whatever_text_stands_around_it(before, after, p, indent):
    given_answers = {"answers": [{"id": "c1", "label": "resistant" if p >= 0.5 else "sensitive", "p_resistant": p}]}
    found, _ = read(Reply(before + json.dumps(given_answers, indent=indent) + after), 1)
    assert found["c1"].p_resistant == pytest.approx(p, abs=1e-4)


@settings(max_examples=150, deadline=None)
@given(p=st.floats() | st.integers() | st.booleans() | WORDS, label=st.sampled_from(["resistant", "Sensitive"]) | WORDS)
def test_the_agreed_form_is_read_as_the_same_answer_with_words_around_it(p, label):
    content = json.dumps({"answers": [{"id": "c1", "label": label, "p_resistant": p}]})
    assert read(Reply(content), 1) == read(Reply(f"Here it is: {content}"), 1)


PIECES = st.sampled_from(
    ['{"answers":', "[", "]", "{", "}", '"id"', ":", '"c1"', ",", '"label"', '"resistant"', '"p_resistant"', "0.7",
     "1e999", "NaN", "null", "<think>", "</think>", "```", "\\", '"', " "]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES | WORDS, max_size=40).map("".join))
def test_no_text_raises(content):
    found, problems = read(Reply(content), 2)
    assert set(found) <= {"c1", "c2"}
    assert all(0 <= answer.p_resistant <= 1 for answer in found.values())
    assert len(found) + sum(n for name, n in problems.items() if name != "foreign id") >= 2
