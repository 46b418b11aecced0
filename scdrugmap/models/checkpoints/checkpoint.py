"""A checkpoint in our own form, and the strict way from an upstream file to it.

Every tensor of ours is filled from a named upstream tensor of the same shape, and every upstream tensor is used or
listed as knowingly unused; anything else is one `WeightsInvalid` that names the file and the first mismatch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError  # noqa: TID251 (what torch raises when it refuses a pickle; nothing is unpickled)
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from scdrugmap.errors import WeightsInvalid

DESCRIPTION, TENSORS = "checkpoint.json", "model.safetensors"
FORMAT = 1


@dataclass(frozen=True)
class TensorMapping:
    """Where one tensor of ours stands in the upstream file, and what is done to it on the way."""

    names: tuple[str, ...]  # accepted upstream names; the first that the file holds is read
    part: int = 0  # which of the `of` equal blocks of rows: fused query, key and value are (0, 3), (1, 3), (2, 3)
    of: int = 1
    transpose: bool = False  # upstream keeps (in, out)

    def shape_of(self, ours: Sequence[int]) -> tuple[int, ...]:
        """Shape that the upstream tensor must have for ours to have the shape `ours`."""
        whole = (ours[0] * self.of, *ours[1:]) if self.of > 1 else tuple(ours)
        return whole[::-1] if self.transpose else whole

    def take(self, upstream: Tensor) -> Tensor:
        """Our tensor, contiguous."""
        whole = upstream.T if self.transpose else upstream
        return whole.chunk(self.of, dim=0)[self.part].contiguous() if self.of > 1 else whole.contiguous()


@dataclass(frozen=True)
class Upstream:
    """What a model's `convert.read` found in a folder of the upstream layout."""

    file: Path  # the tensor file, to name it in errors
    state: Mapping[str, Tensor]
    config: Mapping[str, Any]  # keyword arguments of `network.Config`
    vocabulary: Mapping[str, Any]  # what `tokens.Tokenizer` reads; plain JSON values
    unused: tuple[str, ...] = ()  # prefixes beside `convert.UNUSED` that these sizes and settings leave out


@dataclass(frozen=True)
class Checkpoint:
    """All that a model needs to run: `config` and `vocabulary` are plain JSON values, `tensors` our state dict."""

    config: Mapping[str, Any]
    vocabulary: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    unused: tuple[str, ...] = ()  # upstream tensors that the embedding knowingly leaves out

    def save(self, folder: Path) -> None:
        """Write `checkpoint.json` and `model.safetensors`."""
        folder.mkdir(parents=True, exist_ok=True)
        described = {"format": FORMAT, "config": dict(self.config), "vocabulary": dict(self.vocabulary)}
        described["unused"] = list(self.unused)
        (folder / DESCRIPTION).write_text(json.dumps(described))
        tensors = {name: tensor.contiguous() for name, tensor in self.tensors.items()}
        (folder / TENSORS).write_bytes(safetensors.torch.save(tensors))  # `save_file` would hide it from other users

    def content_hash(self) -> str:
        """Give "sha256:..." over everything that the checkpoint holds, for weights that are no file."""
        described = json.dumps([dict(self.config), dict(self.vocabulary)], sort_keys=True)
        digest = hashlib.sha256(described.encode())
        for name in sorted(self.tensors):
            digest.update(name.encode() + self.tensors[name].contiguous().numpy().tobytes())
        return "sha256:" + digest.hexdigest()

    @classmethod
    def read(cls, folder: Path) -> Checkpoint:
        """Read what `save` wrote; raises `WeightsInvalid`."""
        described = read_json(folder / DESCRIPTION, ("format", "config", "vocabulary"))
        if described["format"] != FORMAT:
            message = f"'{folder / DESCRIPTION}' has format {described['format']}; this version reads {FORMAT}."
            raise WeightsInvalid(message, "Delete the folder; it is converted again from the upstream files.")
        # Copied to where torch puts its own: products of tensors that lie askew in a file differ in the last bit.
        tensors = {name: tensor.clone() for name, tensor in read_safetensors(folder / TENSORS).items()}
        return cls(described["config"], described["vocabulary"], tensors, tuple(described.get("unused", ())))


