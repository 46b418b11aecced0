"""What asking costs, and what is kept of what was paid."""

from __future__ import annotations

import json

import pytest
from prompting_cells import CARD, CELLS, P
from scripted_endpoint import (
    KEY,
    completion,
    fails,
)

from scdrugmap.data.simulate import simulate
from scdrugmap.errors import CostLimit, InvalidInput
from scdrugmap.prompting.cell_fields import cell_texts
from scdrugmap.prompting.cost import ANSWER_TOKENS, rough_estimate
from scdrugmap.prompting.prompt import Example
from scdrugmap.prompting.reply_cache import ReplyCache, Request
from scdrugmap.prompting.settings import PromptSettings


def test_the_estimate_counts_what_is_new_and_sends_nothing(asker, endpoint):
    before = asker().estimate(CELLS)
    assert (before.n_cells, before.n_requests, before.n_answered) == (10, 3, 0)
    assert not endpoint.asked
    assert endpoint.host in before.lines[0]
    assert "no barcodes" in before.lines[0]
    assert "prices of 2024-07-18" in before.lines[2]
    assert before.usd == pytest.approx((0.15 * before.input_tokens + 0.60 * before.output_tokens) / 1e6)
    assert asker(batch_api=True).estimate(CELLS).usd == pytest.approx(before.usd / 2)
    asker().ask(CELLS)
    after = asker().estimate(CELLS)
    assert (after.n_answered, after.usd) == (3, 0.0)
    assert "3 of them answered before and free" in after.lines[1]


def test_the_rough_estimate_is_near_the_one_that_reads_the_cells(asker):
    adata = simulate(n_cells=60, n_genes=2000, n_samples=4, seed=1)
    settings = PromptSettings.from_card(CARD)
    exact = asker(cells_per_request=10).estimate(cell_texts(adata, settings))
    rough = rough_estimate(settings, 60, "host")
    assert rough.n_requests == exact.n_requests
    assert rough.input_tokens == pytest.approx(exact.input_tokens, rel=0.15)
    assert rough.output_tokens == exact.output_tokens >= 60 * ANSWER_TOKENS


def test_examples_and_longer_texts_are_estimated_as_more(asker):
    short, long = (asker().estimate(CELLS, examples) for examples in ([], [Example(CELLS[0], "sensitive")] * 20))
    assert long.input_tokens > short.input_tokens + 3 * 20 * 8


def test_a_limit_refuses_before_anything_is_sent(asker, endpoint):
    usd = asker().estimate(CELLS).usd
    with pytest.raises(CostLimit, match="would cost about") as caught:
        asker(max_cost=usd * 0.9).ask(CELLS)
    assert "--max-cost" in caught.value.remedy
    assert not endpoint.asked


def test_a_limit_stops_in_the_middle_when_the_real_use_passes_it(asker, endpoint):
    limited = asker(max_cost=0.00075, concurrency=1, cells_per_request=1)  # an answer really costs 0.00021
    with pytest.raises(CostLimit, match=r"Stopped at 0.000\d+ USD after \d requests?"):
        limited.ask(CELLS)
    assert 0 < len(endpoint.asked) < 10
    assert limited.budget.usd == pytest.approx(len(endpoint.asked) * (1000 * 0.15 + 100 * 0.6) / 1e6)
    assert limited.budget.usd <= 0.00075
    again = asker(max_cost=0.01, concurrency=1, cells_per_request=1)
    assert not again.ask(CELLS).failed.any()
    assert len(endpoint.asked) == 10


def test_an_endpoint_that_counts_no_tokens_is_charged_by_estimate(asker, endpoint):
    def act(handler, body):
        handler.send(200, completion(body, "{}") | {"usage": None})

    endpoint.default = act
    limited = asker(retries=0)
    limited.ask(CELLS)
    assert limited.budget.usd == pytest.approx(limited.estimate(CELLS[:0]).usd + asker("other").estimate(CELLS).usd)


def test_a_damaged_reply_is_asked_for_again(asker, endpoint, tmp_path):
    asker().ask(CELLS)
    files = sorted((tmp_path / "prompts").glob("*/*.json"))
    files[0].write_text("{")
    files[1].write_text('{"content": 5, "odds": {"c1": []}}')
    assert asker().ask(CELLS).p_resistant.tolist() == P
    assert len(endpoint.asked) == 5


KEPT = {
    "content": "x", "odds": {"c1": [0.75, 0.25]}, "input_tokens": 10, "output_tokens": 5, "finish": "stop",
    "served": "m-1", "form": "json_schema", "date": "2026-01-01T00:00:00Z",
}  # fmt: skip


def test_a_reply_that_an_earlier_version_kept_is_found_and_read(tmp_path):
    key = Request("m", [{"role": "user", "content": "é"}], 2, seed=1, max_tokens=100).key("api")
    assert key == "c9e35d6a1820b31c31737409248f0a2630e39222fb8e982540dbc4661d5cdc92"
    path = tmp_path / key[:2] / f"{key}.json"
    path.parent.mkdir()
    path.write_text(json.dumps(KEPT))
    reply = ReplyCache(tmp_path).get(key)
    assert reply.label_probs == {"c1": (0.75, 0.25)}
    assert reply.model_version == "m-1"
    ReplyCache(tmp_path).put(key, reply)
    assert json.loads(path.read_text()) == KEPT


def test_replies_that_cannot_be_kept_stop_the_spending(asker, endpoint, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="cannot be kept"):
        asker("file/prompts", concurrency=1).ask(CELLS)
    assert not endpoint.asked


def test_the_key_is_nowhere(asker, endpoint, tmp_path, caplog, capfd):
    caplog.set_level("DEBUG")
    endpoint.script += [fails(500, KEY, retry_after_ms="1"), fails(400, KEY)]
    asker(concurrency=1).ask(CELLS)
    asker("batches", batch_api=True).ask(CELLS)
    assert caplog.records
    assert KEY not in caplog.text
    assert KEY not in "".join(capfd.readouterr())
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not any(KEY.encode() in path.read_bytes() for path in files)
    assert not any(b"GENE" in path.read_bytes() for path in files)
