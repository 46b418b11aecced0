from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from scdrugmap.data.io.value_type import infer_value_type, refine, to_linear
from scdrugmap.data.simulate import simulate

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def counts() -> np.ndarray:
    return simulate(n_cells=150, n_genes=600, seed=3).X.toarray().astype(np.float64)


def per(counts: np.ndarray, total: float) -> np.ndarray:
    return counts / counts.sum(axis=1, keepdims=True) * total


def rows(values: np.ndarray, dtype: type = np.float32) -> sp.csr_matrix:
    """As a file would hold it: rounded to float32."""
    return sp.csr_matrix(values.astype(dtype)).astype(np.float64)


def scaled(values: np.ndarray) -> np.ndarray:
    logs = np.log1p(per(values, 1e4))
    return (logs - logs.mean(axis=0)) / logs.std(axis=0).clip(1e-3)


KINDS = {
    "counts": (lambda x: x, "counts"),
    "counts per million": (lambda x: per(x, 1e6), "cpm"),
    "counts per 10,000": (lambda x: per(x, 1e4), "cpm"),
    "shares": (lambda x: per(x, 1), "cpm"),
    "cp10k of some genes": (lambda x: per(x, 1e4)[:, 100:], "cpm"),
    "ln of counts": (np.log1p, "log1p"),
    "log2 of counts": (lambda x: np.log2(x + 1), "log2p1"),
    "ln cp10k": (lambda x: np.log1p(per(x, 1e4)), "log1p"),
    "ln cpm": (lambda x: np.log1p(per(x, 1e6)), "log1p"),
    "log2 cpm": (lambda x: np.log2(per(x, 1e6) + 1), "log2p1"),
    "log10 cp10k": (lambda x: np.log10(per(x, 1e4) + 1), "log10p1"),
    "ln cp10k of some genes": (lambda x: np.log1p(per(x, 1e4))[:, 100:], "log1p"),
    "log2 cp10k of some genes": (lambda x: np.log2(per(x, 1e4) + 1)[:, 100:], "log2p1"),
    "z-scores": (scaled, "zscore"),
    "z-scores of some cells": (lambda x: scaled(x)[:40], "zscore"),
    "clipped z-scores": (lambda x: scaled(x).clip(-2, 10), "zscore"),
    "scaled, not centred": (lambda x: np.log1p(per(x, 1e4)) / np.log1p(per(x, 1e4)).std(axis=0).clip(1e-3), "zscore"),
    "min-max scaled": (lambda x: np.log1p(x) / np.log1p(x).max(axis=0).clip(1), "scaled01"),
    "only zeros": (np.zeros_like, "empty"),
    "negative counts": (lambda x: np.where((x > 3) & (RNG.random(x.shape) < 0.001), -x, x), "negative"),
    "RSEM estimates": (lambda x: x + np.where((x > 0) & (RNG.random(x.shape) < 0.3), 0.37, 0), "counts"),
    "corrected counts": (lambda x: x * RNG.uniform(0.5, 1.5, x.shape), "cpm"),
}


@pytest.mark.parametrize("name", KINDS)
def test_kinds_are_told_apart(counts, name):
    change, expected = KINDS[name]
    inferred = infer_value_type(rows(change(counts)))
    assert inferred.kind == expected, inferred.description
    assert inferred.description


@pytest.mark.parametrize(
    "name", ["ln of counts", "log2 of counts", "ln cp10k", "log2 cpm", "log10 cp10k", "ln cp10k of some genes"]
)
def test_logarithms_are_undone(counts, name):
    change, _ = KINDS[name]
    linear = {"of counts": counts, "cpm": per(counts, 1e6)}.get(" ".join(name.split()[1:]), per(counts, 1e4))
    linear = linear[:, 100:] if "some genes" in name else linear
    logs = sp.csr_matrix(change(counts).astype(np.float32))
    inferred = infer_value_type(logs.astype(np.float64))
    back = to_linear(logs, inferred)
    assert back.dtype == np.float32
    np.testing.assert_allclose(back.toarray(), linear, rtol=1e-4)
    assert inferred.whole == ("of counts" in name)
    if inferred.whole:
        assert np.array_equal(back.toarray(), counts)


def test_undoing_leaves_other_values_alone(counts):
    values = sp.csr_matrix(counts.astype(np.float32))
    assert np.array_equal(
        to_linear(values.copy(), infer_value_type(values.astype(np.float64))).toarray(), values.toarray()
    )


def test_says_when_the_base_cannot_be_told():
    logs = np.log1p(RNG.gamma(0.5, 3, (100, 50)))
    inferred = infer_value_type(rows(logs))
    assert inferred.kind == "log1p"
    assert "base cannot be told" in inferred.doubt


@pytest.mark.parametrize(
    ("change", "doubt"),
    [
        (lambda x: (x > 0).astype(float), "binarised"),
        (lambda x: np.apply_along_axis(lambda row: RNG.multinomial(500, row / row.sum()), 1, x), "same total"),
    ],
)
def test_counts_that_look_odd_are_doubted(counts, change, doubt):
    inferred = infer_value_type(rows(change(counts)))
    assert inferred.kind == "counts"
    assert doubt in inferred.doubt


def test_largest_value_overrules_rows_that_looked_like_logarithms(counts):
    inferred = infer_value_type(rows(np.log1p(per(counts, 1e4))))
    assert refine(inferred, 9.2) is inferred
    corrected = refine(inferred, 3000.0)
    assert corrected.kind == "cpm"
    assert corrected.base is None
    assert corrected.doubt
    ones = infer_value_type(rows((counts > 0).astype(float)))
    assert refine(ones, 1.0).doubt
    assert refine(ones, 7.0).doubt == ""


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_rows_are_enough(counts, n):
    assert infer_value_type(rows(counts[:n])).kind == "counts"
    assert infer_value_type(rows(np.log1p(per(counts, 1e4))[:n])).kind == "log1p"
    assert infer_value_type(rows(per(counts, 1e4)[:n])).kind == "cpm"
    assert infer_value_type(rows(scaled(counts)[:n])).kind == "zscore"


def test_row_order_and_empty_rows_do_not_matter(counts):
    logs = np.log1p(per(counts, 1e4))
    logs = np.vstack([np.zeros((3, logs.shape[1])), logs])
    shuffled = logs[np.random.default_rng(1).permutation(len(logs))]
    assert infer_value_type(rows(logs)).kind == infer_value_type(rows(shuffled)).kind == "log1p"
