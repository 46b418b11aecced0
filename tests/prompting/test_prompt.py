"""What a language model is told of cells, in what form, and with which settings."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from prompting_cells import CARD

from scdrugmap.errors import InvalidInput, UnknownName
from scdrugmap.prompting.cell_fields import cell_texts
from scdrugmap.prompting.prompt import CellAnswers, messages, prompt_hash, schema
from scdrugmap.prompting.settings import PromptSettings


def test_a_prompt_holds_genes_and_nothing_else_of_a_cell(cells):
    cells.obs["dataset"], cells.obs["study"] = "gse999-secret", "GSE999"
    cells.obs_names = [f"barcode-{number}" for number in range(cells.n_obs)]
    texts = cell_texts(cells, PromptSettings.from_card(CARD, {"top_k": 7}))
    sent = json.dumps(messages(texts))
    assert all(len(text.genes) == 7 for text in texts)
    assert all(gene in set(cells.var_names) for text in texts for gene in text.genes)
    for secret in ("gse999", "GSE999", "barcode", *cells.obs["sample"].astype(str).unique()):
        assert secret not in sent
    assert "drug: " not in sent.lower()


def test_drug_and_tissue_are_told_where_it_is_wanted(cells):
    cells.obs["drug"] = np.where(np.arange(cells.n_obs) % 2, "erlotinib", "vemurafenib")
    told = cell_texts(cells, PromptSettings.from_card(CARD, {"drug": "obs", "tissue": "skin"}))
    assert {text.about for text in told[:2]} == {"Drug: erlotinib. Tissue: skin.", "Drug: vemurafenib. Tissue: skin."}
    assert told[0].about in messages(told[:1])[1]["content"]
    with pytest.raises(InvalidInput, match="accession GSE108383"):
        cell_texts(cells, PromptSettings.from_card(CARD, {"drug": "GSE108383 vemurafenib"}))
    del cells.obs["drug"]
    with pytest.raises(InvalidInput, match=r"obs\['drug'\], and there is none"):
        cell_texts(cells, PromptSettings.from_card(CARD, {"drug": "obs"}))


def test_the_schema_is_strict_and_names_the_cells():
    entry = schema(3)["properties"]["answers"]["items"]
    assert entry["properties"]["id"]["enum"] == ["c1", "c2", "c3"]
    assert set(entry["required"]) == set(entry["properties"])
    assert entry["additionalProperties"] is schema(3)["additionalProperties"] is False


def test_a_run_of_last_year_is_known_by_the_same_wording():
    """The hash is in run ids and provenance, and the length of the schema in the price: neither may drift."""
    assert prompt_hash() == "b694ea1a5426"
    assert len(json.dumps(schema(10))) == 437


def test_what_the_schema_allows_is_what_the_model_reads():
    entry = schema(2)["properties"]["answers"]["items"]
    answers = [
        {"id": name, "label": label, "p_resistant": 0.5}
        for name in entry["properties"]["id"]["enum"]
        for label in entry["properties"]["label"]["enum"]
    ]
    assert CellAnswers.model_validate({"answers": answers}).model_dump() == {"answers": answers}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"top_k": 0}, "top_k=0"),
        ({"top_k": 2.5}, "top_k=2.5"),
        ({"logprobs": 1}, "logprobs=1"),
        ({"cells_per_request": True}, "cells_per_request=True"),
        ({"temperature": "cold"}, "temperature='cold'"),
        ({"usd_per_million_input": math.nan}, "usd_per_million_input=nan"),
        ({"name": 4}, "name=4"),
    ],
)
def test_settings_are_checked(given, says):
    with pytest.raises(InvalidInput, match=says):
        PromptSettings.from_card(CARD, given)


def test_settings_of_the_card_are_those_that_are_read():
    assert PromptSettings.from_card(CARD, {"temperature": None}).temperature is None
    assert PromptSettings.from_card(CARD, {"temperature": 1}).temperature == 1.0
    assert set(PromptSettings.from_card(CARD).record()) < set(CARD.settings)
    with pytest.raises(UnknownName, match="no setting called 'max_length'"):
        PromptSettings.from_card(CARD, {"max_length": 5})
