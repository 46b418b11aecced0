"""Asking a scripted endpoint on loopback: who shares a request, what is asked again, how many at once."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from prompting_cells import CELLS, P, token
from scripted_endpoint import KEY, answers, asked_cells, completion, edits, entry, fails, good, says, slow

from scdrugmap.errors import Cancelled
from scdrugmap.prompting.prompt import CellText


def test_every_cell_gets_its_own_answer_whatever_the_request_it_is_in(asker, endpoint):
    done = []
    found = asker().ask(CELLS, progress=lambda *so_far: done.append(so_far))
    assert found.p_resistant.tolist() == P
    assert found.p_resistant.dtype == np.float32
    assert found.sources == {"stated": 10}
    assert found.model_versions == ("gpt-4o-mini-2024-07-18-served",)
    assert done[-1] == (10, 10)
    assert sorted(len(asked_cells(body)) for body in endpoint.asked) == [2, 4, 4]
    body = endpoint.asked[0]
    assert (body["model"], body["temperature"], body["seed"]) == ("gpt-4o-mini-2024-07-18", 0.0, 0)
    assert body["response_format"]["json_schema"]["strict"] is True
    assert endpoint.headers[0]["authorization"] == f"Bearer {KEY}"


def test_cells_are_mixed_by_seed_before_they_share_a_request(asker, endpoint):
    def first(seed):
        endpoint.asked.clear()
        asker(f"seed-{seed}", seed=seed, concurrency=1).ask(CELLS)
        return [asked_cells(body) for body in endpoint.asked]

    assert len(once := first(1)) == 3
    assert first(1) == []  # answered before: the same seed sends the same
    assert first(2) != once
    assert list(first(3)[0].values()) != [list(cell.genes) for cell in CELLS[:4]]


def test_only_cells_of_which_the_same_is_told_share_a_request(asker, endpoint):
    told = [replace(cell, about=f"Drug: {'ab'[row % 2]}.") for row, cell in enumerate(CELLS)]
    asker(cells_per_request=10).ask(told)
    assert sorted(len(asked_cells(body)) for body in endpoint.asked) == [5, 5]


def test_only_the_cells_without_an_answer_are_asked_again(asker, endpoint):
    endpoint.script += [
        edits(lambda found: found[:1]),
        edits(lambda found: [*found[:-1], entry("c77", 0.3)]),
        edits(lambda found: [*found, found[0]]),
    ]
    found = asker(concurrency=1, cells_per_request=10, retries=3).ask(CELLS)
    assert [len(asked_cells(body)) for body in endpoint.asked] == [10, 9, 1, 1]
    assert [body["seed"] for body in endpoint.asked] == [0, 1, 2, 3]
    assert found.p_resistant.tolist() == P
    assert found.problems == {"missing": 10, "foreign id": 1, "duplicate": 1}


@pytest.mark.parametrize("content", ["{broken", None, "no idea", json.dumps({"answers": []})])
def test_cells_that_get_no_readable_answer_have_failed(asker, endpoint, content):
    endpoint.default = says(content)
    found = asker(retries=1).ask(CELLS)
    assert found.failed.all()
    assert sum(found.problems.values()) == 20
    assert len(endpoint.asked) == 6
    assert asker(retries=1).ask(CELLS).failed.all()
    assert len(endpoint.asked) == 6  # what was paid and could not be read is not paid again


def test_a_cell_without_genes_is_not_asked_about(asker, endpoint):
    found = asker().ask([CellText(()), *CELLS[:2]])
    assert found.failed.tolist() == [True, False, False]
    assert endpoint.cells_asked() == 2
    assert asker().ask([CellText(())]).failed.all()


def test_logprobs_of_the_endpoint_are_used(asker, endpoint):
    def act(handler, body):
        texts = [token('{"answers":[')]
        for name in asked_cells(body):
            texts += [token(f'{{"id":"{name}","label":"'), token("res", res=0.8, sens=0.2)]
            texts += [token(f'istant","p_resistant":0.99}}{"," if name != list(asked_cells(body))[-1] else "]}"}')]
        listed = [
            {"token": text, "logprob": 0.0, "top_logprobs": [{"token": t, "logprob": p} for t, p in top.items()]}
            for text, top in texts
        ]
        content = "".join(text for text, _ in texts)
        handler.send(200, completion(body, content, logprobs={"content": listed}))

    endpoint.default = act
    found = asker(logprobs=True).ask(CELLS)
    assert found.sources == {"logprobs": 10}
    np.testing.assert_allclose(found.p_resistant, 0.8, rtol=1e-6)
    assert endpoint.asked[0]["top_logprobs"] == 5
    assert asker(logprobs=True).ask(CELLS).sources == {"logprobs": 10}
    assert len(endpoint.asked) == 3


def test_requests_overlap_no_more_than_allowed(asker, endpoint):
    now, most, lock = 0, 0, threading.Lock()

    def act(handler, body):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.05)
        with lock:
            now -= 1
        good(handler, body)

    endpoint.default = act
    asker(cells_per_request=1, concurrency=3).ask(CELLS)
    assert 1 < most <= 3


def test_a_stop_keeps_what_was_answered(asker, endpoint):
    def stop(done, total):
        if done:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        asker(concurrency=1, cells_per_request=1).ask(CELLS, progress=stop)
    answered = len(endpoint.asked)
    assert answered < 10
    asker(concurrency=1, cells_per_request=1).ask(CELLS)
    assert len(endpoint.asked) == 10


def cut(handler, body):
    """An answer that ends in the middle of its last cell, for lack of room."""
    text = json.dumps({"answers": answers(body)})
    handler.send(200, completion(body, text[:-20], finish_reason="length"))


def test_an_answer_that_was_cut_off_is_asked_for_again_with_more_room(asker, endpoint):
    endpoint.script += [cut, cut]
    found = asker(concurrency=1, cells_per_request=10, retries=3).ask(CELLS)
    assert found.p_resistant.tolist() == P
    assert [len(asked_cells(body)) for body in endpoint.asked] == [10, 1, 1]  # what was whole is not asked again
    assert [body["max_tokens"] for body in endpoint.asked] == [500, 2040, 8200]


def test_room_is_a_setting_and_part_of_the_question(asker, endpoint):
    asker(room=8000, cells_per_request=10).ask(CELLS)
    assert endpoint.asked[0]["max_tokens"] == 8400
    asker(cells_per_request=10).ask(CELLS)
    assert len(endpoint.asked) == 2
    usual, roomy = (asker("other", room=room, cells_per_request=10).estimate(CELLS) for room in (100, 8000))
    assert roomy.output_tokens - usual.output_tokens == 7900  # who gives a model room to think pays for it


def test_an_endpoint_without_more_room_leaves_cells_without_an_answer(asker, endpoint):
    def act(handler, body):
        if body["max_tokens"] > 1000:
            fails(400, "This model's maximum context length is 1000 tokens, you requested 2000")(handler, body)
        else:
            cut(handler, body)

    endpoint.default = act
    found = asker(cells_per_request=10).ask(CELLS)
    assert found.failed.sum() == 1
    assert len(endpoint.asked) == 2


def test_two_who_ask_the_same_at_one_time_pay_once(asker, endpoint):
    endpoint.default = slow(0.2)
    both = [asker(concurrency=2) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        found = [one.p_resistant.tolist() for one in pool.map(lambda one: one.ask(CELLS), both)]
    assert found == [P, P]
    assert len(endpoint.asked) == 3
    assert sum(one.budget.n_paid for one in both) == 3


def test_who_waits_for_another_can_be_stopped(asker, endpoint):
    one = asker()
    with one.replies.claimed("name", lambda: True) as held:
        assert held
        with one.replies.claimed("name", lambda: True) as twice:
            assert not twice


def test_who_cancels_does_not_wait_for_the_next_answer(asker, endpoint, monkeypatch):
    monkeypatch.setattr("scdrugmap.prompting.asker.BEAT", 0.02)
    gate = threading.Event()

    def act(handler, body):
        gate.wait(20)
        good(handler, body)

    def stop(done, total):
        if endpoint.asked:
            gate.set()  # what is on its way is waited for, and kept
            raise Cancelled("stopped")

    endpoint.default = act
    with pytest.raises(Cancelled):
        asker(concurrency=1).ask(CELLS, progress=stop)
    assert len(endpoint.asked) == 1
    endpoint.default = good
    assert asker().ask(CELLS).p_resistant.tolist() == P
    assert len(endpoint.asked) == 3
