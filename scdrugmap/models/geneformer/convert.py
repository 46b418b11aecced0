"""From Geneformer's own files (a model directory and the four gene dictionaries) to our network's names.

The layout is that of the Hugging Face repository: a model directory with config.json and the weights, and
`token_dictionary*.pkl` with its three companions in `geneformer/` (V2) or `geneformer/gene_dictionaries_30m/` (V1).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scdrugmap.errors import InvalidInput, WeightsInvalid
from scdrugmap.models.checkpoints.checkpoint import (
    TensorMapping,
    Upstream,
    linear,
    read_json,
    read_safetensors,
    read_state,
)
from scdrugmap.models.checkpoints.unpickle import read_dictionary
from scdrugmap.models.core.layers import ACTIVATIONS
from scdrugmap.models.geneformer.card import DEFAULT, DICTIONARIES, WEIGHTS
from scdrugmap.models.geneformer.network import layers_run
from scdrugmap.models.geneformer.tokens import CLS, EOS, MASK, PAD, SPECIALS

VERSION = 1  # bump when the same files convert to something else
# The masked-gene head, heads of fine-tuned models, and a buffer of numbers 0, 1, 2, ...; the embedding uses none.
UNUSED = (
    "cls.",
    "classifier.",
    *(prefix + name for prefix in ("bert.", "") for name in ("pooler.", "embeddings.position_ids")),
)
SIZES = {
    "n_tokens": "vocab_size",
    "positions": "max_position_embeddings",
    "dim": "hidden_size",
    "heads": "num_attention_heads",
    "inner": "intermediate_size",
    "layers": "num_hidden_layers",
}
PARTS = {
    "attention.q_proj": "attention.self.query",
    "attention.k_proj": "attention.self.key",
    "attention.v_proj": "attention.self.value",
    "attention.out_proj": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "linear1": "intermediate.dense",
    "linear2": "output.dense",
    "norm2": "output.LayerNorm",
}


def files(folder: Path, *, variant: str = "", **_: object) -> dict[str, Path]:
    """Files of a folder in upstream's layout; raises `InvalidInput` where `variant` has to choose and does not.

    `variant` names a model directory; "" takes the only one, or the card's where there are several.
    """
    model = _model_directory(folder, variant)
    weights = next((model / name for name in WEIGHTS if (model / name).is_file()), model / WEIGHTS[0])
    return {"weights": weights, "config": model / "config.json", **_dictionaries(folder, model.name)}


def read(paths: Mapping[str, Path], settings: Mapping[str, Any]) -> Upstream:
    """Read config, dictionaries and weights; raises `WeightsInvalid`."""
    file = paths["config"]
    described = read_json(file, tuple(SIZES.values()))
    config = {ours: described[theirs] for ours, theirs in SIZES.items()}
    config["token_types"] = described.get("type_vocab_size", 2)
    config["activation"] = described.get("hidden_act", "relu")
    config["eps"] = described.get("layer_norm_eps", 1e-12)
    config["dropout"] = described.get("hidden_dropout_prob", 0.0)
    if config["activation"] not in ACTIVATIONS or described.get("position_embedding_type", "absolute") != "absolute":
        message = f"'{file}' describes another BERT than Geneformer's ({config['activation']} activation)."
        raise WeightsInvalid(message, "Use the config.json that came with the weights.")
    vocabulary = _vocabulary(paths, config["n_tokens"]) | {"positions": config["positions"]}
    weights = paths["weights"]
    state = read_safetensors(weights) if weights.suffix == ".safetensors" else read_state(weights)
    left_out = range(layers_run(config["layers"], settings), config["layers"])
    unused = tuple(f"{prefix}encoder.layer.{index}." for prefix in ("bert.", "") for index in left_out)
    return Upstream(weights, state, config, vocabulary, unused)


def tensor_mappings(config: Mapping[str, Any]) -> dict[str, TensorMapping]:
    """Where each of our tensors stands upstream; a bare BertModel without the prefix `bert.` is accepted as well."""
    return dict(_tensor_mappings(config["layers"]))


def _tensor_mappings(layers: int) -> Iterator[tuple[str, TensorMapping]]:
    tables = {"token": "word_embeddings", "position": "position_embeddings", "token_type": "token_type_embeddings"}
    for ours, theirs in tables.items():
        yield from linear(ours, *_names(f"embeddings.{theirs}"), suffixes=("weight",))
    yield from linear("norm", *_names("embeddings.LayerNorm"))
    for index in range(layers):
        for ours, theirs in PARTS.items():
            yield from linear(f"blocks.{index}.{ours}", *_names(f"encoder.layer.{index}.{theirs}"))


def _names(name: str) -> tuple[str, str]:
    return f"bert.{name}", name


def _model_directory(folder: Path, variant: str) -> Path:
    """Find the model directory: one level down, in `fine_tuned_models`, or the folder itself."""
    configs = [
        path for deep in ("", "*/", "fine_tuned_models/*/") for path in sorted(folder.glob(f"{deep}config.json"))
    ]
    models = [path.parent for path in configs if any((path.parent / name).is_file() for name in WEIGHTS)]
    by_name = {model.name: model for model in models}
    if variant in by_name or (not variant and DEFAULT in by_name and len(by_name) > 1):
        return by_name[variant or DEFAULT]
    if variant or len(by_name) > 1:
        what = f"no model directory '{variant}'" if variant else "several models"
        remedy = f"Give variant= one of those that it holds: {', '.join(sorted(by_name)) or 'none'}."
        raise InvalidInput(f"'{folder}' holds {what}.", remedy)
    return next(iter([*models, *(path.parent for path in configs), folder / DEFAULT]))


def _dictionaries(folder: Path, model: str) -> dict[str, Path]:
    """Find the four dictionaries; the model's name decides where the folder holds those of several generations."""
    stem = DICTIONARIES["tokens"]
    paths = [path for depth in ("", "*/", "*/*/") for path in sorted(folder.glob(f"{depth}{stem}*.pkl"))]
    tag = next(
        (tag for pattern, tag in (("V1|30M", "_gc30M"), ("95M", "_gc95M")) if re.search(pattern, model)), "_gc104M"
    )
    fitting = [path for path in paths if path.stem == stem + tag]
    tokens = paths[0] if len(paths) == 1 else next(iter(fitting), folder / "geneformer" / f"{stem}{tag}.pkl")
    tail = tokens.name.removeprefix(stem)
    return {role: tokens.with_name(name + tail) for role, name in DICTIONARIES.items()}


