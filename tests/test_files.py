from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import time

import pytest

from scdrugmap.files import claimed, replacing, replacing_folder, take, write, write_json, write_once

WRITER = """
import sys
from pathlib import Path
from scdrugmap.files import write
while True:
    for letter in "ab":
        write(Path(sys.argv[1]), letter * 1_000_000)
"""
HOLDER = """
import sys, time
from pathlib import Path
from scdrugmap.files import take
lock = take(Path(sys.argv[1]))
print(lock is not None, flush=True)
time.sleep(600)
"""


def fail(writing):
    with writing as draft:
        (draft / "third" if draft.is_dir() else draft).write_text("half")
        raise OSError("the disk is full")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_whole_and_once(tmp_path):
    path = tmp_path / "new" / "run.json"
    assert write_once(path, "first")
    assert not write_once(path, "second")
    assert path.read_text() == "first"
    write(path, b"third")
    assert path.read_text() == "third"
    assert names(path.parent) == ["run.json"]


def test_a_failed_writer_leaves_what_stood_there_and_no_draft(tmp_path):
    path = tmp_path / "table.csv"
    write(path, "old")
    with pytest.raises(OSError, match="disk"):
        fail(replacing(path))
    assert path.read_text() == "old"
    assert names(tmp_path) == ["table.csv"]


def test_a_draft_keeps_the_suffix_that_a_writer_looks_at_and_the_file_can_be_read_by_others(tmp_path):
    with replacing(tmp_path / "cells.h5ad") as draft:
        assert draft.suffix == ".h5ad"
        assert draft.name.startswith(".")
        draft.touch(mode=0o600)
    assert stat.S_IMODE((tmp_path / "cells.h5ad").stat().st_mode) == 0o644


def test_a_folder_takes_the_place_of_the_old_one_whole(tmp_path):
    folder = tmp_path / "reference"
    for text in ("first", "second"):
        with replacing_folder(folder) as draft:
            (draft / text).write_text(text)
    assert names(folder) == ["second"]
    with pytest.raises(OSError, match="disk"):
        fail(replacing_folder(folder))
    assert names(folder) == ["second"]
    assert names(tmp_path) == ["reference"]


def test_a_folder_that_others_may_be_reading_stays(tmp_path):
    folder = tmp_path / "converted"
    for text in ("first", "second"):
        with replacing_folder(folder, once=True) as draft:
            (draft / text).write_text(text)
    assert names(folder) == ["first"]
    assert names(tmp_path) == ["converted"]


def test_json_comes_back(tmp_path):
    write_json(tmp_path / "status.json", {"state": "done", "µ": [1.5, None]})
    assert (tmp_path / "status.json").read_text() == '{"state": "done", "\\u00b5": [1.5, null]}'


def test_a_killed_writer_leaves_a_whole_file(tmp_path):
    path = tmp_path / "run.json"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)])
    while not path.exists():
        time.sleep(0.01)
    time.sleep(0.1)
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    assert path.read_text() in ("a" * 1_000_000, "b" * 1_000_000)


def test_a_lock_is_held_by_one_process_and_ends_with_it(tmp_path):
    path = tmp_path / "locks" / "gpu-0"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "True\n"
        assert take(path) is None
        holder.kill()
    lock = take(path)
    assert lock is not None
    lock.release()


def test_a_lock_is_held_by_one_thread_and_waited_for(tmp_path):
    path, order = tmp_path / "batches", []
    entered, leave = threading.Event(), threading.Event()

    def first():
        with claimed(path, lambda: False, 0.01) as held:
            order.append(("first", held))
            entered.set()
            leave.wait(30)

    worker = threading.Thread(target=first)
    worker.start()
    entered.wait(30)
    with claimed(path, lambda: True, 0.01) as held:
        order.append(("stopped", held))
    leave.set()
    with claimed(path, lambda: False, 0.01) as held:
        order.append(("second", held))
    worker.join()
    assert order == [("first", True), ("stopped", False), ("second", True)]
