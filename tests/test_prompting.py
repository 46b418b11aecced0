"""Prompting a language model: real requests to a scripted endpoint on loopback, and to transformers' own server."""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from scripted_endpoint import (
    KEY,
    asked_cells,
    completion,
    drops,
    edits,
    entry,
    fails,
    good,
    opinion,
    raw,
    refuses,
    says,
    serving,
    slow,
)

from scdrugmap.data.simulate import simulate
from scdrugmap.errors import Cancelled, ConsentMissing, CostLimit, EndpointFailed, InvalidInput, UnknownName
from scdrugmap.evaluation.evaluate import evaluate
from scdrugmap.evaluation.experiment import Experiment, sorted_options
from scdrugmap.evaluation.material import Material, load_sources
from scdrugmap.evaluation.prompting import MAX_COST, PromptLearner
from scdrugmap.evaluation.prompting_answers import Reply, read
from scdrugmap.evaluation.prompting_ask import Asker
from scdrugmap.evaluation.prompting_client import Dialect
from scdrugmap.evaluation.prompting_cost import ANSWER_TOKENS, rough_estimate
from scdrugmap.evaluation.prompting_odds import odds_of
from scdrugmap.evaluation.prompting_settings import PromptSettings
from scdrugmap.evaluation.prompting_text import CellText, Example, messages, schema
from scdrugmap.evaluation.prompting_words import cell_texts
from scdrugmap.models import MODELS

CARD = MODELS["gpt-4o-mini"]
CELLS = [CellText((f"GENE{number}", "ACTB")) for number in range(10)]
P = [pytest.approx(opinion(list(cell.genes)), abs=1e-6) for cell in CELLS]


@pytest.fixture
def endpoint(monkeypatch):
    with serving() as endpoint:
        monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        yield endpoint


@pytest.fixture
def asker(endpoint, tmp_path):
    """Make an asker of a folder of the test's own, with short waits."""

    def make(folder: str = "prompts", max_cost: float | None = None, seed: int = 0, **given) -> Asker:
        quick = {"connection_retries": 2, "timeout": 5.0, "cells_per_request": 4, "poll": 0.02, "logprobs": False}
        settings = PromptSettings.of(CARD, quick | given)
        return Asker(settings, folder=tmp_path / folder, seed=seed, max_cost=max_cost)

    return make


# What is said.


def test_a_prompt_holds_genes_and_nothing_else_of_a_cell(cells):
    cells.obs["dataset"], cells.obs["study"] = "gse999-secret", "GSE999"
    cells.obs_names = [f"barcode-{number}" for number in range(cells.n_obs)]
    texts = cell_texts(cells, PromptSettings.of(CARD, {"top_k": 7}))
    sent = json.dumps(messages(texts))
    assert all(len(text.genes) == 7 for text in texts)
    assert all(gene in set(cells.var_names) for text in texts for gene in text.genes)
    for secret in ("gse999", "GSE999", "barcode", *cells.obs["sample"].astype(str).unique()):
        assert secret not in sent
    assert "drug: " not in sent.lower()


def test_drug_and_tissue_are_told_where_it_is_wanted(cells):
    cells.obs["drug"] = np.where(np.arange(cells.n_obs) % 2, "erlotinib", "vemurafenib")
    told = cell_texts(cells, PromptSettings.of(CARD, {"drug": "obs", "tissue": "skin"}))
    assert {text.about for text in told[:2]} == {"Drug: erlotinib. Tissue: skin.", "Drug: vemurafenib. Tissue: skin."}
    assert told[0].about in messages(told[:1])[1]["content"]
    with pytest.raises(InvalidInput, match="accession GSE108383"):
        cell_texts(cells, PromptSettings.of(CARD, {"drug": "GSE108383 vemurafenib"}))
    del cells.obs["drug"]
    with pytest.raises(InvalidInput, match=r"obs\['drug'\], and there is none"):
        cell_texts(cells, PromptSettings.of(CARD, {"drug": "obs"}))


