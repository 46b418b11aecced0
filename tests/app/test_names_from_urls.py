"""What the address bar names is matched before it becomes a path: real files outside the store stay out of reach.

Every hostile name here points at something that exists and could be read, so that only the guard keeps it out.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import streamlit as st
from make_jobs import make_job, predicted
from make_results import make_run
from opened_pages import opened, text_of

from scdrugmap.app.jobs import store
from scdrugmap.app.jobs.service import Jobs
from scdrugmap.errors import UnknownName
from scdrugmap.evaluation.experiment import Experiment
from scdrugmap.evaluation.results.store import read_predictions, read_run, write_run
from scdrugmap.settings import Settings

SECRET = "patient-0815"
LONG = "a" * 32  # an id in all but what stands round it


@pytest.fixture(autouse=True)
def _fresh_caches():
    st.cache_data.clear()
    st.cache_resource.clear()
    yield
    st.cache_resource.clear()


# ---- jobs -----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Outside:
    """A finished job of somebody else, which is not in the store under the name that asks for it."""

    name: str  # what a hostile address names
    folder: Path

    def kept(self) -> set[str]:
        return {str(path.relative_to(self.folder)) for path in self.folder.rglob("*")}


# what is asked for, and where below the cache the folder lies that this leads to; {cache} stands for its whole path
HOSTILE = {
    "a folder beside the store": ("../outside", "outside"),
    "through the store and out": (f"{LONG}/../../outside", "outside"),
    "a whole path": ("{cache}/outside", "outside"),
    "a whole path with two slashes": ("/{cache}/outside", "outside"),
    "the folder above": ("..", "."),
    "the store itself": (".", "jobs"),
    "nothing but a slash after dots": ("../", "."),
    "a name that is no id": ("outside", "jobs/outside"),
    "one letter short": (LONG[1:], f"jobs/{LONG[1:]}"),
    "one letter long": (f"{LONG}a", f"jobs/{LONG}a"),
    "an id and the end of a line": (f"{LONG}\n", f"jobs/{LONG}\n"),
    "an id and a slash": (f"{LONG}/", f"jobs/{LONG}"),
    "a folder below an id": (f"{LONG}/upload", f"jobs/{LONG}/upload"),
    "letters of other alphabets": ("а" * 32, f"jobs/{'а' * 32}"),  # Cyrillic
    "digits of other alphabets": ("٣" * 32, f"jobs/{'٣' * 32}"),  # Arabic
    "dots that were encoded": ("%2e%2e%2foutside", "jobs/%2e%2e%2foutside"),
    "dots that were encoded twice": ("%252e%252e%252foutside", "jobs/%252e%252e%252foutside"),
}


@pytest.fixture(params=HOSTILE, ids=str)
def outside(request, settings: Settings) -> Outside:
    """A finished job with its upload and its results, in a place that a hostile name leads to."""
    name, place = HOSTILE[request.param]
    name = name.format(cache=settings.cache)
    made = settings.jobs / make_job(settings, "done", predicted(30))
    status = store.read_status(made)
    store.amend(made, file=f"{SECRET}.h5ad")
    folder = settings.cache / place
    shutil.copytree(made, folder, dirs_exist_ok=True)
    shutil.rmtree(made)
    (settings.jobs / LONG).mkdir(exist_ok=True)
    assert store.read_status(settings.jobs / name).state == status.state == "done"  # the name does lead there
    return Outside(name, folder)


def test_no_door_of_the_jobs_opens_for_a_name_that_is_no_id(outside, settings):
    jobs, before = Jobs(settings), outside.kept()
    for ask in (jobs.status, jobs.results, jobs.restore, jobs.n_answers, jobs.hold, jobs.cancel, jobs.check, jobs.run):
        with pytest.raises(UnknownName, match="no such job"):
            ask(outside.name)
    with pytest.raises(UnknownName, match="no such job"):
        jobs.delete(outside.name)
    jobs.release(outside.name)  # at the end of a session: refused without a word
    assert not store.exists(settings.jobs, outside.name)
    assert "upload/tumour.h5ad" in before
    assert outside.kept() == before


def test_a_job_from_the_address_bar_shows_nothing_outside_the_store(outside):
    before = outside.kept()
    app = opened("predict", job=outside.name)
    assert not app.exception
    assert "no such job" in app.error[0].value
    assert SECRET not in text_of(app)
    assert not app.metric
    assert outside.kept() == before


def test_a_name_with_a_zero_byte_is_no_job(settings):
    job_id = make_job(settings, "done", predicted(30))
    for name in (f"{job_id}\0", f"\0{job_id}", f"../jobs/{job_id}\0"):
        with pytest.raises(UnknownName, match="no such job"):
            Jobs(settings).status(name)
        app = opened("predict", job=name)
        assert not app.exception
        assert "no such job" in app.error[0].value


def test_the_job_itself_is_found_by_its_id(settings):
    job_id = make_job(settings, "done", predicted(30))
    store.amend(settings.jobs / job_id, file=f"{SECRET}.h5ad")
    assert store.is_id(job_id)
    assert Jobs(settings).status(job_id).state == "done"
    app = opened("predict", job=job_id)
    assert not app.error
    assert SECRET in text_of(app)
    assert app.metric


# ---- runs -----------------------------------------------------------------------------------------------------------
# what is asked for, and where below the results the record lies that this leads to; {root} is their whole path
HOSTILE_RUNS = {
    "beside the runs": ("../elsewhere/{run}", "elsewhere/{run}"),
    "out of the results": ("../../elsewhere/{run}", "../elsewhere/{run}"),
    "a whole path": ("{root}/elsewhere/{run}", "elsewhere/{run}"),
    "below the runs": ("private/{run}", "{folder}/private/{run}"),
    "through a folder and back": ("private/../{run}", "{folder}/{run}"),
    "a dot before it": ("./{run}", "{folder}/{run}"),
    "a name that is no id": ("notes", "{folder}/notes"),
    "in capitals": ("ABCDEF0123456789", "{folder}/ABCDEF0123456789"),
    "one digit short": ("abcdef012345678", "{folder}/abcdef012345678"),
    "one digit long": ("abcdef01234567890", "{folder}/abcdef01234567890"),
    "an id and the end of a line": ("{run}\n", "{folder}/{run}\n"),
    "digits of other alphabets": ("٣" * 16, "{folder}/" + "٣" * 16),  # Arabic
    "dots that were encoded": ("%2e%2e%2felsewhere", "{folder}/%2e%2e%2felsewhere"),
}


@pytest.fixture(params=HOSTILE_RUNS, ids=str)
def hostile_run(request, settings: Settings) -> str:
    """A name that leads to a whole record and to its predictions, which are not runs of this machine by that name."""
    name, place = HOSTILE_RUNS[request.param]
    root = settings.precomputed
    run, predictions = make_run(Experiment("hvg", "logistic", (SECRET,), split_by="sample", folds=4), 1.0)
    write_run(root, run, predictions)
    words = {"run": run.run_id, "root": root}
    name = name.format(**words)
    (root / "runs" / "private").mkdir()
    (root / "predictions" / "private").mkdir()
    for folder, suffix in (("runs", ".json"), ("predictions", ".parquet")):
        written = root / folder / f"{run.run_id}{suffix}"
        target = root / (place.format(**words, folder=folder) + suffix)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.resolve() != written.resolve():
            shutil.copy(written, target)
            written.unlink()
        assert (root / folder / f"{name}{suffix}").is_file()  # the name does lead there
    return name


def test_a_record_is_read_by_a_run_id_and_by_no_other_name(hostile_run, settings):
    with pytest.raises(UnknownName, match="no run called"):
        read_run(hostile_run, settings)
    with pytest.raises(UnknownName, match="no run called"):
        read_predictions(hostile_run, settings)


def test_a_run_from_the_address_bar_shows_no_other_record(hostile_run):
    app = opened("models", run=hostile_run)
    assert not app.exception
    assert "no run called" in app.error[0].value
    assert not app.json
    assert SECRET not in text_of(app)


def test_a_run_name_with_a_zero_byte_is_no_run(settings):
    run, predictions = make_run(Experiment("hvg", "logistic", (SECRET,), split_by="sample", folds=4), 1.0)
    write_run(settings.precomputed, run, predictions)
    for name in (f"{run.run_id}\0", f"../runs/{run.run_id}\0"):
        with pytest.raises(UnknownName, match="no run called"):
            read_run(name, settings)
        app = opened("models", run=name)
        assert not app.exception
        assert "no run called" in app.error[0].value


def test_the_run_itself_is_found_by_its_id(settings):
    run, predictions = make_run(Experiment("hvg", "logistic", (SECRET,), split_by="sample", folds=4), 1.0)
    write_run(settings.precomputed, run, predictions)
    assert read_run(run.run_id, settings).run_id == run.run_id
    assert read_predictions(run.run_id, settings).height == predictions.height
    app = opened("models", run=run.run_id)
    assert not app.error
    assert SECRET in text_of(app)
    assert len(app.json) == 1


# ---- data sets and models -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["../outside", "{cache}/outside", "outside"])
def test_a_data_set_from_the_address_bar_is_one_of_the_catalogue(name, settings):
    settings.data.mkdir(parents=True)
    for place in (settings.cache / "outside.h5ad", settings.data / "outside.h5ad"):
        place.write_bytes(b"cells")
    app = opened("datasets", dataset=name.format(cache=settings.cache))
    assert not app.exception
    assert "no data set called" in app.error[0].value
    assert "on this machine" not in text_of(app)


@pytest.mark.parametrize("name", ["../outside", "{cache}/outside", "outside"])
def test_a_model_from_the_address_bar_is_one_of_the_registry(name, settings):
    for place in (settings.cache / "outside", settings.weights / "outside"):
        place.mkdir(parents=True)
    app = opened("models", model=name.format(cache=settings.cache))
    assert not app.exception
    assert "no model called" in app.error[0].value
