"""What asking costs: estimated before anything is sent, counted while answers come, stopped at a limit.

Tokens are estimated from characters, by rates measured with GPT-4o's own tokenizer (o200k) on cell sentences, prose and
answers: gene names take 1.83 characters a token, English 5.25, and an answer about a cell 18 tokens. The estimate takes
a little fewer characters a token, so that the bill is rather lower. Tokens for an answer beyond the usual are expected
to be used, as they are set for a model that thinks. Requests for cells without a readable answer come on top of the
estimate; the limit counts them too.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scdrugmap.data.labels import RESPONSES
from scdrugmap.errors import CostLimit
from scdrugmap.prompting.prompt import SYSTEM, schema
from scdrugmap.prompting.replies import Reply
from scdrugmap.prompting.reply_cache import Request
from scdrugmap.prompting.settings import PromptSettings

GENES_PER_TOKEN = 1.75  # characters
PROSE_PER_TOKEN = 4.0
ANSWER_TOKENS = 20  # a cell
FRAME_TOKENS = 15  # of a request or an answer, beside its text
USUAL_MAX_TOKENS = 100  # tokens beside those of the cells that an answer without thinking leaves nearly unused
_COUNTED = ("n_cells", "n_requests", "n_answered", "input_tokens", "output_tokens", "usd")
BATCH_PRICE = 0.5  # the Batch API's, as a share of the usual one
GENE_LENGTH = 6.0  # characters of a gene's name and the space after it, on average, where no cell has been read
SENT = (
    "the names of each cell's {top_k} most highly expressed genes, in their order{about}; no barcodes, no counts, no "
    "names of samples, patients, files or data sets"
)


@dataclass(frozen=True)
class Price:
    """US dollars for a token."""

    input: float
    output: float

    @classmethod
    def from_settings(cls, settings: PromptSettings, *, batch: bool = False) -> Price:
        """Return what the settings say; `batch` is the Batch API's."""
        share = BATCH_PRICE if batch else 1.0
        return cls(settings.usd_per_million_input * share / 1e6, settings.usd_per_million_output * share / 1e6)

    def of_tokens(self, sent: int, got: int) -> float:
        """Return the price of so many tokens."""
        return self.input * sent + self.output * got


def input_tokens(request: Request) -> int:
    """Estimate the tokens of a request: prose and schema at one rate, what names genes at another."""
    prose = sum(len(part["content"]) for part in request.messages if part["role"] == "system")
    genes = sum(len(part["content"]) for part in request.messages if part["role"] == "user")
    form = len(json.dumps(schema(request.n_cells)))
    return math.ceil(genes / GENES_PER_TOKEN + (prose + form) / PROSE_PER_TOKEN) + FRAME_TOKENS


def output_tokens(request: Request) -> int:
    """Estimate the tokens of an answer."""
    return request.n_cells * ANSWER_TOKENS + _answer_frame(request.max_tokens)


def _answer_frame(max_tokens: int) -> int:
    """Estimate the tokens of an answer beside what it says about cells."""
    return FRAME_TOKENS + max(0, max_tokens - USUAL_MAX_TOKENS)


@dataclass(frozen=True)
class Estimate:
    """What asking would send, to whom, and what it would cost."""

    host: str
    model: str
    n_cells: int
    n_requests: int
    n_answered: int  # of the requests, whose answers are on this machine already
    input_tokens: int  # of the others
    output_tokens: int
    usd: float
    sent: str  # what leaves the machine, in words
    price: str  # and at what price, in words

    @property
    def lines(self) -> tuple[str, ...]:
        """What a person is shown before anything is sent."""
        again = f", {self.n_answered:,} of them answered before and free" if self.n_answered else ""
        tokens = f"about {self.input_tokens:,} tokens sent and {self.output_tokens:,} received"
        return (
            f"To {self.host}, model {self.model}, goes: {self.sent}.",
            f"{_count(self.n_cells, 'cell')} in {_count(self.n_requests, 'request')}{again}; {tokens}.",
            f"Estimated price: {self.usd:.4f} USD ({self.price}); requests asked again come on top.",
        )


def together(parts: Sequence[Estimate]) -> Estimate:
    """Return the estimate of several questions to one endpoint."""
    total = {name: sum(getattr(part, name) for part in parts) for name in _COUNTED}
    return replace(parts[0], **total)


def describe(settings: PromptSettings, examples: str = "") -> tuple[str, str]:
    """Say what is sent of a cell, and of which labelled cells too, and at what price."""
    fields = [word.replace("_", " ") for word in ("drug", "cancer_type", "tissue") if getattr(settings, word)]
    about = f", and what was said about {' and '.join(fields)}" if fields else ""
    labelled = f"; in each request the same of {examples}, and the label of each" if examples else ""
    price = (
        f"{settings.usd_per_million_input:g} and {settings.usd_per_million_output:g} USD a million tokens in and out"
    )
    half = ", half of it through the Batch API" if settings.batch_api else ""
    sent = SENT.format(top_k=settings.top_k, about=about) + labelled
    return sent, f"{price}{half}, prices of {settings.price_date}"


