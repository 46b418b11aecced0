"""From scBERT's own files (panglao_pretrain.pth and the .h5ad that tells the gene order) to our network's names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from scdrugmap.errors import WeightsInvalid
from scdrugmap.models.checkpoints.checkpoint import TensorMapping, Upstream, linear, read_state, read_torch
from scdrugmap.models.core.performer import Sizes
from scdrugmap.models.scbert.genes import read_gene_order

VERSION = 1  # bump when the same files convert to something else
# The masked-token head (in fine-tuned files a classifier) and a counter of training steps.
UNUSED = ("to_out.", "performer.calls_since_last_redraw")
STATE = "model_state_dict"
LAYER = "performer.net.layers"


def files(folder: Path) -> dict[str, Path]:
    """Files of a folder in upstream's layout; a `.pth` or `.h5ad` of another name is taken when alone."""
    return {
        "weights": find(folder, ("panglao_pretrain.pth",), "*.pth"),
        "genes": find(folder, ("panglao_10000.h5ad", "panglao_human.h5ad"), "*.h5ad"),
    }


def read(paths: Mapping[str, Path], settings: Mapping[str, Any]) -> Upstream:
    """Read both files; raises `WeightsInvalid`."""
    state = inner_state(paths["weights"])
    sizes = read_sizes(paths["weights"], state)
    genes = read_gene_order(paths["genes"], sizes.n_positions - 1)
    return Upstream(paths["weights"], state, asdict(sizes), {"genes": genes, "n_tokens": sizes.n_tokens})


def tensor_mappings(config: Mapping[str, Any]) -> dict[str, TensorMapping]:
    """Where each of our tensors stands upstream."""
    return dict(_tensor_mappings(config["layers"]))


def _tensor_mappings(layers: int) -> Iterator[tuple[str, TensorMapping]]:
    yield "token.weight", TensorMapping(("token_emb.weight",))
    yield "position.weight", TensorMapping(("pos_emb.emb.weight",))
    yield from linear("norm", "norm")
    for index in range(layers):
        ours, theirs = f"blocks.{index}", f"{LAYER}.{index}"
        yield f"{ours}.attention.projection", TensorMapping((f"{theirs}.0.fn.fast_attention.projection_matrix",))
        for part in ("to_q", "to_k", "to_v"):
            yield from linear(f"{ours}.attention.{part}", f"{theirs}.0.fn.{part}", suffixes=("weight",))
        yield from linear(f"{ours}.attention.to_out", f"{theirs}.0.fn.to_out")
        yield from linear(f"{ours}.norm1", f"{theirs}.0.norm")
        yield from linear(f"{ours}.norm2", f"{theirs}.1.norm")
        for part in ("w1", "w2"):
            yield from linear(f"{ours}.{part}", f"{theirs}.1.fn.fn.{part}")


def find(folder: Path, names: Sequence[str], *patterns: str) -> Path:
    """Give the first of `names` that `folder` holds, or the only file of a pattern, or the first name."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    for pattern in patterns:
        matches = sorted(folder.glob(pattern))
        if len(matches) == 1:
            return matches[0]
    return folder / names[0]


def inner_state(path: Path, key: str = STATE) -> dict[str, Tensor]:
    """Give the state dict under `key` of a training checkpoint, or the whole file where it is a bare state dict."""
    content = read_torch(path)
    return read_state(path, content[key] if isinstance(content, Mapping) and key in content else content)


def read_sizes(path: Path, state: Mapping[str, Tensor]) -> Sizes:
    """Infer the sizes from the tensors; raises `WeightsInvalid`."""
    n_tokens, dim = _shape(path, state, "token_emb.weight")
    n_positions, _ = _shape(path, state, "pos_emb.emb.weight")
    features, dim_head = _shape(path, state, f"{LAYER}.0.0.fn.fast_attention.projection_matrix")
    rows, _ = _shape(path, state, f"{LAYER}.0.0.fn.to_q.weight")
    inner, _ = _shape(path, state, f"{LAYER}.0.1.fn.fn.w1.weight")
    if rows % dim_head:
        message = f"'{path}' has queries of {rows} rows, which heads of {dim_head} do not divide."
        raise WeightsInvalid(message, "Get the file again from its source.")
    numbers = [int(match[1]) for name in state if (match := re.match(rf"{re.escape(LAYER)}\.(\d+)\.", name))]
    return Sizes(n_tokens, n_positions, dim, rows // dim_head, dim_head, features, inner, max(numbers) + 1)


def _shape(path: Path, state: Mapping[str, Tensor], name: str) -> tuple[int, int]:
    """Shape of a matrix that must be there."""
    if name not in state:
        message = f"'{path}' lacks the tensor '{name}'."
        raise WeightsInvalid(message, "Get the file again from its source and compare its size.")
    shape = tuple(state[name].shape)
    if len(shape) != 2:
        message = f"'{path}' has '{name}' of shape {shape} where a matrix is expected."
        raise WeightsInvalid(message, "Get the file again from its source and compare its size.")
    return shape


def toy(symbols: Sequence[str], ensembl_ids: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Config and vocabulary of a tiny network over these genes, for tests and `scdrugmap models check`."""
    sizes = Sizes(
        n_tokens=7, n_positions=len(symbols) + 1, dim=16, heads=2, dim_head=8, features=12, inner=24, layers=2
    )
    return asdict(sizes), {"genes": list(symbols), "n_tokens": sizes.n_tokens}
