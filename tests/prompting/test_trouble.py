"""What an endpoint may do wrong: waited out, or one line; and what it does not take, left out."""

from __future__ import annotations

import itertools
import socket
import time

import pytest
from prompting_cells import CELLS, P
from scripted_endpoint import (
    KEY,
    completion,
    drops,
    fails,
    good,
    raw,
    refuses,
    slow,
)

from scdrugmap.errors import EndpointFailed
from scdrugmap.prompting.endpoint import Capabilities


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
        (raw(b'{"choices": [{"message": {}}], "usage": {"prompt_tokens": 1e999}}'), "no chat completion", "/v1"),
        (raw(b"[" * 100_000), "no chat completion", "/v1"),
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
    assert Capabilities().without(said) == Capabilities(limit="max_completion_tokens")
    poorest = Capabilities(form="text", logprobs=False, seed=False)
    assert poorest.without("no") is None
    steps = list(itertools.takewhile(bool, itertools.accumulate(range(9), _poorer, initial=Capabilities())))
    assert steps[-1] == poorest


def _poorer(capabilities, _):
    return capabilities and capabilities.without("no")


def test_a_filtered_answer_is_a_failure_and_no_error(asker, endpoint):
    endpoint.default = fails(400, "filtered", "content_filter")
    assert asker(retries=0).ask(CELLS).failed.all()


@pytest.mark.parametrize("key", ["sk-canary\nX-Evil: 1", "sk canary", "sk-canar\u00ff"])
def test_a_key_that_cannot_be_one_is_not_repeated(endpoint, asker, monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(EndpointFailed, match="holds a space, a line break") as caught:
        asker()
    assert "canar" not in caught.value.line


@pytest.mark.parametrize("url", ["http://[::1", "http://host:port/v1", "ftp://host/v1", "http://:80/v1"])
def test_an_address_that_is_none(asker, monkeypatch, url):
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    with pytest.raises(EndpointFailed, match="OPENAI_BASE_URL is no address"):
        asker()


def test_an_address_without_its_path_is_not_taken_for_a_missing_model(asker, endpoint, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url.removesuffix("/v1"))
    with pytest.raises(EndpointFailed, match="has no chat completions at OPENAI_BASE_URL") as caught:
        asker().ask(CELLS)
    assert "/v1" in caught.value.remedy


def test_a_proxy_that_is_none_is_one_line(asker, endpoint, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "foo://user:secret-of-the-proxy@host:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(EndpointFailed, match="cannot be made") as caught:
        asker().ask(CELLS)
    assert "secret-of-the-proxy" not in caught.value.line
    assert "env | grep -i proxy" in caught.value.remedy


def test_a_model_that_takes_no_temperature_is_asked_once(asker, endpoint):
    endpoint.default = fails(400, "Unsupported value: 'temperature' does not support 0.0 with this model.")
    with pytest.raises(EndpointFailed, match="temperature") as caught:
        asker(concurrency=1).ask(CELLS)
    assert caught.value.remedy.endswith("--set temperature=null")
    assert len(endpoint.asked) == 1


@pytest.mark.parametrize(
    "odd",
    [
        {"model": "two\nlines\ud800"},
        {"choices": [{"index": 0, "message": {"content": [{"type": "thinking", "text": "no"}]}}]},
    ],
)
def test_odd_words_in_a_completion_do_no_harm(asker, endpoint, odd):
    endpoint.default = lambda handler, body: handler.send(200, completion(body, "no answer") | odd)
    found = asker(retries=0).ask(CELLS)
    assert found.failed.all()
    assert all(name.isprintable() for name in found.model_versions)


def test_a_word_that_stands_for_a_key_is_no_secret(asker, endpoint, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "a")
    assert asker().ask(CELLS).p_resistant.tolist() == P


def test_a_newer_model_is_asked_in_its_dialect_and_says_what_it_does_not_take(asker, endpoint):
    def act(handler, body):
        if "max_tokens" in body:
            fails(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")(handler, body)
        elif "temperature" in body:
            fails(400, "Unsupported value: 'temperature' does not support 0.0 with this model.")(handler, body)
        else:
            good(handler, body)

    endpoint.default = act
    with pytest.raises(EndpointFailed, match="does not support") as caught:
        asker(concurrency=1).ask(CELLS)
    assert caught.value.remedy.endswith("--set temperature=null")
    found = asker(concurrency=1, temperature=None, cells_per_request=10).ask(CELLS)
    assert found.p_resistant.tolist() == P
    assert endpoint.asked[-1]["max_completion_tokens"] == 500
