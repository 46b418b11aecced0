from __future__ import annotations

import dataclasses
import io
import json
import logging
import os
import runpy
import time
from pathlib import Path

import anndata as ad
import polars as pl
import pytest
from places import ROOT

from scdrugmap.app.jobs import service as jobs
from scdrugmap.app.jobs import store
from scdrugmap.app.jobs.service import JobOptions, Jobs
from scdrugmap.app.jobs.worker import Reporter
from scdrugmap.errors import Cancelled, InvalidInput, UnknownName

HOUR = 3600.0


class IdleClient:
    """Takes work and never does it: a scheduler whose workers are busy."""

    status = "running"

    def __init__(self) -> None:
        self.submitted: list[tuple] = []

    def submit(self, function, *args, **kwargs):
        self.submitted.append((function, args))
        return IdleFuture()


class IdleFuture:
    status = "pending"

    def cancel(self) -> None:
        self.status = "cancelled"

    def add_done_callback(self, callback) -> None:
        self.callback = callback


@pytest.fixture
def idle(settings):
    return Jobs(settings, connect=lambda _: IdleClient())


def receive(service: Jobs, content: bytes = b"cells", name: str = "tumour.h5ad") -> str:
    return service.receive(io.BytesIO(content), name)


def folder_of(service: Jobs, job_id: str) -> Path:
    return service.settings.jobs / job_id


def rewrite(service: Jobs, job_id: str, **changes) -> None:
    job = folder_of(service, job_id)
    store.write_status(job, dataclasses.replace(store.read_status(job), **changes))


@pytest.mark.parametrize("bad", ["", "..", "../secrets", "a" * 31, "a" * 33, "/etc/passwd", "a" * 31 + "/", "é" * 32])
def test_only_a_job_id_reaches_a_path(idle, bad):
    (idle.settings.jobs / "..").resolve().mkdir(parents=True, exist_ok=True)
    for call in (idle.status, idle.cancel, idle.delete, idle.results, idle.hold, idle.check):
        with pytest.raises(UnknownName, match="no such job"):
            call(bad)
    idle.release(bad)  # the session is over: nobody is left to be told


def test_ids_are_long_and_differ(idle):
    ids = {receive(idle) for _ in range(20)}
    assert len(ids) == 20
    assert all(store.is_id(job_id) for job_id in ids)


def test_an_upload_is_kept_under_a_harmless_name(idle):
    job_id = receive(idle, b"abc" * 1000, "../../evil dir/My tumour (1).h5ad")
    status = idle.status(job_id)
    assert status.state == "uploaded"
    assert status.file == "My_tumour_1_.h5ad"
    assert status.size_bytes == 3000
    stored = store.upload(folder_of(idle, job_id))
    assert stored.read_bytes() == b"abc" * 1000
    assert stored.parent == folder_of(idle, job_id) / "upload"
    assert folder_of(idle, job_id).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("name", ["", "..", "...", "/", "a/..", "\\", "☃"])
def test_a_name_without_letters_still_gives_a_file(name):
    safe = store.safe_name(name)
    assert safe not in ("", ".", "..")
    assert "/" not in safe


def test_an_upload_over_the_limit_leaves_nothing(settings):
    small = Jobs(dataclasses.replace(settings, max_upload_mb=1), connect=lambda _: IdleClient())
    with pytest.raises(InvalidInput, match="larger than the 1 MB") as caught:
        receive(small, b"x" * (2**20 + 1))
    assert "scdrugmap predict" in caught.value.remedy
    assert list(settings.jobs.iterdir()) == []


def test_an_unknown_model_is_refused_before_anything_is_queued(idle):
    with pytest.raises(UnknownName, match="no model called 'nothing'"):
        idle.run(receive(idle), JobOptions(model="nothing"))


def test_a_second_click_queues_nothing(idle):
    job_id = receive(idle)
    idle.check(job_id)
    idle.run(job_id, JobOptions())
    assert idle.status(job_id).work == "check"
    assert len(idle._client.submitted) == 1


def test_a_job_of_a_server_that_is_gone_is_interrupted_and_can_be_run_again(idle):
    job_id = receive(idle)
    idle.run(job_id, JobOptions(sample="donor"))
    assert idle.status(job_id).state == "queued"
    restarted = Jobs(idle.settings, connect=lambda _: IdleClient())
    status = restarted.status(job_id)
    assert status.state == "failed"
    assert "interrupted" in status.error
    assert "Run it again" in status.remedy
    restarted.run(job_id)
    again = restarted.status(job_id)
    assert again.state == "queued"
    assert again.options["sample"] == "donor"
    assert again.error == ""


