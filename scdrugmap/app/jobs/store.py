"""A job on disk: one folder with an unguessable name, and a `status.json` that is only ever replaced whole.

`<cache>/jobs/<id>/` holds `upload/<name>`, `status.json`, the results, the embedding shards of this job or the answers
of a model that was asked (`prompts/`), and two empty marker files: `cancel-<run>` (stop at the next batch), `released`
(the browser session that brought the upload has ended). A job id is the only handle that a browser ever sees; it is
matched against a pattern before it touches a path.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import time
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal

from scdrugmap.app.jobs import prompt_options
from scdrugmap.errors import ConsentMissing, InvalidInput, UnknownName
from scdrugmap.files import write_json
from scdrugmap.models import MODELS

State = Literal["uploaded", "queued", "running", "checked", "done", "failed", "cancelled"]
Kind = Literal["", "check", "predict"]
ACTIVE: tuple[State, ...] = ("queued", "running")
UPLOAD, EMBEDDINGS, STATUS, RELEASED = "upload", "embeddings", "status.json", "released"
PROMPTS = "prompts"  # beside EMBEDDINGS, where asking keeps its answers
RESULTS = {"csv": "result.csv", "h5ad": "result.h5ad", "summary": "summary.json"}

_ID = re.compile(r"[A-Za-z0-9_-]{32}")
_CHUNK = 1 << 20
_MAX_NAME = 80


@dataclass(frozen=True)
class JobOptions:
    """What a person may choose; names only, never a path of the server."""

    model: str = "scgpt-mini"
    reference: str | None = None
    sample: str | None = None  # obs column that tells samples apart
    consent: bool = False  # to send gene names to the endpoint of a model that is asked
    max_cost: float | None = None  # US dollars that asking may cost
    settings: dict[str, Any] = field(default_factory=dict)  # of a model that is asked, where they differ from its card

    def __post_init__(self) -> None:
        """Refuse an unknown model before anything is queued."""
        MODELS[self.model]

    def check(self, *, public: bool) -> None:
        """Refuse to ask a model over the network without consent, from a shared server, or with impossible settings."""
        card = MODELS[self.model]
        if not card.prompted:
            if self.settings:
                message = f"'{card.key}' takes no settings here."
                raise InvalidInput(message, "Use the command line for them: scdrugmap predict FILE --set NAME=VALUE")
            return
        if public:
            message = f"'{self.model}' is not asked from a shared server."
            raise InvalidInput(message, "Run the app on a machine of your own.")
        if not self.consent:
            message = f"'{self.model}' is asked over the network, and nobody has agreed to what it is sent."
            raise ConsentMissing(message, "Tick the box that says what leaves this machine.")
        prompt_options.checked(card, self.settings)


@dataclass(frozen=True)
class JobStatus:
    """Where a job stands; times are seconds since the epoch."""

    job_id: str
    state: State
    file: str = ""  # the name of the upload, as shown
    size_bytes: int = 0
    simulated: bool = False
    work: Kind = ""
    run: str = ""  # which run of the job this is; a stopped run may not write over the next
    stage: str = ""  # read, load, embed (or ask), score, map, write
    done: int = 0
    total: int = 0  # 0: this stage has no count
    created: float = 0.0
    started: float | None = None
    stage_started: float | None = None
    updated: float = 0.0
    error: str = ""
    remedy: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    checks: tuple[dict[str, str], ...] = ()  # level (ok, warning, stop), message, remedy
    input: dict[str, Any] = field(default_factory=dict)  # what the loader found: value_type, n_cells, ...
    upload_kept: bool = True

    @property
    def active(self) -> bool:
        """Waiting for a worker or in its hands."""
        return self.state in ACTIVE

    @property
    def eta_seconds(self) -> float | None:
        """Seconds that the present stage will still take at the speed so far; None before anything is known."""
        if self.state != "running" or not 0 < self.done <= self.total or self.stage_started is None:
            return None
        return (self.updated - self.stage_started) / self.done * (self.total - self.done)


def new_id() -> str:
    """Return an unguessable job id (192 bits)."""
    return secrets.token_urlsafe(24)


def is_id(job_id: str) -> bool:
    """Tell whether the string could be a job id."""
    return _ID.fullmatch(job_id) is not None


def folder(jobs: Path, job_id: str) -> Path:
    """Return the folder of an existing job; raises `UnknownName` for any other string."""
    if not is_id(job_id) or not (jobs / job_id / STATUS).is_file():
        message = "There is no such job: the link is wrong, or the job was deleted."
        raise UnknownName(message, "Upload the file again.")
    return jobs / job_id


def create(jobs: Path, job_id: str) -> Path:
    """Make the job's folder, closed to other users of the machine."""
    path = jobs / job_id
    path.mkdir(mode=0o700, parents=True)
    return path


