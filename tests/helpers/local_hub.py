"""A stand-in for the Hugging Face Hub on this machine."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from scdrugmap.models.checkpoints.manifest import sha256

REVISION = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """The few answers of the Hugging Face Hub that a snapshot needs, from a folder."""

    folder: Path
    asked: list[str]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.asked.append(path)
        if path == f"/api/models/lab/tiny/tree/{REVISION}":
            files = sorted(self.folder.iterdir())
            self.answer(json.dumps([self.entry(file) for file in files]).encode(), "application/json")
        elif path == "/api/models/lab/tiny/revision/main":
            self.answer(json.dumps({"id": "lab/tiny", "sha": REVISION, "siblings": []}).encode(), "application/json")
        elif path.startswith(f"/lab/tiny/resolve/{REVISION}/"):
            self.answer((self.folder / Path(path).name).read_bytes(), "application/octet-stream")
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    @staticmethod
    def entry(file: Path) -> dict[str, object]:
        return {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": sha256(file)[:40]}

    def answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hash(body):x}"')
        self.send_header("X-Repo-Commit", REVISION)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""
