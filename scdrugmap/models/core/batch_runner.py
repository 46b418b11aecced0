"""How prepared batches run: read ahead by a thread, moved to the device, halved where its memory ends, and compiled
where that is asked for and possible.

On a GPU the next batch starts before the vectors of the last one are fetched: host and device copy through pinned
memory and wait for each other only where they must. On a CPU a batch is done when it returns.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scdrugmap.errors import InvalidInput
from scdrugmap.models.core.tokenizer import Batch

log = logging.getLogger(__name__)
AHEAD = 4  # batches that stand ready while one runs
CPU_BUDGET = 1_024  # padded positions a batch and a thread: what its layers write stays in the cache of a core
CUDA_BUDGET = 131_072

Tensors = dict[str, Tensor]  # the keyword arguments of a network's `forward`
Prepared = tuple[np.ndarray, Tensors]  # rows of the result, and what gives them


def token_budget(device: torch.device) -> int:
    """Padded positions that a batch may have on a device, before its memory has said otherwise."""
    return CUDA_BUDGET if device.type == "cuda" else CPU_BUDGET * torch.get_num_threads()


class Runner:
    """Runs the batches of one call; `budget` falls when the device runs out of memory.

    `divisible` says that cells do not see each other, so that a batch may be cut in two.
    """

    def __init__(self, forward: Callable[[Tensors], Tensor], device: torch.device, *, divisible: bool) -> None:
        self.forward = forward
        self.device = device
        self.divisible = divisible
        self.budget = token_budget(device)

    def run(self, batches: Iterator[tuple[np.ndarray, Batch]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the rows of each batch and their vectors, (C, dim) float32."""
        in_flight = 1 if self.device.type == "cuda" else 0
        started: deque[tuple[np.ndarray, _Vectors]] = deque()
        ready = ((rows, host_tensors(batch, self.device)) for rows, batch in batches)
        ahead = AHEAD if self.divisible else in_flight  # a context may be thousands of cells
        for rows, tensors in prefetch(ready, ahead):
            started.append((rows, _Vectors(self._start(tensors))))
            del tensors  # not to be held while the next is prepared
            if len(started) > in_flight:
                rows, vectors = started.popleft()
                yield rows, vectors.get()
        for rows, vectors in started:
            yield rows, vectors.get()

    def _start(self, tensors: Tensors) -> Tensor:
        """Vectors (C, dim) float32 of a batch, on the device; half and half where it does not fit."""
        z = self._attempt(tensors)
        if z is not None:
            return z
        torch.cuda.empty_cache()  # outside the handler: the error holds on to what was allocated
        n_cells = min(map(len, tensors.values()))
        if n_cells < 2 or not self.divisible:
            message = f"The memory of {self.device} does not hold a batch of {n_cells} cells."
            raise InvalidInput(message, "Use precision='bfloat16', another device, or device='cpu'.")
        self.budget = max(1, self.budget // 2)
        log.warning("%s is out of memory: batches are cut to %d tokens", self.device, self.budget)
        half = n_cells // 2
        parts = ({name: x[:half] for name, x in tensors.items()}, {name: x[half:] for name, x in tensors.items()})
        return torch.cat([self._start(part) for part in parts])

    def _attempt(self, tensors: Tensors) -> Tensor | None:
        try:
            return self.forward(to_device(tensors, self.device)).float()
        except torch.OutOfMemoryError:
            return None


class _Vectors:
    """Vectors of a batch on their way to the host."""

    def __init__(self, z: Tensor) -> None:
        self.host, self.arrived = z, None
        if z.is_cuda:
            self.host = torch.empty(z.shape, dtype=z.dtype, pin_memory=True)
            self.host.copy_(z, non_blocking=True)
            self.arrived = torch.cuda.Event()
            self.arrived.record(torch.cuda.current_stream(z.device))

    def get(self) -> np.ndarray:
        """Wait for them; (C, dim) float32."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.host.numpy()


def host_tensors(batch: Batch, device: torch.device) -> Tensors:
    """Tensors of a collated batch in the host's memory, pinned where a GPU will copy them. The batch is emptied.

    Copied, not shared: where numpy happens to put an array would decide the last bit of a product. Array by array: a
    context of thousands of cells is not in memory twice.
    """
    tensors = {}
    for name in list(batch):
        x = torch.tensor(batch.pop(name))
        tensors[name] = x.pin_memory() if device.type == "cuda" else x
    return tensors


def to_device(tensors: Tensors, device: torch.device) -> Tensors:
    """Tensors on the device; a copy of pinned memory goes on while the host works."""
    return {name: x.to(device, non_blocking=True) for name, x in tensors.items()}


def prefetch(batches: Iterator[Any], ahead: int = AHEAD) -> Iterator[Any]:
    """Yield the same items while one thread prepares the next `ahead`; an error of that thread is raised here.

    With `ahead` 0 nothing is prepared before it is asked for.
    """
    if not ahead:
        yield from batches
        return
    end = object()
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches")
    try:
        coming: deque[Future[Any]] = deque(pool.submit(next, batches, end) for _ in range(ahead))
        while (item := coming.popleft().result()) is not end:
            coming.append(pool.submit(next, batches, end))
            yield item
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class Compiled:
    """A network whose blocks `torch.compile` translates when they first run, with symbolic sizes; or the network as it
    is, after one line in the log, where there are no such blocks or no working compiler.

    Blocks of one kind share a translation. Sizes are symbolic, so that neither lengths nor batch sizes make a new one;
    the parameters keep their names.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.blocks: list[nn.Module] = [block for block in blocks_of(network) if getattr(block, "compiles", True)]
        if not self.blocks:
            log.warning("%s runs uncompiled: it has no blocks that can be", type(network).__module__)
        for block in self.blocks:
            # An attribute of the module, not a module around it: names of parameters stay, and it can be taken back.
            block.forward = torch.compile(block.forward, dynamic=True)

    def __call__(self, **tensors: Tensor) -> Tensor:
        """Run the network; the first failure of the compiler makes it run uncompiled from then on."""
        if not self.blocks:
            return self.network(**tensors)
        try:
            return self.network(**tensors)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ImportError, OSError) as error:  # dynamo's, inductor's, Triton's, the C++ compiler's
            self.undo()
            reason = str(error).strip().splitlines() or [type(error).__name__]
            log.warning("%s runs uncompiled: %s", type(self.network).__module__, reason[0])
        return self.network(**tensors)

    def undo(self) -> None:
        """Let the blocks run as they were written."""
        for block in self.blocks:
            vars(block).pop("forward", None)
        self.blocks = []


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """Repeated layers of a network, which its attribute `blocks` holds."""
    blocks = getattr(network, "blocks", None)
    return list(blocks) if isinstance(blocks, nn.ModuleList) else []
