"""What the numbers of a matrix are: counts, normalised counts, their logarithm or z-scores, told from some rows.

Counts are whole. Normalised counts have equal row sums, or are whole multiples of each row's smallest value (one
molecule). Logarithms are small, and show their base when undone: row sums become equal, or the multiples appear.
z-scores are fractional with many negatives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

LOG_MAX = 25.0  # log2 of 33 million: no logarithm of a count or of a count per million is larger
EQUAL_SUMS = 0.02  # coefficient of variation below which row sums are called equal
Z_NEGATIVE = 0.01  # share of negative values above which a matrix is z-scores rather than faulty
IMPOSSIBLE = 1e30
BINARISED = "only 0 and 1 were seen: the counts look binarised"
WHOLE_TOP = 200.0  # undone values up to this are whole or not; rounding blurs larger ones
LATTICE_TOP = 20.0  # multiples of one molecule up to this are looked at; larger ones say little
_WIDTH = 0.02  # how far from a whole number a value may be that was rounded and undone


@dataclass(frozen=True)
class LogBase:
    """A logarithm that people use, with its inverse; `kind` is the value type of such a matrix."""

    kind: str
    name: str
    to_linear: Callable[[np.ndarray], np.ndarray]


BASES = (
    LogBase("log1p", "natural log(x + 1)", np.expm1),
    LogBase("log2p1", "log2(x + 1)", lambda values: np.exp2(values) - 1),
    LogBase("log10p1", "log10(x + 1)", lambda values: np.power(10.0, values) - 1),
)


@dataclass(frozen=True)
class ValueType:
    """What the values of a matrix are.

    `kind` is "counts", "cpm", one of the `BASES` or "zscore"; "negative", "scaled01" and "empty" are never accepted.
    """

    kind: str
    description: str  # in words, with the evidence
    base: LogBase | None = None
    whole: bool = False  # undoing the logarithm gives back whole counts
    doubt: str = ""  # what could not be told


def infer_value_type(rows: sp.csr_matrix) -> ValueType:
    """Infer the type of the values of a matrix from some of its rows, (cells, genes) CSR float64."""
    rows = rows.copy()
    rows.data[~(np.abs(rows.data) < IMPOSSIBLE)] = 0  # NaN and infinities are refused by whoever reads all rows
    rows.eliminate_zeros()
    rows = rows[np.diff(rows.indptr) > 0]
    values = rows.data
    if not values.size:
        return ValueType("empty", "only zeros")
    share_negative = float(np.mean(values < 0))
    share_whole = float(np.mean(values == np.floor(values)))
    if share_negative:
        return _negative(rows, share_negative, share_whole)
    if share_whole > 0.999:
        return _counts(rows)
    sums = _spread(rows)
    if sums < EQUAL_SUMS:
        total = float(np.median(np.asarray(rows.sum(axis=1))))
        return ValueType("cpm", f"normalised counts (every cell sums to {total:,.4g})")
    if share_whole > 0.5 and values.max() > LOG_MAX:
        return ValueType(
            "counts", f"counts of which {1 - share_whole:.0%} are fractional, as RSEM or alevin estimate them"
        )
    return _fractional(rows)


def to_linear(matrix: sp.csr_matrix, value_type: ValueType) -> sp.csr_matrix:
    """Bring a (cells, genes) float32 CSR matrix to the linear scale in place and return it; only logarithms change."""
    if value_type.base is not None:
        step = 2**23
        for start in range(0, matrix.nnz, step):
            linear = value_type.base.to_linear(matrix.data[start : start + step].astype(np.float64))
            matrix.data[start : start + step] = np.round(linear) if value_type.whole else linear
    return matrix


def refine(value_type: ValueType, largest: float) -> ValueType:
    """Correct what was inferred from some rows by the largest value of all rows.

    Values above `LOG_MAX` are no logarithms, and a matrix with values above 1 is not binarised.
    """
    if value_type.base is not None and largest > LOG_MAX:
        return replace(_linear(f"values up to {largest:,.4g}"), doubt="some rows looked like logarithms")
    if value_type.doubt == BINARISED and largest > 1:
        return replace(value_type, doubt="")
    return value_type


def _counts(rows: sp.csr_matrix) -> ValueType:
    doubt = ""
    if rows.data.max() == 1:
        doubt = BINARISED
    elif _spread(rows) < 1e-6:
        doubt = "all cells have the same total: the counts look down-sampled, or normalised and rounded"
    return ValueType("counts", "raw counts", doubt=doubt)


def _negative(rows: sp.csr_matrix, share: float, share_whole: float) -> ValueType:
    if share < Z_NEGATIVE or share_whole > 0.5:
        return ValueType("negative", f"negative values ({share:.2%} of those looked at, lowest {rows.data.min():.4g})")
    mean, deviation = _moments(rows)
    evidence = f"{share:.0%} of the values are negative, a gene's mean is {np.median(mean):.2f} and its deviation "
    return ValueType("zscore", f"z-scores or other scaled values ({evidence}{np.median(deviation):.2f} in the median)")


def _fractional(rows: sp.csr_matrix) -> ValueType:
    """Non-negative fractions with unequal row sums: a logarithm, or something linear."""
    if _lattice(rows) > 0.7:
        return ValueType("cpm", "normalised counts (whole multiples of each cell's smallest value)")
    largest = float(rows.data.max())
    if largest > LOG_MAX:
        return _linear(f"values up to {largest:,.4g}")
    if _unit_deviation(rows):
        return ValueType("zscore", "values scaled per gene to a deviation of one, not centred")
    if largest <= 1:
        return ValueType("scaled01", "values between 0 and 1 (scaled per gene, or probabilities)")
    return _logarithm(rows)


def _linear(evidence: str) -> ValueType:
    description = f"fractional values on a linear scale ({evidence}, cells sum to different totals)"
    return ValueType("cpm", description, doubt="they may be TPM or FPKM of some genes, or corrected or imputed counts")


def _logarithm(rows: sp.csr_matrix) -> ValueType:
    """Find the base whose inverse makes sense of the rows: whole counts, equal sums or multiples of one molecule."""
    undone = [rows.copy() for _ in BASES]
    for matrix, base in zip(undone, BASES, strict=True):
        matrix.data = base.to_linear(matrix.data)
    for matrix, base in zip(undone, BASES, strict=True):
        small = matrix.data[matrix.data < WHOLE_TOP]
        if small.size > 0.5 * matrix.nnz and np.mean(np.abs(small - np.round(small)) < _WIDTH) > 0.99:
            return ValueType(base.kind, f"{base.name} of raw counts", base, whole=True)
    sums = [_spread(matrix) for matrix in undone]
    best = int(np.argmin(sums))
    if sums[best] < EQUAL_SUMS:
        total = float(np.median(np.asarray(undone[best].sum(axis=1))))
        evidence = f"undone, every cell sums to {total:,.4g}"
        return ValueType(BASES[best].kind, f"{BASES[best].name} of normalised counts ({evidence})", BASES[best])
    fits = [_lattice(matrix) for matrix in undone]
    best = int(np.argmax(fits))
    if fits[best] > 0.7:
        evidence = "undone, the values are whole multiples of each cell's smallest"
        return ValueType(BASES[best].kind, f"{BASES[best].name} of normalised counts ({evidence})", BASES[best])
    description = f"log-transformed values (largest {rows.data.max():.4g})"
    return ValueType(
        BASES[0].kind, description, BASES[0], doubt="their base cannot be told and natural, as scanpy's, is assumed"
    )


def _moments(rows: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of every gene, both (G,)."""
    n = rows.shape[0]
    mean = np.asarray(rows.sum(axis=0)).ravel() / n
    square = np.asarray(rows.multiply(rows).sum(axis=0)).ravel() / n
    return mean, np.sqrt(np.maximum(square - mean**2, 0))


