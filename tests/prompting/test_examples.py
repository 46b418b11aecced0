"""Labelled cells that are told as examples: which, how many, and which never."""

from __future__ import annotations

import json

import anndata
import numpy as np
import pytest
from scipy import sparse
from scripted_endpoint import asked_cells

import scdrugmap as sdm
from scdrugmap.data.simulate import simulate
from scdrugmap.errors import InvalidInput, LabelsMissing
from scdrugmap.models import MODELS
from scdrugmap.prediction.pipeline import predict_file
from scdrugmap.prompting.cost import rough_estimate
from scdrugmap.prompting.examples import check_shots, draw_examples
from scdrugmap.prompting.prompt import CellText, Example, messages
from scdrugmap.prompting.settings import PromptSettings

MODEL = "gpt-4o-mini"
QUICK = {"top_k": 10, "cells_per_request": 3, "logprobs": False}
SETTINGS = PromptSettings.from_card(MODELS[MODEL], QUICK)


@pytest.fixture
def judged():
    return simulate(n_cells=9, n_genes=400, n_samples=4, seed=3)


@pytest.fixture
def labelled():
    return simulate(n_cells=40, n_genes=400, n_samples=4, seed=5)


def drawn(labelled, judged, shots=3, seed=0):
    return draw_examples(labelled, shots, judged=judged, settings=SETTINGS, seed=seed)


def test_examples_are_drawn_by_seed_and_mixed(labelled, judged):
    found = drawn(labelled, judged, shots=5)
    labels = [one.label for one in found.examples]
    assert sorted(labels) == ["resistant"] * 5 + ["sensitive"] * 5
    assert labels != sorted(labels)
    assert drawn(labelled, judged, shots=5) == found
    assert drawn(labelled, judged, shots=5, seed=1).hash != found.hash
    assert {one.cell for one in drawn(labelled, judged, shots=2).examples} <= {one.cell for one in found.examples}
    renamed = labelled.copy()
    renamed.obs_names = [f"other-{number}" for number in range(renamed.n_obs)]
    assert drawn(renamed, judged, shots=5).hash == found.hash


def test_a_cell_that_is_judged_is_never_told(labelled, judged):
    both = anndata.concat([labelled, judged], index_unique="-")
    both.uns["scdrugmap"] = labelled.uns["scdrugmap"]
    found = drawn(both, judged)
    assert found.n_left_out == judged.n_obs
    inside = {one.genes for one in (text.cell for text in drawn(both, labelled).examples)}
    assert inside.isdisjoint({one.cell.genes for one in found.examples})
    with pytest.raises(InvalidInput, match="stand among the cells to judge") as caught:
        drawn(judged, judged, shots=1)
    assert "not to be judged" in caught.value.remedy


def test_samples_that_are_told_and_judged_are_counted(labelled, judged, endpoint, settings, caplog):
    labelled.obs["sample"] = ["told", "both"] * 20
    judged.obs["sample"] = ["both", "judged", "other"] * 3
    assert drawn(labelled, judged, shots=10).n_shared_samples == 1
    sdm.predict(judged, MODEL, examples=labelled, shots=10, consent=True, **QUICK)
    assert "with cells to judge: 1; their labels are no test" in caplog.text
    labelled.obs["sample"] = "told"
    assert drawn(labelled, judged).n_shared_samples == 0
    del labelled.obs["sample"]
    assert drawn(labelled, judged).n_shared_samples == 0


def test_copies_and_cells_without_genes_are_not_told(labelled, judged):
    twice = anndata.concat([labelled, labelled], index_unique="-")
    twice.uns["scdrugmap"] = labelled.uns["scdrugmap"]
    n = int((labelled.obs["response"] == "sensitive").sum())
    with pytest.raises(InvalidInput, match=f"there are {n} sensitive to draw"):
        drawn(twice, judged, shots=n + 1)
    counts = labelled.X.toarray()
    counts[np.flatnonzero(labelled.obs["response"] == "sensitive")[1:]] = 0
    labelled.X = sparse.csr_matrix(counts)
    with pytest.raises(InvalidInput, match="there is 1 sensitive to draw") as caught:
        drawn(labelled, judged)
    assert caught.value.remedy.endswith("--shots 1")


