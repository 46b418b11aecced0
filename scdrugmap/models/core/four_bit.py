"""bitsandbytes, an optional package: weights in 4 bits. Nothing here imports it before somebody asks for it.

On import it fetches a compiled kernel from the Hub where the package `kernels` is installed, and warns where it is not.
We use neither: code is installed, never fetched.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from scdrugmap.errors import InvalidInput

INSTALL = 'pip install "bitsandbytes~=0.50" (in a checkout: pip install -e ".[4bit]")'


@contextmanager
def as_installed() -> Iterator[None]:
    """Let bitsandbytes, or what imports it, be imported without a kernel of the Hub and without a word about it."""
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    level, hidden = logger.level, "kernels" not in sys.modules
    logger.setLevel(logging.ERROR)
    if hidden:
        sys.modules["kernels"] = None  # type: ignore[assignment]  # an import of it fails, as where it is missing
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit, which it looks at
            yield
    finally:
        logger.setLevel(level)
        if hidden:
            del sys.modules["kernels"]


def require() -> None:
    """Import bitsandbytes; raises `InvalidInput` with the command where it is not installed."""
    if importlib.util.find_spec("bitsandbytes") is None:
        message = "Weights in 4 bits need the package bitsandbytes, which is not installed here."
        raise InvalidInput(message, f"Run: {INSTALL}; or give quantise='16bit'.")
    with as_installed():
        importlib.import_module("bitsandbytes")


def nf4(dtype: torch.dtype) -> Any:
    """Tell transformers to pack linears into 4-bit normal floats (arXiv:2305.14314), blocks of 64, and to compute in
    `dtype`."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def set_compute_dtype(network: nn.Module, dtype: torch.dtype) -> None:
    """Make packed linears compute in `dtype`, and keep the weights as they are packed; raises `InvalidInput` for none.

    On CPUs with AVX512-BF16 bitsandbytes would pack them anew at the first cell, into a form whose product has no
    gradient (0.50.2): LoRA after an embedding would train on, and learn nothing below the last block.
    """
    from bitsandbytes.nn import Linear4bit

    packed = [part for part in network.modules() if isinstance(part, Linear4bit)]
    if not packed:
        raise InvalidInput("This network has no linears that bitsandbytes packs into 4 bits.", "Give quantise='16bit'.")
    for part in packed:
        part.compute_dtype, part.compute_type_is_set = dtype, True
        part.support_avx512bf16_for_cpu = False
