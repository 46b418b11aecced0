"""One argument from a plain loop to a cluster; the only file that names a backend."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from scdrugmap.errors import InvalidInput

Task = TypeVar("Task")
Result = TypeVar("Result")


def run(function: Callable[[Task], Result], tasks: Iterable[Task], *, workers: str = "1") -> Iterator[Result]:
    """Yield `function(task)` as each is done, in any order.

    `workers`: "1" (a plain loop in this process), "8" (that many processes), or the address of a Dask scheduler such as
    "tcp://host:8786". Raises `InvalidInput` for anything else.
    """
    if workers == "1":
        return map(function, tasks)
    from joblib import Parallel, delayed, parallel_config

    with parallel_config(**backend(workers)):  # left again before the caller iterates
        return Parallel(return_as="generator_unordered")(delayed(function)(task) for task in tasks)


def backend(workers: str) -> dict[str, Any]:
    """Return joblib's settings for a value of `workers`."""
    if workers.isdecimal() and int(workers) > 0:
        return {"backend": "loky", "n_jobs": int(workers), "inner_max_num_threads": 1}
    if "://" in workers:
        return {"backend": "dask", "scheduler_host": workers}
    message = f"workers='{workers}' is neither a number of processes nor the address of a Dask scheduler."
    raise InvalidInput(message, 'Use "1", "8" or "tcp://host:8786".')
