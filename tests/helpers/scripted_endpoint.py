"""An OpenAI-compatible endpoint on loopback that does what a test tells it: a real server."""

from __future__ import annotations

import json
import re
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]
Act = Callable[["Handler", Body], None]
KEY = "sk-canary-0123456789abcdef"


def asked_cells(body: Body) -> dict[str, list[str]]:
    """The cells of a request: id -> genes."""
    text = body["messages"][-1]["content"].split("Cells to judge:\n")[1]
    return {name: genes.split() for name, genes in re.findall(r"^(c\d+): (.*)$", text, re.MULTILINE)}


def opinion(genes: list[str]) -> float:
    """What this endpoint thinks of a cell: a number of its own for each list of genes, never 0.5."""
    return round(0.01 + 0.98 * (zlib.crc32(" ".join(genes).encode()) % 1000) / 1000, 3) + 0.0001


def entry(name: str, p: float) -> Body:
    return {"id": name, "label": "resistant" if p >= 0.5 else "sensitive", "p_resistant": p}


def answers(body: Body) -> list[Body]:
    return [entry(name, opinion(genes)) for name, genes in asked_cells(body).items()]


def completion(body: Body, content: str | None, **more: Any) -> Body:
    message = {"role": "assistant", "content": content}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": f"{body['model']}-served",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message, **more}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
    }


def good(handler: Handler, body: Body) -> None:
    handler.send(200, completion(body, json.dumps({"answers": answers(body)})))


def says(content: str | None) -> Act:
    return lambda handler, body: handler.send(200, completion(body, content))


def edits(change: Callable[[list[Body]], list[Body]]) -> Act:
    def act(handler: Handler, body: Body) -> None:
        handler.send(200, completion(body, json.dumps({"answers": change(answers(body))})))

    return act


def fails(status: int, message: str = "no", code: str | None = None, **headers: str) -> Act:
    body = {"error": {"message": message, "type": "error", "code": code, "param": None}}
    return lambda handler, _: handler.send(status, body, headers)


def slow(seconds: float) -> Act:
    def act(handler: Handler, body: Body) -> None:
        time.sleep(seconds)
        good(handler, body)

    return act


def drops(handler: Handler, body: Body) -> None:
    handler.close_connection = True
    handler.connection.close()


def raw(content: bytes, kind: str = "application/json") -> Act:
    return lambda handler, _: handler.send_bytes(200, content, kind)


def refuses(*words: str) -> Act:
    """An endpoint that does not take some parameters, and says which."""

    def act(handler: Handler, body: Body) -> None:
        form = body.get("response_format", {}).get("type", "")
        found = next((word for word in words if word in body or word == form), None)
        if found:
            fails(400, f"Unsupported parameter: '{found}'")(handler, body)
        else:
            good(handler, body)

    return act


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Endpoint

    def log_message(self, *args: object) -> None:
        pass

    def send(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        self.send_bytes(status, json.dumps(value).encode(), "application/json", headers)

    def send_bytes(self, status: int, content: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/v1/chat/completions":
            body = json.loads(content)
            self.server.act_on(self, body)
        elif self.path == "/v1/files":
            self.server.uploads.append(re.search(rb"\r\n\r\n(\{.*?\})\s*\r\n--", content, re.DOTALL)[1])  # type: ignore[index]
            self.send(200, file_record(f"file-{len(self.server.uploads) - 1}"))
        elif self.path != "/v1/batches":
            self.send(404, {"detail": "Not Found"})
        else:
            self.server.batches.append({**json.loads(content), "looked": 0})
            self.send(200, self.server.batch(len(self.server.batches) - 1))
            if self.server.dies_after_batch:
                self.server.dies_after_batch = False
                raise ConnectionError

    def do_GET(self) -> None:
        if self.path.startswith("/v1/files/"):
            self.send_bytes(200, self.server.output(int(self.path.split("-")[1].split("/")[0])), "application/jsonl")
        elif self.path.startswith("/v1/batches/"):
            number = int(self.path.rsplit("-", 1)[1])
            if number >= len(self.server.batches):
                self.send(404, {"error": {"message": "No such batch"}})
                return
            self.server.batches[number]["looked"] += 1
            self.send(200, self.server.batch(number))
        else:
            found = [self.server.batch(number) for number in range(len(self.server.batches))]
            self.send(200, {"object": "list", "data": found, "has_more": False})

    def do_DELETE(self) -> None:
        self.server.deleted.append(self.path.rsplit("/", 1)[1])
        self.send(200, {"id": "file", "object": "file", "deleted": True})


def file_record(number: str) -> Body:
    return {"id": number, "object": "file", "bytes": 1, "created_at": 1, "filename": "f", "purpose": "batch",
            "status": "processed"}  # fmt: skip


class Endpoint(ThreadingHTTPServer):
    """`script` holds what is done to the next requests, `default` what is done to those after them."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.host = f"127.0.0.1:{self.server_port}"
        self.script: deque[Act] = deque()
        self.default: Act = good
        self.asked: list[Body] = []
        self.headers: list[dict[str, str]] = []
        self.uploads: list[bytes] = []
        self.batches: list[Body] = []
        self.deleted: list[str] = []
        self.looks = 2  # at a batch, before it is completed
        self.ends = "completed"
        self.spoils: Callable[[int, Body], Body] = lambda number, line: line  # of a batch's output
        self.dies_after_batch = False
        self._lock = threading.Lock()

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that left before it was answered

    def act_on(self, handler: Handler, body: Body) -> None:
        with self._lock:
            self.asked.append(body)
            self.headers.append({name.lower(): value for name, value in handler.headers.items()})
            act = self.script.popleft() if self.script else self.default
        act(handler, body)

    def batch(self, number: int) -> Body:
        found = self.batches[number]
        done = found["looked"] >= self.looks
        return {
            "id": f"batch-{number}", "object": "batch", "endpoint": found["endpoint"], "created_at": 1,
            "input_file_id": found["input_file_id"], "completion_window": "24h", "metadata": found.get("metadata"),
            "status": self.ends if done else "in_progress",
            "output_file_id": f"output-{number}" if done and self.ends == "completed" else None,
            "errors": {"data": [{"message": "bad line"}]} if self.ends == "failed" else None,
        }  # fmt: skip

    def output(self, number: int) -> bytes:
        lines = []
        upload = self.uploads[int(self.batches[number]["input_file_id"].split("-")[1])]
        for at, line in enumerate(upload.splitlines()):
            asked = json.loads(line)
            body = completion(asked["body"], json.dumps({"answers": answers(asked["body"])}))
            answer = {"custom_id": asked["custom_id"], "response": {"status_code": 200, "body": body}, "error": None}
            lines.append(json.dumps(self.spoils(at, answer)))
        return "\n".join(reversed(lines)).encode()  # the API promises no order

    def cells_asked(self) -> int:
        return sum(len(asked_cells(body)) for body in self.asked)


@contextmanager
def serving() -> Iterator[Endpoint]:
    endpoint = Endpoint()
    thread = threading.Thread(target=endpoint.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        endpoint.shutdown()
        endpoint.server_close()
        thread.join()
