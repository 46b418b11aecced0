"""From tGPT's own files (a GPT-2 checkpoint and tokenizer.json) to our network's names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scdrugmap.errors import WeightsInvalid
from scdrugmap.models.checkpoints.checkpoint import (
    TensorMapping,
    Upstream,
    linear,
    read_json,
    read_safetensors,
    read_state,
)
from scdrugmap.models.tgpt.tokens import SPECIALS

VERSION = 1  # bump when the same files convert to something else
UNUSED = ("lm_head.weight",)  # the output layer, tied to the word table
SIZES = {"n_tokens": "vocab_size", "positions": "n_positions", "dim": "n_embd", "heads": "n_head", "layers": "n_layer"}
# Values of config.json under which a GPT-2 computes what `network` does; an absent field has the value.
EXPECTED = {
    "activation_function": "gelu_new",
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}


def files(folder: Path) -> dict[str, Path]:
    """Files of a folder in upstream's layout; safetensors are taken where there is no pytorch_model.bin."""
    weights, other = folder / "pytorch_model.bin", folder / "model.safetensors"
    if other.is_file() and not weights.is_file():
        weights = other
    return {"weights": weights, "config": folder / "config.json", "tokenizer": folder / "tokenizer.json"}


def read(paths: Mapping[str, Path], settings: Mapping[str, Any]) -> Upstream:
    """Read the three files; raises `WeightsInvalid`."""
    described = read_json(paths["config"], tuple(SIZES.values()))
    for field, value in EXPECTED.items():
        if described.get(field, value) != value:
            message = f"'{paths['config']}' has {field} = {described[field]!r}; tGPT's own is {value!r}."
            raise WeightsInvalid(message, "Use the config.json that came with the weights.")
    config: dict[str, Any] = {ours: described[theirs] for ours, theirs in SIZES.items()}
    config["inner"] = described.get("n_inner") or 4 * config["dim"]
    config["eps"] = described.get("layer_norm_epsilon", 1e-5)
    config["dropout"] = described.get("resid_pdrop", 0.0)
    vocabulary = {"tokens": _tokens(paths["tokenizer"], config["n_tokens"]), "positions": config["positions"]}
    weights = paths["weights"]
    state = read_safetensors(weights) if weights.suffix == ".safetensors" else read_state(weights)
    buffers = (f"h.{index}.attn.{name}" for index in range(config["layers"]) for name in ("bias", "masked_bias"))
    unused = tuple(name for buffer in buffers for name in _names(buffer))  # the causal mask, which old files carry
    return Upstream(weights, state, config, vocabulary, unused)


def tensor_mappings(config: Mapping[str, Any]) -> dict[str, TensorMapping]:
    """Where each of our tensors stands upstream; a bare GPT2Model without `transformer.` is accepted as well.

    GPT-2 keeps its layers as (in, out), with query, key and value in one.
    """
    return dict(_tensor_mappings(config["layers"]))


def _tensor_mappings(layers: int) -> Iterator[tuple[str, TensorMapping]]:
    yield "token.weight", TensorMapping(_names("wte.weight"))
    yield "position.weight", TensorMapping(_names("wpe.weight"))
    yield from linear("norm", *_names("ln_f"))
    for index in range(layers):
        ours, theirs = f"blocks.{index}", f"h.{index}"
        for third, letter in enumerate("qkv"):
            weight, bias = (_names(f"{theirs}.attn.c_attn.{suffix}") for suffix in ("weight", "bias"))
            yield f"{ours}.attention.{letter}_proj.weight", TensorMapping(weight, part=third, of=3, transpose=True)
            yield f"{ours}.attention.{letter}_proj.bias", TensorMapping(bias, part=third, of=3)
        for part, name in (("attention.out_proj", "attn.c_proj"), ("linear1", "mlp.c_fc"), ("linear2", "mlp.c_proj")):
            yield f"{ours}.{part}.weight", TensorMapping(_names(f"{theirs}.{name}.weight"), transpose=True)
            yield f"{ours}.{part}.bias", TensorMapping(_names(f"{theirs}.{name}.bias"))
        for part, name in (("norm1", "ln_1"), ("norm2", "ln_2")):
            yield from linear(f"{ours}.{part}", *_names(f"{theirs}.{name}"))


def _names(name: str) -> tuple[str, str]:
    return f"transformer.{name}", name


def _tokens(path: Path, n_tokens: int) -> dict[str, int]:
    """Token -> id of a word-level tokenizer.json; raises `WeightsInvalid`."""
    model = read_json(path, ("model",))["model"]
    tokens = model.get("vocab") if isinstance(model, dict) and model.get("type") == "WordLevel" else None
    if not isinstance(tokens, dict):
        raise _invalid(path, "describes no word-level tokenizer")
    if sorted(tokens.values()) != list(range(n_tokens)):
        raise _invalid(path, f"has {len(tokens)} tokens for a model of {n_tokens}")
    lacking = [name for name in SPECIALS if name not in tokens]
    if lacking:
        raise _invalid(path, f"lacks the token {lacking[0]}")
    return tokens


def _invalid(path: Path, what: str) -> WeightsInvalid:
    return WeightsInvalid(f"'{path}' {what}.", "Use the tokenizer.json that came with the weights.")


def toy(symbols: Sequence[str], ensembl_ids: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Config and vocabulary of a tiny network over these genes, for tests and `scdrugmap models check`."""
    written = dict.fromkeys(symbol.replace("-", "_").replace(".", "_") for symbol in symbols)
    tokens = {name: row for row, name in enumerate([*SPECIALS, *written])}
    config = {"n_tokens": len(tokens), "positions": 80, "dim": 16, "heads": 2, "inner": 24, "layers": 2}
    return config, {"tokens": tokens, "positions": 80}
