"""A text model from a folder as the Hub has it: config.json, tokenizer.json and safetensors.

Code that a repository brings is never run (`trust_remote_code` stays off) and pickles are refused. Every tensor of the
network must be in the files; what the files hold beside it must be a head that the embedding does without. What the
settings ask for is checked on an outline without weights, before gigabytes are read; then a few tokens are tried.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from scdrugmap.errors import InvalidInput, ScDrugMapError, WeightsInvalid
from scdrugmap.models.card import ModelCard
from scdrugmap.models.checkpoints import locate, manifest
from scdrugmap.models.checkpoints.checkpoint import read_json
from scdrugmap.models.core import four_bit
from scdrugmap.models.core.encoder import Encoder
from scdrugmap.models.core.seeds import seeded
from scdrugmap.models.text.network import Config, Network
from scdrugmap.models.text.tokens import Tokenizer

log = logging.getLogger(__name__)
INDEX = "model.safetensors.index.json"
# Buffers, in a part that the network has, which older versions of transformers wrote down.
BUFFERS = (".position_ids", ".token_type_ids", ".inv_freq", ".masked_bias", ".attn.bias", ".attention.bias")
BATCHED = {
    "big_bird": "changes its attention with the length of a batch and keeps the change",
    "reformer": "hashes tokens at random",
}  # types whose embedding of a cell would not be that cell's alone
_LARGE = 2**30  # bytes of weights that take long enough to be told of
AGAIN = "Get the files again from their source."


def files(folder: Path) -> dict[str, Path]:
    """Files of a folder in the Hub's layout; the tensors may be in several."""
    paths = {"config": folder / "config.json", "tokenizer": folder / "tokenizer.json"}
    if (folder / INDEX).is_file():
        parts = sorted(set(read_json(folder / INDEX, ("weight_map",))["weight_map"].values()))
        return paths | {"index": folder / INDEX} | {f"weights {part}": folder / Path(part).name for part in parts}
    return paths | {"weights": folder / "model.safetensors"}


def load(
    card: ModelCard, folder: Path, settings: Mapping[str, Any], device: torch.device, precision: str, converted: Path
) -> Encoder:
    """Give the encoder of a folder; `converted` is where the hashes of its files are remembered.

    `quantise` "16bit" and "4bit" compute in bfloat16, whatever the precision. Raises `WeightsMissing`,
    `WeightsInvalid`, and `InvalidInput` for settings that do not fit the model and a device that does not hold it.
    """
    refuse_pickles(folder)
    paths = locate.upstream_files(card, folder, importlib.import_module(__name__), settings)
    described = read_json(paths["config"], ("model_type",))
    _require_type(folder, described)
    packed = _packed(folder, described, settings["quantise"])
    outline = _outline(folder, described, settings)
    vocabulary = {"tokenizer": paths["tokenizer"].read_text(encoding="utf-8"), "positions": outline.positions}
    tokenizer = Tokenizer(vocabulary, settings)
    precision = "bfloat16" if packed or settings["quantise"] else precision
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    how = placement(device) | ({"quantization_config": four_bit.nf4(dtype)} if packed == "now" else {})
    if packed:
        four_bit.require()
        how |= {} if "device_map" in how else {"device_map": {"": device}}
    model = _pretrained(folder, how | {"dtype": dtype}, device)
    _require_numbers(folder, _stored(paths.values()) if packed else model.parameters())
    network = Network(Config(described), settings, model).eval()
    if packed:
        four_bit.set_compute_dtype(network, dtype)
    tokenizer.padded = _tried(folder, network, device, precision, packed=bool(packed))
    if not tokenizer.padded:
        log.warning("padding changes what this network answers: batches are of cells whose texts are equally long")
    weights_hash = manifest.remembered_hash(paths, converted)
    adapted = replace(card, lora_targets=network.targets)
    return Encoder(adapted, tokenizer, network, settings, weights_hash, device, precision)


