"""How batches run: ahead of the network, within the memory of a device, compiled or not."""

from __future__ import annotations

import logging
import threading

import anndata as ad
import numpy as np
import pytest
import torch
from torch import nn

from scdrugmap.errors import Cancelled, InvalidInput
from scdrugmap.models import MODELS, load_model
from scdrugmap.models.core import batch_runner
from scdrugmap.models.core.batch_runner import AHEAD, Runner, blocks_of, prefetch
from scdrugmap.models.core.encoder import Encoder, pieces, some_of
from scdrugmap.models.testing import toy_encoder

CPU = torch.device("cpu")
CLOSE = {"rtol": 0, "atol": 2e-5}
OURS = [card.key for card in MODELS.values() if card.kind == "foundation"]


@pytest.fixture
def few(cells) -> ad.AnnData:
    return cells[:24].copy()


def numbered(n: int):
    for row in range(n):
        yield np.array([row]), {"x": np.full((1, 1), row, dtype=np.float32)}


def test_batches_stand_ready_while_one_runs():
    made = []

    def batches():
        for row in range(20):
            made.append(row)
            yield row

    taken = prefetch(batches())
    assert next(taken) == 0
    for thread in threading.enumerate():
        if thread.name.startswith("batches"):
            break
    else:
        pytest.fail("no thread prepares batches")
    assert list(taken) == list(range(1, 20))
    assert made == list(range(20))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


def test_an_error_while_preparing_a_batch_is_raised_in_its_turn():
    def batches():
        yield from range(AHEAD)
        raise InvalidInput("Broken.")

    taken = prefetch(batches())
    assert [next(taken) for _ in range(AHEAD)] == list(range(AHEAD))
    with pytest.raises(InvalidInput, match=r"Broken\."):
        next(taken)


def test_who_stops_waits_for_no_further_batch():
    made = []

    def batches():
        for row in range(1000):
            made.append(row)
            yield np.array([row]), {"x": np.zeros((1, 1), dtype=np.float32)}

    def stop_at_three():
        for rows, _ in Runner(lambda tensors: tensors["x"], CPU, divisible=True).run(batches()):
            if rows[0] == 3:
                raise Cancelled("Stopped.")

    with pytest.raises(Cancelled):
        stop_at_three()
    assert len(made) <= 3 + 2 * AHEAD + 1


def test_each_batch_goes_to_its_rows():
    runner = Runner(lambda tensors: tensors["x"] * 2, CPU, divisible=True)
    assert [(rows[0], z[0, 0]) for rows, z in runner.run(numbered(9))] == [(row, 2 * row) for row in range(9)]


def memory_for(n_cells: int, sizes: list[int]):
    """A network on a device that holds `n_cells` cells; notes how many it was given."""

    def forward(tensors):
        sizes.append(len(tensors["x"]))
        if len(tensors["x"]) > n_cells:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return tensors["x"] + 1

    return forward


def test_a_batch_that_does_not_fit_is_cut_and_so_are_those_to_come(caplog):
    sizes: list[int] = []
    runner = Runner(memory_for(3, sizes), CPU, divisible=True)
    budget = runner.budget
    x = np.arange(11, dtype=np.float32)[:, None]
    with caplog.at_level(logging.WARNING, logger="scdrugmap"):
        ((rows, z),) = runner.run(iter([(np.arange(11), {"x": x})]))
    np.testing.assert_array_equal(z, x + 1)
    assert rows.tolist() == list(range(11))
    assert sizes == [11, 5, 2, 3, 6, 3, 3]
    assert runner.budget == budget // 8
    assert "out of memory: batches are cut" in caplog.text


@pytest.mark.parametrize(("divisible", "n_cells"), [(True, 1), (False, 4)])
def test_what_cannot_be_cut_is_refused_in_words(divisible, n_cells):
    runner = Runner(memory_for(0, []), CPU, divisible=divisible)
    x = np.zeros((n_cells, 1), dtype=np.float32)
    with pytest.raises(InvalidInput, match=f"does not hold a batch of {n_cells} cells") as caught:
        list(runner.run(iter([(np.arange(n_cells), {"x": x})])))
    assert "bfloat16" in caught.value.remedy