def save_upload(job: Path, stream: BinaryIO, name: str, max_bytes: int) -> tuple[str, int]:
    """Copy the stream to disk in chunks; return the safe name and its size; raises `InvalidInput` over the limit."""
    safe = safe_name(name)
    (job / UPLOAD).mkdir(exist_ok=True)
    size = 0
    with (job / UPLOAD / safe).open("wb") as target:
        while chunk := stream.read(_CHUNK):
            size += len(chunk)
            if size > max_bytes:
                message = f"'{safe}' is larger than the {max_bytes // 2**20} MB that this server takes."
                raise InvalidInput(message, "Use the command line for larger files: scdrugmap predict FILE")
            target.write(chunk)
    return safe, size


def safe_name(name: str) -> str:
    """Return the last part of a file name in harmless characters, its extension kept."""
    last = re.sub(r"[^A-Za-z0-9._-]+", "_", re.split(r"[/\\]", name)[-1]).lstrip(".")
    return last[-_MAX_NAME:] or "upload"


def upload(job: Path) -> Path:
    """Return the path of the job's upload; raises `InvalidInput` when it has been deleted."""
    files = sorted((job / UPLOAD).iterdir()) if (job / UPLOAD).is_dir() else []
    if not files:
        message = "The uploaded file of this job has been deleted."
        raise InvalidInput(message, "Upload it again.")
    return files[0]


def drop_upload(job: Path) -> None:
    """Delete the upload, its embedding shards and the answers about its cells; results stay."""
    for part in (UPLOAD, EMBEDDINGS, PROMPTS):
        shutil.rmtree(job / part, ignore_errors=True)


def result_kept(job: Path, status: JobStatus) -> bool:
    """Tell whether a run that failed or was stopped left the files of an earlier one as they were."""
    ended = status.state in ("failed", "cancelled") and status.stage != "write"
    return ended and all((job / name).is_file() for name in RESULTS.values())


def n_answers(job: Path) -> int:
    """Count the answers that are kept of a model that was asked about the job's cells."""
    return sum(1 for _ in (job / PROMPTS).glob("*/*.json"))


def read_status(job: Path) -> JobStatus:
    """Read `status.json`; raises `UnknownName` when the job has just been deleted."""
    try:
        stored = json.loads((job / STATUS).read_text())
    except FileNotFoundError:
        message = "There is no such job: it was deleted."
        raise UnknownName(message, "Upload the file again.") from None
    known = {entry.name for entry in fields(JobStatus)}
    values = {key: value for key, value in stored.items() if key in known}
    kept = (job / UPLOAD).is_dir()
    return JobStatus(**{**values, "checks": tuple(values.get("checks", ())), "upload_kept": kept})


def write_status(job: Path, status: JobStatus) -> None:
    """Replace `status.json` in one step; raises `FileNotFoundError` when the job's folder is gone."""
    write_json(job / STATUS, asdict(status))


def cancel_marker(job: Path, run: str) -> Path:
    """Return the file whose existence asks a run of the job to stop."""
    return job / f"cancel-{run}"


def amend(job: Path, **changes: Any) -> None:
    """Change some fields of a status that no worker writes any more."""
    write_status(job, replace(read_status(job), updated=time.time(), **changes))


def exists(jobs: Path, job_id: str) -> bool:
    """Tell whether there is a job of this id."""
    return is_id(job_id) and (jobs / job_id / STATUS).is_file()


def last_change(job: Path) -> float:
    """Return when the job last changed, in seconds since the epoch; also of one that is only half made."""
    status = job / STATUS
    return (status if status.is_file() else job).stat().st_mtime


def released_at(job: Path) -> float | None:
    """Return when the browser session of the job ended; None while it lasts."""
    marker = job / RELEASED
    return marker.stat().st_mtime if marker.exists() else None
