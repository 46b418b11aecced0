"""From a reply to answers: matched by id, and read out of whatever stands around them."""

from __future__ import annotations

import json
import math

import pytest
from scripted_endpoint import (
    entry,
)

from scdrugmap.evaluation.prompting_answers import Reply, read
from scdrugmap.evaluation.prompting_odds import odds_of

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
    odds = odds_of(tokens)
    assert odds["c1"] == (pytest.approx(0.7), pytest.approx(0.2))
    assert odds["c2"] == (pytest.approx(0.25), pytest.approx(0.75))
    found, _ = read(Reply("".join(text for text, _ in tokens), odds), 2)
    assert found["c1"].p_resistant == pytest.approx(0.7 / 0.9)
    assert found["c1"].source == "logprobs"
    assert odds_of([]) == {}
    assert odds_of(tokens[:2]) == {}
