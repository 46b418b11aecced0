from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from scdrugmap.data.simulate import simulate
from scdrugmap.evaluation.cells.labelled_cells import LabelledData, load_labelled
from scdrugmap.evaluation.experiment import Experiment
from scdrugmap.evaluation.run.evaluate import evaluate
from scdrugmap.evaluation.strategies import features, heads, mlp
from scdrugmap.evaluation.strategies.features import ContextFeatures, FrozenFeatures, Rows, empty
from scdrugmap.evaluation.strategies.heads import HEADS, make_head
from scdrugmap.models import load_model


def simulated(**options):
    plan = {"n_cells": 120, "n_genes": 2000, "n_samples": 6, "n_datasets": 2, "n_studies": 2}
    return LabelledData.from_datasets(load_labelled([simulate(**plan | options)]))


@dataclasses.dataclass
class Spy:
    """Vectors that remember how many rows were read at a time."""

    Z: np.ndarray
    most: int = 0

    @property
    def shape(self):
        return self.Z.shape

    def __len__(self):
        return len(self.Z)

    def __getitem__(self, key):
        found = self.Z[key]
        self.most = max(self.most, len(found))
        return found


def labelled(n, dim=4, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.array(["sensitive", "resistant"] * (n // 2), dtype=object)
    return rng.normal(size=(n, dim)).astype(np.float32) + 0.5 * (labels == "resistant")[:, None], labels


def test_the_paper_s_head_reads_its_cells_in_parts_only(monkeypatch):
    monkeypatch.setattr(mlp, "CHUNK", 128)
    Z, labels = labelled(1000)
    spy = Spy(Z)
    head = make_head("mlp", epochs=2, batch_size=32)
    p = head.fit(spy, labels).predict_proba(spy)
    assert spy.most == 128
    assert np.array_equal(p, make_head("mlp", epochs=2, batch_size=32).fit(Z, labels).predict_proba(Z))


def test_logistic_regression_reads_in_parts_and_halves_its_memory_where_it_is_large(monkeypatch):
    Z, labels = labelled(600)
    whole = make_head("logistic").fit(Z, labels)
    monkeypatch.setattr(heads, "_BLOCK", 64)
    in_parts = make_head("logistic").fit(Z, labels)
    assert in_parts.weight == pytest.approx(whole.weight, rel=1e-9)
    monkeypatch.setattr(heads, "DOUBLE", 0)
    spy = Spy(Z)
    large = make_head("logistic").fit(spy, labels)
    assert spy.most == 64
    assert large.weight == pytest.approx(whole.weight, abs=1e-3)
    assert large.weight.dtype == np.float64
    assert large.predict_proba(spy) == pytest.approx(whole.predict_proba(Z), abs=1e-3)


@pytest.mark.parametrize("head", HEADS)
def test_every_head_takes_rows_that_are_read_when_asked_for(head):
    Z, labels = labelled(200)
    rows = np.random.default_rng(1).permutation(200)[:150]
    some = Rows(Z, rows)
    assert some.shape == (150, 4)
    expected = make_head(head).fit(Z[rows], labels[rows]).predict_proba(Z[rows])
    assert np.array_equal(make_head(head).fit(some, labels[rows]).predict_proba(some), expected)


def test_a_large_embedding_is_a_memory_map_and_leaves_no_file(monkeypatch, tmp_path):
    of = simulated(n_cells=40)
    question = Experiment("scgpt-mini", "logistic", tuple(source.name for source in of.sources))
    small = evaluate(question, of, cache=tmp_path / "a")[1]
    monkeypatch.setattr(features, "IN_MEMORY", 0)
    assert isinstance(empty((3, 2), tmp_path), np.memmap)
    assert not isinstance(empty((3, 2), None), np.memmap)
    again = simulated(n_cells=40)
    made = FrozenFeatures(again, load_model("scgpt-mini"), tmp_path / "a")
    assert isinstance(made.Z, np.memmap)
    assert not made.Z.flags.writeable
    assert evaluate(question, again, cache=tmp_path / "a")[1].equals(small)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size == made.Z.nbytes]


def test_the_embedding_is_made_once_for_all_experiments_on_the_same_cells():
    of, other, encoder = *(simulated(n_cells=24) for _ in range(2)), load_model("scgpt-mini")
    assert FrozenFeatures(of, encoder, None).Z is FrozenFeatures(of, encoder, None).Z
    assert FrozenFeatures(other, encoder, None).Z is not FrozenFeatures(of, encoder, None).Z


class Neighbourly:
    """An encoder whose cells see each other: the first genes, less the mean of all cells that it is given."""

    device, precision, weights_hash, dim, independent = "cpu", "float32", "w", 5, False

    def embed(self, adata, batch_size=None, progress=False, out=None):
        X = adata.X[:, :5].toarray()
        return (X - X.mean(axis=0)).astype(np.float32)


def test_no_training_cell_sees_a_tested_one():
    of = simulated()
    made = ContextFeatures(of, Neighbourly(), None)
    n = len(of.table)
    test = np.flatnonzero(np.arange(n) % 5 == 0)
    train = np.setdiff1d(np.arange(n), test)
    side = made.learn(train).of(train)
    for name in ("simulated-1", "simulated-2"):  # each data set of a side is its own context
        assert side[of.table.dataset[train] == name].mean(axis=0) == pytest.approx(np.zeros(5), abs=1e-5)
    whole = made.of(np.arange(n))
    assert not np.allclose(whole[train], side, atol=1e-4)
    assert np.array_equal(made.of(train[::-1]), side[::-1])