def map_state_dict(
    upstream: Upstream,
    mappings: Mapping[str, TensorMapping],
    shapes: Mapping[str, Sequence[int]],
    unused: Sequence[str],
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Fill every tensor of `shapes` from `upstream` and account for every upstream tensor.

    `unused` are prefixes (or whole names) of upstream tensors that the embedding does without. Gives our state dict
    and the names that were left out. Raises `WeightsInvalid` at the first mismatch, in the order of the network.
    """
    filled, used = {}, set()
    for ours, shape in shapes.items():
        mapping = mappings[ours]
        name = next((known for known in mapping.names if known in upstream.state), None)
        if name is None:
            raise _invalid(upstream.file, f"lacks the tensor '{mapping.names[0]}'")
        tensor, wanted = upstream.state[name], mapping.shape_of(shape)
        if tuple(tensor.shape) != wanted:
            raise _invalid(upstream.file, f"has '{name}' of shape {tuple(tensor.shape)} where {wanted} is expected")
        filled[ours] = mapping.take(tensor).float()
        if not torch.isfinite(filled[ours]).all():
            raise _invalid(upstream.file, f"holds NaN or infinite numbers in '{name}'")
        used.add(name)
    rest = [name for name in upstream.state if name not in used]
    foreign = [name for name in rest if not name.startswith(tuple(unused))]
    if foreign:
        raise _invalid(upstream.file, f"holds the tensor '{foreign[0]}', which the model does not know")
    return filled, tuple(rest)


def read_torch(path: Path, *, mmap: bool = False) -> Any:
    """Read a file of torch.save without running anything that it may hold; raises `WeightsInvalid`."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except (
        RuntimeError,
        UnpicklingError,
        EOFError,
        ValueError,
        LookupError,
        AttributeError,
        TypeError,
        OSError,
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise _invalid(path, f"cannot be read as a torch file of tensors ({reason[:160]})") from error


def read_state(path: Path, state: Any = None) -> dict[str, Tensor]:
    """Give the plain state dict in a torch file (or in `state`, a part of one); raises `WeightsInvalid`."""
    state = read_torch(path) if state is None else state
    if not isinstance(state, Mapping) or not state:
        raise _invalid(path, f"holds a {type(state).__name__}, not a dictionary of tensors")
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise _invalid(path, f"holds a {type(tensor).__name__} under '{name}' where a tensor is expected")
    return {str(name): tensor for name, tensor in state.items()}


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; raises `WeightsInvalid`."""
    try:
        return safetensors.torch.load_file(path)
    except (SafetensorError, OSError) as error:
        raise _invalid(path, f"cannot be read as safetensors ({error})") from error


def read_json(path: Path, keys: Sequence[str] = ()) -> dict[str, Any]:
    """Read a JSON object that has `keys`; raises `WeightsInvalid`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _invalid(path, f"cannot be read as JSON ({error})") from error
    if not isinstance(content, dict):
        raise _invalid(path, f"holds a {type(content).__name__}, not a JSON object")
    for key in keys:
        if key not in content:
            raise _invalid(path, f"lacks the field '{key}'")
    return content


def fused(
    prefixes: Sequence[str], parts: Sequence[str], suffixes: Sequence[str] = ("weight", "bias")
) -> Iterator[tuple[str, TensorMapping]]:
    """Mappings of linears that upstream keeps fused: `parts` are our names, blocks of rows in that order.

    `prefixes` end where "weight" or "bias" begins: "self_attn.in_proj_" and "self_attn.Wqkv." are both such.
    """
    for index, ours in enumerate(parts):
        for suffix in suffixes:
            names = tuple(prefix + suffix for prefix in prefixes)
            yield f"{ours}.{suffix}", TensorMapping(names, part=index, of=len(parts))


def linear(
    ours: str, *prefixes: str, suffixes: Sequence[str] = ("weight", "bias")
) -> Iterator[tuple[str, TensorMapping]]:
    """Mappings of one linear or norm that keeps its form; `prefixes` are its accepted upstream names."""
    for suffix in suffixes:
        yield f"{ours}.{suffix}", TensorMapping(tuple(f"{prefix}.{suffix}" for prefix in prefixes))


def _invalid(path: Path, what: str) -> WeightsInvalid:
    return WeightsInvalid(f"'{path}' {what}.", "Get the file again from its source and compare its size.")
