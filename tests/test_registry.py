from __future__ import annotations

from dataclasses import dataclass

import pytest

from scdrugmap.errors import ScDrugMapError, UnknownName, WeightsMissing
from scdrugmap.registry import Registry


@dataclass(frozen=True)
class Thing:
    key: str


@pytest.fixture
def things() -> Registry[Thing]:
    return Registry("thing", lambda: [Thing("geneformer"), Thing("scgpt")])


def test_is_a_mapping_in_declared_order(things):
    assert list(things) == ["geneformer", "scgpt"]
    assert things["scgpt"] == Thing("scgpt")
    assert len(things) == 2
    assert "scgpt" in things
    assert "nothing" not in things
    assert things.get("nothing") is None


def test_suggests_the_nearest_name(things):
    with pytest.raises(UnknownName, match=r"no thing called 'Geneformr'\. Did you mean 'geneformer'\?") as caught:
        things["Geneformr"]
    assert caught.value.remedy == "Known: geneformer, scgpt."


def test_refuses_two_records_of_one_name():
    twice = Registry("thing", lambda: [Thing("a"), Thing("a")])
    with pytest.raises(ValueError, match="two records"):
        list(twice)


def test_declares_nothing_before_it_is_asked():
    calls = []
    registry = Registry("thing", lambda: calls.append(1) or [Thing("a")])
    assert calls == []
    assert len(registry) == 1
    assert list(registry) == ["a"]
    assert calls == [1]


def test_errors_keep_their_remedy_across_processes():
    from joblib import Parallel, delayed

    def fail():
        raise WeightsMissing("No weights.", "Run: fetch")

    with pytest.raises(ScDrugMapError) as caught:
        Parallel(n_jobs=2)([delayed(fail)(), delayed(fail)()])
    assert caught.value.remedy == "Run: fetch"
    assert caught.value.line == "No weights. Run: fetch"
