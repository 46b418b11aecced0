from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from scdrugmap.data.io.value_type import judge, settle, undo
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
    verdict = judge(rows(change(counts)))
    assert verdict.value_type == expected, verdict.says
    assert verdict.says


@pytest.mark.parametrize(
    "name", ["ln of counts", "log2 of counts", "ln cp10k", "log2 cpm", "log10 cp10k", "ln cp10k of some genes"]
)
def test_logarithms_are_undone(counts, name):
    change, _ = KINDS[name]
    linear = {"of counts": counts, "cpm": per(counts, 1e6)}.get(" ".join(name.split()[1:]), per(counts, 1e4))
    linear = linear[:, 100:] if "some genes" in name else linear
    logs = sp.csr_matrix(change(counts).astype(np.float32))
    verdict = judge(logs.astype(np.float64))
    back = undo(logs, verdict)
    assert back.dtype == np.float32
    np.testing.assert_allclose(back.toarray(), linear, rtol=1e-4)
    assert verdict.whole == ("of counts" in name)
    if verdict.whole:
        assert np.array_equal(back.toarray(), counts)


def test_undoing_leaves_other_values_alone(counts):
    values = sp.csr_matrix(counts.astype(np.float32))
    assert np.array_equal(undo(values.copy(), judge(values.astype(np.float64))).toarray(), values.toarray())


def test_says_when_the_base_cannot_be_told():
    logs = np.log1p(RNG.gamma(0.5, 3, (100, 50)))
    verdict = judge(rows(logs))
    assert verdict.value_type == "log1p"
    assert "base cannot be told" in verdict.doubt


@pytest.mark.parametrize(
    ("change", "doubt"),
    [
        (lambda x: (x > 0).astype(float), "binarised"),
        (lambda x: np.apply_along_axis(lambda row: RNG.multinomial(500, row / row.sum()), 1, x), "same total"),
    ],
)
def test_counts_that_look_odd_are_doubted(counts, change, doubt):
    verdict = judge(rows(change(counts)))
    assert verdict.value_type == "counts"
    assert doubt in verdict.doubt


def test_largest_value_overrules_rows_that_looked_like_logarithms(counts):
    verdict = judge(rows(np.log1p(per(counts, 1e4))))
    assert settle(verdict, 9.2) is verdict
    corrected = settle(verdict, 3000.0)
    assert corrected.value_type == "cpm"
    assert corrected.base is None
    assert corrected.doubt
    ones = judge(rows((counts > 0).astype(float)))
    assert settle(ones, 1.0).doubt
    assert settle(ones, 7.0).doubt == ""


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_rows_are_enough(counts, n):
    assert judge(rows(counts[:n])).value_type == "counts"
    assert judge(rows(np.log1p(per(counts, 1e4))[:n])).value_type == "log1p"
    assert judge(rows(per(counts, 1e4)[:n])).value_type == "cpm"
    assert judge(rows(scaled(counts)[:n])).value_type == "zscore"


def test_row_order_and_empty_rows_do_not_matter(counts):
    logs = np.log1p(per(counts, 1e4))
    logs = np.vstack([np.zeros((3, logs.shape[1])), logs])
    shuffled = logs[np.random.default_rng(1).permutation(len(logs))]
    assert judge(rows(logs)).value_type == judge(rows(shuffled)).value_type == "log1p"
