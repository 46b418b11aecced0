"""An OpenAI-compatible endpoint: whom to ask, what it takes, and what its refusals mean.

Address and key come from the environment (OPENAI_BASE_URL, OPENAI_API_KEY), at the moment of asking, and go nowhere but
into the client. The openai client itself waits and asks again on rate limits (as long as Retry-After says), timeouts,
dropped connections and errors of the server, with exponential backoff and jitter.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from scdrugmap.errors import EndpointFailed
from scdrugmap.prompting.label_probability import label_probs
from scdrugmap.prompting.prompt import schema
from scdrugmap.prompting.replies import Reply
from scdrugmap.prompting.reply_cache import Request

if TYPE_CHECKING:
    import openai

OPENAI = "https://api.openai.com/v1"
TOP_LOGPROBS = 5  # alternatives asked for at each token
MAX_TOKENS_PER_CELL = 40  # tokens that the answer about a cell may take; 18 are usual
_SECRET = 12  # letters of a key, from which on it is one: a local endpoint takes any word, such as "none"
_QUOTED = 200  # characters of an endpoint's own words that a message repeats
_FINAL = ("content_filter", "content_policy_violation", "model_not_found")
_TOO_LONG = ("context length", "context_length", "context size", "too long", "too large", "maximum context")
_AGAIN = "Run it again: answers that came are kept, and only the others are asked for."


class RequestTooLong(EndpointFailed):
    """A request, with the tokens for its answer, is longer than the model takes."""


@dataclass(frozen=True)
class Capabilities:
    """What an endpoint takes. Each starts with everything, and loses what it refuses."""

    form: str = "json_schema"  # then json_object, then text
    logprobs: bool = True
    seed: bool = True
    limit: str = "max_tokens"  # or max_completion_tokens

    def without(self, refusal: str) -> Capabilities | None:
        """Return them without what a refusal names or, if it names nothing, the next thing; None: all gone."""
        words = refusal.lower()
        if self.limit == "max_tokens" and "max_completion_tokens" in words:
            return replace(self, limit="max_completion_tokens")
        if self.logprobs and "logprob" in words:
            return replace(self, logprobs=False)
        if self.seed and "seed" in words:
            return replace(self, seed=False)
        if self.form != "text":
            return replace(self, form="json_object" if self.form == "json_schema" else "text")
        if self.logprobs:
            return replace(self, logprobs=False)
        return replace(self, seed=False) if self.seed else None


class Endpoint:
    """One endpoint and the key to it; `host` is all of it that may be written down."""

    def __init__(self, url: str, key: str, *, timeout: float = 60.0, retries: int = 5) -> None:
        parts = _address(url)
        self.host = parts.netloc.rpartition("@")[2]
        self.capabilities = Capabilities()
        self._url, self._key, self._timeout, self._retries = url, key, timeout, retries
        self._client: openai.OpenAI | None = None
        self._secrets = [word for word in (key, parts.password) if word and len(word) >= _SECRET]

    @classmethod
    def from_env(cls, *, timeout: float = 60.0, retries: int = 5) -> Endpoint:
        """Return the endpoint of this process's environment; raises `EndpointFailed` without a key."""
        key = os.environ.get("OPENAI_API_KEY", "").strip()
        url = os.environ.get("OPENAI_BASE_URL", "").strip() or OPENAI
        if not key:
            message = "There is no key for the endpoint: OPENAI_API_KEY is not set."
            raise EndpointFailed(message, "Run: export OPENAI_API_KEY=... (any word where the endpoint wants none).")
        if not (key.isascii() and key.isprintable()) or " " in key:
            message = "OPENAI_API_KEY holds a space, a line break or another character that no key has."
            raise EndpointFailed(
                message, "Copy the key again, without quotation marks around it: export OPENAI_API_KEY=..."
            )
        return cls(url, key, timeout=timeout, retries=retries)

    @property
    def client(self) -> openai.OpenAI:
        """The openai client, made when it is first needed."""
        if self._client is None:
            import openai

            how: dict[str, Any] = {"timeout": self._timeout, "max_retries": self._retries}
            try:
                self._client = openai.OpenAI(api_key=self._key, base_url=self._url, **how)
            except (ValueError, ImportError, OSError, openai.OpenAIError) as error:  # a proxy, a certificate, a header
                message = f"The client for {self.host} cannot be made: {self.hide(error)}"
                remedy = "Check the proxy that the environment names: env | grep -i proxy"
                raise EndpointFailed(message, remedy) from None
        return self._client

    def close(self) -> None:
        """Close the connections; the next question opens new ones."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def ask(self, request: Request) -> Reply:
        """Put one question; raises `EndpointFailed` where no answer can be had."""
        import openai

        capabilities, first = self.capabilities, None
        while True:
            try:
                raw = self.client.chat.completions.with_raw_response.create(**self.body(request, capabilities))
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                if error.code in ("content_filter", "content_policy_violation"):
                    return Reply("", finish="content_filter", form=capabilities.form, date=_now())
                first = first or error
                final = _is_final(error)
                poorer = None if final else capabilities.without(str(error.message))
                if poorer is None:
                    raise self.failure(error if final else first, request.model) from None
                capabilities = poorer
                continue
            except openai.OpenAIError as error:
                raise self.failure(error, request.model) from None
            reply = self.reply(raw.http_response.text, capabilities.form)
            self.capabilities = capabilities
            return reply

    def body(self, request: Request, capabilities: Capabilities | None = None) -> dict[str, Any]:
        """Return the body of a chat completion, as client and Batch API take it."""
        capabilities = capabilities or self.capabilities
        body: dict[str, Any] = {"model": request.model, "messages": list(request.messages)}
        body[capabilities.limit] = request.max_tokens + MAX_TOKENS_PER_CELL * request.n_cells
        if request.temperature is not None:
            body["temperature"] = request.temperature
        if capabilities.seed:
            body["seed"] = request.seed
        if capabilities.logprobs and request.logprobs:
            body |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        if capabilities.form == "json_schema":
            form = {"name": "answers", "strict": True, "schema": schema(request.n_cells)}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        elif capabilities.form == "json_object":
            body["response_format"] = {"type": "json_object"}
        return body

    def reply(self, text: str, form: str) -> Reply:
        """Read a chat completion; raises `EndpointFailed` for anything else."""
        try:
            return _reply(json.loads(self._redacted(text)), form)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError):
            message = f"What {self.host} answers is no chat completion: {self.hide(text)}"
            raise EndpointFailed(message, "Check OPENAI_BASE_URL; it usually ends in /v1.") from None

    def hide(self, text: object) -> str:
        """Return the beginning of what an endpoint said, on one line and without the key."""
        line = " ".join(self._redacted(str(text)).split())
        return line[:_QUOTED] + ("..." if len(line) > _QUOTED else "")

    def _redacted(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def failure(self, error: openai.OpenAIError, model: str) -> EndpointFailed:
        """Say what an error of the client means and what mends it."""
        import openai

        words = self.hide(getattr(error, "message", error)).rstrip(".")
        code, status = getattr(error, "code", None), getattr(error, "status_code", None)
        tries = f"after {self._retries + 1} attempt{'s' * (self._retries > 0)}"
        if status in (401, 403):
            return EndpointFailed(f"{self.host} refused the key ({status}).", "Set OPENAI_API_KEY to a valid key.")
        if status == 404 and not ("model" in words.lower() or code == "model_not_found"):
            message = f"{self.host} has no chat completions at OPENAI_BASE_URL ({words})."
            return EndpointFailed(message, "Check the address; it usually ends in /v1.")
        if status == 404:
            message = f"{self.host} has no model '{model}' ({words})."
            return EndpointFailed(message, "Name one that it has: --set name=...")
        if code == "insufficient_quota":
            return EndpointFailed(f"The account at {self.host} has no credit left.", f"Add credit. {_AGAIN}")
        if status in (400, 413, 422) and _is_too_long(f"{code} {words}".lower()):
            remedy = "Send less: --set cells_per_request=5 or --set top_k=30"
            return RequestTooLong(f"A request is too long for '{model}' ({words}).", remedy)
        if status in (400, 422) and "temperature" in words.lower():
            message = f"{self.host} refused the request: {words}"
            return EndpointFailed(message, "Leave the temperature to it: --set temperature=null")
        if isinstance(error, openai.RateLimitError):
            wait = error.response.headers.get("retry-after", "")  # the client waits two minutes at most
            when = f" and asks to wait {wait} s" if wait.isdigit() else ""
            return EndpointFailed(f"{self.host} is over its rate limit{when}, {tries} at most.", _AGAIN)
        if isinstance(error, openai.APITimeoutError):
            return EndpointFailed(f"{self.host} did not answer within {self._timeout:g} s, {tries}.", _AGAIN)
        if isinstance(error, openai.APIConnectionError):
            remedy = f"Check OPENAI_BASE_URL and the network. {_AGAIN}"
            return EndpointFailed(f"No connection with {self.host} {tries} ({words}).", remedy)
        if status is not None and status >= 500:
            return EndpointFailed(f"{self.host} failed {tries} ({status}: {words}).", _AGAIN)
        return EndpointFailed(f"{self.host} refused the request: {words}", "Check the settings of the model.")


def _reply(body: Mapping[str, Any], form: str) -> Reply:
    choice = body["choices"][0]
    usage = body.get("usage") or {}
    tokens = (choice.get("logprobs") or {}).get("content") or []
    return Reply(
        content=_text(choice["message"].get("content")),
        label_probs=label_probs([(token["token"], _listed(token)) for token in tokens]),
        input_tokens=int(usage.get("prompt_tokens") or 0),
        output_tokens=int(usage.get("completion_tokens") or 0),
        finish=str(choice.get("finish_reason") or ""),
        model_version=" ".join(str(body.get("model") or "").encode(errors="replace").decode().split())[:_QUOTED],
        form=form,
        date=_now(),
    )


def _text(content: object) -> str:
    """Return what a message says: a text, or the texts among its parts (others hold thinking); "" for nothing."""
    if isinstance(content, list):
        return "".join(str(part["text"]) for part in content if isinstance(part, dict) and part.get("type") == "text")
    return str(content or "")


def _is_final(error: openai.APIStatusError) -> bool:
    """Tell whether a refusal has nothing to do with what the endpoint takes."""
    words = str(error.message).lower()
    return error.code in _FINAL or "temperature" in words or _is_too_long(words)


def _is_too_long(refusal: str) -> bool:
    return "schema" not in refusal and any(word in refusal for word in _TOO_LONG)


def _listed(token: Mapping[str, Any]) -> dict[str, float]:
    """Return the alternatives at a token that have a number; without a list, the token itself."""
    listed = token.get("top_logprobs") or [token]
    return {
        str(entry["token"]): float(entry["logprob"])
        for entry in listed
        if isinstance(entry.get("logprob"), int | float)
    }


def _address(url: str) -> SplitResult:
    """Return the parts of an endpoint's address; raises `EndpointFailed` for what is none."""
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # such as a port that is no number
        fits = False
    if not fits:
        message = "OPENAI_BASE_URL is no address of an endpoint."
        raise EndpointFailed(message, "Give one such as http://localhost:8000/v1, or unset it for OpenAI.")
    return parts


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
