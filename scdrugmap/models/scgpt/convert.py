"""From scGPT's own files (best_model.pt, args.json, vocab.json) to our network's names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scdrugmap.errors import WeightsInvalid
from scdrugmap.models.checkpoints.checkpoint import TensorMapping, Upstream, fused, linear, read_json, read_state
from scdrugmap.models.scgpt.tokens import SPECIALS

VERSION = 1  # bump when the same files convert to something else
# Heads of pretraining and fine-tuning, and domain-specific norms of fine-tuned files; the embedding uses none of them.
UNUSED = ("flag_encoder.", "decoder.", "mvc_decoder.", "cls_decoder.", "bn.", "dsbn.")


def files(folder: Path) -> dict[str, Path]:
    """Files of a folder in upstream's layout; a fine-tuned `.pt` of another name is taken when alone."""
    weights = folder / "best_model.pt"
    others = sorted(folder.glob("*.pt"))
    if not weights.is_file() and len(others) == 1:
        weights = others[0]
    return {"weights": weights, "args": folder / "args.json", "vocab": folder / "vocab.json"}


def read(paths: Mapping[str, Path], settings: Mapping[str, Any]) -> Upstream:
    """Read the three files; raises `WeightsInvalid`."""
    args = read_json(paths["args"], ("embsize", "nheads", "d_hid", "nlayers", "pad_token", "pad_value"))
    tokens = _tokens(paths["vocab"], args["pad_token"])
    config = {
        "n_tokens": len(tokens),
        "dim": args["embsize"],
        "heads": args["nheads"],
        "inner": args["d_hid"],
        "layers": args["nlayers"],
        "dropout": args.get("dropout", 0.0),
    }
    vocabulary = {"tokens": tokens, "pad_value": args["pad_value"]}
    return Upstream(paths["weights"], read_state(paths["weights"]), config, vocabulary)


def tensor_mappings(config: Mapping[str, Any]) -> dict[str, TensorMapping]:
    """Where each of our tensors stands upstream; flash-attention, torch and wrapped names are all accepted."""
    return dict(_tensor_mappings(config["layers"]))


def _tensor_mappings(layers: int) -> Iterator[tuple[str, TensorMapping]]:
    yield "gene.weight", TensorMapping(("encoder.embedding.weight",))
    yield from linear("gene_norm", "encoder.enc_norm")
    for part in ("linear1", "linear2", "norm"):
        yield from linear(f"value.{part}", f"value_encoder.{part}")
    for index in range(layers):
        ours, theirs = f"blocks.{index}", f"transformer_encoder.layers.{index}"
        attention = [f"{theirs}.self_attn.{name}" for name in ("Wqkv.", "in_proj_", "_impl.Wqkv.", "_impl.in_proj_")]
        yield from fused(attention, [f"{ours}.attention.{part}_proj" for part in "qkv"])
        yield from linear(
            f"{ours}.attention.out_proj", f"{theirs}.self_attn.out_proj", f"{theirs}.self_attn._impl.out_proj"
        )
        for part in ("linear1", "linear2", "norm1", "norm2"):
            yield from linear(f"{ours}.{part}", f"{theirs}.{part}")


def _tokens(path: Path, pad_token: str) -> dict[str, int]:
    """Token -> id; a special token that the file lacks is appended, as upstream does."""
    tokens = read_json(path)
    if pad_token != SPECIALS[0]:
        message = f"'{path.parent / 'args.json'}' calls the padding '{pad_token}'; scGPT's own is '{SPECIALS[0]}'."
        raise WeightsInvalid(message, "Use the args.json that came with the weights.")
    for special in SPECIALS:
        tokens.setdefault(special, len(tokens))
    if sorted(tokens.values()) != list(range(len(tokens))):
        message = f"'{path}' does not number its {len(tokens)} tokens from 0 to {len(tokens) - 1}, each once."
        raise WeightsInvalid(message, "Get the file again from its source.")
    return tokens


def toy(symbols: Sequence[str], ensembl_ids: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Config and vocabulary of a tiny network over these genes, for tests and `scdrugmap models check`."""
    tokens = {name: row for row, name in enumerate([*symbols, *SPECIALS])}
    config = {"n_tokens": len(tokens), "dim": 16, "heads": 2, "inner": 24, "layers": 2}
    return config, {"tokens": tokens, "pad_value": -2}