def _unit_deviation(rows: sp.csr_matrix) -> bool:
    """Tell whether the genes that enough cells show all deviate by one, which happens only on purpose."""
    shown = np.bincount(rows.indices, minlength=rows.shape[1]) >= 20
    return shown.sum() >= 20 and float(np.mean(np.abs(_moments(rows)[1][shown] - 1) < 0.2)) > 0.8


def _spread(rows: sp.csr_matrix) -> float:
    """Coefficient of variation of the row sums; infinite for fewer than three rows, which always look alike."""
    sums = np.asarray(rows.sum(axis=1)).ravel()
    return float(sums.std() / sums.mean()) if len(sums) > 2 and sums.mean() > 0 else np.inf


def _lattice(rows: sp.csr_matrix) -> float:
    """Share of rows whose values are whole multiples of the row's smallest one, as a few molecules each are."""
    fits = []
    for start, stop in zip(rows.indptr[:-1], rows.indptr[1:], strict=True):
        multiples = rows.data[start:stop] / max(rows.data[start:stop].min(), np.finfo(float).tiny)
        multiples = multiples[(multiples > 1.01) & (multiples < LATTICE_TOP)]
        if multiples.size >= 5:
            fits.append(np.mean(np.abs(multiples - np.round(multiples)) < _WIDTH) > 0.9)
    return float(np.mean(fits)) if fits else 0.0
