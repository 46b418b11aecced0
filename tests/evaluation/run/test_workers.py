from __future__ import annotations

import dataclasses
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from anndata import AnnData

from scdrugmap.data import dedupe, load
from scdrugmap.data.simulate import simulate
from scdrugmap.errors import InvalidInput, WorkersLost
from scdrugmap.evaluation.benchmark import benchmark, is_bug
from scdrugmap.evaluation.cells import dataset_summary, labelled_cells
from scdrugmap.evaluation.experiment import Experiment
from scdrugmap.evaluation.plan.eta import TimeEstimate, in_words
from scdrugmap.evaluation.plan.grid import Grid
from scdrugmap.evaluation.plan.plan_file import read_plan
from scdrugmap.evaluation.results.store import build_scores, read_runs, runs, write_scores
from scdrugmap.evaluation.run import evaluate, gpu_slots, parallel, runner
from scdrugmap.evaluation.run.runner import in_order, run_grid
from scdrugmap.evaluation.strategies.features import load_encoder
from scdrugmap.settings import PACKAGE, Settings

TINY = """
title = "Tiny"
[data.toy]
simulate = { n_cells = 60, n_genes = 250, n_samples = 6, seed = 3 }
[[ask]]
models = MODELS
heads = ["HEAD"]
split_by = ["cell", "sample"]
seeds = SEEDS
folds = 2
"""


def tiny(folder: Path, models: str = '["constant", "hvg"]', seeds: str = "[0]", head: str = "logistic") -> Path:
    path = folder / "tiny.toml"
    path.write_text(TINY.replace("MODELS", models).replace("SEEDS", seeds).replace("HEAD", head))
    return path


def grid_of(folder: Path, settings: Settings, **changes: str) -> Grid:
    return Grid.from_plan(read_plan(tiny(folder, **changes)), settings)


def cohort(**options) -> AnnData:
    return simulate(**{"n_cells": 60, "n_genes": 250, "n_samples": 6, **options})


def elsewhere(settings: Settings, folder: Path) -> Settings:
    return dataclasses.replace(settings, cache=folder / "cache", precomputed=folder / "none")


def killer(of_interest: str):
    """Return what kills one worker process of this one, by its id, when the first experiment has ended."""
    killed: list[int] = []

    def ended(run, new):
        for child in psutil.Process().children(recursive=True) if new and not killed else ():
            if of_interest in " ".join(child.cmdline()):
                os.kill(child.pid, signal.SIGKILL)
                killed.append(child.pid)
                return

    return ended, killed