@pytest.mark.parametrize("key", OURS)
def test_running_out_of_memory_changes_no_embedding(key, few, monkeypatch):
    encoder = toy_encoder(MODELS[key], few)
    whole = encoder.embed(few, batch_size=8)
    forward = Encoder._forward

    def small_device(self, tensors):
        if self.independent and min(map(len, tensors.values())) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(self, tensors)

    monkeypatch.setattr(Encoder, "_forward", small_device)
    np.testing.assert_allclose(encoder.embed(few, batch_size=8), whole, **CLOSE)


def test_a_budget_grows_with_the_threads(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert batch_runner.token_budget(CPU) == 3 * batch_runner.CPU_BUDGET
    assert batch_runner.token_budget(torch.device("cuda")) == batch_runner.CUDA_BUDGET


def test_pieces_are_the_cells_in_their_order(cells, monkeypatch):
    monkeypatch.setattr("scdrugmap.models.core.encoder.CHUNK_CELLS", 50)
    assert [some.n_obs for some in pieces(cells)] == [50, 50, 20]
    assert [name for some in pieces(cells) for name in some.obs_names] == cells.obs_names.tolist()
    assert [some.n_obs for some in pieces(cells[:0])] == [0]
    assert [some.n_obs for some in pieces(cells, n_cells=70)] == [70, 50]
    rows = np.arange(0, 120, 2)
    assert [name for some in pieces(cells, rows) for name in some.obs_names] == cells.obs_names[rows].tolist()
    assert some_of(cells, np.arange(120)) is cells
    assert some_of(cells, np.array([3, 5])).obs_names.tolist() == cells.obs_names[[3, 5]].tolist()


def test_a_batch_is_not_in_memory_twice():
    batch = {"ids": np.arange(3), "values": np.ones(3)}
    sizes: list[int] = []
    copy = torch.tensor
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "tensor", lambda array: (sizes.append(len(batch)), copy(array))[1])
        tensors = batch_runner.host_tensors(batch, CPU)
    assert batch == {}
    assert sizes == [1, 0]
    assert tensors["ids"].tolist() == [0, 1, 2]
    assert tensors["values"].dtype == torch.float64


@pytest.mark.parametrize("key", OURS)
def test_the_callers_own_batch_stays_whole(key, few):
    encoder = toy_encoder(MODELS[key], few)
    tokens = encoder.tokenize(few)
    batch = encoder.tokenizer.collate(tokens, encoder.tokenizer.plan(tokens, None, 10_000)[0])
    names = list(batch)
    with torch.inference_mode():
        first, second = (encoder.forward(batch) for _ in range(2))
    assert list(batch) == names
    assert torch.equal(first, second)


def test_coverage_is_that_of_all_cells(few, monkeypatch):
    encoder = toy_encoder(MODELS["scgpt"], few[:, :300].copy())
    few.X = few.X.multiply((np.arange(24) != 5)[:, None]).tocsr()
    whole = encoder.coverage(few)
    monkeypatch.setattr("scdrugmap.models.core.encoder.CHUNK_CELLS", 5)
    cut = encoder.coverage(few)
    assert (cut.n_matched, cut.n_genes, cut.n_empty) == (whole.n_matched, whole.n_genes, whole.n_empty) == (300, 400, 1)
    assert cut.share_counts == pytest.approx(whole.share_counts)
    known = few[:, :300].X.sum() / few.X.sum()
    assert whole.share_counts == pytest.approx(known)


@pytest.fixture
def translated(monkeypatch) -> list[bool | None]:
    """`torch.compile` without a compiler behind it: dynamo's graphs run as they are. Notes what it was asked for."""
    asked: list[bool | None] = []
    compile_ = torch.compile

    def capture(model, *, dynamic=None):
        asked.append(dynamic)
        return compile_(model, dynamic=dynamic, backend="eager")

    monkeypatch.setattr(torch, "compile", capture)
    torch.compiler.reset()
    return asked


def test_compiled_blocks_give_the_same_embedding_in_few_translations(few, translated):
    from torch._dynamo.utils import counters

    encoder = toy_encoder(MODELS["scgpt"], few)
    whole, names = encoder.embed(few), list(encoder.network.state_dict())
    counters.clear()
    assert encoder.compile() is encoder.compile() is encoder
    np.testing.assert_allclose(encoder.embed(few), whole, **CLOSE)
    for batch_size in (2, 3, 5, 7, 11, 24):
        np.testing.assert_allclose(encoder.embed(few, batch_size=batch_size), whole, **CLOSE)
    assert translated == [True] * len(encoder.network.blocks)
    assert 1 <= counters["stats"]["unique_graphs"] <= 4  # with and without a mask, one cell or many
    assert list(encoder.network.state_dict()) == names