def test_a_file_without_labels_says_so(labelled, judged):
    del labelled.obs["response"]
    with pytest.raises(LabelsMissing, match="no cell is called sensitive or resistant"):
        drawn(labelled, judged)


@pytest.mark.parametrize("shots", [0, -1, True, 2.5])
def test_shots_are_a_whole_number(shots):
    with pytest.raises(InvalidInput, match="no number of examples"):
        check_shots("file.h5ad", shots)
    with pytest.raises(InvalidInput, match="no labelled cells to take them from"):
        check_shots(None, 5)
    assert (check_shots(None, None), check_shots("file.h5ad", None)) == (0, 5)


def test_what_is_known_of_an_example_stands_beside_it_where_it_differs():
    cells = [CellText(("A", "B"), "Drug: x.")]
    told = [Example(CellText(("C",), "Drug: x."), "sensitive"), Example(CellText(("D",), "Drug: y."), "resistant")]
    text = messages(cells, told)[1]["content"]
    assert text.splitlines()[1:3] == ["sensitive: C", "resistant (Drug: y.): D"]


def test_predict_tells_examples_in_each_request_and_records_them(endpoint, settings, labelled, judged, tmp_path):
    labelled.obs["dataset"] = "gse999-secret"
    labelled.write_h5ad(tmp_path / "secret-name.h5ad")
    seen = []
    options = {
        "examples": tmp_path / "secret-name.h5ad",
        "shots": 2,
        "consent": lambda one: bool(seen.append(one)) or True,
    }
    found = sdm.predict(judged, MODEL, **options, **QUICK)
    assert "4 labelled cells (2 sensitive, 2 resistant), and the label of each" in seen[0].lines[0]
    assert found.obs["p_resistant"].notna().all()
    for body in endpoint.asked:
        text = body["messages"][1]["content"].split("Cells to judge:")[0]
        assert text.count("\nsensitive: ") == text.count("\nresistant: ") == 2
        assert len(asked_cells(body)) == 3
    sent = json.dumps(endpoint.asked)
    assert not any(word in sent for word in ("secret", "gse999", *labelled.obs_names[:5]))
    told = found.uns["scdrugmap"]["prediction"]["asked"]["examples"]
    assert (told["shots"], told["seed"], told["n_left_out"]) == (2, 0, 0)
    assert "secret" not in json.dumps(told)
    n_asked = len(endpoint.asked)
    sdm.predict(judged, MODEL, **options, **QUICK)
    assert len(endpoint.asked) == n_asked
    plain = sdm.predict(judged, MODEL, consent=True, **QUICK)
    assert "examples" not in plain.uns["scdrugmap"]["prediction"]["asked"]
    assert len(endpoint.asked) == n_asked + 3


def test_the_rough_estimate_knows_of_examples(asker, labelled, judged):
    told = drawn(labelled, judged, shots=5).examples
    settings = PromptSettings.from_card(MODELS[MODEL], {"top_k": 10})
    texts = [one.cell for one in told] * 10
    exact = asker(cells_per_request=10, top_k=10).estimate(texts, told)
    rough = rough_estimate(settings, len(texts), "host", shots=5)
    assert rough.input_tokens == pytest.approx(exact.input_tokens, rel=0.2)
    assert rough.sent == exact.sent


def test_a_model_that_embeds_takes_no_examples(tmp_path, judged):
    for call in (lambda **given: sdm.predict(judged, **given), lambda **given: predict_file(tmp_path / "no", **given)):
        with pytest.raises(InvalidInput, match="cannot be told examples") as caught:
            call(model="scgpt-mini", examples=tmp_path / "file.h5ad")
        assert "reference fit --model scgpt-mini" in caught.value.remedy


@pytest.mark.parametrize("limit", [float("nan"), -1.0])
def test_what_is_no_limit_is_refused(endpoint, settings, judged, limit):
    with pytest.raises(InvalidInput, match="is no limit"):
        sdm.predict(judged, MODEL, consent=True, max_cost=limit, **QUICK)
    assert not endpoint.asked
