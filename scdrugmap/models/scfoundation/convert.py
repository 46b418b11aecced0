"""From scFoundation's own files (models.ckpt and the gene index) to our network's names.

models.ckpt holds three models, `cell`, `rde` and `gene`, each with its config; the setting `variant` chooses.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scdrugmap.errors import InvalidInput, WeightsInvalid
from scdrugmap.models.checkpoints.checkpoint import TensorMapping, Upstream, fused, linear, read_state, read_torch

VERSION = 1  # bump when the same files convert to something else
PREFIX = "model."
# The decoder of pretraining, and the vectors of masked and padded values, which no token of a cell takes.
UNUSED = tuple(
    PREFIX + name
    for name in ("decoder.", "decoder_embed.", "norm.", "to_final.", "token_emb.emb_mask.", "token_emb.emb_pad.")
)
GENE_INDEX = "OS_scRNA_gene_index.19264.tsv"
EXTRA_ROWS = 3  # T, S and padding stand behind the genes in the gene table
SIZES = ("seq_len", "bin_num", "bin_alpha", "encoder")


def files(folder: Path, **_: object) -> dict[str, Path]:
    """Files of a folder in upstream's layout; a gene index of another name is taken when it is the only .tsv."""
    genes = folder / GENE_INDEX
    others = sorted(folder.glob("*.tsv"))
    if not genes.is_file() and len(others) == 1:
        genes = others[0]
    return {"weights": folder / "models.ckpt", "genes": genes}


def read(paths: Mapping[str, Path], settings: Mapping[str, Any]) -> Upstream:
    """Read the chosen model and the gene order; raises `WeightsInvalid`, or `InvalidInput` for an unknown variant."""
    file = paths["weights"]
    models = read_torch(file)
    variant = settings["variant"]
    if not isinstance(models, Mapping) or not models:
        raise WeightsInvalid(f"'{file}' is not scFoundation's dictionary of models.", "Use models.ckpt as published.")
    if variant not in models:
        raise InvalidInput(f"'{file}' holds no variant '{variant}'.", f"Possible: {', '.join(map(str, models))}.")
    sizes = _sizes(file, models[variant])
    encoder = sizes["encoder"]
    config = {
        "n_rows": sizes["seq_len"] + 1,
        "dim": encoder["hidden_dim"],
        "heads": encoder["heads"],
        "layers": encoder["depth"],
        "bins": sizes["bin_num"],
        "bin_alpha": float(sizes["bin_alpha"]),
    }
    genes = _genes(paths["genes"], config["n_rows"] - EXTRA_ROWS)
    return Upstream(file, read_state(file, models[variant]["state_dict"]), config, {"genes": genes})


def _sizes(file: Path, model: Any) -> dict[str, Any]:
    """Merge the two parts of the config, the data set's over the architecture's, as upstream does."""
    try:
        described = model["config"]
        merged = {**described["model_config"][described["model"]], **described["dataset_config"]["rnaseq"]}
        sizes = {name: merged[name] for name in SIZES}
        numbers = [
            *(sizes[name] for name in SIZES[:3]),
            *(sizes["encoder"][k] for k in ("hidden_dim", "depth", "heads")),
        ]
    except (KeyError, TypeError) as error:
        message = f"'{file}' describes no scFoundation encoder (no {error})."
        raise WeightsInvalid(message, "Use models.ckpt as published.") from error
    if not all(isinstance(number, int | float) and number >= 0 for number in numbers):
        raise WeightsInvalid(f"'{file}' gives {numbers} as its sizes.", "Use models.ckpt as published.")
    return sizes


def _genes(path: Path, n_genes: int) -> list[str]:
    """Symbols in the order of the file, which is the order of the gene table."""
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            genes = [row["gene_name"] for row in csv.DictReader(lines, delimiter="\t")]
    except (OSError, UnicodeDecodeError, KeyError, csv.Error) as error:
        message = f"'{path}' cannot be read as a gene index with a column gene_name ({error})."
        raise WeightsInvalid(message, f"Use {GENE_INDEX} of the code repository.") from error
    if len(genes) != n_genes or len(set(genes)) != n_genes:
        message = f"'{path}' lists {len(set(genes))} different genes where the checkpoint has {n_genes}."
        raise WeightsInvalid(message, "Use the gene index that belongs to this checkpoint.")
    return genes


def tensor_mappings(config: Mapping[str, Any]) -> dict[str, TensorMapping]:
    """Where each of our tensors stands upstream."""
    return dict(_tensor_mappings(config["layers"]))


def _tensor_mappings(layers: int) -> Iterator[tuple[str, TensorMapping]]:
    yield from linear("value.spread", f"{PREFIX}token_emb.mlp")
    yield from linear("value.mix", f"{PREFIX}token_emb.mlp2")
    yield "value.table.weight", TensorMapping((f"{PREFIX}token_emb.emb.weight",))
    yield "gene.weight", TensorMapping((f"{PREFIX}pos_emb.weight",))
    yield from linear("norm", f"{PREFIX}encoder.norm")
    for index in range(layers):
        ours, theirs = f"blocks.{index}", f"{PREFIX}encoder.transformer_encoder.{index}"
        yield from fused([f"{theirs}.self_attn.in_proj_"], [f"{ours}.attention.{part}_proj" for part in "qkv"])
        yield from linear(f"{ours}.attention.out_proj", f"{theirs}.self_attn.out_proj")
        for part in ("linear1", "linear2", "norm1", "norm2"):
            yield from linear(f"{ours}.{part}", f"{theirs}.{part}")


def toy(symbols: Sequence[str], ensembl_ids: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Config and vocabulary of a tiny network over these genes, for tests and `scdrugmap models check`."""
    sizes = {"dim": 16, "heads": 2, "layers": 2, "bins": 8, "bin_alpha": 1.0}
    return {"n_rows": len(symbols) + EXTRA_ROWS, **sizes}, {"genes": list(symbols)}
