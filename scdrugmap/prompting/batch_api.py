"""The Batch API: many requests as one file, answered within a day at half the price.

What comes back is put with the other replies; the usual way then finds them there and asks for the rest. A batch is
written down before it is started (`<folder>/batches/`): a run that was killed waits for it instead of paying again.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from scdrugmap.errors import EndpointFailed
from scdrugmap.prompting.cost import Budget
from scdrugmap.prompting.endpoint import Endpoint
from scdrugmap.prompting.reply_cache import ReplyCache, Request, write_json

if TYPE_CHECKING:
    from openai.types import Batch

URL: Final = "/v1/chat/completions"
MOST, MOST_BYTES = 50_000, 150_000_000  # of one batch; the API takes 200 MB
ENDED = ("completed", "failed", "expired", "cancelled")
MARK = "scdrugmap"  # names the metadata by which a batch is found again


class Batches:
    """Sends requests as batches and gathers their replies; `poll` is in seconds."""

    def __init__(self, endpoint: Endpoint, replies: ReplyCache, budget: Budget, *, poll: float = 30.0) -> None:
        self.endpoint, self.replies, self.budget, self.poll = endpoint, replies, budget, poll
        self.folder = replies.folder / "batches"

    def run(self, requests: Sequence[Request], beat: Callable[[], object]) -> None:
        """Return when every batch has ended; `beat` is called while it waits, and may raise `Cancelled`.

        Raises `EndpointFailed` where a batch cannot be sent or comes to nothing.
        """
        wanted = {request.key(self.endpoint.host): request for request in requests}
        with self.replies.claimed("batches", lambda: bool(beat()), self.poll):
            self._run(wanted, beat)

    def _run(self, wanted: Mapping[str, Request], beat: Callable[[], object]) -> None:
        import openai

        try:
            for path in sorted(self.folder.glob("*.json")):
                self._gather(path, wanted, beat)
            missing = [key for key in wanted if key not in self.replies]
            sent = [self._send(keys, lines) for keys, lines in self._files(missing, wanted)]
            for path in sent:
                self._gather(path, wanted, beat)
        except openai.OpenAIError as error:
            model = next((request.model for request in wanted.values()), "")
            raise self.endpoint.failure(error, model) from None

    def _files(self, keys: Sequence[str], wanted: Mapping[str, Request]) -> Iterator[tuple[list[str], bytes]]:
        """Yield the requests of each batch and its file, neither with more than the API takes."""
        chosen: list[str] = []
        lines = bytearray()
        for key in keys:
            request = {"custom_id": key, "method": "POST", "url": URL, "body": self.endpoint.body(wanted[key])}
            line = json.dumps(request).encode() + b"\n"
            if chosen and (len(chosen) == MOST or len(lines) + len(line) > MOST_BYTES):
                yield chosen, bytes(lines)
                chosen, lines = [], bytearray()
            chosen.append(key)
            lines += line
        if chosen:
            yield chosen, bytes(lines)

    def _send(self, keys: Sequence[str], lines: bytes) -> Path:
        """Upload one batch and start it; return where it is written down."""
        mark = secrets.token_hex(8)
        path = self.folder / f"{mark}.json"
        client = self.endpoint.client
        file = client.files.create(file=(f"{mark}.jsonl", lines), purpose="batch")
        note = {"host": self.endpoint.host, "mark": mark, "keys": list(keys), "file": file.id, "batch": ""}
        write_json(path, note)
        batch = client.batches.create(
            input_file_id=file.id, endpoint=URL, completion_window="24h", metadata={MARK: mark}
        )
        write_json(path, note | {"batch": batch.id})
        return path

    def _gather(self, path: Path, wanted: Mapping[str, Request], beat: Callable[[], object]) -> None:
        """Wait for a batch that is written down, if it answers anything that is wanted, and keep its replies."""
        note = json.loads(path.read_text())
        if note["host"] != self.endpoint.host or not any(
            key in wanted and key not in self.replies for key in note["keys"]
        ):
            return
        number = note["batch"] or self._find(note["mark"])
        batch = self._batch(number) if number else None
        if batch is None:  # the run was killed before it was started, or it is gone: there are no answers to wait for
            path.unlink()
            self._delete(note.get("file"))
            return
        while batch.status not in ENDED:
            beat()
            time.sleep(self.poll)
            batch = self.endpoint.client.batches.retrieve(number)
        n_kept = self._keep(batch, wanted, set(note["keys"]))
        path.unlink()
        self._forget(batch)
        if not n_kept or batch.status != "completed":
            errors = self.endpoint.hide([error.message for error in (batch.errors and batch.errors.data) or ()])
            message = (
                f"The batch {number} ended as '{batch.status}' with {n_kept} of {len(note['keys'])} answers. {errors}"
            )
            raise EndpointFailed(message, "Run it again for the rest, or without the Batch API: --set batch_api=false")

    def _batch(self, number: str) -> Batch | None:
        """Return how a batch stands; None where the endpoint knows of none."""
        import openai

        try:
            return self.endpoint.client.batches.retrieve(number)
        except openai.NotFoundError:
            return None

    def _find(self, mark: str) -> str:
        """Return the id of a batch that was started but not written down; empty where there is none."""
        recent = self.endpoint.client.batches.list(limit=100)
        return next((batch.id for batch in recent if (batch.metadata or {}).get(MARK) == mark), "")

    def _keep(self, batch: Batch, wanted: Mapping[str, Request], keys: Collection[str]) -> int:
        """Put the replies to what a batch asked with the others; return how many there are, less what is no reply."""
        if not batch.output_file_id:
            return 0
        n_kept = 0
        for line in self.endpoint.client.files.content(batch.output_file_id).text.splitlines():
            try:
                answer = json.loads(line)
                key, response = answer["custom_id"], answer["response"]
                if response["status_code"] != 200 or key not in keys:
                    continue
                reply = self.endpoint.reply(json.dumps(response["body"]), self.endpoint.capabilities.form)
            except (ValueError, TypeError, KeyError, EndpointFailed):
                continue
            self.replies.put(key, reply)
            if key in wanted:
                self.budget.settle(0.0, wanted[key], reply, batch=True)
            n_kept += 1
        return n_kept

    def _forget(self, batch: Batch) -> None:
        """Delete at the endpoint what was uploaded to it and what it wrote; one that is gone is as well."""
        self._delete(batch.input_file_id, batch.output_file_id, batch.error_file_id)

    def _delete(self, *files: str | None) -> None:
        import openai

        for file in files:
            if file:
                with contextlib.suppress(openai.APIError):
                    self.endpoint.client.files.delete(file)
