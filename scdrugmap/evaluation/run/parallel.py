"""One argument from a plain loop to a cluster; the only file that names a backend."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from scdrugmap.errors import InvalidInput, WorkersLost
from scdrugmap.evaluation.run.gpu_slots import cards

Task = TypeVar("Task")
Result = TypeVar("Result")

GPU = "GPU"  # the resource that Dask workers declare: `dask worker --resources GPU=1`
CONNECT_SECONDS = "20s"
BREAKS = 3  # of a pool of processes, before its tasks are done one at a time to find the one that kills


def run(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    *,
    workers: str = "1",
    gpu: bool = False,
    lost: Callable[[Task, WorkersLost], Result] | None = None,
) -> Iterator[Result]:
    """Yield `function(task)` as each is done, in any order.

    `workers`: "1" (a plain loop in this process), "8" (that many processes), or the address of a Dask scheduler such as
    "tcp://host:8786". `gpu` tells that a task wants a GPU to itself: processes are then no more than this machine has
    GPUs, and Dask sends one task to each `GPU` that its workers declare; where there is none, nothing changes. A task
    whose process is killed is done again, several times; then `lost(task, error)` stands for its result.

    Raises `InvalidInput` for other workers and for a scheduler that does not answer, `WorkersLost` without `lost`, and
    what `function` raises.
    """
    kind = backend(workers)
    if kind == "loop":
        return map(function, tasks)
    numbered = dict(enumerate(tasks))
    if not numbered:
        return iter(())
    give_up = lost or _raise
    if kind == "processes":
        return _on_processes(function, numbered, _slots(int(workers)) if gpu else int(workers), give_up)
    return _on_dask(function, numbered, workers, give_up, gpu=gpu)


def backend(workers: str) -> str:
    """Return "loop", "processes" or "dask" for a value of `workers`."""
    if workers == "1":
        return "loop"
    if workers.isdecimal() and int(workers) > 0:
        return "processes"
    if "://" in workers:
        return "dask"
    message = f"workers='{workers}' is neither a number of processes nor the address of a Dask scheduler."
    raise InvalidInput(message, 'Use "1", "8" or "tcp://host:8786".')


def _on_processes(
    function: Callable[[Task], Result],
    left: dict[int, Task],
    n: int,
    lost: Callable[[Task, WorkersLost], Result],
) -> Iterator[Result]:
    """Do tasks in a pool of processes; a pool that breaks takes all its tasks along and does not say which broke it."""
    breaks = 0
    while left:
        alone = breaks >= BREAKS
        batch = dict([next(iter(left.items()))]) if alone else dict(left)
        try:
            for number, result in _pool(function, batch, n):
                del left[number]
                yield result
        except BrokenProcessPool:
            breaks += 1
            if alone:
                number = next(iter(batch))
                yield lost(left.pop(number), _lost())
                breaks = 0


def _pool(function: Callable[[Task], Result], tasks: Mapping[int, Task], n: int) -> Iterator[tuple[int, Result]]:
    from joblib import Parallel, delayed, parallel_config

    with parallel_config(backend="loky", n_jobs=max(n, 2), inner_max_num_threads=1):  # left before the caller iterates
        pool = Parallel(n_jobs=n, return_as="generator_unordered", batch_size=1)
        return pool(delayed(_numbered)(function, number, task) for number, task in tasks.items())


def _numbered(function: Callable[[Task], Result], number: int, task: Task) -> tuple[int, Result]:
    return number, function(task)


def _on_dask(
    function: Callable[[Task], Result],
    tasks: Mapping[int, Task],
    address: str,
    lost: Callable[[Task, WorkersLost], Result],
    *,
    gpu: bool,
) -> Iterator[Result]:
    """Do tasks as futures of a scheduler, which gives a task of a lost worker to another one, several times."""
    from distributed import KilledWorker, as_completed

    with _client(address) as client:
        declared = any(
            worker["resources"].get(GPU) for worker in client.scheduler_info(n_workers=-1)["workers"].values()
        )
        slots: dict[str, Any] = {"resources": {GPU: 1}} if gpu and declared else {}
        futures = {client.submit(_alone, function, task, pure=False, **slots): task for task in tasks.values()}
        try:
            for future in as_completed(list(futures), loop=client.loop):
                try:
                    yield future.result()
                except KilledWorker:
                    yield lost(futures[future], _lost())
        finally:
            client.cancel([future for future in futures if not future.done()])


def _alone(function: Callable[[Task], Result], task: Task) -> Result:
    """Call a function whose own use of joblib stays in its process: no task waits for other tasks."""
    from joblib import parallel_config

    with parallel_config(backend="sequential"):
        return function(task)


def _client(address: str) -> Any:
    from distributed import Client

    try:
        return Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        message = f"No Dask scheduler answers at '{address}'."
        raise InvalidInput(message, "Start one with: dask scheduler --port 8786") from error


def _lost() -> WorkersLost:
    message = "The process that worked on it was killed, again and again."
    return WorkersLost(message, "It may need more memory than there is: use fewer workers, or a larger machine.")


def _raise(task: object, error: WorkersLost) -> Any:
    raise error


def _slots(n: int) -> int:
    """Return how many of n processes may use a GPU at once: one each; all of them where there is no GPU."""
    n_cards = cards()
    return min(n, n_cards) if n_cards else n
