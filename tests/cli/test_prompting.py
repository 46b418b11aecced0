"""`scdrugmap predict --model gpt-4o-mini` in a process of its own, which is killed, stopped, and run again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import polars as pl
import pytest
from scripted_endpoint import KEY, asked_cells, good

from scdrugmap.data.simulate import simulate
from scdrugmap.prediction.pipeline import predict_file

QUICK = {"cells_per_request": 1, "concurrency": 2, "top_k": 10, "logprobs": False, "poll": 0.05}
N_CELLS = 14


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("asked") / "tumour.h5ad"
    simulate(n_cells=N_CELLS, n_genes=400, n_samples=4, seed=3).write_h5ad(path)
    return path


@pytest.fixture
def start(file, tmp_path, settings, endpoint):
    """Type `scdrugmap predict ...` in another process; what it prints goes to files."""
    started = []

    def type_it(**more):
        knobs = [word for name, value in (QUICK | more).items() for word in ("--set", f"{name}={json.dumps(value)}")]
        words = ["predict", str(file), "--model", "gpt-4o-mini", "--output", str(tmp_path / "out.csv"), "--yes", *knobs]
        command = [sys.executable, "-c", "from scdrugmap.cli import main; main()", *words]
        with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
            started.append(
                subprocess.Popen(command, stdout=out, stderr=err, env={**os.environ, "OMP_NUM_THREADS": "1"})
            )
        return started[-1]

    yield type_it
    for process in started:
        process.kill()
        process.wait()


def wait_until(true):
    deadline = time.monotonic() + 90
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def kept(settings):
    return len(list((settings.cache / "prompts").glob("??/*.json")))


def test_a_run_that_was_killed_and_stopped_goes_on_and_pays_nothing_twice(start, file, endpoint, settings, tmp_path):
    gate = threading.Event()
    limit = 3

    def act(handler, body):
        if len(endpoint.asked) > limit:
            gate.wait(60)
        good(handler, body)

    endpoint.default = act
    process = start()
    wait_until(lambda: len(endpoint.asked) == limit + 2 and kept(settings) == limit)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out.csv").exists()

    limit = 8
    process = start()
    wait_until(lambda: len(endpoint.asked) == limit + 2 and kept(settings) == limit - 2)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    gate.set()  # what is on its way when it is stopped is waited for
    assert process.wait(60) == 130
    said = (tmp_path / "err").read_text()
    assert "what was finished is kept" in said
    assert "Traceback" not in said
    assert kept(settings) == limit

    process = start()
    assert process.wait(90) == 0, (tmp_path / "err").read_text()
    assert len(endpoint.asked) == N_CELLS + 2  # those that were on their way at the kill
    assert kept(settings) == N_CELLS
    assert "Requests paid: 6," in (tmp_path / "err").read_text()
    whole = predict_file(
        file,
        tmp_path / "whole.csv",
        model="gpt-4o-mini",
        cache=tmp_path / "other" / "embeddings",
        consent=True,
        **QUICK,
    )
    assert (tmp_path / "out.csv").read_text() == (tmp_path / "whole.csv").read_text()
    assert whole.obs["p_resistant"].notna().all()
    sent = json.dumps(endpoint.asked)
    assert "tumour.h5ad" not in sent
    assert all(name not in sent for name in whole.obs_names)
    assert KEY not in said
    assert not any(KEY.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_a_batch_that_a_killed_run_waited_for_is_not_sent_again(start, file, endpoint, settings, tmp_path):
    endpoint.looks = 10**9
    process = start(batch_api=True)
    wait_until(lambda: endpoint.batches and endpoint.batches[0]["looked"] > 1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    endpoint.looks = 0
    given = QUICK | {"batch_api": True}
    predict_file(file, tmp_path / "out.csv", model="gpt-4o-mini", cache=settings.embeddings, consent=True, **given)
    assert len(endpoint.batches) == len(endpoint.uploads) == 1
    assert not endpoint.asked
    assert pl.read_csv(tmp_path / "out.csv")["p_resistant"].null_count() == 0
    assert all(len(asked_cells(json.loads(line)["body"])) == 1 for line in endpoint.uploads[0].splitlines())
