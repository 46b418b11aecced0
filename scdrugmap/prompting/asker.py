"""Asking about many cells: requests of a few cells, several at a time, until each cell has an answer or has failed.

Cells are put into requests in a seeded random order, so that a request does not hold the cells of one sample, and only
cells of which the same is told share one. What cannot be read is asked again, for those cells alone, with the next
seed, and with more tokens where the answer was cut off by its length. Every reply is on disk before the next request
goes out: a run that was stopped, or killed, begins where it ended.
"""

from __future__ import annotations

import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from scdrugmap.progress import Progress, reporting
from scdrugmap.prompting.batch_api import Batches
from scdrugmap.prompting.cost import Budget, Estimate, Price, count_examples, describe, input_tokens, output_tokens
from scdrugmap.prompting.endpoint import MAX_TOKENS_PER_CELL, Endpoint, RequestTooLong
from scdrugmap.prompting.prompt import CellText, Example, messages, names_of
from scdrugmap.prompting.replies import Answer, Reply, read
from scdrugmap.prompting.reply_cache import ReplyCache, Request
from scdrugmap.prompting.settings import PromptSettings

BEAT = 1.0  # seconds between two words to who watches, where nothing is answered
MAX_TOKENS_GROWTH = 4  # times the tokens of an answer that was cut off
LARGEST_MAX_TOKENS = 16_384  # tokens; what GPT-4o mini writes at most. A larger limit must be set


@dataclass(frozen=True)
class PromptResult:
    """What a model said of cells, in their order."""

    p_resistant: np.ndarray  # (n_cells,) float32; NaN where there is no answer
    sources: dict[str, int] = field(default_factory=dict)  # cells by where P comes from: logprobs or stated
    problems: dict[str, int] = field(default_factory=dict)  # what was wrong with replies, mended by asking again or not
    forms: dict[str, int] = field(default_factory=dict)  # replies by the form the endpoint was held to
    model_versions: tuple[str, ...] = ()  # the models as the endpoint calls them

    @property
    def failed(self) -> np.ndarray:
        """Which cells have no readable answer, (n_cells,) bool."""
        return np.isnan(self.p_resistant)


@dataclass
class _Work:
    """What is asked at once, and what several threads read."""

    cells: Sequence[CellText]
    examples: Sequence[Example]
    stop: threading.Event = field(default_factory=threading.Event)
    answers: dict[int, Answer] = field(default_factory=dict)
    problems: Counter[str] = field(default_factory=Counter)
    forms: Counter[str] = field(default_factory=Counter)
    model_versions: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, rows: Sequence[int], reply: Reply) -> None:
        answers, problems = read(reply, len(rows))
        by_name = dict(zip(names_of(len(rows)), rows, strict=True))
        with self.lock:
            self.answers |= {by_name[name]: answer for name, answer in answers.items()}
            self.problems += problems
            self.forms[reply.form or "none"] += 1
            self.model_versions |= {reply.model_version} - {""}


