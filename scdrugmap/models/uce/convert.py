"""From UCE's own files (a checkpoint and what places human genes in it) to our network's names.

The checkpoint's own token table is the one that counts, chromosome rows included; upstream's all_tokens.torch is only
for new species and is not read. Of the table's rows (those of eight species) the human ones, the special ones and the
chromosomes that human genes lie on are kept.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from scdrugmap.errors import WeightsInvalid
from scdrugmap.models.checkpoints.checkpoint import TensorMapping, Upstream, fused, linear, read_state, read_torch
from scdrugmap.models.checkpoints.unpickle import read_dictionary
from scdrugmap.models.uce.card import OFFSETS, PLACES, PROTEINS, VARIANTS
from scdrugmap.models.uce.tokens import N_SPECIALS

VERSION = 1  # bump when the same files convert to something else
# The head that guesses whether a gene is expressed, and a second gene embedding; the embedding uses neither.
UNUSED = ("binary_decoder.", "gene_embedding_layer.")
SPECIES = "human"
COLUMNS = ("gene_symbol", "chromosome", "start", "species")
TABLE, SINES = "pe_embedding.weight", "pos_encoder.pe"
LAYERS = "transformer_encoder.layers"


def files(folder: Path, *, variant: str = "", **_: object) -> dict[str, Path]:
    """Files of a folder in upstream's layout; a checkpoint of another name is taken when it is the only one."""
    names = [VARIANTS[variant]] if variant in VARIANTS else list(VARIANTS.values())
    weights = next((folder / name for name in names if (folder / name).is_file()), folder / names[0])
    others = [path for path in sorted(folder.glob("*.torch")) if path.name != "all_tokens.torch"]
    if not weights.is_file() and len(others) == 1 and not variant:
        weights = others[0]
    proteins = folder / PROTEINS
    if not proteins.is_file() and (folder / proteins.name).is_file():
        proteins = folder / proteins.name
    return {"weights": weights, "places": folder / PLACES, "offsets": folder / OFFSETS, "proteins": proteins}


def read(paths: Mapping[str, Path], settings: Mapping[str, Any]) -> Upstream:
    """Read the four files; raises `WeightsInvalid`. Of the two large ones only what is needed enters memory."""
    weights = paths["weights"]
    state = read_state(weights, _read_large(weights))
    n_tokens, token_dim = _shape(weights, state, TABLE, 2)
    positions, _, dim = _shape(weights, state, SINES, 3)
    inner, _ = _shape(weights, state, f"{LAYERS}.0.linear1.weight", 2)
    decoder, _ = _shape(weights, state, "decoder.0.0.weight", 2)
    out_dim, _ = _shape(weights, state, "decoder.3.weight", 2)
    vocabulary = _vocabulary(paths, n_tokens) | {"positions": positions}
    state[TABLE] = state[TABLE][vocabulary["tokens"]]  # (our rows, P)
    config = {
        "n_tokens": len(vocabulary["tokens"]),
        "token_dim": token_dim,
        "positions": positions,
        "dim": dim,
        "inner": inner,
        "layers": len({name.split(".")[2] for name in state if name.startswith(LAYERS + ".")}),
        "decoder": decoder,
        "out_dim": out_dim,
    }
    return Upstream(weights, state, config, vocabulary)


def tensor_mappings(config: Mapping[str, Any]) -> dict[str, TensorMapping]:
    """Where each of our tensors stands upstream."""
    return dict(_tensor_mappings(config["layers"]))


def _tensor_mappings(layers: int) -> Iterator[tuple[str, TensorMapping]]:
    yield "table", TensorMapping((TABLE,))
    yield "sines", TensorMapping((SINES,))
    yield from linear("token", "encoder.0")
    yield from linear("token_norm", "encoder.2")
    for index in range(layers):
        ours, theirs = f"blocks.{index}", f"{LAYERS}.{index}"
        yield from fused([f"{theirs}.self_attn.in_proj_"], [f"{ours}.attention.{part}_proj" for part in "qkv"])
        yield from linear(f"{ours}.attention.out_proj", f"{theirs}.self_attn.out_proj")
        for part in ("linear1", "linear2", "norm1", "norm2"):
            yield from linear(f"{ours}.{part}", f"{theirs}.{part}")
    for index in range(3):
        yield from linear(f"decoder.{index}.linear", f"decoder.{index}.0")
        yield from linear(f"decoder.{index}.norm", f"decoder.{index}.1")
    yield from linear("out", "decoder.3")