def test_the_schema_is_strict_and_names_the_cells():
    entry = schema(3)["properties"]["answers"]["items"]
    assert entry["properties"]["id"]["enum"] == ["c1", "c2", "c3"]
    assert set(entry["required"]) == set(entry["properties"])
    assert entry["additionalProperties"] is schema(3)["additionalProperties"] is False


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
        PromptSettings.of(CARD, given)


def test_settings_of_the_card_are_those_that_are_read():
    assert PromptSettings.of(CARD, {"temperature": None}).temperature is None
    assert PromptSettings.of(CARD, {"temperature": 1}).temperature == 1.0
    assert set(PromptSettings.of(CARD).record()) < set(CARD.settings)
    with pytest.raises(UnknownName, match="no setting called 'max_length'"):
        PromptSettings.of(CARD, {"max_length": 5})


# What is read.

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


def token(text, **alternatives):
    return text, {word.replace("_", '"'): math.log(p) for word, p in (alternatives or {text: 1.0}).items()}


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


# What is asked, answered, retried and counted.


def test_every_cell_gets_its_own_answer_whatever_the_request_it_is_in(asker, endpoint):
    done = []
    found = asker().ask(CELLS, progress=lambda *so_far: done.append(so_far))
    assert found.p_resistant.tolist() == P
    assert found.p_resistant.dtype == np.float32
    assert found.sources == {"stated": 10}
    assert found.served == ("gpt-4o-mini-2024-07-18-served",)
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


@pytest.mark.parametrize(
    "trouble",
    [
        fails(429, "slow down", Retry_After="0.05"),
        fails(500, retry_after_ms="20"),
        fails(503, retry_after_ms="20"),
        drops,
    ],
    ids=["429", "500", "503", "dropped"],
)
def test_trouble_that_passes_is_waited_out(asker, endpoint, trouble):
    endpoint.script += [trouble]
    start = time.monotonic()
    found = asker(concurrency=1, cells_per_request=10).ask(CELLS)
    assert found.p_resistant.tolist() == P
    assert len(endpoint.asked) == 2
    assert time.monotonic() - start >= 0.02


def test_a_slow_answer_is_asked_for_again(asker, endpoint):
    endpoint.script += [slow(3.0)]
    found = asker(timeout=1.0, cells_per_request=10).ask(CELLS)
    assert found.p_resistant.tolist() == P
    assert len(endpoint.asked) == 2


@pytest.mark.parametrize(
    ("trouble", "says", "remedy"),
    [
        (fails(429, "slow", retry_after_ms="1"), "over its rate limit, after 3 attempts", "Run it again"),
        (fails(429, "slow", Retry_After="900"), "over its rate limit and asks to wait 900 s", "Run it again"),
        (fails(429, "pay", "insufficient_quota", retry_after_ms="1"), "no credit left", "Add credit"),
        (fails(500, "oops", retry_after_ms="1"), r"failed after 3 attempts \(500: .*oops", "Run it again"),
        (fails(401, f"bad key {KEY}"), r"refused the key \(401\)", "Set OPENAI_API_KEY"),
        (fails(404, "no such model"), "no model 'gpt-4o-mini-2024-07-18'", "--set name="),
        (fails(400, "too long", "context_length_exceeded"), "too long", "cells_per_request=5"),
        (fails(400, f"no, {KEY}"), r"refused the request: .*no, \*\*\*", "settings"),
        (fails(418, "teapot"), "refused the request: .*teapot", "settings"),
        (raw(b"<html>hello</html>", "text/html"), "no chat completion: <html>", "OPENAI_BASE_URL"),
        (raw(b'{"answer": 42'), "no chat completion", "/v1"),
        (raw(b'{"choices": []}'), "no chat completion", "/v1"),
    ],
)
def test_trouble_that_stays_is_one_line_and_keeps_what_was_answered(asker, endpoint, trouble, says, remedy):
    endpoint.script += [good]
    endpoint.default = trouble
    with pytest.raises(EndpointFailed, match=says) as caught:
        asker(concurrency=1).ask(CELLS)
    assert remedy in caught.value.remedy
    assert KEY not in caught.value.line
    assert "\n" not in caught.value.line
    endpoint.default = good
    before = endpoint.cells_asked()
    assert asker().ask(CELLS).p_resistant.tolist() == P
    assert endpoint.cells_asked() - before == 6


