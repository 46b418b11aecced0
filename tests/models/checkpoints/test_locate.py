"""Finding, fetching, hashing and converting weights, and refusing those that are not what they should be."""

from __future__ import annotations

import ast
import hashlib
import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import ThreadingHTTPServer
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import torch
from local_hub import REVISION, Hub
from places import PARITY

import scdrugmap
from scdrugmap.errors import InvalidInput, WeightsInvalid, WeightsMissing
from scdrugmap.models import MODELS, load_model
from scdrugmap.models.checkpoints import manifest
from scdrugmap.models.checkpoints.checkpoint import Checkpoint, TensorMapping
from scdrugmap.models.checkpoints.download import fetch
from scdrugmap.models.checkpoints.locate import home, state
from scdrugmap.models.checkpoints.manifest import sha256

PACKAGE = Path(scdrugmap.__file__).parent
CASE = PARITY / "scgpt"
SCGPT = MODELS["scgpt"]


@pytest.fixture
def checkpoint(tmp_path, settings) -> Path:
    """scGPT's tiny checkpoint, which a test may spoil."""
    return Path(shutil.copytree(CASE / "checkpoint", tmp_path / "checkpoint"))


@pytest.fixture
def change(checkpoint) -> Callable[[Callable[[dict], object]], None]:
    """Edit the state dict of `checkpoint` and save it again."""

    def edit(how: Callable[[dict], object]) -> None:
        tensors = torch.load(checkpoint / "best_model.pt", weights_only=True)
        how(tensors)
        torch.save(tensors, checkpoint / "best_model.pt")

    return edit


def embedding(folder: Path) -> np.ndarray:
    return load_model("scgpt", weights=folder, device="cpu").embed(ad.read_h5ad(CASE / "input.h5ad")[:4])


def edit_json(path: Path, **fields: object) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in (content | fields).items() if value is not None}))


def refused(folder: Path) -> str:
    with pytest.raises(WeightsInvalid) as caught:
        load_model("scgpt", weights=folder, device="cpu")
    assert caught.value.remedy
    return str(caught.value)


LAYER = "transformer_encoder.layers.1"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda t: t.pop(f"{LAYER}.norm1.bias"), f"lacks the tensor '{LAYER}.norm1.bias'"),
        (lambda t: t.pop("encoder.embedding.weight"), "lacks the tensor 'encoder.embedding.weight'"),
        (
            lambda t: t.update({f"{LAYER}.linear1.weight": torch.zeros(65, 48)}),
            rf"has '{LAYER}.linear1.weight' of shape \(65, 48\) where \(64, 48\) is expected",
        ),
        (
            lambda t: t.update({f"{LAYER}.self_attn.Wqkv.bias": torch.zeros(143)}),
            r"Wqkv.bias' of shape \(143,\) where \(144,\) is expected",
        ),
        (lambda t: t.update({"encoder.extra.weight": torch.zeros(1)}), "holds the tensor 'encoder.extra.weight'"),
        (
            lambda t: t.update({"transformer_encoder.layers.3.norm1.bias": torch.zeros(48)}),
            "holds the tensor 'transformer_encoder.layers.3.norm1.bias'",
        ),
        (
            lambda t: t["value_encoder.norm.bias"].fill_(torch.nan),
            "NaN or infinite numbers in 'value_encoder.norm.bias'",
        ),
        (lambda t: t.update(note="hello"), "holds a str under 'note'"),
        (lambda t: t.clear(), "holds a dict, not a dictionary of tensors"),
    ],
)
def test_a_wrong_tensor_is_named(checkpoint, change, spoil, says):
    change(spoil)
    message = refused(checkpoint)
    assert str(checkpoint / "best_model.pt") in message
    assert re.search(says, message)


def test_only_the_first_mismatch_is_told(checkpoint, change):
    change(lambda t: [t.pop(name) for name in list(t) if "norm" in name])
    assert refused(checkpoint).count("lacks the tensor") == 1


@pytest.mark.parametrize("size", [0, 1, 100, 5_000, 100_000, 333_000])
def test_a_truncated_file_is_refused(checkpoint, size):
    path = checkpoint / "best_model.pt"
    path.write_bytes(path.read_bytes()[:size])
    assert f"'{path}' cannot be read as a torch file of tensors" in refused(checkpoint)


