from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save

from scdrugmap.errors import InvalidInput, LabelsMissing, UnknownName
from scdrugmap.evaluation.strategies.heads import HEADS, head_from_state, make_head

LEARNING = [name for name in HEADS if name != "constant"]
QUICK = {"mlp": {"lr": 1e-3}, "gradient-boosting": {"max_iter": 20}}


def cells(n=300, dim=8, seed=0, effect=1.5):
    rng = np.random.default_rng(seed)
    resistant = np.arange(n) % 3 == 0
    Z = rng.normal(size=(n, dim)).astype(np.float32)
    Z[:, 0] += effect * np.where(resistant, 1, -1)
    return Z, np.where(resistant, "resistant", "sensitive").astype(object)


def made(name, **options):
    return make_head(name, seed=3, **{**QUICK.get(name, {}), **options})


@pytest.mark.parametrize("name", LEARNING)
def test_a_head_learns_what_is_there(name):
    Z, labels = cells()
    other, truth = cells(seed=1)
    p = made(name).fit(Z, labels).predict_proba(other)
    assert p.dtype == np.float32
    assert p.shape == (300,)
    assert ((p >= 0) & (p <= 1)).all()
    assert ((p >= 0.5) == (truth == "resistant")).mean() > 0.85


@pytest.mark.parametrize("name", HEADS)
def test_a_head_repeats_itself_and_leaves_the_generators_alone(name):
    Z, labels = cells()
    torch.manual_seed(1)
    state, before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 (the global one is watched)
    first = made(name).fit(Z, labels).predict_proba(Z)
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    torch.manual_seed(2)
    assert (made(name).fit(Z, labels).predict_proba(Z) == first).all()


@pytest.mark.parametrize("name", [key for key, card in HEADS.items() if card.restore])
def test_a_head_survives_safetensors(name):
    Z, labels = cells()
    head = made(name).fit(Z, labels)
    again = head_from_state(name, load(save(head.state())))
    assert (again.predict_proba(Z) == head.predict_proba(Z)).all()
    assert {key: value.tolist() for key, value in again.state().items()} == {
        key: value.tolist() for key, value in head.state().items()
    }


@pytest.mark.parametrize("name", [key for key, card in HEADS.items() if not card.restore])
def test_a_head_without_arrays_says_so(name):
    Z, labels = cells()
    with pytest.raises(InvalidInput, match="cannot be kept as arrays"):
        made(name).fit(Z, labels).state()
    with pytest.raises(InvalidInput, match="cannot be made from arrays"):
        head_from_state(name, {})


@pytest.mark.parametrize("name", HEADS)
def test_one_class_is_refused(name):
    Z, _ = cells(20)
    with pytest.raises(LabelsMissing, match="All 20 training cells are resistant"):
        made(name).fit(Z, ["resistant"] * 20)
    with pytest.raises(InvalidInput, match="2 labels for 20 cells"):
        made(name).fit(Z, ["resistant", "sensitive"])


@pytest.mark.parametrize("name", HEADS)
def test_ten_cells_are_enough(name):
    Z, labels = cells(10)
    assert np.isfinite(made(name).fit(Z, labels).predict_proba(Z)).all()


def test_constant_is_the_share_of_resistant_cells():
    Z, labels = cells()
    assert set(made("constant").fit(Z, labels).predict_proba(Z[:5])) == {np.float32(1 / 3)}


def test_logistic_is_that_of_scikit_learn():
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    Z, labels = cells()
    Z = Z * 7 + 3
    theirs = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(
        Z.astype(float), labels == "resistant"
    )
    ours = made("logistic").fit(Z, labels).predict_proba(Z)
    assert np.allclose(ours, theirs.predict_proba(Z.astype(float))[:, 1], atol=1e-6)


def test_logistic_takes_a_feature_without_variance():
    Z, labels = cells()
    Z[:, 3] = 0.1
    assert np.isfinite(made("logistic").fit(Z, labels).predict_proba(Z)).all()


def test_mlp_is_the_papers_network():
    Z, labels = cells(40, dim=5)
    shapes = {name: value.shape for name, value in make_head("mlp").fit(Z, labels).state().items() if name != "epoch"}
    assert shapes == {
        "0.weight": (512, 5),
        "0.bias": (512,),
        "2.weight": (512, 512),
        "2.bias": (512,),
        "4.weight": (2, 512),
        "4.bias": (2,),
    }
    options = HEADS["mlp"].options
    assert (options["epochs"], options["batch_size"], options["lr"]) == (10, 128, 1e-4)


def test_mlp_keeps_the_epoch_that_validation_chooses():
    Z, labels = cells()
    validation = np.arange(300) % 5 == 0
    contrary = labels.copy()
    contrary[validation] = np.where(labels[validation] == "resistant", "sensitive", "resistant")
    head = made("mlp", lr=1e-2).fit(Z, contrary, validation)  # every epoch makes validation worse
    assert head.epoch == 1 + int(np.argmin(head.losses)) < 10
    again = made("mlp", lr=1e-2, epochs=head.epoch).fit(Z, contrary, validation)
    assert (again.predict_proba(Z) == head.predict_proba(Z)).all()


def test_mlp_validation_cells_do_not_train():
    Z, labels = cells()
    validation = np.arange(300) % 5 == 0
    moved = np.where(validation[:, None], Z + 50, Z)
    one, other = (made("mlp", epochs=1).fit(these, labels, validation) for these in (Z, moved))
    assert (one.predict_proba(Z) == other.predict_proba(Z)).all()


def test_mlp_may_keep_the_last_epoch_as_the_published_code_does():
    Z, labels = cells()
    head = made("mlp", select_epoch=False).fit(Z, labels)
    assert (head.epoch, head.losses) == (10, [])


def test_mlp_reads_a_memory_map(tmp_path):
    Z, labels = cells()
    np.save(tmp_path / "Z.npy", Z)
    mapped = np.load(tmp_path / "Z.npy", mmap_mode="r")
    assert (made("mlp").fit(mapped, labels).predict_proba(mapped) == made("mlp").fit(Z, labels).predict_proba(Z)).all()


def test_unknown_heads_and_options_are_named():
    with pytest.raises(UnknownName, match="Did you mean 'logistic'"):
        make_head("logistics")
    with pytest.raises(UnknownName, match="no option 'trees'"):
        make_head("logistic", trees=3)


@pytest.mark.parametrize("name", HEADS)
def test_every_head_says_what_it_is(name):
    card = HEADS[name]
    assert card.title
    assert card.definition
    assert make_head(name, **{key: value for key, value in card.options.items() if key != "device"}) is not None
