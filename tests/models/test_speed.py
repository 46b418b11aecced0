"""The benchmark of embedding at toy size: what it measures is consistent. Nothing is timed."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import anndata as ad
import numpy as np
import pytest
import torch
from places import ROOT

from scdrugmap.errors import InvalidInput
from scdrugmap.models import MODELS, speed
from scdrugmap.models.checkpoints.load import empty_network, resolve_settings
from scdrugmap.models.testing import toy_encoder

sys.path.append(str(ROOT / "benchmarks"))

import embed
import embed_measure
import embed_memory
import embed_models
import embed_plain
import embed_table

WITH_WEIGHTS = [card for card in MODELS.values() if card.kind != "baseline" and not card.prompted]
CLOCK = embed_measure.Clock("wall", torch.device("cpu"))


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(embed_measure, "SQUARE", 32)
    monkeypatch.setattr(embed_measure, "LONG_ENOUGH", 1e5)


@pytest.fixture
def few(cells) -> ad.AnnData:
    """Six cells of very different depth."""
    some = cells[:6].copy()
    keep = np.random.default_rng(0).random(some.shape) < np.linspace(0.1, 1, 6)[:, None]
    some.X = some.X.multiply(keep).tocsr()
    return some


@pytest.mark.parametrize("card", WITH_WEIGHTS, ids=lambda card: card.key)
def test_all_ways_give_the_same_embedding(card, cells, few):
    encoder = toy_encoder(card, cells)
    found = embed_measure.measure(encoder, few, rounds=2, clock=CLOCK)
    assert found["difference"] <= embed_measure.TOLERANCE
    assert found["cells"] == 6
    tokens = encoder.tokenize(few)
    assert found["tokens_per_s"] / found["cells_per_s"] == pytest.approx(tokens.lengths.sum() / 6)
    assert found["cosine"] > 0.95
    assert found["gflops"] > 0
    assert found["of_gemm"] == pytest.approx(found["gflops"] / found["gemm_gflops"])
    assert found["padded_to"] >= tokens.lengths.max()
    assert encoder.precision == "float32"


def test_the_plain_loop_is_plain(cells, few):
    encoder = toy_encoder(MODELS["scgpt"], cells)
    widths, forward = [], encoder.network.forward
    encoder.network.forward = lambda ids, values, mask: (
        widths.append((tuple(ids.shape), bool((~mask).any()))),
        forward(ids, values, mask),
    )[1]
    tokens = encoder.tokenize(few)
    z = embed_plain.plain(encoder, tokens, 500, 4)
    assert widths == [((4, 500), True), ((2, 500), True)]
    np.testing.assert_allclose(z, encoder.encode(tokens), rtol=0, atol=2e-5)


def test_another_embedding_is_no_ratio(cells, few, monkeypatch):
    encoder = toy_encoder(MODELS["scgpt"], cells)
    monkeypatch.setattr(embed_measure, "plain", lambda encoder, tokens, width, size: encoder.encode(tokens) + 0.01)
    with pytest.raises(RuntimeError, match="scgpt: the plain loop's embedding differs"):
        embed_measure.measure(encoder, few, rounds=1, clock=CLOCK)


def test_compiled_code_is_measured_beside_eager_code_and_taken_off_again(cells, few, monkeypatch):
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, *, dynamic: compile_(model, dynamic=dynamic, backend="eager"))
    encoder = toy_encoder(MODELS["tgpt"], cells)
    found = embed_measure.measure(encoder, few, rounds=2, clock=CLOCK, bfloat16=False, compiled=True)
    assert found["against_compiled"] > 0
    assert encoder._compiled is None
    assert not any("forward" in vars(block) for block in encoder.network.blocks)


def test_what_does_not_compile_has_no_ratio(cells, few):
    with pytest.raises(RuntimeError, match="scbert does not compile here"):
        embed_measure.measure(
            toy_encoder(MODELS["scbert"], cells), few, rounds=1, clock=CLOCK, bfloat16=False, compiled=True
        )


def test_cells_of_a_file_are_drawn_from_all_of_it(cells, tmp_path):
    drawn = embed.mixed(cells)
    assert sorted(drawn.obs_names) == sorted(cells.obs_names)
    first = cells.obs_names.get_indexer(embed.taken(drawn, 40).obs_names)
    assert first.min() < 30
    assert first.max() >= 90  # the four samples lie behind each other
    assert embed.mixed(cells).obs_names.tolist() == drawn.obs_names.tolist()
    cells.obs["accession"] = "GSE1"
    assert embed.named(tmp_path / "some.h5ad", cells) == "some (GSE1)"


def test_written_out_attention_is_torchs():
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 4, 7, 8, generator=generator) for _ in range(3))
    seen = torch.rand(2, 1, 1, 7, generator=generator) > 0.3
    attention = torch.nn.functional.scaled_dot_product_attention
    for more in ({}, {"attn_mask": seen}, {"attn_mask": seen.float()}, {"is_causal": True}, {"scale": 0.3}):
        torch.testing.assert_close(
            embed_plain.written_out(query, key, value, **more), attention(query, key, value, **more)
        )
    few = (key[:, :2], value[:, :2])
    torch.testing.assert_close(
        embed_plain.written_out(query, *few, enable_gqa=True), attention(query, *few, enable_gqa=True)
    )


def test_floating_point_operations_are_those_of_the_sizes(cells, few):
    encoder = toy_encoder(MODELS["tgpt"], cells)
    tokens = encoder.tokenize(few)
    batches = embed_measure._batches(encoder, tokens)
    found = embed_measure._sizes(encoder, tokens, batches)
    dim, inner, layers = 16, 24, 2
    expected = 0
    for batch in batches:
        n_cells, length = batch["ids"].shape
        expected += layers * n_cells * length * (2 * dim * (4 * dim + 2 * inner) + 4 * length * dim)
    assert found["flops"] == expected


@pytest.mark.parametrize(
    "card", [card for card in WITH_WEIGHTS if card.kind == "foundation"], ids=lambda card: card.key
)
def test_the_published_size_is_the_cards(card, cells):
    config, vocabulary = embed_models.published_sizes(card, cells)
    network = empty_network(card, config, resolve_settings(card, {}))
    assert sum(parameter.numel() for parameter in network.parameters()) == card.n_parameters
    assert network.dim == card.dim
    assert vocabulary


def test_weights_that_do_not_fit_are_refused(cells):
    huge = replace(MODELS["llama3-8b"], n_parameters=2**45)
    with pytest.raises(InvalidInput, match=r"The weights of llama3-8b take 131072 GB in float32"):
        embed_models.random_encoder(huge, cells, "published")


def test_the_head_hears_of_both_precisions(cells):
    encoder = toy_encoder(MODELS["scgpt"], cells)
    scores = embed_measure.downstream(encoder, cells[:60].copy())
    assert set(scores) == {"labelled", *(f"{m}_{p}" for m in ("f1", "auroc") for p in ("float32", "bfloat16"))}
    assert all(0 <= scores[name] <= 1 for name in scores if name != "labelled")
    assert embed_measure.downstream(encoder, cells[:20].copy()) == {}


def test_memory_is_measured_in_a_process_of_its_own(tmp_path):
    embed_memory.write_cells(tmp_path / "cells.h5ad", 40, 200)
    found = embed_memory.measure_alone("scgpt", tmp_path / "cells.h5ad", "small", "cpu", 1)
    assert found["cells"] == 40
    assert 50 < found["before_mb"] <= found["peak_mb"]


def test_one_command_prints_and_writes_everything(monkeypatch, capsys, tmp_path, cells):
    (tmp_path / "folder").mkdir()
    cells.write_h5ad(tmp_path / "folder" / "mine.h5ad")
    monkeypatch.setattr(embed, "LABELLED", 48)
    monkeypatch.setattr(embed, "LABELLED_GENES", 100)
    places = {name: tmp_path / name for name in ("speed.json", "performance.md")}
    places["performance.md"].write_text(f"Before.\n{embed_table.BEGIN}\nold\n{embed_table.END}\nAfter.\n")
    monkeypatch.setattr(embed, "write", lambda records: embed_table.write(records, *places.values()))
    command = "embed.py --model scgpt --size small --cells 4 --head-seconds 60 --threads 1 --no-memory --json --write"
    monkeypatch.setattr(sys, "argv", [*command.split(), "--data", str(tmp_path / "folder" / "mine.h5ad")])
    assert embed.main() == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert record["cells"] == 4
    assert record["labelled"] == 48
    assert record["command"].startswith("benchmarks/embed.py --model scgpt --size small")
    assert record["command"].endswith("--data mine.h5ad")
    assert record["cells_of"] == "mine"
    assert json.loads(places["speed.json"].read_text()) == [record]
    text = places["performance.md"].read_text()
    assert text.startswith("Before.\n")
    assert text.endswith("After.\n")
    assert "| `scgpt` | small | mine | 4 |" in text
    assert "old" not in text


def test_a_new_record_takes_the_place_of_the_old(tmp_path):
    old = [{"model": "a", "size": "small", "device": "cpu", "n": 1}, {"model": "b", "size": "small", "device": "cpu"}]
    embed_table.kept(old, tmp_path / "records.json")
    known = embed_table.kept([{**old[0], "n": 2}], tmp_path / "records.json")
    assert known == [{**old[0], "n": 2}, old[1]]


def test_every_speed_that_the_package_carries_says_of_what_where_when_and_how():
    records = json.loads(speed.SPEEDS.read_text())
    assert len(records) == len(speed.speeds()) > 0
    for record, measured in zip(records, speed.speeds(), strict=True):
        assert measured.model in MODELS
        assert measured.cells_per_s > 0
        assert measured.threads > 0
        assert (measured.machine, measured.date) == (record["machine"], record["date"])
        assert record["tokens_per_s"] > record["cells_per_s"]
        assert record["command"].startswith("benchmarks/embed.py")


def test_the_tables_of_the_document_are_those_of_the_package():
    assert embed_table.rendered(json.loads(speed.SPEEDS.read_text())) in embed_table.DOCUMENT.read_text()


def test_a_toy_is_no_speed_of_its_model(monkeypatch, tmp_path):
    published, *_ = json.loads(speed.SPEEDS.read_text())
    toy = published | {"size": "small", "cells_per_s": 1e6}
    (tmp_path / "speed.json").write_text(json.dumps([toy, published]))
    monkeypatch.setattr(speed, "SPEEDS", tmp_path / "speed.json")
    assert [measured.cells_per_s for measured in speed.speeds()] == [published["cells_per_s"]]