def test_an_endpoint_that_is_not_there(asker, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{free.getsockname()[1]}/v1")
    with pytest.raises(EndpointFailed, match=r"No connection with 127\.0\.0\.1") as caught:
        asker(connection_retries=0).ask(CELLS)
    assert "Check OPENAI_BASE_URL" in caught.value.remedy


def test_one_line_without_a_key_or_with_an_address_that_is_none(asker, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "localhost")
    with pytest.raises(EndpointFailed, match="OPENAI_BASE_URL is no address"):
        asker()
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(EndpointFailed, match="OPENAI_API_KEY is not set") as caught:
        asker()
    assert "export OPENAI_API_KEY" in caught.value.remedy


@pytest.mark.parametrize(
    ("refused", "form", "n_failed"),
    [
        (("json_schema",), "json_object", 1),
        (("response_format",), "text", 2),
        (("logprobs",), "json_schema", 1),
        (("seed", "logprobs", "response_format"), "text", 4),
    ],
)
def test_what_an_endpoint_refuses_is_left_out_and_not_tried_twice(asker, endpoint, refused, form, n_failed):
    endpoint.default = refuses(*refused)
    found = asker(concurrency=1, logprobs=True).ask(CELLS)
    assert found.p_resistant.tolist() == P
    assert found.forms == {form: 3}
    assert len(endpoint.asked) == 3 + n_failed


def test_a_newer_model_wants_its_limit_under_another_name():
    said = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    assert Dialect().without(said) == Dialect(limit="max_completion_tokens")
    poorest = Dialect(form="text", logprobs=False, seed=False)
    assert poorest.without("no") is None
    steps = list(itertools.takewhile(bool, itertools.accumulate(range(9), _poorer, initial=Dialect())))
    assert steps[-1] == poorest


def _poorer(dialect, _):
    return dialect and dialect.without("no")


def test_a_filtered_answer_is_a_failure_and_no_error(asker, endpoint):
    endpoint.default = fails(400, "filtered", "content_filter")
    assert asker(retries=0).ask(CELLS).failed.all()


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


# What it costs.


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
    settings = PromptSettings.of(CARD)
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
    with pytest.raises(CostLimit, match=r"Stopped at 0.000\d+ USD after \d requests"):
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


# What is kept.


def test_a_damaged_reply_is_asked_for_again(asker, endpoint, tmp_path):
    asker().ask(CELLS)
    files = sorted((tmp_path / "prompts").glob("*/*.json"))
    files[0].write_text("{")
    files[1].write_text('{"content": 5, "odds": {"c1": []}}')
    assert asker().ask(CELLS).p_resistant.tolist() == P
    assert len(endpoint.asked) == 5


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


RUN = """
import sys
from pathlib import Path
from scdrugmap.evaluation.prompting_ask import Asker
from scdrugmap.evaluation.prompting_odds import odds_of
from scdrugmap.evaluation.prompting_settings import PromptSettings
from scdrugmap.evaluation.prompting_text import CellText
from scdrugmap.models import MODELS
settings = PromptSettings.of(MODELS["gpt-4o-mini"], {"cells_per_request": 1, "concurrency": 2, "logprobs": False})
cells = [CellText((f"GENE{number}", "ACTB")) for number in range(10)]
Asker(settings, folder=Path(sys.argv[1])).ask(cells)
"""


def test_after_a_kill_only_what_was_not_answered_is_asked(asker, endpoint, tmp_path):
    gate, reached = threading.Event(), threading.Event()

    def act(handler, body):
        if len(endpoint.asked) >= 5:
            reached.set()
            gate.wait(10)
        good(handler, body)

    endpoint.default = act
    process = subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path / "prompts")])
    assert reached.wait(60)
    deadline = time.monotonic() + 10
    while len(list((tmp_path / "prompts").glob("*/*.json"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    gate.set()
    kept = len(list((tmp_path / "prompts").glob("*/*.json")))
    assert 3 <= kept < 10
    endpoint.default = good
    before = len(endpoint.asked)
    found = asker(cells_per_request=1, connection_retries=5, timeout=60.0).ask(CELLS)
    assert len(endpoint.asked) - before == 10 - kept
    assert found.p_resistant.tolist() == P


# The Batch API.


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
    monkeypatch.setattr("scdrugmap.evaluation.prompting_batch.MOST", 4)
    assert asker(batch_api=True, cells_per_request=1).ask(CELLS).p_resistant.tolist() == P
    assert [len(upload.splitlines()) for upload in endpoint.uploads] == [4, 4, 2]


# The strategy of a benchmark.


@pytest.fixture
def material():
    cells = [simulate(n_cells=40, n_genes=300, n_samples=4, seed=seed) for seed in (0, 1)]
    for number, adata in enumerate(cells):
        adata.obs["dataset"] = adata.obs["study"] = f"GSE{number + 1}"
    return Material.of(load_sources(cells))


def experiment(material, **changes) -> Experiment:
    quick = {"cells_per_request": 8, "retries": 0, "connection_retries": 0, "top_k": 5, "logprobs": False}
    return Experiment(
        "gpt-4o-mini",
        "prompt",
        tuple(source.name for source in material.sources),
        tuple(source.content for source in material.sources),
        strategy="prompt",
        settings=sorted_options(quick | changes.pop("settings", {})),
        **changes,
    )


@pytest.fixture
def allowed(monkeypatch):
    monkeypatch.setenv(MAX_COST, "1")


def run(asked, material, tmp_path):
    return evaluate(asked, material, cache=tmp_path / "embeddings", device="cpu")


def test_zero_shot_is_asked_once_for_all_splits(material, endpoint, tmp_path, allowed):
    whole = experiment(material, protocol="cross-data", split_by="study", shots=0)
    done, predictions = run(whole, material, tmp_path)
    assert done.outcome.state == "done", done.outcome.reason
    n_asked = len(endpoint.asked)
    assert n_asked == 10
    assert not any("known" in body["messages"][1]["content"] for body in endpoint.asked)
    assert not any("GSE" in json.dumps(body) for body in endpoint.asked)
    assert any("without examples" in warning for warning in done.outcome.warnings)
    pooled, again = run(experiment(material, split_by="sample", folds=2), material, tmp_path)
    assert pooled.outcome.state == "done", pooled.outcome.reason
    assert len(endpoint.asked) == n_asked
    both = [frame.sort("dataset", "cell")["p_resistant"].to_list() for frame in (predictions, again)]
    assert both[0] == both[1]
    assert list((tmp_path / "prompts").glob("*/*.json"))


def test_shots_are_told_as_examples_and_only_those_of_the_target(material, endpoint, tmp_path, allowed):
    asked = experiment(material, protocol="cross-data", split_by="study", shots=2, reserve=2)
    done, _ = run(asked, material, tmp_path)
    assert done.outcome.state == "done", done.outcome.reason
    for body in endpoint.asked:
        text = body["messages"][1]["content"]
        told = text.split("Cells to judge:")[0]
        assert told.count("\nsensitive: ") == told.count("\nresistant: ") == 2
    texts = {
        source.name: {" ".join(text.genes) for text in cell_texts(source.adata, PromptSettings.of(CARD, {"top_k": 5}))}
        for source in material.sources
    }
    for body in endpoint.asked:
        text = body["messages"][1]["content"]
        tested = next(name for name, own in texts.items() if " ".join(asked_cells(body)["c1"]) in own)
        told = [line.split(": ")[1] for line in text.splitlines() if line.startswith(("sensitive: ", "resistant: "))]
        assert set(told) <= texts[tested]


def test_failures_count_against_the_model_and_are_counted(material, endpoint, tmp_path, allowed):
    endpoint.default = edits(lambda found: found[:4])  # half of each request is never answered
    done, predictions = run(experiment(material, folds=2), material, tmp_path)
    failed = predictions.filter(predictions["p_resistant"].is_between(0.4999, 0.5))
    assert failed.height == 40
    called = np.where(failed["p_resistant"].to_numpy() >= 0.5, "resistant", "sensitive")
    assert (called != failed["label"].to_numpy()).all()
    counted = [warning for warning in done.outcome.warnings if "count as wrong" in warning]
    assert sum(int(warning.split(": ")[1].split(" of ")[0]) for warning in counted) == 40
    part = next(part for part in done.outcome.parts if part.fold == "all")
    assert part.values["accuracy"] <= 0.5 + 1e-9


def test_a_benchmark_sends_nothing_without_a_limit(material, endpoint, tmp_path, monkeypatch):
    monkeypatch.delenv(MAX_COST, raising=False)
    done, _ = run(experiment(material), material, tmp_path)
    assert done.outcome.state == "failed"
    assert done.outcome.error == ConsentMissing.__name__
    assert "gene names" in done.outcome.reason
    assert MAX_COST in done.outcome.remedy
    for limit, reason in (("1e-9", "would cost about"), ("much", "no amount of US dollars")):
        monkeypatch.setenv(MAX_COST, limit)
        assert reason in run(experiment(material), material, tmp_path)[0].outcome.reason
    assert not endpoint.asked


def test_a_model_that_embeds_cannot_be_asked(material, endpoint, allowed):
    asked = replace(experiment(material), model="hvg")
    with pytest.raises(InvalidInput, match="'hvg' embeds cells"):
        PromptLearner.of(asked, material, device="cpu", cache=None, progress=False)


# A real server that is not ours.

TINY = """
import sys
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
import torch
torch.manual_seed(0)
words = ["<s>", "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
tokenizer = Tokenizer(models.BPE(vocab={word: n for n, word in enumerate(words)}, merges=[], unk_token="<unk>"))
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
fast.chat_template = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\\n{% endfor %}"
fast.save_pretrained(sys.argv[1])
config = LlamaConfig(vocab_size=len(words), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
                     num_attention_heads=2, num_key_value_heads=2, bos_token_id=0, eos_token_id=1)
LlamaForCausalLM(config).save_pretrained(sys.argv[1])
from transformers.cli.serve import Serve
Serve(sys.argv[1], host="127.0.0.1", port=int(sys.argv[2]), device="cpu")
"""


@pytest.fixture
def transformers_server(tmp_path, monkeypatch):
    """`transformers serve` with a tiny random causal model, in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    model = str(tmp_path / "tiny")
    with (tmp_path / "log").open("w") as log:
        command = [sys.executable, "-c", TINY, model, str(port)]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 120
        while not _answers(port):
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.1)
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{port}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        yield model
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as response:
            return response.status == 200
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def test_a_real_server_with_a_model_that_talks_nonsense(transformers_server, tmp_path):
    given = {"name": transformers_server, "retries": 1, "cells_per_request": 2, "timeout": 60.0}
    asker = Asker(PromptSettings.of(CARD, given), folder=tmp_path / "prompts")
    found = asker.ask(CELLS[:4])
    assert found.failed.all()
    assert found.problems == {"unreadable": 8}
    assert asker.budget.n_paid == 4
    assert asker.budget.input_tokens > 1000
    assert transformers_server in found.served[0]
    assert len(list((tmp_path / "prompts").glob("*/*.json"))) == 4