def count_examples(labels: Sequence[str]) -> str:
    """Say how many labelled cells are told: "10 labelled cells (5 sensitive, 5 resistant)"; "" for none."""
    classes = ", ".join(f"{list(labels).count(label)} {label}" for label in RESPONSES)
    return f"{_count(len(labels), 'labelled cell')} ({classes})" if labels else ""


def _count(n: int, thing: str) -> str:
    return f"{n:,} {thing}{'s' * (n != 1)}"


def rough_estimate(settings: PromptSettings, n_cells: int, host: str, *, shots: int = 0) -> Estimate:
    """Estimate from the number of cells alone, before a file is read; `shots` labelled cells a class are told."""
    size, examples = settings.cells_per_request, [label for label in RESPONSES for _ in range(shots)]
    n_requests = math.ceil(n_cells / size)
    prose = (len(SYSTEM) + len(json.dumps(schema(size)))) / PROSE_PER_TOKEN + FRAME_TOKENS
    example_letters = sum(len(label) + 2 for label in examples) + len(examples) * settings.top_k * GENE_LENGTH
    genes = (n_cells * settings.top_k * GENE_LENGTH + n_requests * example_letters) / GENES_PER_TOKEN
    sent = math.ceil(genes + n_requests * prose)
    got = n_cells * ANSWER_TOKENS + n_requests * _answer_frame(settings.room)
    usd = Price.from_settings(settings, batch=settings.batch_api).of_tokens(sent, got)
    words = describe(settings, count_examples(examples))
    return Estimate(host, settings.name, n_cells, n_requests, 0, sent, got, usd, *words)


class Budget:
    """Counts what answers really used, and stops at a limit in US dollars; None is no limit. Threads share it."""

    def __init__(self, settings: PromptSettings, limit: float | None = None) -> None:
        self.settings, self.limit = settings, limit
        self.usd, self.input_tokens, self.output_tokens = 0.0, 0, 0
        self.n_paid = 0  # requests that were sent
        self._expected = 0.0  # of requests that are on their way
        self._estimated = 0.0  # of those that came back, before they were sent
        self._lock = threading.Lock()

    def spent(self) -> dict[str, int | float]:
        """Return what was paid, for a record."""
        tokens = {"input_tokens": self.input_tokens, "output_tokens": self.output_tokens}
        return {"requests": self.n_paid, **tokens, "usd": self.usd}

    def admit(self, estimate: Estimate) -> None:
        """Raise `CostLimit` where an estimate, with what was spent before, is over the limit."""
        if self.limit is not None and self.usd + estimate.usd > self.limit:
            usd = self.usd + estimate.usd
            message = f"Asking {estimate.model} would cost about {usd:.4f} USD; {self.limit:g} is allowed."
            raise CostLimit(message, "Allow a higher cost (--max-cost), or send less: fewer cells, or --set top_k=20")

    def expect(self, request: Request) -> float:
        """Set the price of a request aside before it is sent; raises `CostLimit` where it could pass the limit."""
        price = Price.from_settings(self.settings)
        usd = price.of_tokens(input_tokens(request), output_tokens(request))
        with self._lock:
            if self._estimated:
                usd *= max(1.0, self.usd / self._estimated)  # as the answers so far turned out
            if self.limit is not None and self.usd + self._expected + usd > self.limit:
                message = (
                    f"Stopped at {self.usd:.4f} USD after {_count(self.n_paid, 'request')}: {self.limit:g} is allowed."
                )
                raise CostLimit(
                    message, "Allow a higher cost (--max-cost) and run it again: what was answered is not paid twice."
                )
            self._expected += usd
        return usd

    def settle(self, expected: float, request: Request, reply: Reply | None, *, batch: bool = False) -> None:
        """Count what an answer used, or its estimate where the endpoint does not say; None: nothing came."""
        price = Price.from_settings(self.settings, batch=batch)
        estimated = price.of_tokens(input_tokens(request), output_tokens(request))
        with self._lock:
            self._expected -= expected
            if reply is None:
                return
            counted = reply.input_tokens > 0
            used = reply.input_tokens if counted else input_tokens(request)
            got = reply.output_tokens if counted else output_tokens(request)
            self.input_tokens += used
            self.output_tokens += got
            self.usd += price.of_tokens(used, got)
            self._estimated += estimated
            self.n_paid += 1