def test_a_queued_job_is_cancelled_at_once_and_can_be_run_again(idle):
    job_id = receive(idle)
    idle.check(job_id)
    idle.cancel(job_id)
    assert idle.status(job_id).state == "cancelled"
    idle._futures.clear()  # what Dask's callback does
    idle.check(job_id)
    assert idle.status(job_id).state == "queued"


def test_a_scheduler_that_is_gone_is_replaced(settings):
    clients = []
    service = Jobs(settings, connect=lambda _: clients.append(IdleClient()) or clients[-1])
    service.check(receive(service))
    service.check(receive(service))
    assert len(clients) == 1
    clients[0].status = "closed"
    service.check(receive(service))
    assert len(clients) == 2


def test_results_are_there_only_when_the_job_is_done(idle):
    job_id = receive(idle)
    assert idle.results(job_id) == {}
    rewrite(idle, job_id, state="done")
    assert idle.results(job_id).keys() == {"csv", "h5ad", "summary"}


def test_delete_takes_upload_and_results_at_once(idle):
    job_id = receive(idle)
    idle.check(job_id)
    idle.delete(job_id)
    assert not folder_of(idle, job_id).exists()
    with pytest.raises(UnknownName):
        idle.status(job_id)


@pytest.mark.parametrize(
    ("state", "kept"), [("done", False), ("cancelled", False), ("checked", True), ("failed", True)]
)
def test_the_end_of_a_session_deletes_the_upload_of_a_finished_job(idle, state, kept):
    job_id = receive(idle)
    rewrite(idle, job_id, state=state)
    idle.release(job_id)
    assert idle.status(job_id).upload_kept == kept


def test_an_unfinished_upload_waits_an_hour_for_its_person(idle):
    lost, held = receive(idle), receive(idle)
    for job_id in (lost, held):
        idle.release(job_id)
    idle.hold(held)  # reloaded
    idle.purge(time.time() + 0.9 * HOUR)
    assert idle.status(lost).upload_kept
    assert idle.purge(time.time() + 1.1 * HOUR) == []
    assert not idle.status(lost).upload_kept
    assert idle.status(held).upload_kept
    with pytest.raises(InvalidInput, match="deleted"):
        idle.check(lost)


def test_everything_goes_after_the_hours_of_the_settings(idle):
    old, running = receive(idle), receive(idle)
    idle.check(running)
    (idle.settings.jobs / "not-a-job").mkdir()
    later = time.time() + idle.settings.keep_jobs_hours * HOUR + 1
    assert idle.purge(later) == [old]
    assert not folder_of(idle, old).exists()
    assert folder_of(idle, running).exists()
    assert (idle.settings.jobs / "not-a-job").exists()


def test_a_new_upload_applies_the_rule(idle):
    job_id = receive(idle)
    job = folder_of(idle, job_id)
    long_ago = time.time() - idle.settings.keep_jobs_hours * HOUR - 1
    os.utime(job / "status.json", (long_ago, long_ago))
    receive(idle)
    assert not job.exists()


def test_the_remaining_time_follows_the_speed_of_the_stage(idle):
    job_id = receive(idle)
    rewrite(idle, job_id, state="running", stage="embed", stage_started=100.0, updated=110.0, done=50, total=200)
    status = store.read_status(folder_of(idle, job_id))
    assert status.eta_seconds == pytest.approx(30.0)
    assert dataclasses.replace(status, done=0).eta_seconds is None


def test_a_reporter_stops_when_asked_or_when_the_job_is_gone(idle):
    job_id = receive(idle)
    idle.run(job_id, JobOptions())
    job = folder_of(idle, job_id)
    report = Reporter(job)
    report.stage("embed")
    report.progress(5, 10)
    assert json.loads((job / "status.json").read_text())["stage"] == "embed"
    idle.cancel(job_id)
    with pytest.raises(Cancelled, match="stopped"):
        report.progress(6, 10)


def test_a_stopped_run_does_not_write_over_the_next(idle):
    job_id = receive(idle)
    idle.check(job_id)
    first = Reporter(folder_of(idle, job_id))
    idle.cancel(job_id)
    idle._futures.clear()
    idle.check(job_id)
    first.finish("cancelled")
    assert idle.status(job_id).state == "queued"


def test_a_worker_may_import_the_app_without_running_it(monkeypatch):
    import streamlit as st

    def forbidden(*args, **kwargs):
        raise AssertionError("a Dask worker that starts ran the app")

    monkeypatch.setattr(st, "navigation", forbidden)
    runpy.run_path(str(ROOT / "app.py"), run_name="__mp_main__")  # what multiprocessing's spawn does


# What follows runs on a real local cluster, one for all of it: starting one takes seconds.