class PromptRunner:
    """A model at an endpoint, its settings, the replies that are known, and what may be spent."""

    def __init__(self, settings: PromptSettings, *, folder: Path, seed: int = 0, max_cost: float | None = None) -> None:
        self.settings, self.seed = settings, seed
        self.endpoint = Endpoint.from_env(timeout=settings.timeout, retries=settings.connection_retries)
        self.replies, self.budget = ReplyCache(folder), Budget(settings, max_cost)
        self._batches = Batches(self.endpoint, self.replies, self.budget, poll=settings.poll)

    def estimate(self, cells: Sequence[CellText], examples: Sequence[Example] = ()) -> Estimate:
        """Say what asking would send and cost; sends nothing."""
        batch = self.settings.batch_api
        requests = list(self._first(cells, examples))
        new = [request for request in requests if request.key(self.endpoint.host) not in self.replies]
        sent = sum(input_tokens(request) for request in new)
        got = sum(output_tokens(request) for request in new)
        usd = Price.from_settings(self.settings, batch=batch).of_tokens(sent, got)
        known = len(requests) - len(new)
        where = (self.endpoint.host, self.settings.name)
        words = describe(self.settings, count_examples([example.label for example in examples]))
        return Estimate(*where, len(cells), len(requests), known, sent, got, usd, *words)

    def ask(
        self, cells: Sequence[CellText], examples: Sequence[Example] = (), *, progress: Progress = False
    ) -> PromptResult:
        """Ask about cells; one that expresses no gene is not asked about and has failed.

        Raises `CostLimit` before anything is sent where the estimate is over the limit, and in the middle where the
        real use passes it; `EndpointFailed` where an answer cannot be had. What was answered until then is kept.
        """
        self.budget.admit(self.estimate(cells, examples))
        work = _Work(cells, examples)
        groups = self._groups(cells)
        try:
            with reporting(progress, sum(map(len, groups)), "cell") as tell:
                if self.settings.batch_api:
                    self._batches.run(list(self._first(cells, examples)), lambda: tell(0))
                self._ask_all(groups, work, tell)
        finally:
            self.endpoint.close()
        p = np.full(len(cells), np.nan, dtype=np.float32)
        for row, answer in work.answers.items():
            p[row] = answer.p_resistant
        sources = Counter(answer.source for answer in work.answers.values())
        return PromptResult(p, dict(sources), dict(work.problems), dict(work.forms), tuple(sorted(work.model_versions)))

    def _ask_all(self, groups: Sequence[Sequence[int]], work: _Work, tell: Callable[[int], None]) -> None:
        """Ask the groups at once, as many as may be; the first error stops those that have not begun.

        `tell` hears of cells that are done, and of 0 every now and then: a `Cancelled` of its is not kept waiting.
        """
        done = queue.SimpleQueue[Future[None]]()
        _ = self.endpoint.client  # made once, before threads ask for it
        pool = ThreadPoolExecutor(self.settings.concurrency, thread_name_prefix="ask")
        try:
            sizes = {pool.submit(self._ask_group, rows, work): len(rows) for rows in groups}
            for future in sizes:
                future.add_done_callback(done.put)
            while sizes:
                try:
                    future = done.get(timeout=BEAT)
                except queue.Empty:
                    tell(0)
                    continue
                future.result()
                tell(sizes.pop(future))
        finally:
            work.stop.set()
            pool.shutdown(wait=True, cancel_futures=True)

    def _ask_group(self, rows: Sequence[int], work: _Work) -> None:
        """Ask about the cells of one request, and again about those without an answer; an error stops all others."""
        missing, max_tokens, ended = list(rows), self.settings.room, False
        try:
            for attempt in range(1 + self.settings.retries):
                if work.stop.is_set() or not missing:
                    break
                request = self._request([work.cells[row] for row in missing], work.examples, attempt, max_tokens)
                try:
                    reply = self._reply(request, work.stop)
                except RequestTooLong:
                    if max_tokens == self.settings.room:
                        raise
                    break  # this endpoint takes no longer answer: these cells have no answer
                if reply is None:
                    break
                work.add(missing, reply)
                if reply.finish == "length":
                    longer = MAX_TOKENS_GROWTH * (max_tokens + MAX_TOKENS_PER_CELL * len(missing))
                    max_tokens = max(max_tokens, min(longer, LARGEST_MAX_TOKENS))
                missing = [row for row in missing if row not in work.answers]
            ended = True
        finally:
            if not ended:
                work.stop.set()

    def _reply(self, request: Request, stop: threading.Event) -> Reply | None:
        """Return the reply to a request, asked or known; None where another process asks it and `stop` is set."""
        key = request.key(self.endpoint.host)
        known = self.replies.get(key)
        if known is not None:
            return known
        with self.replies.claimed(key[:3], stop.is_set) as held:
            reply = self.replies.get(key)  # another process may have asked meanwhile
            if reply is not None or not held:
                return reply
            expected = self.budget.expect(request)
            try:
                reply = self.endpoint.ask(request)
                self.replies.put(key, reply)
            finally:
                self.budget.settle(expected, request, reply)
        return reply

    def _first(self, cells: Sequence[CellText], examples: Sequence[Example]) -> Iterator[Request]:
        """Yield the requests that are sent when each is answered at once."""
        max_tokens = self.settings.room
        return (self._request([cells[row] for row in rows], examples, 0, max_tokens) for rows in self._groups(cells))

    def _request(
        self, cells: Sequence[CellText], examples: Sequence[Example], attempt: int, max_tokens: int
    ) -> Request:
        settings = self.settings
        texts = messages(cells, examples)
        return Request(
            settings.name, texts, len(cells), self.seed + attempt, max_tokens, settings.temperature, settings.logprobs
        )

    def _groups(self, cells: Sequence[CellText]) -> list[list[int]]:
        """Return the rows of each request; rows of cells without a gene are in none."""
        order = np.random.default_rng(self.seed).permutation(len(cells)).tolist()
        alike: dict[str, list[int]] = {}
        for row in order:
            if cells[row].genes:
                alike.setdefault(cells[row].about, []).append(row)
        size = self.settings.cells_per_request
        return [rows[at : at + size] for _, rows in sorted(alike.items()) for at in range(0, len(rows), size)]