@pytest.mark.parametrize(
    "error", [RuntimeError("No working C++ compiler found."), ImportError("triton"), OSError("g++")]
)
def test_without_a_compiler_it_runs_as_it_is_and_says_so_once(few, monkeypatch, caplog, error):
    def broken(model, *, dynamic=None):
        def fail(*args, **kwargs):
            raise error

        return fail

    encoder = toy_encoder(MODELS["scgpt"], few)
    whole = encoder.embed(few)
    monkeypatch.setattr(torch, "compile", broken)
    with caplog.at_level(logging.WARNING, logger="scdrugmap"):
        encoder.compile()
        np.testing.assert_array_equal(encoder.embed(few), whole)
        np.testing.assert_array_equal(encoder.embed(few), whole)
    assert caplog.text.count("runs uncompiled") == 1
    assert str(error) in caplog.text


def test_load_model_compiles_where_it_is_asked_to(settings, translated):
    assert load_model("scgpt-mini", device="cpu")._compiled is None
    assert not translated
    encoder = load_model("scgpt-mini", device="cpu", compile=True)
    assert translated == [True] * len(encoder.network.blocks)


def test_memory_that_ends_in_compiled_code_is_no_reason_to_give_it_up(few, monkeypatch):
    def full(model, *, dynamic=None):
        def run(x, mask=None):
            if len(x) > 4:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return model(x, mask)

        return run

    encoder = toy_encoder(MODELS["scgpt"], few)
    whole = encoder.embed(few)
    monkeypatch.setattr(torch, "compile", full)
    np.testing.assert_allclose(encoder.compile().embed(few, batch_size=12), whole, **CLOSE)
    assert encoder._compiled is not None
    assert encoder._compiled.blocks


@pytest.mark.parametrize("key", ["scbert", "hvg"])
def test_what_has_no_blocks_to_compile_says_so(key, few, caplog):
    encoder = toy_encoder(MODELS[key], few)
    whole = encoder.embed(few)
    with caplog.at_level(logging.WARNING, logger="scdrugmap"):
        encoder.compile()
    np.testing.assert_array_equal(encoder.embed(few), whole)
    assert "has no blocks that can be" in caplog.text


def test_blocks_are_a_list_of_modules():
    class Other(nn.Module):
        blocks = 3

    assert blocks_of(Other()) == []


@pytest.fixture
def on_cuda(few):
    """A toy of each kind on the GPU, with its embedding on the CPU."""

    def make(key: str) -> tuple[Encoder, np.ndarray]:
        encoder = toy_encoder(MODELS[key], few)
        expected = encoder.embed(few)
        encoder.network.to("cuda")
        encoder.device = torch.device("cuda")
        return encoder, expected

    return make


@pytest.mark.gpu
@pytest.mark.parametrize("key", OURS)
def test_many_batches_in_flight_on_a_gpu_agree_with_the_cpu(key, few, on_cuda):
    encoder, expected = on_cuda(key)
    for batch_size in (1, 5):
        np.testing.assert_allclose(encoder.embed(few, batch_size=batch_size), expected, rtol=0, atol=1e-4)


@pytest.mark.gpu
def test_a_gpu_that_is_full_cuts_its_batches(few, on_cuda, caplog):
    encoder, expected = on_cuda("scgpt")
    encoder.embed(few)  # the context and the libraries take their share first
    torch.cuda.empty_cache()
    total = torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**21) / total)
    try:
        with caplog.at_level(logging.WARNING, logger="scdrugmap"):
            z = encoder.embed(few, batch_size=24)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "out of memory: batches are cut" in caplog.text
    np.testing.assert_allclose(z, expected, rtol=0, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("key", ["scgpt", "tgpt"])
def test_compiled_code_on_a_gpu_agrees_with_the_cpu(key, few, on_cuda):
    encoder, expected = on_cuda(key)
    encoder.compile()
    for batch_size in (5, 24):
        np.testing.assert_allclose(encoder.embed(few, batch_size=batch_size), expected, rtol=0, atol=1e-4)
    assert encoder._compiled is not None
    assert encoder._compiled.blocks, "the compiler failed"
