"""The app's jobs: an upload is kept, checked and predicted by a dask.distributed worker, and found again by its id.

    service = jobs.service()
    job_id = service.receive(file, file.name)        # or service.receive_example()
    service.check(job_id)                            # a job of its own: state "checked" with a list of checks
    service.run(job_id, JobOptions(model="scgpt-mini"))
    service.status(job_id)                           # poll it in a fragment; survives reloads and restarts
    service.results(job_id)["csv"]                   # when state is "done"

**What is deleted when.** The upload, and the embedding shards made from it, go when the job is done or cancelled *and*
the browser session that brought it has ended; a job that was not run, or failed, keeps them for `RESUME_HOURS` more, so
that a reload finds its file. Everything goes after `settings.keep_jobs_hours`, and at once by `delete`. `purge` applies
the rule; it runs when the server starts and with every new upload.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import dask
import psutil
import streamlit as st
from dask.system import CPU_COUNT
from distributed import Client, Future, KilledWorker, LocalCluster, fire_and_forget

from scdrugmap.app.jobs import store
from scdrugmap.app.jobs.store import JobOptions, JobStatus, Kind
from scdrugmap.app.jobs.worker import EXAMPLE, warm_up, work
from scdrugmap.errors import InvalidInput
from scdrugmap.settings import Settings

__all__ = ["JobOptions", "JobStatus", "Jobs", "hold", "service", "start_client"]

RESUME_HOURS = 1.0
_MEMORY_SHARE = 0.75  # of the machine's memory may a job use before its worker is killed
_AGAIN = "Run it again: the upload is still here, and cells that were embedded are not embedded twice."
_log = logging.getLogger(__name__)


class Jobs:
    """The jobs of one server: folders under `settings.jobs`, work on the Dask client that `connect` returns."""

    def __init__(self, settings: Settings, connect: Callable[[Settings], Client] | None = None) -> None:
        self.settings = settings
        self._connect = connect or start_client
        self._client: Client | None = None
        self._futures: dict[str, Future | None] = {}  # of this process: what is not here is not running
        self._lock = threading.Lock()

    def receive(self, stream: BinaryIO, name: str) -> str:
        """Keep an upload and return the id of its job, state "uploaded"; raises `InvalidInput` when it is too large."""
        self.purge()
        job_id = store.new_id()
        job = store.create(self.settings.jobs, job_id)
        try:
            file, size = store.save_upload(job, stream, name, self.settings.max_upload_mb * 2**20)
        except (InvalidInput, OSError):
            shutil.rmtree(job, ignore_errors=True)
            raise
        now = time.time()
        store.write_status(job, JobStatus(job_id, "uploaded", file, size, created=now, updated=now))
        return job_id

    def receive_example(self) -> str:
        """Return the id of a job on simulated cells, marked as such everywhere."""
        self.purge()
        job_id, now = store.new_id(), time.time()
        job = store.create(self.settings.jobs, job_id)
        store.write_status(job, JobStatus(job_id, "uploaded", EXAMPLE, simulated=True, created=now, updated=now))
        return job_id

    def check(self, job_id: str) -> None:
        """Queue the reading of the upload: it ends in state "checked", or "failed" with what is wrong and a remedy."""
        self._submit(job_id, "check", {})

    def run(self, job_id: str, options: JobOptions | None = None) -> None:
        """Queue the prediction. Without options it is run as before: what an interrupted job needs."""
        if options is None:
            options = JobOptions(**self.status(job_id).options)
        options.check(public=self.settings.public)
        self._submit(job_id, "predict", dataclasses.asdict(options))

    def submit(self, source: Path | str, options: JobOptions) -> str:
        """Receive a file of this machine, or "example", and run it in one call."""
        if source == "example":
            job_id = self.receive_example()
        else:
            with Path(source).open("rb") as stream:
                job_id = self.receive(stream, Path(source).name)
        self.run(job_id, options)
        return job_id

    def status(self, job_id: str) -> JobStatus:
        """Return where the job stands; raises `UnknownName` when there is none of this id."""
        job = store.folder(self.settings.jobs, job_id)
        alive = job_id in self._futures  # asked before the file is read: it may end in between
        status = store.read_status(job)
        if status.active and store.cancel_marker(job, status.run).exists():
            return dataclasses.replace(status, state="cancelled")
        if status.active and not alive:
            error = "The job was interrupted: the server was restarted while it ran."
            return dataclasses.replace(status, state="failed", error=error, remedy=_AGAIN)
        return status

    def results(self, job_id: str) -> dict[str, Path]:
        """Return the files of a finished job by kind: csv, h5ad, summary; empty before."""
        job = store.folder(self.settings.jobs, job_id)
        if store.read_status(job).state != "done":
            return {}
        return {kind: job / name for kind, name in store.RESULTS.items()}

    def has_earlier(self, status: JobStatus) -> bool:
        """Tell whether a run that failed or was stopped left the result of an earlier one as it was."""
        return store.result_kept(store.folder(self.settings.jobs, status.job_id), status)

    def restore(self, job_id: str) -> None:
        """Go back to the result of an earlier run, where a later one failed or was stopped before it wrote anything."""
        job = store.folder(self.settings.jobs, job_id)
        if self.has_earlier(self.status(job_id)):
            store.amend(job, state="done", run="", error="", remedy="")  # no run: what still ends may not write over it

    def n_answers(self, job_id: str) -> int:
        """Count the answers of a model that was asked which are kept for a further run."""
        return store.n_answers(store.folder(self.settings.jobs, job_id))

    def cancel(self, job_id: str) -> None:
        """Stop the job: a queued one at once, a running one at its next batch or stage."""
        job = store.folder(self.settings.jobs, job_id)
        status = store.read_status(job)
        if not status.active:
            return
        store.cancel_marker(job, status.run).touch()
        future = self._futures.get(job_id)
        if future is not None:
            future.cancel()

    def delete(self, job_id: str) -> None:
        """Stop the job if need be, and delete its upload and its results now."""
        self.cancel(job_id)
        shutil.rmtree(store.folder(self.settings.jobs, job_id), ignore_errors=True)

    def hold(self, job_id: str) -> None:
        """Say that an open browser session looks at the job."""
        (store.folder(self.settings.jobs, job_id) / store.RELEASED).unlink(missing_ok=True)

    def release(self, job_id: str) -> None:
        """Say that the browser session has ended; deletes the upload of a job that is done or cancelled."""
        if not store.exists(self.settings.jobs, job_id):
            return
        job = store.folder(self.settings.jobs, job_id)
        (job / store.RELEASED).touch()
        if self.status(job_id).state in ("done", "cancelled"):
            store.drop_upload(job)

    def purge(self, now: float | None = None) -> list[str]:
        """Apply the rule of deletion at `now` (seconds since the epoch); return the ids of jobs that are gone."""
        now = time.time() if now is None else now
        gone = []
        for job in self.settings.jobs.glob("*"):
            if not store.is_id(job.name) or job.name in self._futures:
                continue
            if now - store.last_change(job) > self.settings.keep_jobs_hours * 3600:
                shutil.rmtree(job, ignore_errors=True)
                gone.append(job.name)
            elif now - (store.released_at(job) or now) > RESUME_HOURS * 3600:
                store.drop_upload(job)
        return gone

    def close(self) -> None:
        """Stop the workers and leave; running jobs are found as interrupted later."""
        with self._lock:
            client, self._client = self._client, None
        self._futures.clear()
        if client is not None:
            cluster = client.cluster
            client.close()
            if cluster is not None:
                cluster.close()

    def _submit(self, job_id: str, kind: Kind, options: dict[str, Any]) -> None:
        job = store.folder(self.settings.jobs, job_id)
        with self._lock:
            before = self.status(job_id)
            if before.active:
                return  # a second click changes nothing
            if not before.upload_kept and not before.simulated:
                raise InvalidInput("The uploaded file of this job has been deleted.", "Upload it again.")
            if self._client is None or self._client.status == "closed":  # never asked for, or its scheduler has gone
                self._client = self._connect(self.settings)
            self._futures[job_id] = future = self._queue(self._client, job, before, kind, options)
        future.add_done_callback(functools.partial(self._ended, job_id))

    def _queue(self, client: Client, job: Path, before: JobStatus, kind: Kind, options: dict[str, Any]) -> Future:
        """Write the state "queued" and hand the work to Dask, in this order: the worker writes from then on."""
        self._futures[before.job_id] = None  # alive from the moment its status says so
        run, now = secrets.token_hex(8), time.time()
        queued = JobStatus(
            before.job_id,
            "queued",
            before.file,
            before.size_bytes,
            before.simulated,
            work=kind,
            run=run,
            created=before.created,
            started=now,
            updated=now,
            options=options or before.options,
            checks=before.checks,
            input=before.input,
        )
        try:
            store.write_status(job, queued)
            return client.submit(
                work, str(job), kind, options, self.settings, key=f"{kind}-{run}", pure=False, retries=0
            )
        except BaseException:
            del self._futures[before.job_id]
            raise

    def _ended(self, job_id: str, future: Future) -> None:
        """Write down how the work ended where the worker could not; then the job is no longer alive here."""
        job = self.settings.jobs / job_id
        if future.status == "error" and store.exists(self.settings.jobs, job_id):
            store.amend(job, state="failed", **_explain(future.exception()))
        if self._futures.get(job_id) is future:
            del self._futures[job_id]


def start_client(settings: Settings) -> Client:
    """Connect to the scheduler of `settings.dask`, or start a local one with a single worker process."""
    if settings.dask:
        return Client(settings.dask, set_as_default=False)
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), CPU_COUNT)
    # Dask would set these to 1 (and does so in this process, from which the worker inherits them).
    with dask.config.set({"distributed.nanny.pre-spawn-environ": threads}):
        cluster = LocalCluster(
            n_workers=1,
            threads_per_worker=1,  # one job at a time; torch uses all cores within it
            processes=True,
            memory_limit=int(_MEMORY_SHARE * psutil.virtual_memory().total),
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",  # None would still listen, on 8787
            silence_logs=logging.ERROR,
            scheduler_kwargs={"allowed_failures": 0, "dashboard": False},  # what kills its worker is not tried again
            config={f"distributed.worker.memory.{step}": False for step in ("target", "spill", "pause")},
        )
    client = Client(cluster, set_as_default=False)
    fire_and_forget(client.submit(warm_up, pure=False))
    return client


@st.cache_resource(show_spinner=False, on_release=Jobs.close)
def service() -> Jobs:
    """Return the jobs of this server process; the cluster starts with the first job."""
    jobs = Jobs(Settings.from_env())
    jobs.purge()
    return jobs


def hold(job_id: str) -> None:
    """Tie a job to the present browser session: its upload is deleted when both have ended."""
    _held().add(job_id)
    service().hold(job_id)


def _release(held: set[str]) -> None:
    for job_id in held:
        service().release(job_id)


@st.cache_resource(show_spinner=False, scope="session", on_release=_release)
def _held() -> set[str]:
    return set()


def _explain(error: BaseException | None) -> dict[str, str]:
    """What a person is told about a job that broke; the traceback goes to the server's log only."""
    if isinstance(error, KilledWorker):
        return {
            "error": "The job needed more memory than this server gives to one job, and was stopped.",
            "remedy": "Try fewer cells, or run it on a larger machine: scdrugmap predict FILE",
        }
    number = secrets.token_hex(4)
    _log.error("job failed, report %s", number, exc_info=error)
    return {
        "error": f"Something went wrong on our side (report {number}).",
        "remedy": "Run it again; if it happens again, tell us this number.",
    }
