"""From CellLM's own files (a .pth, the configuration of its task and a gene list) to our network's names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

from scdrugmap.errors import WeightsInvalid
from scdrugmap.models.checkpoints.checkpoint import Upstream, read_json
from scdrugmap.models.core.performer import Sizes
from scdrugmap.models.scbert.convert import STATE, UNUSED, find, inner_state, read_sizes, tensor_mappings
from scdrugmap.models.scbert.genes import read_gene_order

__all__ = ["UNUSED", "VERSION", "files", "read", "tensor_mappings", "toy"]
VERSION = 1  # bump when the same files convert to something else
CONFIGS = ("cellLM.json", "CellLM.json", "CellLM_randsplit.json")
WEIGHTS = ("checkpoint4_fixed.pth", "ckpt.pth", "nocls_fixed.pth", "CellLM.pth")
GENES = ("gene_list.txt", "zheng68k_hgnc.h5ad")
SPECIAL_GENES = 2  # rows of the gene table behind the genes: <cls> and padding


def files(folder: Path) -> dict[str, Path]:
    """Files of a folder: the .pth that the configuration names, one of upstream's names, or the only one."""
    config = find(folder, CONFIGS, "*.json")
    named = _structure(config).get("ckpt_path", "") if config.is_file() else ""
    names = (PurePosixPath(named).name, *WEIGHTS) if named else WEIGHTS
    return {
        "weights": find(folder, names, "*.pth"),
        "config": config,
        "genes": find(folder, GENES, "*.txt", "*.h5ad"),
    }


def read(paths: Mapping[str, Path], settings: Mapping[str, Any]) -> Upstream:
    """Read the three files; raises `WeightsInvalid`, also where configuration and tensors disagree."""
    structure = _structure(paths["config"])
    state = inner_state(paths["weights"], structure.get("param_key") or STATE)
    sizes = read_sizes(paths["weights"], state)
    n_genes = sizes.n_positions - SPECIAL_GENES
    ours = {
        "num_tokens": sizes.n_tokens,
        "dim": sizes.dim,
        "depth": sizes.layers,
        "heads": sizes.heads,
        "gene_num": n_genes,
        "local_attn_heads": 0,
        "g2v_position_emb": True,
    }
    for name, value in ours.items():
        if structure.get(name, value) != value:
            message = f"'{paths['config']}' says {name} = {structure[name]} where '{paths['weights']}' needs {value}."
            raise WeightsInvalid(message, "Use the configuration that belongs to the weights.")
    genes = read_gene_order(paths["genes"], n_genes)
    length = structure["max_seq_len"]
    config = asdict(sizes) | {"max_length": length}
    vocabulary = {"genes": genes, "n_tokens": sizes.n_tokens, "max_length": length}
    return Upstream(paths["weights"], state, config, vocabulary)


def _structure(path: Path) -> dict[str, Any]:
    """Give the part of a task's configuration that describes the cell encoder."""
    network = read_json(path, ("network",))["network"]
    parts = [part for part in network.values() if isinstance(part, dict)] if isinstance(network, dict) else []
    for part in parts:
        length = part.get("max_seq_len")
        if isinstance(length, int) and length > 0:
            return part
    message = f"'{path}' has no part of 'network' with a 'max_seq_len', so the length of the padding is unknown."
    raise WeightsInvalid(message, "Use configs/ctc/cellLM.json of the OpenBioMed repository.")


def toy(symbols: Sequence[str], ensembl_ids: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Config and vocabulary of a tiny network over these genes, for tests and `scdrugmap models check`."""
    length = len(symbols) // 3
    sizes = Sizes(
        n_tokens=8,
        n_positions=len(symbols) + SPECIAL_GENES,
        dim=16,
        heads=2,
        dim_head=8,
        features=12,
        inner=24,
        layers=2,
    )
    vocabulary = {"genes": list(symbols), "n_tokens": sizes.n_tokens, "max_length": length}
    return asdict(sizes) | {"max_length": length}, vocabulary