class Evil:
    """What a hostile checkpoint would hold."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("owned"),)


def test_a_file_that_would_run_code_is_refused(checkpoint, change, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    change(lambda t: t.update(evil=Evil()))
    assert "cannot be read as a torch file of tensors" in refused(checkpoint)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("content", [b"<html>Quota exceeded</html>", b"\x00" * 1000, b"PK\x03\x04 nonsense"])
def test_a_foreign_file_is_refused(checkpoint, content):
    (checkpoint / "best_model.pt").write_bytes(content)
    assert "cannot be read as a torch file of tensors" in refused(checkpoint)


@pytest.mark.parametrize(
    ("name", "fields", "says"),
    [
        ("args.json", {"embsize": None}, "args.json' lacks the field 'embsize'"),
        ("args.json", {"nlayers": 2}, "holds the tensor 'transformer_encoder.layers.2"),
        ("args.json", {"embsize": 64}, r"'encoder.embedding.weight' of shape \(403, 48\) where \(403, 64\)"),
        ("args.json", {"pad_token": "[PAD]"}, "calls the padding '\\[PAD\\]'"),
        ("vocab.json", {"ASCL1": 5}, "does not number its 403 tokens from 0 to 402"),
        ("vocab.json", {"NEWGENE": 403}, r"of shape \(403, 48\) where \(404, 48\)"),
    ],
)
def test_sidecars_that_do_not_fit_are_named(checkpoint, name, fields, says):
    edit_json(checkpoint / name, **fields)
    assert re.search(says, refused(checkpoint))


@pytest.mark.parametrize("content", ["{", "[1, 2]", ""])
def test_a_sidecar_that_is_no_object_is_named(checkpoint, content):
    (checkpoint / "args.json").write_text(content)
    assert "args.json'" in refused(checkpoint)


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: name.replace("self_attn.Wqkv.", "self_attn.in_proj_"),
        lambda name: name.replace("self_attn.", "self_attn._impl."),
        lambda name: name.replace("self_attn.Wqkv.", "self_attn._impl.in_proj_"),
    ],
)
def test_all_names_of_fused_attention_are_read(checkpoint, change, rename):
    expected = embedding(CASE / "checkpoint")

    def edit(tensors: dict) -> None:
        renamed = {rename(name): tensor for name, tensor in tensors.items()}
        assert renamed.keys() != tensors.keys()
        tensors.clear()
        tensors.update(renamed)

    change(edit)
    np.testing.assert_array_equal(embedding(checkpoint), expected)


def test_heads_of_training_are_left_out_and_listed(checkpoint, change):
    expected = embedding(CASE / "checkpoint")
    extra = {f"{head}.weight": torch.zeros(3) for head in ("cls_decoder.out_layer", "bn", "dsbn.bns.0", "decoder.x")}
    change(lambda t: t.update(extra))
    np.testing.assert_array_equal(embedding(checkpoint), expected)
    (manifest,) = (
        path for path in _manifests() if json.loads(path.read_text())["files"][0]["path"].startswith(str(checkpoint))
    )
    unused = Checkpoint.read(manifest.parent).unused
    assert set(extra) < set(unused)
    assert "flag_encoder.weight" in unused


def test_half_precision_files_are_read(checkpoint, change):
    change(lambda t: t.update({name: tensor.half() for name, tensor in t.items()}))
    np.testing.assert_allclose(embedding(checkpoint), embedding(CASE / "checkpoint"), rtol=0, atol=0.01)


def test_missing_special_tokens_are_appended(checkpoint):
    expected = embedding(CASE / "checkpoint")
    edit_json(checkpoint / "vocab.json", **{"<pad>": None, "<cls>": None, "<eoc>": None})
    np.testing.assert_array_equal(embedding(checkpoint), expected)


def test_a_fine_tuned_file_may_have_another_name(checkpoint):
    expected = embedding(CASE / "checkpoint")
    (checkpoint / "best_model.pt").rename(checkpoint / "model_e6.pt")
    np.testing.assert_array_equal(embedding(checkpoint), expected)


def _manifests() -> list[Path]:
    from scdrugmap.settings import Settings

    return sorted(Settings.from_env().weights.glob("scgpt/converted/*/manifest.json"))


def test_weights_are_converted_once(checkpoint, monkeypatch):
    first = load_model("scgpt", weights=checkpoint, device="cpu")
    (manifest,) = _manifests()
    record = json.loads(manifest.read_text())
    assert record["weights_hash"] == first.weights_hash
    assert {entry["role"]: entry["sha256"] for entry in record["files"]} == {
        "weights": sha256(checkpoint / "best_model.pt"),
        "args": sha256(checkpoint / "args.json"),
        "vocab": sha256(checkpoint / "vocab.json"),
    }
    assert record["converted"]["model.safetensors"] == sha256(manifest.parent / "model.safetensors")

    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(torch, "load", never)
    assert load_model("scgpt", weights=checkpoint, device="cpu").weights_hash == first.weights_hash
    assert sorted(path.name for path in manifest.parent.parent.iterdir()) == [manifest.parent.name]


def test_the_hash_is_over_content_and_not_over_places(checkpoint, change, tmp_path):
    first = load_model("scgpt", weights=checkpoint, device="cpu").weights_hash
    moved = shutil.copytree(checkpoint, tmp_path / "elsewhere")
    assert load_model("scgpt", weights=moved, device="cpu").weights_hash == first
    change(lambda t: t["value_encoder.norm.bias"].add_(1))
    assert load_model("scgpt", weights=checkpoint, device="cpu").weights_hash != first
    assert len(_manifests()) == 2


def test_a_cache_that_cannot_be_written_is_only_a_pity(checkpoint, settings, caplog):
    settings.cache.parent.mkdir(exist_ok=True)
    settings.cache.write_text("a file where the folder should be")
    assert np.isfinite(embedding(checkpoint)).all()
    assert "converted weights are not kept" in caplog.text


def test_a_spoilt_conversion_is_named(checkpoint):
    load_model("scgpt", weights=checkpoint, device="cpu")
    (manifest,) = _manifests()
    (manifest.parent / "model.safetensors").write_bytes(b"nothing")
    assert "cannot be read as safetensors" in refused(checkpoint)


def test_a_conversion_of_another_size_is_refused(checkpoint):
    load_model("scgpt", weights=checkpoint, device="cpu")
    (manifest,) = _manifests()
    kept = Checkpoint.read(manifest.parent)
    edit_json(manifest.parent / "checkpoint.json", config=dict(kept.config) | {"inner": 65})
    assert "do not fit its network" in refused(checkpoint)
    edit_json(manifest.parent / "checkpoint.json", format=99)
    assert "has format 99" in refused(checkpoint)


def test_weights_that_are_not_there_come_with_instructions(settings):
    with pytest.raises(WeightsMissing, match="Weights for 'scgpt' are not on this machine") as caught:
        load_model("scgpt")
    assert str(settings.weights / "scgpt") in caught.value.remedy
    assert SCGPT.weights.official in caught.value.remedy
    assert "scdrugmap models fetch scgpt" in caught.value.remedy


def test_files_put_where_the_instruction_says_are_found(settings, checkpoint):
    assert state(SCGPT, settings.weights) == "needs weights"
    shutil.copytree(checkpoint, home(SCGPT, settings.weights))
    assert state(SCGPT, settings.weights) == "ready"
    assert fetch(SCGPT, settings.weights) == home(SCGPT, settings.weights)
    assert load_model("scgpt", device="cpu").dim == 48


def test_a_model_that_is_asked_has_nothing_to_download(settings):
    asked = replace(SCGPT, key="asked", prompted=True)
    assert state(asked, settings.weights) == "remote"
    with pytest.raises(InvalidInput, match="'asked' is asked over the network"):
        fetch(asked, settings.weights)


def test_bundled_weights_need_nothing(settings):
    card = MODELS["hvg-pca"]
    assert state(card, settings.weights) == "bundled"
    assert fetch(card, settings.weights) == home(card, settings.weights)
    assert load_model("hvg-pca").dim == card.dim
    assert not settings.cache.exists()


def test_a_folder_without_the_files_is_refused(settings, tmp_path):
    with pytest.raises(WeightsMissing, match=r"lacks best_model.pt, args.json, vocab.json"):
        load_model("scgpt", weights=tmp_path)
    with pytest.raises(WeightsMissing, match="There is no folder"):
        load_model("scgpt", weights=tmp_path / "not" / "there")


@pytest.fixture
def hub(checkpoint) -> Iterator[tuple[str, list[str]]]:
    """A Hub on this machine that holds the tiny checkpoint and a file that nobody needs; gives its address."""
    (checkpoint / "training_args.bin").write_bytes(b"never fetched")
    handler = type("OneHub", (Hub,), {"folder": checkpoint, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler.asked
    server.shutdown()
    server.server_close()
    thread.join()


def on_hub(name: str = "lab/tiny", files: tuple[str, ...] = SCGPT.weights.files):
    return replace(SCGPT, weights=replace(SCGPT.weights, hub=name, revision=REVISION, files=files))


def test_weights_are_downloaded_at_the_pinned_revision(hub, settings):
    endpoint, asked = hub
    card = on_hub()
    folder = fetch(card, settings.weights, endpoint=endpoint)
    assert folder == settings.weights / "scgpt"
    assert state(card, settings.weights) == "ready"
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == sorted(SCGPT.weights.files)
    np.testing.assert_array_equal(embedding(folder), embedding(CASE / "checkpoint"))
    asked.clear()
    assert fetch(card, settings.weights, endpoint=endpoint) == folder
    assert asked == []  # what is there is not asked for again


def test_a_hub_id_may_stand_in_place_of_a_folder(hub, settings, monkeypatch):
    endpoint, _ = hub
    monkeypatch.setattr("scdrugmap.models.checkpoints.download.ENDPOINT", endpoint)
    expected = embedding(CASE / "checkpoint")
    np.testing.assert_array_equal(embedding(f"lab/tiny@{REVISION}"), expected)
    np.testing.assert_array_equal(embedding("lab/tiny"), expected)


@pytest.mark.parametrize("name", ["lab/nothing", "no id at all"])
def test_a_repository_that_is_not_there_is_said(hub, settings, name):
    with pytest.raises(WeightsMissing, match="could not be downloaded from the Hub") as caught:
        fetch(on_hub(name), settings.weights, endpoint=hub[0])
    assert "best_model.pt" in caught.value.remedy


def test_a_mistyped_folder_is_named_before_the_hub_is_blamed(settings, monkeypatch):
    monkeypatch.setattr("scdrugmap.models.checkpoints.download.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WeightsMissing, match="There is no folder 'downloads/scGPT_humn', and as a Hub id it gave"):
        load_model("scgpt", weights="downloads/scGPT_humn", device="cpu")


def test_no_network_is_said(settings):
    with pytest.raises(WeightsMissing, match="could not be downloaded from the Hub"):
        fetch(on_hub(), settings.weights, endpoint="http://127.0.0.1:9")


def test_a_repository_without_the_files_is_said(hub, settings):
    with pytest.raises(WeightsMissing, match=r"holds no other\.pt"):
        fetch(on_hub(files=("other.pt",)), settings.weights, endpoint=hub[0])


def test_every_torch_load_is_safe():
    loads = [
        (path.name, node)
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"
    ]
    assert loads
    for name, node in loads:
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        assert given.get("weights_only") == "True", f"{name}:{node.lineno}"


@pytest.mark.parametrize("word", ["trust_remote_code=True", "weights_only=False", "from torch import load"])
def test_nothing_unsafe_is_written_anywhere(word):
    assert [path.name for path in PACKAGE.rglob("*.py") if word in path.read_text()] == []


def test_pieces_cut_fused_and_transposed_tensors():
    whole = torch.arange(24.0).reshape(6, 4)
    second = TensorMapping(("x",), part=1, of=3)
    assert second.shape_of((2, 4)) == (6, 4)
    assert torch.equal(second.take(whole), whole[2:4])
    turned = TensorMapping(("x",), part=1, of=3, transpose=True)
    assert turned.shape_of((2, 4)) == (4, 6)
    assert torch.equal(turned.take(whole.T), whole[2:4])


def test_a_file_is_hashed_in_blocks_and_a_large_one_says_how_far_it_is(tmp_path, monkeypatch, capsys):
    path = tmp_path / "model.safetensors"
    path.write_bytes(bytes(range(256)) * 5000)  # more than one block, and no whole number of them
    assert sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(manifest, "_LARGE", 1000)
    assert sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert "2/2" in capsys.readouterr().err