def slow(job, kind, options, settings):
    report = Reporter(Path(job))
    try:
        report.stage("embed")
        for done in range(400):
            report.progress(done, 400)
            time.sleep(0.05)
        report.finish("done")
    except Cancelled:
        report.finish("cancelled")


def broken(job, kind, options, settings):
    Reporter(Path(job)).stage("embed")
    raise ZeroDivisionError("a secret of the server")


def greedy(job, kind, options, settings):
    Reporter(Path(job)).stage("embed")
    os.kill(os.getpid(), 9)  # what the memory limit does


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    client = jobs.start_client(jobs.Settings(tmp_path_factory.mktemp("cache"), tmp_path_factory.mktemp("results")))
    yield client
    cluster = client.cluster
    client.close()
    cluster.close()


@pytest.fixture
def service(settings, client):
    return Jobs(settings, connect=lambda _: client)


def wait(service: Jobs, job_id: str, until, seconds: float = 300.0) -> jobs.JobStatus:
    deadline = time.monotonic() + seconds
    while not until(status := service.status(job_id)):
        assert time.monotonic() < deadline, status
        time.sleep(0.05)
    return status


def test_cancel_stops_the_work_itself(service, monkeypatch):
    monkeypatch.setattr(jobs, "work", slow)
    job_id = receive(service)
    service.check(job_id)
    moving = wait(service, job_id, lambda status: status.done > 3)
    assert moving.state == "running"
    assert moving.total == 400
    assert moving.eta_seconds > 0
    service.cancel(job_id)
    assert service.status(job_id).state == "cancelled"
    job = folder_of(service, job_id)
    deadline = time.monotonic() + 10
    while (stopped := store.read_status(job)).state != "cancelled":  # written by the worker, when it has stopped
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert stopped.done < 390
    time.sleep(0.5)
    assert store.read_status(job) == stopped


def test_a_job_that_waits_for_another_is_cancelled_too(service, monkeypatch):
    monkeypatch.setattr(jobs, "work", slow)
    first, second = receive(service), receive(service)
    service.check(first)
    wait(service, first, lambda status: status.done > 0)
    service.check(second)
    service.cancel(second)
    service.cancel(first)
    wait(service, first, lambda status: status.state == "cancelled")
    time.sleep(0.5)
    assert store.read_status(folder_of(service, second)).stage == ""


def test_a_bug_is_told_by_number_and_its_traceback_stays_in_the_log(service, monkeypatch, caplog):
    monkeypatch.setattr(jobs, "work", broken)
    job_id = receive(service)
    with caplog.at_level(logging.ERROR):
        service.check(job_id)
        status = wait(service, job_id, lambda status: status.state == "failed")
    assert "secret" not in (folder_of(service, job_id) / "status.json").read_text()
    number = status.error.split("report ")[1].rstrip(").")
    assert number in caplog.text
    assert "ZeroDivisionError: a secret of the server" in caplog.text
    assert job_id not in caplog.text


def test_a_worker_that_is_killed_ends_the_job_and_the_next_one_runs(service, monkeypatch):
    monkeypatch.setattr(jobs, "work", greedy)
    job_id = receive(service)
    service.check(job_id)
    status = wait(service, job_id, lambda status: status.state == "failed")
    assert "more memory" in status.error
    monkeypatch.undo()
    service.check(job_id)
    assert wait(service, job_id, lambda status: not status.active).state == "failed"  # b"cells" is no h5ad


def test_the_whole_journey_of_an_upload(service):
    job_id = service.receive_example()
    service.check(job_id)
    checked = wait(service, job_id, lambda status: not status.active)
    assert checked.state == "checked", checked.error
    assert checked.simulated
    assert {check["level"] for check in checked.checks} <= {"ok", "warning"}
    assert checked.input["value_type"] == "counts"
    assert "sample" in checked.input["obs_columns"]
    service.run(job_id, JobOptions(model="hvg-pca"))
    done = wait(service, job_id, lambda status: not status.active)
    assert done.state == "done", done.error
    assert done.options["model"] == "hvg-pca"
    files = service.results(job_id)
    table = pl.read_csv(files["csv"])
    assert table.height == checked.input["n_cells"]
    assert ad.read_h5ad(files["h5ad"]).obs["p_resistant"].between(0, 1).all()
    summary = json.loads(files["summary"].read_text())
    assert summary["provenance"]["simulated"] is True
    assert summary["metrics"]["scores"]
    service.release(job_id)
    assert not service.status(job_id).upload_kept
    assert service.results(job_id)["csv"].is_file()


def test_a_file_that_is_none_ends_with_a_remedy(service):
    job_id = receive(service, b"this is text", "notes.h5ad")
    service.check(job_id)
    status = wait(service, job_id, lambda status: not status.active)
    assert status.state == "failed"
    assert "notes.h5ad" in status.error
    assert status.remedy
