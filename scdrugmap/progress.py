"""Telling a person or a page how far the work is. Root module: every layer reports in the same way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = bool | Callable[[int, int], None]


@contextmanager
def reporting(progress: Progress, total: int, noun: str) -> Iterator[Callable[[int], None]]:
    """Give a function that is told how many more are done.

    `progress` True draws a bar on stderr, a callable gets (done, total) after every step and may raise `Cancelled`,
    which stops the work there; False says nothing.
    """
    if callable(progress):
        done = 0

        def tell(more: int) -> None:
            nonlocal done
            done += more
            progress(done, total)

        yield tell
    elif progress:
        from tqdm import tqdm

        with tqdm(total=total, unit=noun) as bar:
            yield lambda more: _advance(bar, more)
    else:
        yield lambda more: None


def _advance(bar: object, more: int) -> None:
    bar.update(more)  # type: ignore[attr-defined]