def _vocabulary(paths: Mapping[str, Path], n_tokens: int) -> dict[str, Any]:
    """Names and medians of the tokens from the four dictionaries; raises `WeightsInvalid` where they do not fit."""
    tokens = read_dictionary(paths["tokens"], int)
    medians = read_dictionary(paths["medians"], float)
    specials = {name: tokens[name] for name in SPECIALS if name in tokens}
    if sorted(tokens.values()) != list(range(n_tokens)):
        what = f"{len(tokens)} tokens ({min(tokens.values())} to {max(tokens.values())}) for a model of {n_tokens}"
        raise _mismatch(paths["tokens"], f"holds {what}")
    if set(specials) not in ({PAD, MASK}, {PAD, MASK, CLS, EOS}):
        raise _mismatch(paths["tokens"], f"has the special tokens {', '.join(specials) or 'none'}")
    genes = {name: token for name, token in tokens.items() if name not in specials and name in medians}
    wrong = next((name for name in genes if not (medians[name] > 0 and math.isfinite(medians[name]))), None)
    if wrong or not genes:
        what = f"gives '{wrong}' the median {medians[wrong]}" if wrong else "knows none of the model's genes"
        raise _mismatch(paths["medians"], what)
    mapping = read_dictionary(paths["mapping"], str)
    ensembl = {old: genes[current] for old, current in mapping.items() if current in genes}
    named = read_dictionary(paths["names"], str)
    symbols = {symbol: ensembl[gene] for symbol, gene in named.items() if gene in ensembl}
    by_token = dict.fromkeys(range(n_tokens), 1.0) | {token: medians[name] for name, token in genes.items()}
    return {"ensembl": ensembl, "symbols": symbols, "medians": list(by_token.values()), "specials": specials}


def _mismatch(path: Path, what: str) -> WeightsInvalid:
    remedy = "Use the dictionaries of the model's own generation: gc30M for V1, gc104M for V2."
    return WeightsInvalid(f"'{path}' {what}: dictionaries and weights do not belong together.", remedy)


def toy(symbols: Sequence[str], ensembl_ids: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Config and vocabulary of a tiny network over these genes, for tests and `scdrugmap models check`."""
    rows = range(len(SPECIALS), len(SPECIALS) + len(symbols))
    specials = {name: row for row, name in enumerate(SPECIALS)}
    vocabulary = {
        "ensembl": dict(zip(ensembl_ids, rows, strict=True)),
        "symbols": dict(zip(symbols, rows, strict=True)),
        "medians": [1.0] * len(specials) + [1.0 + index % 7 / 8 for index in range(len(symbols))],
        "specials": specials,
        "positions": 256,
    }
    config = {"n_tokens": rows.stop, "positions": 256, "dim": 16, "heads": 2, "inner": 24, "layers": 3}
    return config, vocabulary