def placement(device: torch.device) -> dict[str, Any]:
    """Give the arguments by which transformers reads a model straight onto its device: nothing for the host.

    "cuda" without a number on a machine of several spreads it over all of them.
    """
    if device.type == "cpu":
        return {}
    spread = device.index is None and torch.cuda.device_count() > 1
    return {"device_map": "auto" if spread else {"": device}}


def refuse_pickles(folder: Path) -> None:
    """Raise `WeightsInvalid` for a folder whose tensors are in pickles alone."""
    pickled = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
    if pickled and not any(folder.glob("*.safetensors")):
        message = f"'{folder}' holds its tensors as a pickle ({pickled[0]}), which is not read."
        raise WeightsInvalid(message, "Take a revision of the repository that has model.safetensors.")


def _require_type(folder: Path, described: Mapping[str, Any]) -> None:
    """Raise `WeightsInvalid` for a model that is no decoder or encoder of transformers."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = described["model_type"]
    if kind not in CONFIG_MAPPING:
        what = "no text model that transformers runs by itself"
    elif described.get("is_encoder_decoder"):
        what = "an encoder and decoder in one, and no text model of one part"
    elif kind in BATCHED:
        what = f"which {BATCHED[kind]}: no text model whose embedding of a cell is that cell's alone"
    else:
        return
    message = f"'{folder}' holds a model of type '{kind}', {what}."
    raise WeightsInvalid(
        message, "Give a decoder or encoder such as llama, qwen3, gemma3, mistral, bert or modernbert."
    )


def _packed(folder: Path, described: Mapping[str, Any], quantise: str) -> str:
    """Tell whether the weights are to be packed into 4 bits "now", were "before", or "" not.

    Raises `InvalidInput` for another `quantise`, `WeightsInvalid` for files that are packed in another way.
    """
    if quantise not in ("", "16bit", "4bit"):
        message = f"quantise='{quantise}' is not known."
        raise InvalidInput(message, "Leave it out, or give quantise='16bit' or '4bit'.")
    stored = described.get("quantization_config")
    if stored is None:
        return "now" if quantise == "4bit" else ""
    if stored.get("quant_method") == "bitsandbytes" and stored.get("load_in_4bit"):
        return "before"
    message = f"'{folder}' holds weights that were packed ({stored.get('quant_method', 'by an unknown method')})."
    raise WeightsInvalid(message, "Give the repository with the plain weights, and quantise='4bit' to save memory.")


def _outline(folder: Path, described: Mapping[str, Any], settings: Mapping[str, Any]) -> Network:
    """Build the network without weights: what the settings ask for is refused here, before they are read."""
    from transformers import AutoConfig, AutoModel

    with _read(folder), quiet(), torch.device("meta"):
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return Network(Config(described), settings, AutoModel.from_config(config))


def _pretrained(folder: Path, how: Mapping[str, Any], device: torch.device) -> Any:
    """Fill the network of transformers from the folder; raises `WeightsInvalid`, and `InvalidInput` without room."""
    from transformers import AutoModel

    fixed = {"use_safetensors": True, "local_files_only": True, "trust_remote_code": False}
    try:
        with _read(folder), quiet(bar=_large(folder)):
            model, loading_info = AutoModel.from_pretrained(folder, output_loading_info=True, **fixed, **how)
    except torch.OutOfMemoryError as error:
        raise _no_room(device) from error
    _require_tensors(folder, loading_info, model)
    if {"cpu", "disk"} & set(map(str, getattr(model, "hf_device_map", {}).values())) and device.type != "cpu":
        raise _no_room(device)
    return model


def _tried(folder: Path, network: Network, device: torch.device, precision: str, *, packed: bool) -> bool:
    """Run a few tokens and tell whether padding changes nothing; raises for a network that does not read them."""
    try:
        with _read(folder):
            return network.tried(device, precision)
    except WeightsInvalid as error:
        if not packed:
            raise
        message = f"A model of type '{network.model.config.model_type}' does not run in 4 bits."
        raise InvalidInput(message, "Give quantise='16bit'.") from error


def _large(folder: Path) -> bool:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors")) > _LARGE


def _no_room(device: torch.device) -> InvalidInput:
    message = f"The memory of {device} does not hold the model."
    less = "Give quantise='16bit' (half of float32) or '4bit' (about a quarter of that), typed: --set quantise=4bit"
    return InvalidInput(message, f"{less}; or device='cpu'.")


@contextmanager
def _read(folder: Path) -> Iterator[None]:
    """Say in one line what the libraries say of files that they cannot use; raises `WeightsInvalid`."""
    from huggingface_hub.errors import StrictDataclassError

    wrong = (OSError, ValueError, LookupError, RuntimeError, TypeError, AttributeError, ImportError, ArithmeticError)
    try:
        yield
    except (ScDrugMapError, torch.OutOfMemoryError):
        raise
    except (*wrong, AssertionError, SafetensorError, StrictDataclassError) as error:
        reason = " ".join(str(error).split())[:300]
        raise WeightsInvalid(f"'{folder}' cannot be read as a text model ({reason}).", AGAIN) from error


def _stored(paths: Iterable[Path]) -> Iterator[torch.Tensor]:
    """Tensors of safetensors files, one after the other: packed ones would not show what they were made of."""
    for path in paths:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                yield from (file.get_tensor(name) for name in file.keys())  # noqa: SIM118 (it is no dictionary)


def _require_numbers(folder: Path, tensors: Iterable[torch.Tensor]) -> None:
    """Raise `WeightsInvalid` for NaN and infinity; no tensor is copied."""
    for tensor in tensors:
        if tensor.is_floating_point() and tensor.numel() and not torch.stack(tensor.aminmax()).isfinite().all():
            raise WeightsInvalid(f"'{folder}' holds NaN or infinite numbers.", AGAIN)


def _require_tensors(folder: Path, loading_info: Mapping[str, Any], model: Any) -> None:
    """Raise `WeightsInvalid` at the first tensor that the files lack or that the network does not know.

    What belongs to a part of another name than the network's is a head, which the embedding does without.
    """
    parts, prefix = {name for name, _ in model.named_children()}, f"{model.base_model_prefix}."
    extra = (name.removeprefix(prefix) for name in loading_info["unexpected_keys"] if not name.endswith(BUFFERS))
    foreign = sorted(name for name in extra if name.partition(".")[0] in parts - {"pooler"})
    lacking = sorted(name for name in loading_info["missing_keys"] if not name.startswith("pooler."))
    if loading_info["mismatched_keys"]:
        what = f"has '{min(loading_info['mismatched_keys'])[0]}' of another shape than config.json says"
    elif lacking:
        what = f"lacks the tensor '{lacking[0]}'"
    elif foreign:
        what = f"holds the tensor '{foreign[0]}', which the model does not know"
    else:
        return
    raise WeightsInvalid(f"'{folder}' {what}.", AGAIN)


@contextmanager
def quiet(*, bar: bool = False) -> Iterator[None]:
    """Keep transformers' own reports from the terminal, what matters is raised; `bar` lets it show how far it is."""
    from transformers.utils import logging as transformers_logging

    level, shown = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    if not bar:
        transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if shown:
            transformers_logging.enable_progress_bar()


def toy(card: ModelCard, symbols: Sequence[str], folder: Path, seed: int) -> None:
    """Write a tiny model of the card's type with random weights, and a tokenizer that has a word for each symbol."""
    from tokenizers import Tokenizer as WordTokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoConfig, AutoModel

    words = WordTokenizer(
        WordLevel({word: row for row, word in enumerate(["<unk>", "<s>", *symbols])}, unk_token="<unk>")
    )
    words.pre_tokenizer = WhitespaceSplit()
    words.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    described = AutoConfig.for_model(
        card.config["transformers"]["model_type"],
        vocab_size=words.get_vocab_size(),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=card.config["transformers"]["max_position_embeddings"],
        initializer_range=0.3,
    )
    folder.mkdir(parents=True, exist_ok=True)
    with seeded(seed, torch.device("cpu")), quiet():
        AutoModel.from_config(described).save_pretrained(folder)
    words.save(str(folder / "tokenizer.json"))
