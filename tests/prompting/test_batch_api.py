"""The Batch API: half the price, within a day, and never paid twice."""

from __future__ import annotations

import json

import pytest
from prompting_cells import CELLS, P

from scdrugmap.errors import Cancelled, EndpointFailed


def test_a_batch_answers_at_half_the_price(asker, endpoint):
    batched = asker(batch_api=True)
    assert batched.ask(CELLS).p_resistant.tolist() == P
    assert not endpoint.asked
    assert len(endpoint.batches) == 1
    lines = [json.loads(line) for line in endpoint.uploads[0].splitlines()]
    assert {line["url"] for line in lines} == {"/v1/chat/completions"}
    assert len({line["custom_id"] for line in lines}) == 3
    assert batched.budget.usd == pytest.approx(3 * (1000 * 0.15 + 100 * 0.6) / 2e6)
    assert set(endpoint.deleted) == {"file-0", "output-0"}
    assert not list((batched.replies.folder / "batches").iterdir())


def test_what_a_batch_leaves_out_is_asked_directly(asker, endpoint):
    def spoil(number, line):
        if number == 0:
            return {**line, "response": {"status_code": 500, "body": {}}}
        return line

    endpoint.spoils = spoil
    assert asker(batch_api=True).ask(CELLS).p_resistant.tolist() == P
    assert len(endpoint.asked) == 1


def test_a_batch_that_is_out_is_waited_for_and_not_sent_twice(asker, endpoint):
    endpoint.looks = 10**9

    def stop(done, total):
        if endpoint.batches and endpoint.batches[0]["looked"] > 1:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        asker(batch_api=True).ask(CELLS, progress=stop)
    endpoint.looks = 0
    assert asker(batch_api=True).ask(CELLS).p_resistant.tolist() == P
    assert len(endpoint.batches) == 1
    assert not endpoint.asked


def test_a_batch_whose_start_was_not_heard_of_is_found_again(asker, endpoint):
    batched = asker(batch_api=True)
    requests = list(batched._first(CELLS, ()))
    keys = [request.key(endpoint.host) for request in requests]
    path = batched._batches._send(keys, next(batched._batches._files(keys, dict(zip(keys, requests, strict=True))))[1])
    path.write_text(json.dumps(json.loads(path.read_text()) | {"batch": ""}))  # killed before the answer came
    batched.endpoint.close()
    assert asker(batch_api=True).ask(CELLS).p_resistant.tolist() == P
    assert len(endpoint.batches) == 1
    assert not endpoint.asked


def test_a_batch_that_was_never_started_is_sent(asker, endpoint):
    batched = asker(batch_api=True)
    keys = [request.key(endpoint.host) for request in batched._first(CELLS, ())]
    folder = batched.replies.folder / "batches"
    folder.mkdir(parents=True)
    (folder / "a.json").write_text(json.dumps({"host": endpoint.host, "mark": "a", "keys": keys, "batch": ""}))
    assert batched.ask(CELLS).p_resistant.tolist() == P
    assert len(endpoint.batches) == 1
    assert not list(folder.iterdir())


def test_a_batch_that_fails_says_why(asker, endpoint):
    endpoint.ends = "failed"
    with pytest.raises(EndpointFailed, match=r"ended as 'failed' with 0 of 3 answers.*bad line") as caught:
        asker(batch_api=True).ask(CELLS)
    assert "batch_api=false" in caught.value.remedy


def test_a_large_run_is_cut_into_batches(asker, endpoint, monkeypatch):
    monkeypatch.setattr("scdrugmap.prompting.batch_api.MOST", 4)
    assert asker(batch_api=True, cells_per_request=1).ask(CELLS).p_resistant.tolist() == P
    assert [len(upload.splitlines()) for upload in endpoint.uploads] == [4, 4, 2]


def test_a_batch_that_the_endpoint_forgot_is_sent_anew(asker, endpoint, tmp_path):
    folder = tmp_path / "prompts" / "batches"
    folder.mkdir(parents=True)
    batched = asker(batch_api=True)
    keys = [request.key(endpoint.host) for request in batched._first(CELLS, ())]
    note = {"host": endpoint.host, "mark": "a", "keys": keys, "file": "file-77", "batch": "batch-77"}
    (folder / "a.json").write_text(json.dumps(note))
    assert batched.ask(CELLS).p_resistant.tolist() == P
    assert len(endpoint.batches) == 1
    assert "file-77" in endpoint.deleted


def test_lines_of_a_batch_that_are_no_replies_are_asked_directly(asker, endpoint):
    odd = ({"custom_id": "../../elsewhere", "response": {"status_code": 200, "body": {}}}, ["no"], {"custom_id": "x"})
    endpoint.spoils = lambda number, line: odd[number]
    with pytest.raises(EndpointFailed, match="with 0 of 3 answers"):
        asker(batch_api=True).ask(CELLS)
    endpoint.spoils = lambda number, line: odd[number] if number < 2 else line
    assert asker(batch_api=True).ask(CELLS).p_resistant.tolist() == P
    assert len(endpoint.asked) == 2