def same(one: object, other: object) -> bool:
    """Compare plain values; two processes may add up float32 products in another order, which the last digits tell."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, abs_tol=1e-6)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def test_a_plain_loop_processes_and_a_cluster_that_loses_a_worker_give_equal_records(settings, tmp_path):
    from distributed import LocalCluster

    load_encoder.cache_clear()  # what another test left in this process, the others do not have
    # Neighbours, as they stay neighbours when the last bit of a vector is another: where an optimiser stops would not.
    grid = grid_of(tmp_path, settings, models='["constant", "scgpt-mini"]', head="knn")
    found = {}
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        for workers, kind in {"1": "", "2": "LokyProcess", cluster.scheduler_address: "spawn_main"}.items():
            place = elsewhere(settings, tmp_path / f"place-{len(found)}")
            ended, killed = killer(kind)
            run_grid(grid.experiments, grid.summaries, place, workers=workers, ended=ended if kind else lambda *_: None)
            assert len(killed) == bool(kind)
            found[workers] = {run.run_id: dataclasses.asdict(run.outcome) for run in runs(place.results)}
    first, *others = found.values()
    assert set(first) == {one.run_id for one in grid.experiments}
    assert all(outcome["state"] == "done" for outcome in first.values())
    assert all(same(other, first) for other in others)


def test_a_killed_run_goes_on_where_it_stopped(settings, tmp_path):
    plan = tiny(tmp_path, models='["hvg"]', seeds="[0, 1, 2, 3, 4, 5, 6, 7]")
    words = ["benchmark", "run", "--plan", str(plan)]
    code = f"import sys; sys.argv = ['scdrugmap', *{words!r}]; from scdrugmap.cli import main; main()"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    folder, deadline = settings.results / "runs", time.monotonic() + 60
    while not list(folder.glob("*.json")):
        assert process.poll() is None, "it ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    before = {path: path.read_bytes() for path in folder.glob("*.json")}
    grid = Grid.from_plan(read_plan(plan), settings)
    assert 0 < len(before) < len(grid.experiments) == 16
    assert grid.status(settings)["state"].value_counts(sort=True).height == 2
    done = run_grid(grid.experiments, grid.summaries, settings)
    assert set(done) == {one.run_id for one in grid.experiments}
    assert {path: path.read_bytes() for path in before} == before
    table = settings.results / "scores.parquet"
    written = table.read_bytes()
    table.unlink()
    write_scores(settings.results)
    assert table.read_bytes() == written
    assert build_scores(settings.results)["run_id"].n_unique() == 16


def test_a_bug_in_one_experiment_is_recorded_and_the_others_go_on(settings, tmp_path, monkeypatch, caplog):
    make_strategy = evaluate.make_strategy

    def broken(experiment, *args, **kwargs):
        if experiment.model == "hvg":
            raise ZeroDivisionError("nothing to share out")
        return make_strategy(experiment, *args, **kwargs)

    monkeypatch.setattr(evaluate, "make_strategy", broken)
    grid = grid_of(tmp_path, settings)
    done = run_grid(grid.experiments, grid.summaries, settings)
    states = {(run.experiment.model, run.outcome.state) for run in done.values()}
    assert states == {("constant", "done"), ("hvg", "failed")}
    assert {is_bug(run.outcome) for run in done.values() if run.outcome.state == "failed"} == {True}
    assert "ZeroDivisionError" in caplog.text
    with pytest.raises(RuntimeError, match="ZeroDivisionError: nothing to share out"):
        benchmark([cohort()], ["hvg"])
    monkeypatch.undo()
    again = run_grid(grid.experiments, grid.summaries, settings)
    assert {run.outcome.state for run in again.values()} == {"done"}


def test_data_that_changed_since_the_plan_are_a_failed_record(settings, tmp_path):
    path = tmp_path / "toy.h5ad"
    cohort().write_h5ad(path)
    known = dataset_summary.summaries([path], settings)
    asked = Experiment("constant", "constant", ("simulated-1",), (known[0].content,), folds=2)
    cohort(seed=9).write_h5ad(path)
    (run,) = run_grid([asked], known, settings).values()
    assert (run.outcome.state, run.outcome.error) == ("failed", "InvalidInput")
    assert "changed" in run.outcome.reason


def test_summaries_are_kept_until_the_file_changes(settings, tmp_path, monkeypatch):
    path = tmp_path / "toy.h5ad"
    cohort().write_h5ad(path)
    (first,) = dataset_summary.summaries([path], settings)
    assert first.facet("tissue") == "Tumor tissue"
    assert (first.n_cells, first.studies) == (60, ("simulated-study-1",))
    with monkeypatch.context() as patch:
        patch.setattr(dataset_summary, "load_labelled", lambda *args: pytest.fail("the file was read again"))
        assert dataset_summary.summaries([path], settings) == [first]
    cohort(seed=9).write_h5ad(path)
    (second,) = dataset_summary.summaries([path], settings)
    assert second.content != first.content


@pytest.fixture
def counted(monkeypatch):
    """How many files were read, and how many data sets had their cells hashed."""
    counts = {"read": 0, "hashed": 0}

    def counting(name, function):
        def call(*args, **options):
            counts[name] += 1
            return function(*args, **options)

        return call

    monkeypatch.setattr(load, "read_h5ad", counting("read", load.read_h5ad))
    hashing = counting("hashed", dedupe.cell_hashes)
    for module in (dedupe, labelled_cells):
        monkeypatch.setattr(module, "cell_hashes", hashing)
    monkeypatch.setattr(labelled_cells, "_last", {})
    return counts


def test_a_first_benchmark_of_a_file_reads_it_once_and_hashes_its_cells_once(settings, tmp_path, counted):
    path = tmp_path / "toy.h5ad"
    cohort().write_h5ad(path)
    scores = benchmark([path], ["constant", "hvg"], heads=["logistic"], folds=2, settings=settings)
    assert scores["n"].max() == 60
    assert counted == {"read": 1, "hashed": 1}
    labelled_cells._last.clear()
    benchmark([path], ["constant"], folds=3, settings=settings)  # its summary is known: the cells are needed once
    assert counted == {"read": 2, "hashed": 2}


def test_a_first_run_of_a_plan_reads_each_file_once(settings, tmp_path, counted):
    paths = [tmp_path / f"{name}.h5ad" for name in "ab"]
    for seed, path in enumerate(paths):
        adata = cohort(seed=seed)
        adata.obs["dataset"] = path.stem
        adata.write_h5ad(path)
    known = dataset_summary.summaries(paths, settings)
    asked = [Experiment("constant", "constant", (one.name,), (one.content,), folds=2) for one in known]
    assert {run.outcome.state for run in run_grid(asked, known, settings).values()} == {"done"}
    assert counted == {"read": 2, "hashed": 2}


def test_cells_that_are_many_do_not_wait_in_memory(settings, tmp_path, counted, monkeypatch):
    path = tmp_path / "toy.h5ad"
    cohort().write_h5ad(path)
    (few,) = dataset_summary.summaries([path], settings)
    monkeypatch.setattr(dataset_summary, "LOADED_BYTES", few.loaded.n_bytes - 1)
    (many,) = dataset_summary.summaries([path], elsewhere(settings, tmp_path / "other"))
    assert many.loaded is None
    assert many == few
    asked = Experiment("constant", "constant", (many.name,), (many.content,), folds=2)
    (run,) = run_grid([asked], [many], elsewhere(settings, tmp_path / "other")).values()
    assert run.outcome.state == "done"
    assert counted == {"read": 3, "hashed": 3}


def test_loaded_cells_are_given_once_and_then_read_again(settings, tmp_path):
    path = tmp_path / "toy.h5ad"
    cohort().write_h5ad(path)
    (known,) = dataset_summary.summaries([path], settings)
    (source,) = known.loaded.read()
    assert source.content == known.content
    assert known.loaded.read() == path
    assert known.loaded.n_bytes == 0


def test_workers_of_other_processes_are_given_the_path_of_a_file_that_was_just_read(settings, tmp_path):
    path = tmp_path / "toy.h5ad"
    cohort().write_h5ad(path)
    known = dataset_summary.summaries([path], settings)
    place = runner.RunContext(settings)
    assert runner._origins(known, place, "2") == {known[0].content: path}
    assert runner._origins(known, place, "1") == {known[0].content: known[0].loaded}


DECIDES = ["genes.py", "genes.tsv.gz", "load.py", "labels.py", "dedupe.py", "io/read.py", "io/matrix.py", "io/tenx.py"]
DECIDES = [f"data/{name}" for name in [*DECIDES, "io/value_type.py", "io/gene_columns.py", "catalog/card.py"]]
DECIDES += [f"evaluation/cells/{name}.py" for name in ("cell_table", "labelled_cells", "dataset_summary")]


@pytest.mark.parametrize("name", DECIDES)
def test_a_summary_is_stale_once_code_or_genes_that_decide_it_change(name, tmp_path):
    package = tmp_path / "scdrugmap"
    for folder in ("data", "evaluation/cells"):
        shutil.copytree(PACKAGE / folder, package / folder, ignore=shutil.ignore_patterns("__pycache__"))
    before = dataset_summary.code_hash.__wrapped__(package)
    assert before == dataset_summary.code_hash()
    with (package / name).open("ab") as file:
        file.write(b"\n")
    assert dataset_summary.code_hash.__wrapped__(package) != before


def test_the_summary_of_a_file_is_made_anew_when_the_code_that_reads_it_changes(settings, tmp_path, monkeypatch):
    path = tmp_path / "toy.h5ad"
    cohort().write_h5ad(path)
    dataset_summary.summaries([path], settings)
    assert dataset_summary.summaries([path], settings)[0].loaded is None
    monkeypatch.setattr(dataset_summary, "code_hash", lambda: "another")
    assert dataset_summary.summaries([path], settings)[0].loaded is not None


def test_cells_given_in_memory_are_stored_once_and_come_back_as_they_were(settings):
    (known,) = dataset_summary.summaries([cohort()], settings)
    (source,) = dataset_summary.load_labelled([cohort()])
    stored = dataset_summary.store(source, settings)
    before = stored.path.stat().st_mtime_ns
    assert dataset_summary.store(source, settings).path.stat().st_mtime_ns == before
    (again,) = dataset_summary.summaries([stored.read()], settings)
    assert again.content == known.content


def test_experiments_on_the_same_cells_and_of_one_model_follow_each_other():
    asked = [Experiment(model, "mlp", ("a",), (data,), seed=s) for s in (0, 1) for model in "xy" for data in "ab"]
    ordered = [(one.contents[0], one.model) for one in in_order(asked)]
    assert ordered == [(data, model) for data in "ab" for model in "xy" for _ in (0, 1)]


def test_a_process_has_a_gpu_to_itself(tmp_path):
    gpu_slots.own_device.cache_clear()
    assert gpu_slots.own_device(tmp_path, 2) == "cuda:0"
    assert gpu_slots.own_device(tmp_path, 2) == "cuda:0"
    code = (
        "from pathlib import Path; from scdrugmap.evaluation.run.gpu_slots import own_device; "
        f"print(own_device(Path({str(tmp_path)!r}), 2), own_device(Path({str(tmp_path)!r}), 1))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["cuda:1", "auto"]
    for lock in gpu_slots._held:
        lock.release()
    gpu_slots._held.clear()
    gpu_slots.own_device.cache_clear()


def test_processes_are_no_more_than_gpus(monkeypatch):
    for n_cards, slots in ((0, 8), (1, 1), (4, 4)):
        monkeypatch.setattr(parallel, "cards", lambda n=n_cards: n)
        assert parallel._slots(8) == slots


def test_a_task_that_kills_its_process_is_given_up_and_the_others_are_done(monkeypatch):
    def deadly(task: int) -> int:
        if task == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return task

    monkeypatch.setattr(parallel, "BREAKS", 1)
    found = parallel.run(deadly, range(4), workers="2", lost=lambda task, error: (task, type(error)))
    assert sorted(found, key=str) == [(1, WorkersLost), 0, 2, 3]


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch):
    monkeypatch.setattr(parallel, "CONNECT_SECONDS", "0.2s")
    with pytest.raises(InvalidInput, match="No Dask scheduler answers at 'tcp:"):
        list(parallel.run(abs, [1], workers="tcp://127.0.0.1:1"))


def test_what_is_embedded_ahead_is_each_data_set_and_model_once(settings, tmp_path):
    grid = grid_of(tmp_path, settings, models='["constant", "hvg", "scgpt-mini"]', seeds="[0, 1]")
    place = runner.RunContext(settings)
    tasks = [runner.Task(one, (), place) for one in grid.experiments]
    ahead = runner._ahead([task for task in tasks if not task.fitted], {grid.summaries[0].content: "origin"})
    assert [(one.model, one.dataset) for one in ahead] == [("scgpt-mini", "origin")]


def test_a_pace_is_that_of_the_nearest_kind(settings, tmp_path):
    grid = grid_of(tmp_path, settings, models='["constant", "hvg", "hvg-pca"]')
    pace = TimeEstimate.from_summaries(grid.summaries)
    assert pace.total(grid.experiments) is None
    for run in run_grid(grid.experiments[:1], grid.summaries, settings).values():
        pace.learn(run)
    measured = read_runs(settings)["seconds"].item()
    assert pace.seconds(grid.experiments[0]) == pytest.approx(measured)
    assert TimeEstimate.from_summaries(grid.summaries, read_runs(settings)).total(grid.experiments) == pytest.approx(
        6 * measured
    )
    assert [in_words(seconds) for seconds in (None, 40, 600, 9000)] == ["unknown", "40 s", "10 min", "2.5 h"]
