"""Cells that are one cell: published sets of one study share their untreated cells, and a split must not separate them.

A cell's hash is a sum over its genes, so neither the order of genes nor genes that it does not show matter. Each gene
has two fixed 64-bit keys (BLAKE2b of its name); each value is scrambled with each key (the finaliser of SplitMix64,
Steele et al. 2014, doi 10.1145/2660193.2660195) and the results are added with wrap-around. Two cells of different
content meet in both sums with a chance of about 2^-128.

Everything that asks whether two cells are one asks here: splits, audits, the fit of a reference, whether a reference
was fitted on a cell, and which labelled cells may be told to a language model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from anndata import AnnData

LEAST_COUNTS = 50  # below that, equal content may be chance: two cells with one molecule of one gene are not one cell
_ROWS = 4096
EMPTY = b"\x00" * 16


def cell_hashes(adata: AnnData) -> np.ndarray:
    """Return a hash of each cell's genes and values, shape (n_cells,), dtype S32: 32 hex digits.

    Values are hashed as float32. Zeros are ignored, and so are cell names, obs and the order of genes; the names of the
    genes count, so hash what `read_h5ad` returned. An empty cell hashes to 32 zeros.
    """
    keys = _gene_keys(tuple(adata.var_names))
    sums = np.concatenate([_sums(rows, keys) for rows in _bands(adata)]) if adata.n_obs else np.zeros((0, 2), np.uint64)
    digests = sums.astype(">u8").tobytes()
    return np.array([digests[start : start + 16].hex() for start in range(0, len(digests), 16)], dtype="S32")


def fingerprint(adata: AnnData, hashes: np.ndarray | None = None) -> str:
    """Return "sha256:..." of the cells' content in their order, and of the gene names; obs does not count.

    `hashes` (n_cells,) are the cells' own where `cell_hashes` has given them already: hashing is what takes time.
    """
    digest = hashlib.sha256((cell_hashes(adata) if hashes is None else hashes).tobytes())
    digest.update("\n".join(sorted(set(adata.var_names))).encode())
    return f"sha256:{digest.hexdigest()}"


@dataclass(frozen=True, eq=False)
class CellKeys:
    """What decides whether cells are one cell, (n_cells,) each."""

    hashes: np.ndarray  # S32, of genes and values
    molecules: np.ndarray  # float, the sum of values; infinite of z-scores, which add up to nothing
    barcodes: np.ndarray  # str, the cells' names

    @property
    def identifiable(self) -> np.ndarray:
        """Whether the content alone tells which cell it is, (n_cells,) bool: not of empty and nearly empty cells."""
        return ~_nearly_empty(self.hashes, self.molecules)


def cell_keys(adata: AnnData, hashes: np.ndarray | None = None) -> CellKeys:
    """Return the keys of the cells that `read_h5ad` or `load_dataset` gave; `hashes` are theirs, where they are known.

    Values that did not come through there, and say nothing of what they are, are taken to be counts or the like.
    """
    zscore = adata.uns.get("scdrugmap", {}).get("input", {}).get("value_type") == "zscore"
    molecules = np.asarray(adata.X.sum(axis=1), dtype=np.float64).ravel()
    return CellKeys(
        cell_hashes(adata) if hashes is None else hashes,
        np.full(adata.n_obs, np.inf) if zscore else molecules,
        np.asarray(adata.obs_names, dtype=str),
    )


def duplicate_ids(keys: Sequence[CellKeys]) -> np.ndarray:
    """Return a number for each cell of some data sets, one after another, that it shares with its copies only.

    (n_cells,) int: the place of the first copy. See `duplicate_groups` for what a copy is.
    """
    if not keys:
        return np.zeros(0, dtype=np.int64)
    hashes, molecules, barcodes = (
        np.concatenate([getattr(part, name) for part in keys]) for name in ("hashes", "molecules", "barcodes")
    )
    ids = np.arange(len(hashes))
    for group in duplicate_groups(hashes, counts=molecules, barcodes=barcodes):
        ids[group] = group[0]
    return ids


def distinct(ids: np.ndarray, sensitive: np.ndarray) -> tuple[np.ndarray, int, int]:
    """Return the places of cells that are left when each counts once, ascending, and how many copies and contrary go.

    `ids`, (n_cells,), are equal for copies; `sensitive`, (n_cells,) bool, is their label. The first copy stays. Copies
    that carry both labels all go, since nobody can say which is right.
    """
    _, first, index = np.unique(ids, return_index=True, return_inverse=True)
    seen = np.zeros((len(first), 2), dtype=bool)  # (distinct cells, classes)
    seen[index, sensitive.astype(int)] = True
    contrary = seen[:, 0] & seen[:, 1]
    kept = np.sort(first[~contrary])
    n_contrary = int(contrary[index].sum())
    return kept, len(ids) - len(kept) - n_contrary, n_contrary


def duplicate_groups(
    hashes: np.ndarray, *, counts: np.ndarray | None = None, barcodes: np.ndarray | None = None
) -> list[np.ndarray]:
    """Return the places of cells that are one cell, an array of at least two places each, by first occurrence.

    Content decides; barcodes differ by prefix and suffix between data sets. Only where a cell holds fewer than
    `LEAST_COUNTS` molecules, by `counts` (n_cells,), the core of its barcode, by `barcodes` (n_cells,), must agree too:
    without barcodes such cells are never duplicates. Without `counts` only empty cells are left out.
    """
    labels = np.asarray(hashes).astype("S64")
    small = _nearly_empty(labels, counts)
    if barcodes is None:
        places = np.flatnonzero(~small)
    else:
        cores = np.array([barcode_core(str(name)) if tiny else "" for name, tiny in zip(barcodes, small, strict=True)])
        labels = np.char.add(labels, np.char.encode(cores))
        places = np.flatnonzero(~small | (cores != ""))
    codes = np.unique(labels[places], return_inverse=True)[1]
    order = np.argsort(codes, kind="stable")
    groups = np.split(places[order], np.flatnonzero(np.diff(codes[order])) + 1)
    return sorted((group for group in groups if len(group) > 1), key=lambda group: int(group[0]))


def _nearly_empty(hashes: np.ndarray, counts: np.ndarray | None) -> np.ndarray:
    empty = hashes == EMPTY.hex().encode()
    return empty if counts is None else empty | (np.asarray(counts) < LEAST_COUNTS)


def barcode_core(name: str) -> str:
    """Return the longest run of A, C, G, T in a cell name (at least 8 letters), or "" where there is none.

    >>> barcode_core("GSM123_AAACCTGAGCAGCGTA-1")
    'AAACCTGAGCAGCGTA'
    """
    runs = "".join(letter if letter in "ACGT" else " " for letter in name.upper()).split()
    longest = max(runs, key=len, default="")
    return longest if len(longest) >= 8 else ""


def _gene_keys(names: tuple[str, ...]) -> np.ndarray:
    """Two fixed keys for each gene name, (G, 2) uint64."""
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=16).digest() for name in names)
    return np.frombuffer(digests, dtype="<u8").reshape(-1, 2).astype(np.uint64)


def _bands(adata: AnnData) -> Iterator[sp.csr_matrix]:
    """Yield rows as canonical float32 CSR, a band at a time."""
    for start in range(0, adata.n_obs, _ROWS):
        rows = sp.csr_matrix(adata.X[start : start + _ROWS], dtype=np.float32)
        rows.sum_duplicates()
        rows.eliminate_zeros()
        yield rows


def _sums(rows: sp.csr_matrix, keys: np.ndarray) -> np.ndarray:
    """Sum of scrambled (gene, value) pairs by row, modulo 2^64, (rows, 2) uint64."""
    bits = rows.data.view(np.uint32).astype(np.uint64)[:, None]  # (nnz, 1)
    scrambled = _scramble(keys[rows.indices] ^ _scramble(bits * np.uint64(0x9E3779B97F4A7C15)))  # (nnz, 2)
    total = np.concatenate([np.zeros((1, 2), np.uint64), np.cumsum(scrambled, axis=0, dtype=np.uint64)])
    return total[rows.indptr[1:]] - total[rows.indptr[:-1]]


def _scramble(x: np.ndarray) -> np.ndarray:
    """Finalise as SplitMix64 does: a bijection in which every input bit reaches every output bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