def _read_large(path: Path) -> Any:
    """Read a torch file without copying its tensors, where its format allows that."""
    return read_torch(path, mmap=path.is_file() and zipfile.is_zipfile(path))


def _shape(path: Path, state: Mapping[str, Tensor], name: str, ndim: int) -> tuple[int, ...]:
    """Shape of a tensor from which a size is read; raises `WeightsInvalid`."""
    if name not in state:
        raise _invalid(path, f"lacks the tensor '{name}'")
    if state[name].ndim != ndim:
        raise _invalid(path, f"has '{name}' of shape {tuple(state[name].shape)} where {ndim} axes are expected")
    return tuple(state[name].shape)


def _vocabulary(paths: Mapping[str, Path], n_tokens: int) -> dict[str, Any]:
    """Human genes with a place in the genome, and the rows of upstream's table that stand for our rows.

    A gene's row is its place among the protein vectors, counted from the species' offset. Chromosomes of all species
    are numbered together and come last in the table.
    """
    symbols = list(dict.fromkeys(symbol.upper() for symbol in _symbols(paths["proteins"])))
    offset = read_dictionary(paths["offsets"], int).get(SPECIES, -1)
    places, codes = _places(paths["places"])
    first = n_tokens - len(codes)  # of the chromosomes
    if offset < N_SPECIALS or offset + len(symbols) > first:
        what = f"puts {len(symbols)} human genes at {offset}, and chromosomes begin at {first}"
        raise _invalid(paths["offsets"], f"{what}: the four files do not belong together")
    genes = {symbol: offset + row for row, symbol in enumerate(symbols) if symbol in places.index}
    if not genes:
        raise _invalid(paths["places"], f"places none of the {len(symbols)} human genes")
    located = places.loc[list(genes)]
    used = sorted(set(located["code"].tolist()))
    ranks = {code: rank for rank, code in enumerate(used)}
    return {
        "genes": list(genes),
        "chromosomes": [ranks[code] for code in located["code"].tolist()],
        "starts": located["start"].tolist(),
        "tokens": [*range(N_SPECIALS), *genes.values(), *(first + code for code in used)],
    }


def _symbols(path: Path) -> list[str]:
    """Symbols of the protein vectors, in the file's order; raises `WeightsInvalid`."""
    content = _read_large(path)
    if not isinstance(content, Mapping) or not content or not all(isinstance(name, str) for name in content):
        raise _invalid(path, "holds no dictionary of gene symbols")
    return list(content)


def _places(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """Chromosome code and start of the human genes by upper-case symbol, and the chromosomes of all species in order.

    A gene without chromosome or start has no place. Of several rows of a gene the first counts, of those whose symbol
    is written in upper case before others.
    """
    try:
        table = pd.read_csv(path, usecols=list(COLUMNS), dtype={name: str for name in COLUMNS if name != "start"})
        table = table.dropna(subset=["species", "chromosome"])
        table["name"] = table["species"] + "_" + table["chromosome"]
        codes = sorted(set(table["name"]))
        human = table[table["species"] == SPECIES].dropna()
        human = human.assign(
            symbol=human["gene_symbol"].str.upper(),
            code=human["name"].map({name: code for code, name in enumerate(codes)}),
            start=human["start"].astype("int64"),
        )
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise _invalid(path, f"cannot be read as a table of {', '.join(COLUMNS)} ({reason})") from error
    written = (human["symbol"] == human["gene_symbol"]).sort_values(ascending=False, kind="stable")
    human = human.loc[written.index].drop_duplicates("symbol")
    return human.set_index("symbol")[["code", "start"]], codes


def _invalid(path: Path, what: str) -> WeightsInvalid:
    return WeightsInvalid(f"'{path}' {what}.", "Get the file again from its source; keep the files of one release.")


def toy(symbols: Sequence[str], ensembl_ids: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Config and vocabulary of a tiny network over these genes, for tests and `scdrugmap models check`."""
    genes = list(dict.fromkeys(symbol.upper() for symbol in symbols))
    n_chromosomes = min(5, len(genes))
    n_tokens = N_SPECIALS + len(genes) + n_chromosomes
    vocabulary = {
        "genes": genes,
        "chromosomes": [row % n_chromosomes for row in range(len(genes))],
        "starts": [row * 7919 % 10_007 for row in range(len(genes))],
        "tokens": list(range(n_tokens)),
        "positions": 1536,
    }
    sizes = {"token_dim": 12, "positions": 1536, "dim": 16, "inner": 24, "layers": 2, "decoder": 20, "out_dim": 14}
    return {"n_tokens": n_tokens, "heads": 2, **sizes}, vocabulary
